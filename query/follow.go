package query

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform"
)

// Source is where a read model begins: the durable states of partitions and of
// the item snapshot. The store has both.
type Source struct {
	// Restore returns the durable skills of a partition, and who has left it.
	Restore func(ctx context.Context, partition int) (transform.Restored, error)
	// Await shows what somebody else in this process restores of a partition, and
	// returns false without a call when nobody does before long; then Restore is
	// asked. It is used once per partition, at the start. nil means that nobody
	// else restores.
	Await func(ctx context.Context, partition int, take func(*transform.Restored)) bool
	// LoadSnapshot returns the newest values of all components in the versions up
	// to atMost (0 = all), and the newest version.
	LoadSnapshot func(ctx context.Context, atMost uint64) (uint64, transform.SnapshotRows, error)
	// NormVersions and LoadNorm return the frozen norms that there are, and one of
	// them. nil means that there are none.
	NormVersions func(ctx context.Context) ([]transform.NormVersion, error)
	LoadNorm     func(ctx context.Context, version transform.NormVersion) (*transform.FrozenNorm, error)
}

// errGap says that a version of the item snapshot is missing in the topic.
var errGap = errors.New("versions of the item snapshot are missing")

// The pause before the model is loaded again after following failed.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 10 * time.Second
	loadWorkers  = 4
)

// normInterval is how often is looked for norms that were frozen since.
const normInterval = 30 * time.Second

// followed is one round of loading and following.
type followed struct{ skills, items *stream.Tail }

// Follow loads the model from the source and follows the topics until ctx ends.
// When a source is away or a message can't be read it says so in the log and
// begins again from the source, which by then holds newer states; what is in the
// model stays and is served meanwhile.
func (m *ReadModel) Follow(ctx context.Context, client *stream.Client, topics stream.Topics, source Source) error {
	if client == nil || source.Restore == nil || source.LoadSnapshot == nil {
		return errors.New("follow: client and source are needed")
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		started := time.Now()
		err := m.followOnce(ctx, client, topics, source)
		m.following.Store(nil)
		source.Await = nil // the others have begun, too
		if ctx.Err() != nil {
			return nil
		}
		m.config.Logger.WarnContext(ctx, "following skills and items failed, loading again", "error", err)
		if time.Since(started) > longestPause {
			pause = firstPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

func (m *ReadModel) followOnce(ctx context.Context, client *stream.Client, topics stream.Topics, source Source) error {
	from, err := m.load(ctx, client, topics.Skills, source)
	if err != nil {
		return err
	}
	readers := make([]skillReader, len(from))
	for i := range readers {
		readers[i] = skillReader{model: m, decoder: transform.NewDecoder()}
	}
	items := &itemReader{model: m, decoder: transform.NewDecoder()}
	round := &followed{
		skills: stream.NewTail(client, topics.Skills, from, func(_ context.Context, partition int, messages []stream.Message) error {
			return readers[partition].handle(partition, messages)
		}),
		items: stream.NewTail(client, topics.Items, []int64{0}, func(_ context.Context, _ int, messages []stream.Message) error {
			return items.handle(messages)
		}),
	}
	m.following.Store(round)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return round.skills.Run(ctx) })
	group.Go(func() error { return round.items.Run(ctx) })
	group.Go(func() error { return m.followNorms(ctx, source) })
	return group.Wait()
}

// load puts the durable states into the model and returns the offset of `skills`
// to follow from, per partition. Offsets are those of the checkpoint, and the
// states may be newer: what is applied twice changes nothing.
func (m *ReadModel) load(ctx context.Context, client *stream.Client, skills string, source Source) ([]int64, error) {
	version, snapshot, err := source.LoadSnapshot(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("load item snapshot: %w", err)
	}
	m.ApplySnapshot(version, &snapshot)
	if err := m.loadNorms(ctx, source); err != nil {
		return nil, err
	}
	from := make([]int64, m.config.Partitions)
	group, ctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, loadWorkers)
	for partition := range from {
		group.Go(func() (err error) {
			place, err := m.loadPartition(ctx, partition, source, slots)
			if err != nil {
				return fmt.Errorf("load skills of partition %d: %w", partition, err)
			}
			from[partition], _, err = transform.SkillsFrom(ctx, client, skills, partition, &place)
			return err
		})
	}
	return from, group.Wait()
}

// loadPartition takes in the durable states of a partition and returns what they
// reflect, without rows.
func (m *ReadModel) loadPartition(ctx context.Context, partition int, source Source, slots chan struct{}) (place transform.Restored, err error) {
	take := func(restored *transform.Restored) {
		m.ApplySkills(&restored.Skills)
		m.Forget(restored.Departed)
		raise(&m.applied[partition], restored.RawOffset)
		place.RawOffset, place.SkillsOffset = restored.RawOffset, restored.SkillsOffset
	}
	if source.Await != nil && source.Await(ctx, partition, take) {
		return place, nil
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return place, context.Cause(ctx)
	}
	defer func() { <-slots }()
	restored, err := source.Restore(ctx, partition)
	if err == nil {
		take(&restored)
	}
	return place, err
}

// loadNorms takes in frozen norms that are new, and forgets those that are gone.
func (m *ReadModel) loadNorms(ctx context.Context, source Source) error {
	if source.NormVersions == nil || source.LoadNorm == nil {
		return nil
	}
	versions, err := source.NormVersions(ctx)
	if err != nil {
		return fmt.Errorf("load norms: %w", err)
	}
	m.retainNorms(versions)
	for _, v := range versions {
		if m.frozen.Load().has(&v) {
			continue
		}
		n, err := source.LoadNorm(ctx, v)
		if err == nil {
			err = m.AddNorm(n)
		}
		if err != nil {
			return fmt.Errorf("load norms: %w", err)
		}
		m.config.Logger.InfoContext(ctx, "norm taken in", "name", v.Name, "version", v.Version, "groups", v.GroupCount)
	}
	return nil
}

// followNorms looks for new norms until ctx ends. What is there is served while
// the store is away.
func (m *ReadModel) followNorms(ctx context.Context, source Source) error {
	ticker := time.NewTicker(normInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := m.loadNorms(ctx, source); err != nil && ctx.Err() == nil {
				m.config.Logger.WarnContext(ctx, "norms can't be read, trying again", "error", err)
			}
		}
	}
}

// Ready tells whether the model holds everything that was in the topics when it
// began to follow them.
func (m *ReadModel) Ready() bool {
	round := m.following.Load()
	if round == nil {
		return false
	}
	for _, tail := range []*stream.Tail{round.skills, round.items} {
		select {
		case <-tail.CaughtUp():
		default:
			return false
		}
	}
	return true
}

// skillReader applies the messages of one partition of `skills`.
type skillReader struct {
	model   *ReadModel
	decoder *transform.Decoder
	rows    transform.SkillRows
}

func (r *skillReader) handle(partition int, messages []stream.Message) error {
	for i := range messages {
		message := &messages[i]
		stands, err := transform.Stands(message)
		if err != nil {
			return err
		}
		if !stands {
			continue // of a worker that had lost the partition
		}
		raw, err := message.Int64(stream.HeaderRawOffset)
		if err != nil {
			return err
		}
		if raw <= r.model.applied[partition].Load() {
			continue // produced twice
		}
		if len(message.Value) > 0 {
			if err := message.CheckDigest(); err != nil {
				return err
			}
			if err := r.decoder.Skills(message.Value, &r.rows); err != nil {
				return fmt.Errorf("read skills at offset %d: %w", message.Offset, err)
			}
			r.model.ApplySkills(&r.rows)
		}
		r.model.skillMessages.Add(1)
		if message.Header(transform.HeaderRemaining) != nil {
			remaining, err := message.Int64(transform.HeaderRemaining)
			if err != nil {
				return err
			}
			if remaining > 0 {
				continue
			}
		}
		raise(&r.model.applied[partition], raw)
	}
	return nil
}

// itemReader applies the messages of `items`.
type itemReader struct {
	model   *ReadModel
	decoder *transform.Decoder
	rows    transform.SnapshotRows
}

func (r *itemReader) handle(messages []stream.Message) error {
	for i := range messages {
		message := &messages[i]
		number, err := message.Int64(stream.HeaderSnapshot)
		if err != nil {
			return err
		}
		version, current := uint64(number), r.model.SnapshotVersion()
		if version <= current {
			continue
		}
		if version > current+1 {
			return fmt.Errorf("read items at offset %d: version %d follows %d: %w", message.Offset, version, current, errGap)
		}
		if err := r.decoder.Snapshot(message, &r.rows); err != nil {
			return err
		}
		r.model.ApplySnapshot(version, &r.rows)
	}
	return nil
}

// raise lifts a mark that only this partition's reader writes.
func raise(mark *atomic.Int64, to int64) {
	if to > mark.Load() {
		mark.Store(to)
	}
}
