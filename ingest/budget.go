package ingest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// budget bounds the bytes of lines that are not acknowledged yet. The usual case
// is one atomic addition.
type budget struct {
	limit int64
	used  atomic.Int64

	mu      sync.Mutex
	waiting int
	freed   chan struct{} // closed at the next release, when somebody waits
}

// reserve takes n bytes. It waits for room until ctx ends or the wait is over and
// then returns errBusy.
func (b *budget) reserve(ctx context.Context, wait time.Duration, n int64) error {
	if b.try(n) {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	b.mu.Lock()
	b.waiting++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.waiting--
		b.mu.Unlock()
	}()
	for {
		b.mu.Lock()
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		// A release before this point found nobody to wake.
		if b.try(n) {
			return nil
		}
		select {
		case <-freed:
		case <-timer.C:
			return errBusy
		case <-ctx.Done():
			return errBusy
		}
	}
}

func (b *budget) try(n int64) bool {
	if used := b.used.Add(n); used <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

// release gives n bytes back.
func (b *budget) release(n int64) {
	b.used.Add(-n)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting > 0 && b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}
