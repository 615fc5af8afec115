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
	light      chan *Batch   // bounds those at work beside them on little
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
	err := work(ctx, d.slots, func(*Batch) (err error) {
		next, err = d.handler.Start(ctx, d.assignment)
		return err
	})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for end := next + 1; ; {
		if next >= end {
			end, err = d.await(ctx, &next)
		} else {
			end, err = d.catchUp(ctx, &next)
		}
		if err != nil {
			return err
		}
	}
}

// await passes on the next messages once there are any. The broker is asked to
// wait long, for a request costs it and this process more than waiting does;
// whenever nothing came for a while, the handler hears it.
func (d *delivery) await(ctx context.Context, next *int64) (end int64, err error) {
	fetching, cancel := context.WithCancel(ctx)
	defer cancel()
	arrived, from := make(chan arrival, 1), *next
	go func() {
		f, err := d.client.fetch(fetching, d.assignment.Topic, d.assignment.Partition, from, LongestWait, waitFetchBytes)
		arrived <- arrival{f, err}
	}()
	idle := time.NewTicker(d.idle)
	defer idle.Stop()
	for {
		select {
		case a := <-arrived:
			if a.err != nil {
				return 0, a.err
			}
			return d.passLight(ctx, next, &a.fetched)
		case <-idle.C:
			if err := work(ctx, d.slots, func(*Batch) error { return d.handler.Idle(ctx) }); err != nil {
				cancel()
				<-arrived // nothing of this partition is under way when it starts again
				return 0, fmt.Errorf("idle at offset %d: %w", *next, err)
			}
		}
	}
}

// arrival is how a fetch ended.
type arrival struct {
	fetched fetched
	err     error
}

// catchUp passes on messages of a backlog: however many partitions lag, no more
// is in memory than keeps the workers of the consumer busy.
func (d *delivery) catchUp(ctx context.Context, next *int64) (end int64, err error) {
	select {
	case d.catching <- struct{}{}:
		defer func() { <-d.catching }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	f, err := d.client.fetch(ctx, d.assignment.Topic, d.assignment.Partition, *next, 0, maxFetchBytes)
	if err != nil {
		return 0, err
	}
	before := *next
	if end, err = d.pass(ctx, next, &f); *next == before {
		end = before // nothing came after all: wait as if there were no backlog
	}
	return end, err
}

// pass hands over what was fetched. It moves next behind it, and returns the
// offset that the topic's next message will get.
func (d *delivery) pass(ctx context.Context, next *int64, f *fetched) (end int64, err error) {
	err = work(ctx, d.slots, func(batch *Batch) error {
		if _, err := f.read(batch, wholly); err != nil {
			return err
		}
		end = batch.HighWatermark
		return d.handle(ctx, next, batch)
	})
	return end, err
}

// passLight is pass for what was waited for. Handling that is mostly waiting for the
// broker, so that more may be at it; what is more than little takes a worker, too,
// for the memory that handling takes.
func (d *delivery) passLight(ctx context.Context, next *int64, f *fetched) (end int64, err error) {
	err = work(ctx, d.light, func(batch *Batch) error {
		whole, err := f.read(batch, waitFetchBytes)
		if err != nil {
			return err
		}
		end = batch.HighWatermark
		if whole {
			return d.handle(ctx, next, batch)
		}
		return work(ctx, d.slots, func(large *Batch) error {
			large.takeOver(batch)
			if _, err := f.read(large, wholly); err != nil {
				return err
			}
			return d.handle(ctx, next, large)
		})
	})
	return end, err
}

// handle gives messages to the handler and moves next behind them.
func (d *delivery) handle(ctx context.Context, next *int64, batch *Batch) error {
	n := len(batch.Messages)
	if n == 0 {
		return nil
	}
	if err := d.handler.Handle(ctx, batch.Messages); err != nil {
		return fmt.Errorf("handle from offset %d: %w", *next, err)
	}
	*next = batch.Messages[n-1].Offset + 1
	return nil
}

// work runs a step of the handler in one of some slots. The batch is the step's
// until it returns.
func work(ctx context.Context, slots chan *Batch, step func(batch *Batch) error) error {
	select {
	case batch := <-slots:
		defer func() { slots <- batch }()
		return step(batch)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
