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
	slots      chan *Batch   // bounds the handlers at work
	catching   chan struct{} // bounds the fetches that don't wait
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
	err := d.work(ctx, func(*Batch) (err error) {
		next, err = d.handler.Start(ctx, d.assignment)
		return err
	})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for end := next + 1; ; {
		if next >= end {
			end, err = d.pass(ctx, &next, d.idle, waitFetchBytes)
		} else {
			end, err = d.catchUp(ctx, &next)
		}
		if err != nil {
			return err
		}
	}
}

// catchUp passes on messages of a backlog: however many partitions lag, no more
// is in memory than keeps the workers of the consumer busy.
func (d *delivery) catchUp(ctx context.Context, next *int64) (end int64, err error) {
	select {
	case d.catching <- struct{}{}:
		defer func() { <-d.catching }()
		before := *next
		if end, err = d.pass(ctx, next, 0, maxFetchBytes); *next == before {
			end = before // nothing came after all: wait as if there were no backlog
		}
		return end, err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// pass fetches messages and hands them over. It moves next behind them, and
// returns the offset that the topic's next message will get.
func (d *delivery) pass(ctx context.Context, next *int64, maxWait time.Duration, maxBytes int64) (end int64, err error) {
	fetched, err := d.client.fetch(ctx, d.assignment.Topic, d.assignment.Partition, *next, maxWait, maxBytes)
	if err != nil {
		return 0, err
	}
	err = d.work(ctx, func(batch *Batch) error {
		if err := fetched.read(batch); err != nil {
			return err
		}
		end = batch.HighWatermark
		switch n := len(batch.Messages); {
		case n > 0:
			if err := d.handler.Handle(ctx, batch.Messages); err != nil {
				return fmt.Errorf("handle from offset %d: %w", *next, err)
			}
			*next = batch.Messages[n-1].Offset + 1
		case maxWait > 0:
			if err := d.handler.Idle(ctx); err != nil {
				return fmt.Errorf("idle at offset %d: %w", *next, err)
			}
		}
		return nil
	})
	return end, err
}

// work runs a step of the handler in one of the worker slots. The batch is the
// step's until it returns.
func (d *delivery) work(ctx context.Context, step func(batch *Batch) error) error {
	select {
	case batch := <-d.slots:
		defer func() { d.slots <- batch }()
		return step(batch)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
