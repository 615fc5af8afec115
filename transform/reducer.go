package transform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// ReducerConfig says what the reducer works with. Durations and numbers that are
// 0 get the values named.
type ReducerConfig struct {
	Client      *stream.Client
	Topics      stream.Topics
	Persistence Persistence
	Partitions  int               // of the topic `answers`
	Parameters  filter.Parameters // zero value: the defaults
	// Now times versions. No value depends on it.
	Now func() time.Time

	// With the wait in the partition, a difficulty is known everywhere a second
	// after an answer at the latest.
	Interval time.Duration // longest wait of an answer for the next version; .5 s
	Answers  int           // first answers that call for one sooner, but not within half of the interval; 500

	Logger   *slog.Logger
	Registry prometheus.Registerer // nil keeps no metrics
}

// Validate names the field that is missing or out of range.
func (c *ReducerConfig) Validate() error {
	switch {
	case c.Client == nil || c.Persistence == nil || c.Now == nil:
		return errors.New("reduce item sums: client, persistence and now are needed")
	case c.Topics == (stream.Topics{}):
		return errors.New("reduce item sums: topics are needed")
	case c.Partitions < 1:
		return errors.New("reduce item sums: partitions: want at least 1")
	case c.Interval < 0 || c.Answers < 0:
		return errors.New("reduce item sums: interval and answers: want none below 0")
	}
	if c.Parameters == (filter.Parameters{}) {
		return nil
	}
	if err := c.Parameters.Validate(); err != nil {
		return fmt.Errorf("reduce item sums: %w", err)
	}
	return nil
}

// Reducer makes the handler of the topic `item-sums`, which publishes versions of
// the item snapshot. The topic has one partition, so a consumer group has one
// reducer at work.
//
// A version is written to `items` first: the log decides which is the next one.
// When the offset that comes back is not the expected one, somebody else wrote,
// and the reducer starts again from the log; its own message, which repeats a
// number, is dropped by every reader. Then the version is saved in the store. A
// reducer that starts saves what the log has and the store has not.
type Reducer struct {
	config    ReducerConfig
	versions  prometheus.Counter
	rows      prometheus.Counter
	malformed prometheus.Counter
}

// NewReducer makes a reducer.
func NewReducer(config ReducerConfig) (*Reducer, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config.Interval = orDefault(config.Interval, time.Second/2)
	config.Answers = orDefault(config.Answers, 500)
	if config.Parameters == (filter.Parameters{}) {
		config.Parameters = filter.DefaultParameters()
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Reducer{config: config,
		versions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leerstroom_transform_snapshots_published_total", Help: "Versions of the item snapshot published."}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leerstroom_transform_snapshot_rows_published_total", Help: "Changed components in published versions."}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leerstroom_transform_item_sums_malformed_total", Help: "Messages of item-sums that could not be used."}),
	}
	if err := register(config.Registry, r.versions, r.rows, r.malformed); err != nil {
		return nil, err
	}
	return r, nil
}

// Handler returns the handler of the partition, for stream.ConsumerConfig.
func (r *Reducer) Handler(int) stream.Handler {
	return &reduction{reducer: r, config: &r.config, decoder: NewDecoder(), encoder: NewEncoder()}
}

// reduction is a reducer at work.
type reduction struct {
	reducer    *Reducer
	config     *ReducerConfig
	assignment *stream.Assignment
	decoder    *Decoder
	encoder    *Encoder
	sums       ItemSumRows
	items      SnapshotRows
	out        []byte

	estimates *Estimates
	version   uint64
	scale     uint64 // newest, 0 = none
	itemsNext int64  // where the next message of `items` will land if nobody else writes
	answers   int64  // first answers since the last version, and since when there is news
	news      bool
	newsSince time.Time
	unsettled [][]told // by partition, oldest first
	next      int64    // offset after the last message of `item-sums` folded
}

// told is a message of `item-sums` whose sums the store may not have yet.
type told struct {
	offset   int64
	position answer.Position
}

// Start implements stream.Handler: the values come from the store and the log of
// `items`, the sums from the store and, after the committed offset, from the log
// of `item-sums`.
func (r *reduction) Start(ctx context.Context, assignment *stream.Assignment) (next int64, err error) {
	r.assignment = assignment
	r.estimates = NewEstimates(r.config.Parameters, r.config.Partitions)
	r.unsettled = make([][]told, r.config.Partitions)
	r.answers, r.news = 0, false
	if err := r.loadVersions(ctx); err != nil {
		return 0, err
	}
	if err := r.loadSums(ctx); err != nil {
		return 0, err
	}
	r.noteNews(0)
	first, _, err := r.config.Client.Offsets(ctx, r.config.Topics.ItemSums, assignment.Partition)
	if err != nil {
		return 0, err
	}
	r.next = max(first, assignment.Committed)
	r.config.Logger.InfoContext(ctx, "reducer started", "generation", assignment.Generation, "version", r.version,
		"components", len(r.estimates.all), "offset", r.next)
	return r.next, nil
}

// partitionsAtOnce is how many partitions' sums are in memory twice while they are
// loaded.
const partitionsAtOnce = 8

func (r *reduction) loadSums(ctx context.Context) error {
	for first := 0; first < r.config.Partitions; first += partitionsAtOnce {
		sums, err := r.config.Persistence.LoadSums(ctx, first, min(partitionsAtOnce, r.config.Partitions-first))
		if err != nil {
			return err
		}
		for i := range sums {
			r.estimates.Fold(first+i, &sums[i])
		}
	}
	return nil
}

// loadVersions takes the newest version over and saves what the store lacks.
func (r *reduction) loadVersions(ctx context.Context) error {
	version, rows, err := r.config.Persistence.LoadSnapshot(ctx, 0)
	if err != nil {
		return fmt.Errorf("load item snapshot: %w", err)
	}
	r.version, r.scale = version, 0
	r.begun(&rows)
	r.estimates.Load(&rows)
	topic := r.config.Topics.Items
	next, err := itemsOffset(ctx, r.config.Client, topic, version+1)
	if err != nil {
		return err
	}
	_, end, err := r.config.Client.Offsets(ctx, topic, 0)
	if err != nil {
		return err
	}
	var batch stream.Batch
	for next < end {
		if err := r.config.Client.Fetch(ctx, topic, 0, next, 5*time.Second, &batch); err != nil {
			return err
		}
		for i := range batch.Messages {
			next = batch.Messages[i].Offset + 1
			if err := r.readVersion(ctx, &batch.Messages[i]); err != nil {
				return err
			}
		}
	}
	r.itemsNext = next
	return nil
}

func (r *reduction) readVersion(ctx context.Context, m *stream.Message) error {
	version, err := m.Int64(stream.HeaderSnapshot)
	if err != nil {
		return err
	}
	if uint64(version) <= r.version {
		return nil
	}
	if uint64(version) != r.version+1 {
		return fmt.Errorf("read item snapshots: version %d at offset %d after %d: versions are missing", version, m.Offset, r.version)
	}
	if err := r.decoder.Snapshot(m, &r.items); err != nil {
		return err
	}
	r.begun(&r.items)
	r.estimates.Load(&r.items)
	r.version = uint64(version)
	return r.save(ctx, &r.items)
}

// begun notes the scale that a version begins.
func (r *reduction) begun(rows *SnapshotRows) {
	if rows.Scale != nil {
		r.scale = rows.Scale.Number
	}
}

func (r *reduction) save(ctx context.Context, rows *SnapshotRows) error {
	if err := r.config.Persistence.SaveSnapshot(ctx, rows.Version, rows); err != nil {
		return fmt.Errorf("save item snapshot %d: %w", rows.Version, err)
	}
	return nil
}

// noteNews notes that answers came in and whether there is anything to publish.
func (r *reduction) noteNews(answers int64) {
	r.answers += answers
	if !r.news && len(r.estimates.dirty) > 0 {
		r.news, r.newsSince = true, r.config.Now()
	}
}

// Handle implements stream.Handler.
func (r *reduction) Handle(ctx context.Context, messages []stream.Message) error {
	for i := range messages {
		m := &messages[i]
		r.next = m.Offset + 1
		if string(m.Header(stream.HeaderSchema)) == SchemaScale {
			if err := r.beginScale(ctx, m); err != nil {
				return err
			}
			continue
		}
		if err := r.take(m); err != nil {
			// Sums are absolute: those of a lost message come with the next change,
			// or from the store.
			r.reducer.malformed.Inc()
			r.config.Logger.ErrorContext(ctx, "sums can't be used", "topic", r.config.Topics.ItemSums, "offset", m.Offset, "error", err)
		}
	}
	r.commit()
	return r.publishDue(ctx)
}

// Idle implements stream.Handler.
func (r *reduction) Idle(ctx context.Context) error { return r.publishDue(ctx) }

// Stop implements stream.Handler.
func (r *reduction) Stop() { r.estimates = nil }

// take folds one message in.
func (r *reduction) take(m *stream.Message) error {
	partition, err := m.Int64(headerPartition)
	if err != nil {
		return err
	}
	position, err := m.Int64(headerPosition)
	if err != nil {
		return err
	}
	durable, err := m.Int64(headerDurable)
	if err != nil {
		return err
	}
	if partition < 0 || partition >= int64(r.config.Partitions) {
		return fmt.Errorf("partition %d of %d", partition, r.config.Partitions)
	}
	if err := m.CheckDigest(); err != nil {
		return err
	}
	if err := r.decoder.Sums(m.Value, &r.sums); err != nil {
		return err
	}
	r.noteNews(r.estimates.Fold(int(partition), &r.sums))
	queue := append(r.unsettled[partition], told{offset: m.Offset, position: answer.Position(position)})
	n := 0
	for durable >= 0 && n < len(queue) && queue[n].position <= answer.Position(durable) {
		n++
	}
	r.unsettled[partition] = append(queue[:0], queue[n:]...)
	return nil
}

// commit commits up to the oldest message whose sums the store may lack: what is
// before it, the next start finds in the store.
func (r *reduction) commit() {
	offset := r.next
	for _, queue := range r.unsettled {
		if len(queue) > 0 {
			offset = min(offset, queue[0].offset)
		}
	}
	r.assignment.Commit(offset)
}

func (r *reduction) publishDue(ctx context.Context) error {
	if !r.news {
		return nil
	}
	now := r.config.Now()
	if !due(now, r.newsSince, r.config.Interval) && (r.answers < int64(r.config.Answers) || !due(now, r.newsSince, r.config.Interval/2)) {
		return nil
	}
	return r.publish(ctx)
}

// publish makes the next version of what has changed.
func (r *reduction) publish(ctx context.Context) error {
	rows := r.estimates.News()
	if err := r.produce(ctx, rows); err != nil {
		return err
	}
	r.estimates.Accept(rows)
	r.answers, r.news = 0, false
	r.noteNews(0)
	return r.save(ctx, rows)
}

// beginScale makes the next version of a refit. One whose number has been used
// was published before a crash, or another refit was faster; it is passed over.
// Answers that the refit did not see are taken in again by the versions after it.
func (r *reduction) beginScale(ctx context.Context, m *stream.Message) error {
	rows := &SnapshotRows{}
	err := r.decoder.Snapshot(m, rows)
	if err == nil && (rows.Scale == nil || rows.Scale.Number > r.scale+1) {
		err = fmt.Errorf("want scale %d", r.scale+1)
	}
	switch {
	case err != nil:
		r.reducer.malformed.Inc()
		r.config.Logger.ErrorContext(ctx, "refit can't be used", "topic", r.config.Topics.ItemSums, "offset", m.Offset, "error", err)
		return nil
	case rows.Scale.Number <= r.scale:
		r.config.Logger.InfoContext(ctx, "refit passed over", "scale", rows.Scale.Number, "newest", r.scale)
		return nil
	}
	rows.own()
	if err := r.produce(ctx, rows); err != nil {
		return err
	}
	r.begun(rows)
	r.estimates.Load(rows)
	r.noteNews(0)
	r.config.Logger.InfoContext(ctx, "new scale", "scale", r.scale, "version", r.version, "components", rows.Len(), "goals", len(rows.Scale.Links))
	return r.save(ctx, rows)
}

// produce appends the next version to the log.
func (r *reduction) produce(ctx context.Context, rows *SnapshotRows) error {
	rows.Version = r.version + 1
	message, err := r.encoder.snapshotMessage(r.out[:0], SchemaItems, rows)
	if err != nil {
		return fmt.Errorf("publish item snapshot %d: %w", rows.Version, err)
	}
	r.out = message.Value
	base, err := r.config.Client.Produce(ctx, r.config.Topics.Items, 0, message)
	if err != nil {
		return fmt.Errorf("publish item snapshot %d: %w", rows.Version, err)
	}
	if base != r.itemsNext {
		if err := r.inspect(ctx, base, rows.Version, message.Value); err != nil {
			return fmt.Errorf("publish item snapshot %d: offset %d instead of %d: %w", rows.Version, base, r.itemsNext, err)
		}
	}
	r.itemsNext, r.version = base+1, rows.Version
	r.reducer.versions.Inc()
	r.reducer.rows.Add(float64(rows.Len()))
	return nil
}

// inspect reads what was written between the expected offset and base. The first
// attempt of our own message is welcome, an older version of a reducer that had
// lost its place is dropped by all; anything else means that we are that one.
func (r *reduction) inspect(ctx context.Context, base int64, version uint64, value []byte) error {
	if base < r.itemsNext {
		return fmt.Errorf("the topic was made anew: %w", errOvertaken)
	}
	var batch stream.Batch
	for next := r.itemsNext; next < base; {
		if err := r.config.Client.Fetch(ctx, r.config.Topics.Items, 0, next, 5*time.Second, &batch); err != nil {
			return err
		}
		for i := range batch.Messages {
			m := &batch.Messages[i]
			if next = m.Offset + 1; m.Offset >= base {
				break
			}
			found, err := m.Int64(stream.HeaderSnapshot)
			if err != nil {
				return err
			}
			digest, err := m.Int64(stream.HeaderDigest)
			if err != nil {
				return err
			}
			same := uint64(found) == version && uint64(digest) == xxhash.Sum64(value)
			if uint64(found) >= version && !same {
				return errOvertaken
			}
		}
	}
	return nil
}
