package transform

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// errOvertaken reports that somebody else works on the partition. It is started
// again from what the log says.
var errOvertaken = errors.New("another worker has produced to the partition")

// handler gives each stay of a partition in this process a run of its own, so
// that nothing of an earlier stay is left.
type handler struct {
	stage     *Stage
	partition int
	run       *run
}

// run is one stay of a partition. Its methods are called by one goroutine.
type run struct {
	stage      *Stage
	config     *StageConfig
	partition  int
	assignment *stream.Assignment
	state      *Partition
	recorded   []recorded // versions that messages after the durable state were applied with, ascending
	lost       lost       // the same by the store, of messages that the log has lost

	mark          int64 // raw offset of the last message that passed
	position      answer.Position
	answersOffset int64 // of that message in `answers`
	skillsOffset  int64 // of its message in `skills`
	skillsNext    int64 // where the next message of `skills` will land if nobody else writes
	version       uint64
	adoptions     []Adoption

	pending pending
	durable *durability

	messages int // that no checkpoint holds, with their rows and since when
	rows     int
	since    time.Time
	arrived  time.Time // when the last message did
	norms    time.Time // when they were last in a checkpoint

	handedOver     answer.Position // of the last checkpoint, if there was one
	checkpointed   bool
	checkpointedAt time.Time

	moved   bool      // whether anything has moved since
	amended time.Time // when tokens departed last whose rows may be on the disk, zero = none

	firsts     int // first answers that no message of `item-sums` holds, and since when
	firstsFrom time.Time
	sumsSent   answer.Position // of the last message of `item-sums` …
	sumsTold   answer.Position // … and what it said was durable

	learners, layers, waiting int // as the gauges have them
}

// durability is what the store has told. A late call for an earlier stay reaches
// the durability of that stay only.
type durability struct {
	mu       sync.Mutex
	position answer.Position
	any      bool
	err      error
	changed  chan struct{} // holds a token after a change
}

func newDurability() *durability { return &durability{changed: make(chan struct{}, 1)} }

func (d *durability) done(position answer.Position, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.err = errors.Join(d.err, err)
	} else if !d.any || position > d.position {
		d.position, d.any = position, true
	}
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *durability) state() (position answer.Position, any bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.position, d.any, d.err
}

// Start implements stream.Handler.
func (h *handler) Start(ctx context.Context, assignment *stream.Assignment) (next int64, err error) {
	h.Stop()
	r := &run{stage: h.stage, config: &h.stage.config, partition: h.partition, assignment: assignment, durable: newDurability()}
	select {
	case <-r.config.Snapshots.Ready():
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	restored, err := r.config.Persistence.Restore(ctx, h.partition)
	if err != nil {
		return 0, fmt.Errorf("restore partition %d: %w", h.partition, err)
	}
	r.state = NewPartition(r.config.Parameters, r.config.Catalog)
	if err := r.state.Restore(&restored); err != nil {
		return 0, fmt.Errorf("restore partition %d: %w", h.partition, err)
	}
	r.mark, r.position = restored.RawOffset, restored.Position
	r.answersOffset, r.skillsOffset, r.version = restored.AnswersOffset, restored.SkillsOffset, restored.SnapshotVersion
	r.lost = lostVersions(&restored)
	if err := r.readSkills(ctx, &restored); err != nil {
		return 0, err
	}
	if restored.RawOffset >= 0 {
		// The reducer may still wait to hear it.
		r.durable.done(restored.Position, nil)
		r.sumsSent = restored.Position
		r.moved = true // norms may be older than the rest
	}
	r.norms = r.config.Now()
	if len(restored.Departed) > 0 {
		r.amended = r.norms
	}
	h.run = r
	r.measure()
	r.config.Logger.InfoContext(ctx, "partition started", "topic", r.config.Topics.Answers, "partition", r.partition,
		"generation", assignment.Generation, "raw_offset", r.mark, "learners", r.state.Learners(), "replay", len(r.recorded))
	return r.answersOffset + 1, nil
}

// Handle implements stream.Handler.
func (h *handler) Handle(ctx context.Context, messages []stream.Message) error {
	r := h.run
	for len(messages) > 0 {
		w := r.stage.take()
		n, err := r.piece(ctx, w, messages)
		r.stage.put(w)
		if err != nil {
			return err
		}
		messages = messages[n:]
		if err := r.flush(ctx, false); err != nil {
			return err
		}
	}
	r.measure()
	return nil
}

// Idle implements stream.Handler.
func (h *handler) Idle(ctx context.Context) error {
	err := h.run.flush(ctx, true)
	h.run.measure()
	if err != nil {
		return err
	}
	return h.run.purge(ctx)
}

// Stop implements stream.Handler.
func (h *handler) Stop() {
	if h.run != nil {
		h.run.state = nil
		h.run.pending = pending{}
		h.run.measure()
		h.run = nil
	}
}

// measure brings the gauges up to date.
func (r *run) measure() {
	learners, layers, waiting := 0, 0, r.pending.rows()
	if r.state != nil {
		learners, layers = r.state.Learners(), r.state.Layers()
	}
	m := &r.stage.metrics
	m.learners.Add(float64(learners - r.learners))
	m.layers.Add(float64(layers - r.layers))
	m.pending.Add(float64(waiting - r.waiting))
	r.learners, r.layers, r.waiting = learners, layers, waiting
}

// flush sends what is due: sums, and a checkpoint. It fails when the store has
// refused a checkpoint, and waits while too much is not durable.
func (r *run) flush(ctx context.Context, idle bool) error {
	if err := r.settle(); err != nil {
		return err
	}
	now := r.config.Now()
	if err := r.sendSums(ctx, now, idle); err != nil {
		return err
	}
	crowded := r.pending.rows() > r.config.MaxPendingRows/2
	full := crowded || r.rows >= r.config.CheckpointRows
	if r.messages > 0 && (full || r.aged(now)) || r.moved && due(now, r.norms, r.config.NormInterval) {
		if err := r.checkpoint(ctx, now, false); err != nil {
			return err
		}
	}
	for r.pending.rows() > r.config.MaxPendingRows {
		select {
		case <-r.durable.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := r.settle(); err != nil {
			return err
		}
	}
	return nil
}

// aged tells whether a checkpoint is due by age. While the store still has the
// last one, the next grows: a learner's state is written once however many answers
// have moved it meanwhile. So it does where answers keep arriving.
func (r *run) aged(now time.Time) bool {
	quiet := due(now, r.arrived, r.config.CheckpointInterval)
	return due(now, r.since, r.config.CheckpointInterval) && (quiet || due(now, r.checkpointedAt, r.config.CheckpointPause)) &&
		r.handedOverIsDurable()
}

// settle takes note of what has become durable.
func (r *run) settle() error {
	position, any, err := r.durable.state()
	if err != nil {
		return fmt.Errorf("checkpoint of partition %d: %w", r.partition, err)
	}
	if any {
		r.pending.release(position)
	}
	return nil
}

// handedOverIsDurable tells whether the store has all checkpoints that it was
// given.
func (r *run) handedOverIsDurable() bool {
	position, any, _ := r.durable.state() // an error was reported by settle
	return !r.checkpointed || any && position >= r.handedOver
}

// checkpoint hands over what has changed.
func (r *run) checkpoint(ctx context.Context, now time.Time, urgent bool) error {
	w := r.stage.take()
	defer r.stage.put(w)
	c := &w.checkpoint
	c.Reset()
	c.Partition, c.Generation = r.partition, r.assignment.Generation
	c.AnswersOffset, c.SkillsOffset, c.SnapshotVersion = r.answersOffset, r.skillsOffset, r.version
	c.Adoptions, c.Urgent = r.adoptions, urgent
	if r.state.NormsDue() || due(now, r.norms, r.config.NormInterval) {
		r.state.TakeNorms(&c.Norms)
		r.norms, r.moved = now, false
	}
	r.state.Checkpoint(c)
	position, durable, assignment, offset := c.Position, r.durable, r.assignment, r.answersOffset+1
	c.Durable = func(err error) {
		durable.done(position, err)
		if err == nil {
			assignment.Commit(offset)
		}
	}
	r.adoptions, r.messages, r.rows = nil, 0, 0
	r.handedOver, r.checkpointed, r.checkpointedAt = position, true, now
	r.pending.cut()
	r.stage.metrics.checkpoints.Inc()
	if err := r.config.Persistence.Checkpoint(ctx, c); err != nil {
		return fmt.Errorf("checkpoint partition %d at raw offset %d: %w", r.partition, r.mark, err)
	}
	return nil
}

// purge takes what has departed off the disk, when that has had time to gather.
func (r *run) purge(ctx context.Context) error {
	if r.amended.IsZero() || !due(r.config.Now(), r.amended, r.config.PurgeDelay) {
		return nil
	}
	if err := r.config.Persistence.Purge(ctx); err != nil {
		return fmt.Errorf("purge what has departed from partition %d: %w", r.partition, err)
	}
	r.amended = time.Time{}
	return nil
}

// Headers of messages of `item-sums`.
const (
	headerPartition = "partition" // int64: whose sums these are
	headerPosition  = "position"  // int64: up to where they go
	headerDurable   = "durable"   // int64: up to where the store has them, -1 = nothing
)

// sendSums sends the sums that changed when it is time. When nothing changed but
// more has become durable, it says so when idle: the reducer commits by that.
func (r *run) sendSums(ctx context.Context, now time.Time, idle bool) error {
	waited := due(now, r.firstsFrom, r.config.SumsInterval) ||
		r.firsts >= r.config.SumsAnswers && due(now, r.firstsFrom, r.config.SumsInterval/2)
	durable, any, _ := r.durable.state() // an error was reported by settle
	told := r.firsts == 0 && idle && any && durable >= r.sumsSent && r.sumsTold < r.sumsSent
	if !(r.firsts > 0 && waited) && !told {
		return nil
	}
	w := r.stage.take()
	defer r.stage.put(w)
	w.sums.Reset()
	r.state.TakeSums(&w.sums)
	out, err := w.encoder.AppendSums(w.out[:0], &w.sums)
	if err != nil {
		return fmt.Errorf("send sums of partition %d: %w", r.partition, err)
	}
	w.out = out
	said := int64(-1)
	if any {
		said = int64(durable)
	}
	_, err = r.config.Client.Produce(ctx, r.config.Topics.ItemSums, 0, stream.Message{Value: out, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(SchemaItemSums)},
		stream.Int64Header(headerPartition, int64(r.partition)),
		stream.Int64Header(headerPosition, int64(r.position)),
		stream.Int64Header(headerDurable, said),
		stream.DigestHeader(out),
	}})
	if err != nil {
		return fmt.Errorf("send sums of partition %d: %w", r.partition, err)
	}
	r.firsts, r.sumsSent, r.sumsTold = 0, r.position, durable
	return nil
}
