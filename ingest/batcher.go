package ingest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// Errors of the batcher.
var (
	errBusy            = errors.New("no room for more lines")
	errClosed          = errors.New("connector is closed")
	errNotAcknowledged = errors.New("message was not acknowledged")
)

// recordKind tells answers from test results.
type recordKind int

const (
	kindAnswers recordKind = iota
	kindResults
	kinds
)

// produceFunc writes one message to a partition of `raw` and returns when all
// in-sync replicas have it.
type produceFunc func(ctx context.Context, partition int, message stream.Message) error

// batcher gathers rows into messages, per partition and kind. Each partition has
// one goroutine that sends one message at a time; the next one fills meanwhile,
// so that messages grow with the time that Kafka takes. Close stops the
// goroutines and waits for them.
type batcher struct {
	config  *Config
	metrics *metrics
	produce produceFunc
	writers chan *raw.Writer // bounds the messages being encoded
	pools   [kinds]sync.Pool // of columns
	buffers sync.Pool        // of *[]byte, sealed messages
	budget  budget

	partitions []*partition
	cancel     context.CancelFunc
	running    sync.WaitGroup
}

// batch is one message in the making. Everything but done and err is guarded by
// its partition until the message is taken; then its goroutine owns it.
type batch struct {
	partition *partition
	kind      recordKind
	columns   columns
	opened    time.Time
	awaited   time.Time // when the first request began to wait for it, zero before
	urgent    bool      // leave at once
	reserved  []reservation

	taken chan struct{} // closed when no more rows go in
	done  chan struct{} // closed when acknowledged or given up
	err   error         // valid once done is closed
}

// reservation is what one publisher holds of the budget for a batch.
type reservation struct {
	share *share
	bytes int64
}

// reserve notes bytes of a publisher. A batch has lines of few.
func (current *batch) reserve(s *share, bytes int64) {
	for i := range current.reserved {
		if current.reserved[i].share == s {
			current.reserved[i].bytes += bytes
			return
		}
	}
	current.reserved = append(current.reserved, reservation{s, bytes})
}

type partition struct {
	number int
	mu     sync.Mutex
	open   [kinds]*batch
	closed bool
	wake   chan struct{} // holds one: something changed
}

func newBatcher(config *Config, partitions int, sealer *seal.Sealer, topic string, m *metrics, produce produceFunc) *batcher {
	b := &batcher{config: config, metrics: m, produce: produce, budget: budget{limit: config.MaxBufferedBytes}}
	b.pools[kindAnswers].New = func() any { return newAnswerColumns() }
	b.pools[kindResults].New = func() any { return newResultColumns() }
	b.buffers.New = func() any { return new([]byte) }
	b.writers = make(chan *raw.Writer, runtime.GOMAXPROCS(0))
	for range cap(b.writers) {
		b.writers <- raw.NewWriter(sealer, topic)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	for i := range partitions {
		p := &partition{number: i, wake: make(chan struct{}, 1)}
		b.partitions = append(b.partitions, p)
		b.running.Go(func() { b.run(ctx, p) })
	}
	return b
}

// close sends what waits and ends the goroutines. When ctx ends first, messages
// under way are given up: nobody was told that they were accepted.
func (b *batcher) close(ctx context.Context) {
	for _, p := range b.partitions {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.signal()
	}
	stop := context.AfterFunc(ctx, b.cancel)
	b.running.Wait()
	stop()
	b.cancel()
}

func (p *partition) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// add lets fill add one row to the open batch of a partition and returns the
// batch. lineBytes counts against the share of the publisher. It waits for room, at most the
// configured time or until ctx ends, and then returns errBusy.
func (b *batcher) add(ctx context.Context, partition int, kind recordKind, s *share, lineBytes int, fill func(columns)) (*batch, error) {
	if err := b.budget.reserve(ctx, b.config.BufferTimeout, s, int64(lineBytes)); err != nil {
		return nil, err
	}
	p := b.partitions[partition]
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			b.budget.release(s, int64(lineBytes))
			return nil, errClosed
		}
		current := p.open[kind]
		if current != nil && b.full(current) {
			p.mu.Unlock()
			if !current.awaitTaken(ctx, b.config.BufferTimeout) {
				b.budget.release(s, int64(lineBytes))
				return nil, errBusy
			}
			continue
		}
		fresh := current == nil
		if fresh {
			current = b.openBatch(p, kind)
		}
		fill(current.columns)
		current.reserve(s, int64(lineBytes))
		changed := fresh || b.full(current)
		p.mu.Unlock()
		if changed {
			p.signal()
		}
		return current, nil
	}
}

// awaitTaken tells whether the batch left in time.
func (current *batch) awaitTaken(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-current.taken:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (b *batcher) openBatch(p *partition, kind recordKind) *batch {
	current := &batch{partition: p, kind: kind, columns: b.pools[kind].Get().(columns), opened: time.Now(),
		taken: make(chan struct{}), done: make(chan struct{})}
	p.open[kind] = current
	return current
}

func (b *batcher) full(current *batch) bool {
	return current.columns.rows() >= b.config.MaxBatchRows || current.columns.bytes() >= b.config.MaxBatchBytes
}

// await says that a request has sent its last line and waits for the batch. With
// urgent, nobody else is sending either, so lingering would gather nothing.
func (b *batcher) await(current *batch, urgent bool) {
	p := current.partition
	p.mu.Lock()
	changed := p.open[current.kind] == current && (current.awaited.IsZero() || urgent && !current.urgent)
	if changed {
		if current.awaited.IsZero() {
			current.awaited = time.Now()
		}
		current.urgent = current.urgent || urgent
	}
	p.mu.Unlock()
	if changed {
		p.signal()
	}
}

// unawaitedLingers is how many times the linger a batch may fill while nobody
// waits for it: the requests that its lines came with are still being read, so it
// delays no reply, and it becomes larger.
const unawaitedLingers = 20

// due returns when an open batch has to leave.
func (b *batcher) due(current *batch) time.Time {
	latest := current.opened.Add(unawaitedLingers * b.config.Linger)
	if !current.awaited.IsZero() && current.awaited.Add(b.config.Linger).Before(latest) {
		return current.awaited.Add(b.config.Linger)
	}
	return latest
}

// run sends the messages of a partition until it is closed and empty.
func (b *batcher) run(ctx context.Context, p *partition) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, wait, closed := b.take(p)
		if due != nil {
			b.send(ctx, due)
			continue
		}
		if closed {
			return
		}
		if wait > 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// take removes the batch that must leave now, the oldest one first; without one
// it says how long the oldest may wait, 0 when there is none.
func (b *batcher) take(p *partition) (due *batch, wait time.Duration, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, current := range p.open {
		if current == nil {
			continue
		}
		left := time.Until(b.due(current))
		switch {
		case left <= 0 || current.urgent || p.closed || b.full(current):
			if due == nil || current.opened.Before(due.opened) {
				due = current
			}
		case wait == 0 || left < wait:
			wait = left
		}
	}
	if due != nil {
		p.open[due.kind] = nil
		close(due.taken)
	}
	return due, wait, p.closed
}

// send encodes, seals and produces a batch, and tells its requests the outcome.
func (b *batcher) send(ctx context.Context, current *batch) {
	rows := current.columns.rows()
	buffer := b.buffers.Get().(*[]byte)
	message, err := b.encode(current, (*buffer)[:0])
	current.columns.reset()
	b.pools[current.kind].Put(current.columns)
	current.columns = nil
	if err == nil {
		started := time.Now()
		limited, cancel := context.WithTimeout(ctx, b.config.ProduceTimeout)
		err = b.produce(limited, current.partition.number, message)
		cancel()
		b.metrics.observe(current.kind, rows, len(message.Value), time.Since(started), err)
	}
	if err != nil {
		current.err = fmt.Errorf("%w: %w", errNotAcknowledged, err)
	}
	if *buffer = message.Value; cap(*buffer) <= largestBatchBytes {
		b.buffers.Put(buffer)
	}
	for _, r := range current.reserved {
		b.budget.release(r.share, r.bytes)
	}
	close(current.done)
}

func (b *batcher) encode(current *batch, dst []byte) (stream.Message, error) {
	w := <-b.writers
	defer func() { b.writers <- w }()
	schema := current.columns.schema()
	value, err := w.Append(dst, schema, current.partition.number, current.columns.encode)
	return stream.Message{Value: value, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(schema)},
		stream.Int64Header(stream.HeaderRows, int64(current.columns.rows())),
	}}, err
}
