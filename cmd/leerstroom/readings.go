package main

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// readingPause is how long nothing is read back before a process counts as one
	// that has all its states.
	readingPause = 2 * time.Second

	readingInterval = 100 * time.Millisecond // between two looks at that
)

// readings knows whether states are being read back, which is nearly all that a
// process does after its start: other work waits for it. Nothing is
// ever read back where it is nil. It is safe for concurrent use.
type readings struct {
	underWay atomic.Int64
	last     atomic.Int64 // when the last one began or ended, in nanoseconds since 1970; 0 = none did
}

// begin says that states are read back until the returned function is called.
func (r *readings) begin() (done func()) {
	if r == nil {
		return func() {}
	}
	r.last.Store(time.Now().UnixNano())
	r.underWay.Add(1)
	return func() {
		r.last.Store(time.Now().UnixNano())
		r.underWay.Add(-1)
	}
}

// areUnderWay tells whether states are, or were a moment ago, read back.
func (r *readings) areUnderWay() bool {
	return r != nil && (r.underWay.Load() > 0 || time.Since(time.Unix(0, r.last.Load())) < readingPause)
}

// await waits until states were read back and no more are, or until ctx ends; it
// returns false then.
func (r *readings) await(ctx context.Context) bool {
	ticker := time.NewTicker(readingInterval)
	defer ticker.Stop()
	for r == nil || r.last.Load() == 0 || r.areUnderWay() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
