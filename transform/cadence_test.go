package transform_test

import (
	"context"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/transform"
)

// countedCheckpoints is a store with a count of the checkpoints that it was given.
type countedCheckpoints struct {
	transform.Persistence
	n int
}

func (c *countedCheckpoints) Checkpoint(ctx context.Context, checkpoint *transform.Checkpoint) error {
	c.n++
	return c.Persistence.Checkpoint(ctx, checkpoint)
}

// TestBusyPartitionsCheckpointSeldom: where answers keep arriving a checkpoint is
// made every fourth interval, and an interval after the last one arrived; none while
// the store still has the one before.
func TestBusyPartitionsCheckpointSeldom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newRandom(t), 1)
	w.normsEvery = time.Hour // they call for checkpoints of their own
	counter := &countedCheckpoints{Persistence: w.store}
	w.persistence = counter
	load := newWorkload(w.random, 20, 30)
	p := w.start()
	k := w.worker(w.topics.Answers, 0, p.stage.Handler(0), 1, -1)
	rawOffset := int64(0)
	arrive := func(passed time.Duration, storeKeepsUp bool) {
		t.Helper()
		const every = 250 * time.Millisecond
		for ; passed > 0; passed -= every {
			b := newColumns(rawOffset)
			for range 10 {
				answered := load.row()
				answered.revision = 0 // a correction calls for a checkpoint at once
				b.add(answered)
			}
			w.send(0, &b.c)
			rawOffset++
			w.pass(every)
			for atEnd := false; !atEnd; {
				var err error
				if atEnd, err = k.step(10); err != nil {
					t.Fatal(err)
				}
			}
			if storeKeepsUp {
				w.store.advance(-1)
			}
		}
	}
	want := func(n int, when string) {
		t.Helper()
		if counter.n != n {
			t.Fatalf("%d checkpoints %s, want %d", counter.n, when, n)
		}
	}
	idle := func(passed time.Duration) {
		t.Helper()
		w.pass(passed)
		if _, err := k.step(1); err != nil {
			t.Fatal(err)
		}
	}
	arrive(20*time.Second, true)
	want(5, "in 20 s in which answers kept arriving") // after 1, 5, 9, 13 and 17 s
	idle(900 * time.Millisecond)
	want(5, "before nothing has come for an interval")
	idle(100 * time.Millisecond)
	want(6, "after an interval without answers")
	w.store.advance(-1)
	idle(time.Minute)
	want(6, "when nothing has come since the last")
	arrive(20*time.Second, false)
	want(7, "while the store does not make them durable")
	w.store.advance(-1)
	arrive(250*time.Millisecond, true)
	want(8, "when it has")
}
