// Package handover lets one part of a process take in what another part has read
// from outside when it begins, instead of reading the same. Who reads offers; who
// waits is shown what was read. It saves work and decides nothing: who comes too
// late, or has waited long enough, reads by itself.
package handover

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Handover is about values that belong to partitions. The zero value is usable;
// nobody can offer or wait through nil. It is safe for concurrent use.
type Handover[T any] struct {
	mu      sync.Mutex
	waiting map[int][]*waiter[T]
	passed  map[int]bool  // was offered
	offered chan struct{} // closed by the next offer that somebody takes; nil when nobody waits for it
}

type waiter[T any] struct {
	take func(T)
	done chan struct{}
}

// Offer shows a value to all who wait for it now, one after the other, and
// returns when they are done with it. They must not change it.
func (h *Handover[T]) Offer(partition int, value T) {
	if h == nil {
		return
	}
	h.mu.Lock()
	if h.passed == nil {
		h.passed = make(map[int]bool)
	}
	h.passed[partition] = true
	waiting := h.waiting[partition]
	delete(h.waiting, partition)
	if len(waiting) > 0 && h.offered != nil {
		close(h.offered)
		h.offered = nil
	}
	h.mu.Unlock()
	for _, w := range waiting {
		w.take(value)
		close(w.done)
	}
}

// Await waits for the first offer of a partition and takes it, in the goroutine
// of who offers. It returns false, and nothing was taken, when that has passed,
// when ctx ends, and when nobody has taken any partition for as long as patience.
func (h *Handover[T]) Await(ctx context.Context, partition int, patience time.Duration, take func(T)) bool {
	if h == nil || patience <= 0 {
		return false
	}
	w := &waiter[T]{take: take, done: make(chan struct{})}
	if !h.wait(partition, w) {
		return false
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-w.done:
			return true
		case <-h.progress():
			timer.Reset(patience)
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		if h.withdraw(partition, w) {
			return false
		}
		<-w.done // it is being taken
		return true
	}
}

// wait returns false when it is too late.
func (h *Handover[T]) wait(partition int, w *waiter[T]) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.passed[partition] {
		return false
	}
	if h.waiting == nil {
		h.waiting = make(map[int][]*waiter[T])
	}
	h.waiting[partition] = append(h.waiting[partition], w)
	return true
}

// progress returns what the next offer closes.
func (h *Handover[T]) progress() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.offered == nil {
		h.offered = make(chan struct{})
	}
	return h.offered
}

// withdraw returns false when it is too late.
func (h *Handover[T]) withdraw(partition int, w *waiter[T]) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.waiting[partition]
	i := slices.Index(list, w)
	if i < 0 {
		return false
	}
	h.waiting[partition] = slices.Delete(list, i, i+1)
	return true
}
