package stream

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Handler does the work of one stage for one partition. All its methods are
// called by one goroutine. Start restores the durable state and returns the
// offset to read from; it may be called again after an error or when the
// partition comes back.
type Handler interface {
	Start(ctx context.Context, assignment *Assignment) (next int64, err error)
	Handle(ctx context.Context, messages []Message) error
	// Idle is called when nothing arrived for a while: the moment to flush.
	Idle(ctx context.Context) error
	// Stop ends what Start began. Work that isn't durable is done again by the
	// next owner of the partition.
	Stop()
}

// Assignment is a partition that the group gave to this process for one
// generation.
type Assignment struct {
	Topic      string
	Partition  int
	Generation int32 // grows with every rebalance of the group
	Committed  int64 // offset to read next by the group's account, -1 when none

	committed atomic.Int64
}

// Commit marks everything below the offset as durable. It returns at once; the
// consumer tells the group in the background. Any goroutine may call it.
func (a *Assignment) Commit(offset int64) {
	for {
		old := a.committed.Load()
		if offset <= old || a.committed.CompareAndSwap(old, offset) {
			return
		}
	}
}

// delivery moves one partition through its handler.
type delivery struct {
	client     *Client
	assignment *Assignment
	handler    Handler
	slots      chan struct{} // bounds the handlers at work
	backlog    chan *Batch   // buffers that the partitions share
	idle       time.Duration
}

// run is the delivery guarantee: fetch (which checks the CRC), handle, and only
// what the handler committed is ever committed. An error starts the partition
// again from its durable state; the end of ctx ends it.
func (d *delivery) run(ctx context.Context) {
	pause := newBackoff(100*time.Millisecond, 5*time.Second)
	for ctx.Err() == nil {
		began := time.Now()
		err := d.deliver(ctx)
		d.handler.Stop()
		if ctx.Err() != nil {
			return
		}
		d.client.config.Logger.ErrorContext(ctx, "partition failed, starting it again",
			"topic", d.assignment.Topic, "partition", d.assignment.Partition, "error", err)
		if time.Since(began) > time.Minute {
			pause = newBackoff(100*time.Millisecond, 5*time.Second)
		}
		pause.wait(ctx)
	}
}

func (d *delivery) deliver(ctx context.Context) error {
	var next int64
	err := d.work(ctx, func() (err error) {
		next, err = d.handler.Start(ctx, d.assignment)
		return err
	})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	var own Batch
	for end := next + 1; ; {
		if next >= end {
			end, err = d.pass(ctx, &next, &own, d.idle)
			if cap(own.arena) > keepOwnBytes {
				own = Batch{}
			}
		} else {
			end, err = d.catchUp(ctx, &next)
		}
		if err != nil {
			return err
		}
	}
}

// keepOwnBytes is the largest buffer that a partition keeps for itself.
const keepOwnBytes = 64 << 10

// catchUp passes on messages of a backlog, in a buffer that the partitions of the
// consumer share: however many lag, no more is in memory than its workers need.
func (d *delivery) catchUp(ctx context.Context, next *int64) (end int64, err error) {
	select {
	case batch := <-d.backlog:
		defer func() { d.backlog <- batch }()
		before := *next
		if end, err = d.pass(ctx, next, batch, 0); *next == before {
			end = before // nothing came after all: wait as if there were no backlog
		}
		return end, err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// pass fetches messages and hands them over. It moves next behind them, and
// returns the offset that the topic's next message will get.
func (d *delivery) pass(ctx context.Context, next *int64, batch *Batch, maxWait time.Duration) (end int64, err error) {
	if err := d.client.Fetch(ctx, d.assignment.Topic, d.assignment.Partition, *next, maxWait, batch); err != nil {
		return 0, err
	}
	switch n := len(batch.Messages); {
	case n > 0:
		if err := d.work(ctx, func() error { return d.handler.Handle(ctx, batch.Messages) }); err != nil {
			return 0, fmt.Errorf("handle from offset %d: %w", *next, err)
		}
		*next = batch.Messages[n-1].Offset + 1
	case maxWait > 0:
		if err := d.work(ctx, func() error { return d.handler.Idle(ctx) }); err != nil {
			return 0, fmt.Errorf("idle at offset %d: %w", *next, err)
		}
	}
	return batch.HighWatermark, nil
}

// work runs a step of the handler in one of the worker slots.
func (d *delivery) work(ctx context.Context, step func() error) error {
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-d.slots }()
	return step()
}
