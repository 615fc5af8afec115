package stream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Tail follows partitions of a topic without a group. Every follower sees every
// message: it is how a read model is kept.
type Tail struct {
	Client *Client
	Topic  string
	From   []int64 // offset to begin at, per partition; its length is the number of partitions
	// Handle is called for one partition at a time by one goroutine per
	// partition; different partitions run at the same time. An error ends Run.
	Handle func(ctx context.Context, partition int, messages []Message) error

	behind   atomic.Int64
	caughtUp chan struct{}
}

// NewTail makes a tail; Run does the work.
func NewTail(client *Client, topic string, from []int64, handle func(ctx context.Context, partition int, messages []Message) error) *Tail {
	t := &Tail{Client: client, Topic: topic, From: from, Handle: handle, caughtUp: make(chan struct{})}
	t.behind.Store(int64(len(from)))
	if len(from) == 0 {
		close(t.caughtUp)
	}
	return t
}

// CaughtUp is closed when every partition has reached the end that it had when
// it was first looked at.
func (t *Tail) CaughtUp() <-chan struct{} { return t.caughtUp }

// Run follows the topic until ctx ends (nil) or Handle fails.
func (t *Tail) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for partition := range t.From {
		group.Go(func() error { return t.follow(ctx, partition) })
	}
	return group.Wait()
}

func (t *Tail) follow(ctx context.Context, partition int) error {
	next, end, ok := t.begin(ctx, partition)
	if !ok {
		return nil
	}
	var batch Batch
	pause := newBackoff(50*time.Millisecond, time.Second)
	for behind := true; ctx.Err() == nil; {
		if behind && next >= end {
			behind = false
			if t.behind.Add(-1) == 0 {
				close(t.caughtUp)
			}
		}
		err := t.Client.Fetch(ctx, t.Topic, partition, next, LongestWait, &batch)
		if errors.Is(err, ErrOffsetOutOfRange) {
			return err
		}
		if err != nil {
			t.retry(ctx, partition, err, pause)
			continue
		}
		pause = newBackoff(50*time.Millisecond, time.Second)
		if len(batch.Messages) == 0 {
			continue
		}
		if err := t.Handle(ctx, partition, batch.Messages); err != nil {
			return fmt.Errorf("follow %s/%d from offset %d: %w", t.Topic, partition, next, err)
		}
		next = batch.Messages[len(batch.Messages)-1].Offset + 1
	}
	return nil
}

// begin looks where the partition ends now. A state that reflects offsets which
// retention has cut off needs none of them, so reading begins no earlier than
// the log does.
func (t *Tail) begin(ctx context.Context, partition int) (next, end int64, ok bool) {
	pause := newBackoff(50*time.Millisecond, time.Second)
	for ctx.Err() == nil {
		first, end, err := t.Client.Offsets(ctx, t.Topic, partition)
		if err == nil {
			return max(t.From[partition], first), end, true
		}
		t.retry(ctx, partition, err, pause)
	}
	return 0, 0, false
}

func (t *Tail) retry(ctx context.Context, partition int, err error, pause *backoff) {
	if ctx.Err() == nil {
		t.Client.config.Logger.WarnContext(ctx, "following a topic failed, trying again", "topic", t.Topic, "partition", partition, "error", err)
	}
	pause.wait(ctx)
}
