package handover_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leerstroom/leerstroom/internal/handover"
)

const patience = 3 * time.Second // of the bubble's clock

func TestWhoWaitsIsShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var h handover.Handover[*int]
		const readers = 5
		var mu sync.Mutex
		var all sync.WaitGroup
		sum := 0
		for range readers {
			all.Go(func() {
				if !h.Await(t.Context(), 3, patience, func(value *int) {
					mu.Lock()
					defer mu.Unlock()
					sum += *value
				}) {
					t.Error("Await = false")
				}
			})
		}
		synctest.Wait()
		other, value := 100, 7
		h.Offer(2, &other)
		h.Offer(3, &value)
		value = 1000 // the value is the offerer's again: all have taken it
		all.Wait()
		if sum != readers*7 {
			t.Errorf("taken %d, want %d", sum, readers*7)
		}
	})
}

// TestOffersKeepWaiting: as long as partitions are taken, others are worth waiting
// for; offers that nobody takes tell nothing.
func TestOffersKeepWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var h handover.Handover[int]
		const partitions = 10
		var all sync.WaitGroup
		began := time.Now()
		var last time.Duration
		for p := range partitions + 1 { // the last one is never offered
			all.Go(func() {
				if taken := h.Await(t.Context(), p, patience, func(int) {}); taken != (p < partitions) {
					t.Errorf("Await of partition %d = %v", p, taken)
				}
				if p == partitions {
					last = time.Since(began)
				}
			})
		}
		for p := range partitions {
			time.Sleep(patience * 2 / 3)
			h.Offer(p, p)
		}
		all.Wait()
		if want := partitions*patience*2/3 + patience; last != want {
			t.Errorf("who was not served waited %v, want %v", last, want)
		}
	})
}

func TestWhoIsNotServedReadsByItself(t *testing.T) {
	t.Parallel()
	never := func(int) { t.Error("taken") }
	synctest.Test(t, func(t *testing.T) {
		var h handover.Handover[int]
		if h.Await(t.Context(), 0, patience, never) {
			t.Error("Await = true, nobody has offered")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("over"))
		if h.Await(ctx, 0, patience, never) {
			t.Error("Await = true after the end of ctx")
		}
		h.Offer(0, 1)
		began := time.Now()
		if h.Await(t.Context(), 0, patience, never) || time.Since(began) != 0 {
			t.Errorf("Await of what has passed waited %v", time.Since(began))
		}
		var none *handover.Handover[int]
		none.Offer(1, 1)
		if none.Await(t.Context(), 1, patience, never) {
			t.Error("Await of nil = true")
		}
	})
}
