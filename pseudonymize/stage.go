// Package pseudonymize turns identified answers into answers with tokens: the
// stage between the topics `raw` and `answers`, and the resolver that maps
// identifiers to tokens for the query service.
//
//	raw (sealed) ─open─▶ identities ─registry─▶ learners ─HMAC─▶ tokens ─▶ answers
//
// Invariants:
//   - One message in, one message out, in order, with the offset in `raw` in a
//     header. What can't be read goes sealed to the dead letters, and an empty
//     message takes its place, so that positions stay whole.
//   - A token is used only after its learner is durable in the registry. So a
//     message that is made again is the same, bit for bit.
//   - What changes in the registry from outside (a merge, an erasure, a key
//     epoch) is used from a raw offset on that is recorded there first. What it
//     means for rows that are stored already stands in answers as commands, at a
//     raw offset of its own that is recorded likewise.
//   - Without the right keys the partition stops and says so; nothing passes.
//   - Identifiers live in the buffers of one run of messages and are cleared
//     after it. No error and no log line holds one.
package pseudonymize

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leerstroom/leerstroom/internal/deadletter"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// ErrKey reports a message sealed for a key that this process does not hold.
var ErrKey = errors.New("key to open raw is missing")

// StageConfig says what the stage works with. Ring, Vault, Client, Topics,
// Partitions and PrivateKeys are needed.
type StageConfig struct {
	Client       *stream.Client
	Topics       stream.Topics
	Partitions   int // of every topic that is partitioned by school
	Ring         *keyring.Ring
	Vault        *vault.Vault
	PrivateKeys  []*seal.PrivateKey                 // that open raw; dead letters are sealed for the first
	ReloadKeys   func() ([]*seal.PrivateKey, error) // asked when a message is sealed for another key; nil: never
	LetterSealer *seal.Sealer                       // seals dead letters instead; nil: for the first private key
	Engines      []EngineTopic                      // adaptive engines that get answers of their own
	SyncEvery    time.Duration                      // how often changes of the registry by others and new keys are looked for; 0 means 1 s
	FlushEvery   time.Duration                      // how long the vault's table may lag behind; 0 means 5 s
	DeadLetters  *prometheus.CounterVec             // counts dead letters; see deadletter.NewCounter. Nil counts nothing
	Logger       *slog.Logger
}

// Validate names the first field that is missing.
func (c *StageConfig) Validate() error {
	switch {
	case c.Ring == nil:
		return errors.New("pseudonymize: no keyring is loaded: create or restore the keyset first")
	case len(c.PrivateKeys) == 0:
		return errors.New("pseudonymize: no private key to open raw is loaded: create or restore it first")
	case c.Client == nil:
		return errors.New("pseudonymize: field client is missing")
	case c.Vault == nil:
		return errors.New("pseudonymize: field vault is missing")
	case c.Topics.Raw == "" || c.Topics.Answers == "" || c.Topics.DeadLetters == "":
		return errors.New("pseudonymize: field topics is missing")
	case c.Partitions <= 0:
		return errors.New("pseudonymize: field partitions is missing")
	}
	for i := range c.Engines {
		if err := c.Engines[i].validate(); err != nil {
			return err
		}
	}
	return nil
}

// Stage makes the handlers of the partitions. It is safe for concurrent use.
type Stage struct {
	config  StageConfig
	opener  *seal.Opener
	letters *deadletter.Writer
	runs    sync.Pool // of *run: memory for the messages of one run
	drafts  sync.Pool // of *draft

	counters counters
	crash    func(step string) error // nil outside of tests; an error is where the process dies
}

type counters struct{ messages, rows, learners, orders, deadLetters atomic.Int64 }

// Counts is what a stage has done since it was made.
type Counts struct {
	Messages    int64 // of raw, made into messages of answers
	Rows        int64
	Learners    int64 // provisional learners created
	Orders      int64 // moves and erasures told to those who store rows
	DeadLetters int64
}

// NewStage makes a stage.
func NewStage(config StageConfig) (*Stage, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.SyncEvery == 0 {
		config.SyncEvery = time.Second
	}
	if config.FlushEvery == 0 {
		config.FlushEvery = 5 * time.Second
	}
	opener, err := seal.NewOpener(config.PrivateKeys...)
	if err != nil {
		return nil, fmt.Errorf("pseudonymize: %w", err)
	}
	sealer := config.LetterSealer
	if sealer == nil {
		if sealer, err = seal.NewSealer(seal.SealerConfig{Recipient: config.PrivateKeys[0].Public()}); err != nil {
			return nil, fmt.Errorf("pseudonymize: %w", err)
		}
	}
	s := &Stage{config: config, opener: opener, letters: &deadletter.Writer{Client: config.Client, Topic: config.Topics.DeadLetters, Sealer: sealer, Stage: stageName}}
	s.drafts.New = func() any { return new(draft) }
	s.runs.New = func() any { return newRun(opener, config.Topics.Raw) }
	return s, nil
}

// Counts returns what the stage has done.
func (s *Stage) Counts() Counts {
	c := &s.counters
	return Counts{Messages: c.messages.Load(), Rows: c.rows.Load(), Learners: c.learners.Load(), Orders: c.orders.Load(), DeadLetters: c.deadLetters.Load()}
}

// passed marks that a step took effect.
func (s *Stage) passed(step string) error {
	if s.crash == nil {
		return nil
	}
	return s.crash(step)
}

func (s *Stage) takeRun() *run { return s.runs.Get().(*run) }

func (s *Stage) giveRun(r *run) {
	r.wipe()
	s.runs.Put(r)
}

// Handler makes the handler of a partition of raw.
func (s *Stage) Handler(partition int) stream.Handler {
	return &worker{stage: s, partition: partition}
}

// worker is the stage for one partition.
type worker struct {
	stage      *Stage
	partition  int
	assignment *stream.Assignment
	registry   *vault.Partition
	watch      *stream.Watch // of the registry
	main       output        // answers
	engines    []output      // engines' topics
	sync       *time.Ticker
	flush      *time.Ticker
	next       int64 // offset of raw to handle next: everything below is in answers
	place      int64 // offset of the last message of raw that was written to make a place, -1 = none
}

// Start restores the registry and finds out where to go on: after the message
// that the last message of answers was made of. The group's offset is asked only
// when retention has emptied answers.
func (w *worker) Start(ctx context.Context, a *stream.Assignment) (next int64, err error) {
	w.assignment = a
	if w.registry, err = w.stage.config.Vault.Open(ctx, w.partition, vault.Own); err != nil {
		return 0, err
	}
	if w.next, err = w.resume(ctx); err != nil {
		return 0, err
	}
	w.place = -1
	w.registry.Settle(w.next)
	if err := w.openOutputs(ctx); err != nil {
		return 0, err
	}
	w.watch = w.registry.Watch()
	w.sync, w.flush = time.NewTicker(w.stage.config.SyncEvery), time.NewTicker(w.stage.config.FlushEvery)
	if err := w.adopt(ctx); err != nil {
		return 0, err
	}
	if err := w.requestPlace(ctx); err != nil {
		return 0, err
	}
	return w.next, nil
}

func (w *worker) resume(ctx context.Context) (int64, error) {
	c := &w.stage.config
	last, found, err := c.Client.Last(ctx, c.Topics.Answers, w.partition)
	if err != nil {
		return 0, err
	}
	if found {
		offset, err := last.Int64(stream.HeaderRawOffset)
		if err != nil {
			return 0, fmt.Errorf("resume from %s/%d: %w", c.Topics.Answers, w.partition, err)
		}
		return offset + 1, nil
	}
	_, end, err := c.Client.Offsets(ctx, c.Topics.Answers, w.partition)
	switch {
	case err != nil:
		return 0, err
	case end == 0:
		return 0, nil
	case w.assignment.Committed < 0:
		return 0, fmt.Errorf("resume from %s/%d: retention emptied it and the group has no offset: it is unknown which answers were passed on", c.Topics.Answers, w.partition)
	}
	return w.assignment.Committed, nil
}

func (w *worker) openOutputs(ctx context.Context) (err error) {
	c := &w.stage.config
	if w.main, err = w.stage.newOutput(c.Topics.Answers, keyring.Analytics, keyring.Event); err != nil {
		return err
	}
	w.main.done = w.next - 1
	w.engines = make([]output, len(c.Engines))
	for i := range c.Engines {
		if w.engines[i], err = w.openEngine(ctx, &c.Engines[i]); err != nil {
			return err
		}
	}
	return nil
}

// adopt records that the registry as it is now, and the primary key epoch, are
// in force from the next message on, and makes the tokenizers for it.
func (w *worker) adopt(ctx context.Context) error {
	if err := w.registry.Adopt(ctx, w.next); err != nil {
		return err
	}
	if err := w.stage.passed("registry adopted"); err != nil {
		return err
	}
	epoch := w.registry.State().Epoch()
	ring := w.stage.config.Ring
	if _, err := ring.Fingerprint(epoch); err != nil {
		// Another process knows of a rotation before this one does.
		if err := ring.Refresh(); err != nil {
			return err
		}
	}
	for _, o := range w.outputs() {
		if err := o.use(ring, epoch); err != nil {
			return fmt.Errorf("the registry of partition %d is at key epoch %d: %w", w.partition, epoch, err)
		}
	}
	return nil
}

func (w *worker) outputs() []*output {
	all := []*output{&w.main}
	for i := range w.engines {
		all = append(all, &w.engines[i])
	}
	return all
}

// Limits of one run: the messages that share a request to Kafka and a record in
// the registry.
const (
	maxRunMessages = 64
	maxRunBytes    = 2 << 20
)

// Handle pseudonymises messages, a run at a time.
func (w *worker) Handle(ctx context.Context, messages []stream.Message) error {
	for len(messages) > 0 && messages[0].Offset < w.next {
		messages = messages[1:]
	}
	if err := w.keepUp(ctx); err != nil {
		return err
	}
	for len(messages) > 0 {
		n, err := runLength(messages), error(nil)
		if n == 0 {
			n, err = 1, w.handleOrder(ctx, &messages[0])
		} else {
			err = w.handleRun(ctx, messages[:n])
		}
		if err != nil {
			return fmt.Errorf("pseudonymize %s/%d from offset %d: %w", w.stage.config.Topics.Raw, w.partition, messages[0].Offset, err)
		}
		messages = messages[n:]
	}
	return nil
}

// runLength returns how many messages make the next run: 0 when an order is next.
func runLength(messages []stream.Message) int {
	n, bytes := 0, 0
	for n < len(messages) && n < maxRunMessages && (n == 0 || bytes+len(messages[n].Value) <= maxRunBytes) && !isOrder(&messages[n]) {
		bytes += len(messages[n].Value)
		n++
	}
	return n
}

// Idle looks for changes by others and brings the table up to date.
func (w *worker) Idle(ctx context.Context) error {
	if err := w.keepUp(ctx); err != nil {
		return err
	}
	return w.flushTable(ctx)
}

// Stop releases what Start took.
func (w *worker) Stop() {
	if w.sync != nil {
		w.watch.Close()
		w.sync.Stop()
		w.flush.Stop()
	}
	w.registry, w.watch, w.sync, w.flush, w.engines = nil, nil, nil, nil, nil
}

// keepUp does what is due: it reads what others wrote to the registry and to the
// keyset, and writes the table.
func (w *worker) keepUp(ctx context.Context) error {
	select {
	case <-w.sync.C:
		if err := w.stage.config.Ring.Refresh(); err != nil {
			return err
		}
		if w.watch.News(w.registry.Offset()) {
			if err := w.registry.Sync(ctx); err != nil {
				return err
			}
		}
		if err := w.adopt(ctx); err != nil {
			return err
		}
		if err := w.requestPlace(ctx); err != nil {
			return err
		}
	default:
	}
	select {
	case <-w.flush.C:
		return w.flushTable(ctx)
	default:
	}
	if w.registry.FlushDue() {
		return w.flushTable(ctx)
	}
	return nil
}

// flushTable writes the registry's table. While ClickHouse is away the log is
// enough to go on with, until too much waits.
func (w *worker) flushTable(ctx context.Context) error {
	err := w.registry.Flush(ctx)
	if err == nil {
		err = w.registry.Rekey(ctx)
	}
	if err == nil {
		return w.stage.passed("table written")
	}
	if ctx.Err() != nil || w.registry.Full() {
		return err
	}
	w.stage.config.Logger.WarnContext(ctx, "writing the vault's table failed, trying again later", "partition", w.partition, "error", err)
	return nil
}
