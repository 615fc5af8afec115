package ingest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// budget bounds the bytes of lines that are not acknowledged yet, of all and of
// each publisher: one may hold as much as is free for the others. So one alone gets
// half of it, n of them get a share of n+1 each, and whoever comes next finds
// room (dynamic thresholds, Choudhury and Hahne 1998). The usual case is two
// atomic additions.
type budget struct {
	limit int64
	used  atomic.Int64

	mu      sync.Mutex
	waiting int
	freed   chan struct{} // closed at the next release, when somebody waits
}

// share is what one publisher holds of a budget.
type share struct{ used atomic.Int64 }

// reserve takes n bytes for a publisher. It waits for room until ctx ends or the wait is over and
// then returns errBusy.
func (b *budget) reserve(ctx context.Context, wait time.Duration, s *share, n int64) error {
	if b.try(s, n) {
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
		if b.try(s, n) {
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

func (b *budget) try(s *share, n int64) bool {
	used, own := b.used.Add(n), s.used.Add(n)
	if own <= b.limit-used {
		return true
	}
	b.used.Add(-n)
	s.used.Add(-n)
	return false
}

// release gives n bytes back.
func (b *budget) release(s *share, n int64) {
	b.used.Add(-n)
	s.used.Add(-n)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting > 0 && b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}
