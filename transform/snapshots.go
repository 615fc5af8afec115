package transform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// SnapshotsConfig says where the versions of the item snapshot come from.
type SnapshotsConfig struct {
	Client      *stream.Client
	Topic       string // `items`
	Persistence Persistence
	Catalog     *Catalog
	Parameters  filter.Parameters // as the partitions use them; the zero value means the defaults
	// Window is how many versions are kept beside the newest, for partitions
	// that replay; 0 means 64. Older ones are loaded from the store.
	Window   int
	Logger   *slog.Logger
	Registry prometheus.Registerer // nil keeps no metrics
}

// Snapshots follows the topic `items` and hands out versions of the item
// snapshot, the newest and those that a replay needs. One serves a process; it
// is safe for concurrent use.
//
// The log decides: a version is the first message of the topic that carries the
// number after the version before. A later message with the same number was
// written by a reducer that had lost its place, or twice by a retry, and is
// dropped by every reader alike.
type Snapshots struct {
	config  SnapshotsConfig
	newest  atomic.Pointer[Snapshot]
	ready   chan struct{}
	decoder *Decoder
	rows    SnapshotRows
	dropped prometheus.Counter

	mu      sync.Mutex
	kept    map[uint64]*Snapshot
	arrival chan struct{} // closed and made anew when a version arrives
	load    sync.Mutex    // one load from the store at a time
}

// NewSnapshots makes it; Run does the work.
func NewSnapshots(config SnapshotsConfig) (*Snapshots, error) {
	if config.Client == nil || config.Topic == "" || config.Persistence == nil || config.Catalog == nil {
		return nil, errors.New("follow item snapshots: client, topic, persistence and catalog are needed")
	}
	if config.Window == 0 {
		config.Window = 64
	}
	if config.Parameters == (filter.Parameters{}) {
		config.Parameters = filter.DefaultParameters()
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Snapshots{config: config, ready: make(chan struct{}), arrival: make(chan struct{}), decoder: NewDecoder(), kept: make(map[uint64]*Snapshot)}
	version := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "leerstroom_transform_snapshot_version", Help: "Newest version of the item snapshot that this process has."},
		s.measure(func(newest *Snapshot) uint64 { return newest.version }))
	scale := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "leerstroom_transform_scale_number", Help: "Newest scale of difficulties that this process has, 0 before the first refit."},
		s.measure(func(newest *Snapshot) uint64 { return newest.scale }))
	s.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "leerstroom_transform_snapshot_messages_dropped_total", Help: "Messages of the topic items that repeat a version."})
	if err := register(config.Registry, version, scale, s.dropped); err != nil {
		return nil, err
	}
	return s, nil
}

// measure reads a number of the newest version for a gauge.
func (s *Snapshots) measure(read func(newest *Snapshot) uint64) func() float64 {
	return func() float64 {
		if newest := s.newest.Load(); newest != nil {
			return float64(read(newest))
		}
		return 0
	}
}

func register(registry prometheus.Registerer, collectors ...prometheus.Collector) error {
	if registry == nil {
		return nil
	}
	for _, c := range collectors {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("register metric: %w", err)
		}
	}
	return nil
}

// Run loads the newest durable version, follows the topic from there and ends
// with ctx (nil) or when a version is lost.
func (s *Snapshots) Run(ctx context.Context) error {
	from, ok := s.begin(ctx)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	tail := stream.NewTail(s.config.Client, s.config.Topic, []int64{from}, s.follow)
	var announcer sync.WaitGroup
	announcer.Go(func() { // ends with Run, which waits for it
		select {
		case <-tail.CaughtUp():
			s.markReady()
		case <-ctx.Done():
		}
	})
	err := tail.Run(ctx)
	cancel()
	announcer.Wait()
	return err
}

// begin loads the newest durable version and finds an offset of the topic from
// which none after it is missed. It tries again until ctx ends.
func (s *Snapshots) begin(ctx context.Context) (from int64, ok bool) {
	for {
		from, err := s.tryBegin(ctx)
		if err == nil {
			return from, true
		}
		if ctx.Err() != nil {
			return 0, false
		}
		s.config.Logger.WarnContext(ctx, "loading the item snapshot failed, trying again", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return 0, false
		}
	}
}

func (s *Snapshots) tryBegin(ctx context.Context) (from int64, err error) {
	if s.newest.Load() == nil {
		loaded, err := s.fetch(ctx, 0)
		if err != nil {
			return 0, err
		}
		s.newest.Store(loaded)
	}
	return itemsOffset(ctx, s.config.Client, s.config.Topic, s.newest.Load().version+1)
}

func (s *Snapshots) markReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// Ready is closed when the newest version of the topic, as it was at the start,
// is there.
func (s *Snapshots) Ready() <-chan struct{} { return s.ready }

// Newest returns the newest version that has arrived. It must only be called
// after Ready.
func (s *Snapshots) Newest() *Snapshot { return s.newest.Load() }

// At returns a version that somebody has used, from memory or from the store. It
// waits for one that has not arrived here yet. It must only be called after
// Ready.
func (s *Snapshots) At(ctx context.Context, version uint64) (*Snapshot, error) {
	if version == 0 {
		return EmptySnapshot(&s.config.Parameters), nil
	}
	if err := s.await(ctx, version); err != nil {
		return nil, err
	}
	if found := s.keptVersion(version); found != nil {
		return found, nil
	}
	s.load.Lock()
	defer s.load.Unlock()
	if found := s.keptVersion(version); found != nil {
		return found, nil
	}
	loaded, err := s.fetch(ctx, version)
	if err != nil {
		return nil, err
	}
	if loaded.version != version {
		return nil, fmt.Errorf("load item snapshot %d: the store has only %d", version, loaded.version)
	}
	s.keep(loaded)
	return loaded, nil
}

// await waits until a version, or a newer one, has arrived.
func (s *Snapshots) await(ctx context.Context, version uint64) error {
	for {
		s.mu.Lock()
		arrival := s.arrival
		s.mu.Unlock()
		if s.newest.Load().version >= version {
			return nil
		}
		select {
		case <-arrival:
		case <-ctx.Done():
			return fmt.Errorf("wait for item snapshot %d: %w", version, context.Cause(ctx))
		}
	}
}

func (s *Snapshots) keptVersion(version uint64) *Snapshot {
	if newest := s.newest.Load(); newest != nil && newest.version == version {
		return newest
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[version]
}

// keep remembers a version and forgets the oldest when there are too many.
func (s *Snapshots) keep(snapshot *Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[snapshot.version] = snapshot
	for len(s.kept) > s.config.Window {
		oldest := snapshot.version
		for version := range s.kept {
			oldest = min(oldest, version)
		}
		if oldest == snapshot.version {
			// A replay asked for one older than all others. It may hold on to it;
			// the others are wanted sooner.
			for version := range s.kept {
				oldest = max(oldest, version)
			}
		}
		delete(s.kept, oldest)
	}
}

// fetch loads a version from the store; 0 loads the newest.
func (s *Snapshots) fetch(ctx context.Context, atMost uint64) (*Snapshot, error) {
	version, rows, err := s.config.Persistence.LoadSnapshot(ctx, atMost)
	if err != nil {
		return nil, fmt.Errorf("load item snapshot: %w", err)
	}
	rows.Version = version
	return EmptySnapshot(&s.config.Parameters).With(s.config.Catalog, &rows), nil
}

// itemsLookBack is how many versions earlier than needed the reading of `items`
// begins, so that the late message of a reducer that had lost its place is not
// taken for the beginning.
const itemsLookBack = 64

// itemsOffset returns an offset of the topic `items` before the message of a
// version, or where the log begins. It looks back in ever longer steps.
func itemsOffset(ctx context.Context, client *stream.Client, topic string, version uint64) (int64, error) {
	first, end, err := client.Offsets(ctx, topic, 0)
	if err != nil {
		return 0, err
	}
	var batch stream.Batch
	for step := int64(itemsLookBack); ; step *= 4 {
		at := max(first, end-step)
		if at == first {
			return first, nil
		}
		if err := client.Fetch(ctx, topic, 0, at, 5*time.Second, &batch); err != nil {
			return 0, err
		}
		if len(batch.Messages) == 0 {
			return 0, fmt.Errorf("look back in %s: nothing at offset %d", topic, at)
		}
		found, err := batch.Messages[0].Int64(stream.HeaderSnapshot)
		if err != nil {
			return 0, err
		}
		if uint64(found)+itemsLookBack < version {
			return at, nil
		}
	}
}

// follow takes new versions in. Only the tail's goroutine calls it.
func (s *Snapshots) follow(_ context.Context, _ int, messages []stream.Message) error {
	for i := range messages {
		m := &messages[i]
		version, err := m.Int64(stream.HeaderSnapshot)
		if err != nil {
			return err
		}
		newest := s.newest.Load()
		switch {
		case uint64(version) <= newest.version:
			s.dropped.Inc()
			continue
		case uint64(version) > newest.version+1:
			return fmt.Errorf("follow item snapshots: version %d at offset %d after %d: versions are missing", version, m.Offset, newest.version)
		}
		if err := s.decoder.Snapshot(m, &s.rows); err != nil {
			return err
		}
		next := newest.With(s.config.Catalog, &s.rows)
		s.keep(next)
		s.newest.Store(next)
		s.mu.Lock()
		close(s.arrival)
		s.arrival = make(chan struct{})
		s.mu.Unlock()
	}
	return nil
}
