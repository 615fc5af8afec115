package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/ch-go"
	"golang.org/x/sync/errgroup"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// writer gathers what the partitions of this process write into batches and
// writes them in the order in which they were filled:
//
//	partitions ─▶ current ─▶ sealed ─▶ archive ─▶ commits ─▶ commit ─▶ free
//	              (one batch)          (some at a time)      (one after the other)
//
// Everything that a partition hands over before a checkpoint is in the batch of
// that checkpoint or in an earlier one; batches are committed in order, and a
// checkpoint is durable once its batch is. Archive rows of several batches go in
// at the same time, for they depend on nothing.
//
// A rejected insert ends an epoch: all batches of the epoch are given up, for
// what follows in them must not become durable without what was rejected. A
// partition joins the new epoch when it calls Restore.
type writer struct {
	config *Config
	pool   *pool

	mu        sync.Mutex
	current   *batch    // nil = all are on their way
	entered   time.Time // when a partition added to it last
	aged      time.Time // when a batch was sealed for its age last
	underWay  int       // sealed and not yet durable or given up
	epoch     uint64
	rejection error          // that ended the last epoch
	joined    map[int]uint64 // epoch that a partition belongs to, 0 if not in it
	closed    bool

	free     chan *batch
	sealed   chan *batch
	commits  chan *batch
	ctx      context.Context // ends when everything is given up
	giveUp   context.CancelFunc
	sealing  sync.WaitGroup // the goroutine that seals by age
	stopping chan struct{}  // closed to stop it
	working  sync.WaitGroup // archive and commit
	sorters  chan *sorter   // idle ones, one for each batch that is archived at the same time
	stats    writerStats
}

type writerStats struct {
	answers, testResults, skills, inserts, retries, rejections atomic.Int64
}

// Stats counts what a store has written since it was opened.
type Stats struct {
	Answers, TestResults, Skills int64 // rows that are durable
	Inserts                      int64 // that succeeded
	Retries                      int64 // inserts that had to be tried again
	Rejections                   int64 // inserts that were refused for good
	WaitingBatches               int   // that are on their way
}

// Stats returns the counts.
func (s *Store) Stats() Stats {
	w := &s.writer.stats
	return Stats{
		Answers: w.answers.Load(), TestResults: w.testResults.Load(), Skills: w.skills.Load(),
		Inserts: w.inserts.Load(), Retries: w.retries.Load(), Rejections: w.rejections.Load(),
		WaitingBatches: s.config.Batches - len(s.writer.free),
	}
}

func newWriter(config *Config, pool *pool) *writer {
	w := &writer{
		config: config, pool: pool, joined: make(map[int]uint64), stopping: make(chan struct{}),
		free: make(chan *batch, config.Batches), sealed: make(chan *batch, config.Batches), commits: make(chan *batch, config.Batches),
		sorters: make(chan *sorter, config.InFlight),
	}
	for range config.InFlight {
		w.sorters <- new(sorter)
	}
	w.ctx, w.giveUp = context.WithCancel(context.Background())
	for range config.Batches {
		w.free <- newBatch(config.Database)
	}
	w.sealing.Go(w.sealByAge)
	w.working.Go(w.archiveBatches)
	w.working.Go(w.commitBatches)
	return w
}

// close seals what is left and waits until all is written; when ctx ends first,
// the rest is given up.
func (w *writer) close(ctx context.Context) error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrClosed
	}
	w.closed = true
	w.mu.Unlock()
	close(w.stopping)
	w.sealing.Wait()
	w.mu.Lock()
	w.seal()
	close(w.sealed)
	w.mu.Unlock()
	stop := context.AfterFunc(ctx, w.giveUp)
	w.working.Wait()
	if !stop() {
		return context.Cause(ctx)
	}
	w.giveUp()
	return nil
}

// enter returns the batch to add to, with w.mu held, or an error, without. It
// blocks while all batches are on their way.
func (w *writer) enter(ctx context.Context, partition int) (*batch, error) {
	for {
		w.mu.Lock()
		if err := w.refusal(partition); err != nil {
			w.mu.Unlock()
			return nil, err
		}
		if w.current != nil {
			w.entered = time.Now()
			if w.current.begun.IsZero() {
				w.current.begun = w.entered
			}
			return w.current, nil
		}
		w.mu.Unlock()
		select {
		case b := <-w.free:
			w.adopt(b)
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for clickhouse: %w", context.Cause(ctx))
		case <-w.stopping:
			return nil, ErrClosed
		}
	}
}

func (w *writer) refusal(partition int) error {
	if w.closed {
		return ErrClosed
	}
	if w.joined[partition] != w.epoch {
		return w.rejection
	}
	return nil
}

// adopt makes a free batch the current one, unless another was faster.
func (w *writer) adopt(b *batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current != nil || w.closed {
		w.free <- b
		return
	}
	b.epoch = w.epoch
	w.current = b
}

// leave ends what enter began, and seals the batch when it is full.
func (w *writer) leave() {
	if w.current != nil && w.current.largest() >= w.config.MaxRows {
		w.seal()
	}
	w.mu.Unlock()
}

// seal sends the current batch on its way. w.mu is held; the channel has room
// for every batch.
func (w *writer) seal() {
	if w.current == nil || w.current.begun.IsZero() {
		return
	}
	w.current.archived = make(chan struct{})
	w.sealed <- w.current
	w.current = nil
	w.underWay++
}

func (w *writer) sealByAge() {
	ticker := time.NewTicker(max(w.config.MaxDelay/4, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-w.stopping:
			return
		case now := <-ticker.C:
			w.mu.Lock()
			if w.isAged(now) {
				w.seal()
				w.aged = now
			}
			w.mu.Unlock()
		}
	}
}

// isAged tells whether the current batch is to be sealed for its age. While the
// server is busy, or rows keep coming, more of them in one insert cost it less.
// w.mu is held.
func (w *writer) isAged(now time.Time) bool {
	if w.current == nil || w.current.begun.IsZero() || now.Sub(w.current.begun) < w.config.MaxDelay || w.underWay >= w.config.InFlight {
		return false
	}
	quiet := now.Sub(w.entered) >= w.config.MaxDelay
	return quiet || now.Sub(w.aged) >= w.config.Pause
}

// join lets a partition write again after a rejection.
func (w *writer) join(partition int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.joined[partition] = w.epoch
}

// reject ends the epoch of a batch.
func (w *writer) reject(b *batch, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.epoch != w.epoch {
		return
	}
	w.stats.rejections.Add(1)
	w.epoch++
	w.rejection = err
	w.seal()
	w.config.Logger.Error("clickhouse rejects what is written; all partitions begin again from what is durable", "error", err)
}

// ended returns why a batch must not be written any more.
func (w *writer) ended(b *batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return ErrClosed
	}
	if b.epoch != w.epoch {
		return w.rejection
	}
	return nil
}

// archiveBatches writes the archive rows of sealed batches, some at a time. It
// waits for all of them before it returns.
func (w *writer) archiveBatches() {
	defer close(w.commits)
	var inserting errgroup.Group
	inserting.SetLimit(w.config.InFlight)
	for b := range w.sealed {
		w.commits <- b
		inserting.Go(func() error {
			sorter := <-w.sorters
			b.answers.sort(sorter)
			w.sorters <- sorter
			b.failure = w.insertAll(b, &b.answers.block, &b.testResults.block, &b.ledger.block, &b.adoptions.block)
			close(b.archived)
			return nil
		})
	}
	if err := inserting.Wait(); err != nil {
		panic("store: archiving returned an error that belongs to its batch: " + err.Error())
	}
}

// commitBatches writes the states and then the progress of archived batches,
// one batch after the other.
func (w *writer) commitBatches() {
	for b := range w.commits {
		<-b.archived
		err := b.failure
		for _, step := range [][]*block{
			{&b.sums.block, &b.norms.block},
			{&b.skills.block},
			{&b.progress.block},
		} {
			if err == nil {
				err = w.insertAll(b, step...)
			}
		}
		if err == nil {
			w.stats.answers.Add(int64(b.answers.rows()))
			w.stats.testResults.Add(int64(b.testResults.rows()))
			w.stats.skills.Add(int64(b.skills.rows()))
		}
		for _, durable := range b.waiting {
			durable(err)
		}
		w.mu.Lock()
		w.underWay--
		w.mu.Unlock()
		w.free <- b.recycle(w.config.Database, 2*w.config.MaxRows)
	}
}

// insertAll writes blocks at the same time and returns when all are in, or with
// the reason why one never will be.
func (w *writer) insertAll(b *batch, blocks ...*block) error {
	var group errgroup.Group
	for _, block := range blocks {
		if block.rows() > 0 {
			group.Go(func() error { return w.insert(b, block) })
		}
	}
	return group.Wait()
}

// insert writes a block, again and again until it is in. An attempt that failed
// may have been carried out; the rows are the same, so a repeat changes nothing.
func (w *writer) insert(b *batch, block *block) error {
	pause := newBackoff()
	for {
		if err := w.ended(b); err != nil {
			return err
		}
		err := w.pool.do(w.ctx, ch.Query{Body: block.body, Input: block.input})
		switch {
		case err == nil:
			w.stats.inserts.Add(1)
			return nil
		case w.ctx.Err() != nil:
			return ErrClosed
		case permanent(err):
			err = fmt.Errorf("insert %d rows into %s: %w: %w", block.rows(), block.table, ErrRejected, err)
			w.reject(b, err)
			return err
		}
		w.stats.retries.Add(1)
		w.config.Logger.Warn("insert failed, trying again", "table", block.table, "rows", block.rows(), "error", err)
		pause.wait(w.ctx)
	}
}

// Archive implements transform.Persistence.
func (s *Store) Archive(ctx context.Context, partition int, c *answer.Columns, skip []bool, said *transform.Evidence) error {
	b, err := s.writer.enter(ctx, partition)
	if err != nil {
		return fmt.Errorf("archive answers of partition %d, raw offset %d: %w", partition, c.RawOffset, err)
	}
	defer s.writer.leave()
	b.answers.append(partition, c, skip, said)
	b.ledger.append(partition, c.RawOffset, contentAnswers, c.EventID[:c.Rows], skip)
	return nil
}

// ArchiveTestResults implements transform.Persistence.
func (s *Store) ArchiveTestResults(ctx context.Context, partition int, c *answer.TestResults, skip []bool) error {
	b, err := s.writer.enter(ctx, partition)
	if err != nil {
		return fmt.Errorf("archive test results of partition %d, raw offset %d: %w", partition, c.RawOffset, err)
	}
	defer s.writer.leave()
	b.testResults.append(partition, c, skip)
	b.ledger.append(partition, c.RawOffset, contentTestResults, c.EventID[:c.Rows], skip)
	return nil
}

// Checkpoint implements transform.Persistence. Skills of more rows than a batch
// holds are spread over batches, never a learner over two; the progress comes
// with the last of them.
func (s *Store) Checkpoint(ctx context.Context, c *transform.Checkpoint) error {
	if c.Durable == nil {
		return errors.New("checkpoint: no Durable function")
	}
	rows := &c.Skills
	for first := 0; ; {
		b, err := s.writer.enter(ctx, c.Partition)
		if err != nil {
			return fmt.Errorf("checkpoint partition %d at raw offset %d: %w", c.Partition, c.Position.RawOffset(), err)
		}
		if first == 0 {
			b.sums.append(c.Partition, &c.Sums)
			b.norms.append(c.Partition, &c.Norms)
			b.adoptions.append(c.Partition, c.Adoptions)
		}
		last := cut(rows, first, s.config.MaxRows)
		b.skills.append(c.Partition, rows, first, last)
		if last == rows.Len() {
			b.progress.append(c)
			b.waiting = append(b.waiting, c.Durable)
			if c.Urgent {
				s.writer.seal()
			}
			s.writer.leave()
			return nil
		}
		s.writer.seal()
		s.writer.leave()
		first = last
	}
}

// cut returns the end of at most n rows from first on, and more only to keep the
// rows of one learner together.
func cut(rows *transform.SkillRows, first, n int) int {
	last := min(first+n, rows.Len())
	for last < rows.Len() && rows.Learner[last] == rows.Learner[last-1] {
		last++
	}
	return last
}
