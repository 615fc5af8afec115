package engine

import (
	"context"
	"sync"
	"time"
)

// The library libchdb goes on when a write fails for want of space, as if it had
// written: it acknowledges rows that are on no disk, and finds out when it starts
// again. So it must not be alive with a full disk, and nothing that it says then
// may reach a client.
const (
	// spaceKept is left free by ClickHouse itself: it refuses to begin a part or a
	// merge with less.
	spaceKept = 64 << 20
	// spaceFloor is where ClickHouse is ended: somebody else has taken what it left.
	spaceFloor = 16 << 20

	spacePeriod = 10 * time.Millisecond  // between two looks
	spaceWait   = 250 * time.Millisecond // the same while there is none
)

// space watches how much is free in a file system.
type space struct {
	free func() (bytes int64, known bool)

	mu     sync.Mutex
	gone   chan struct{} // closed when there was too little
	closed bool
}

func newSpace(dir string) *space {
	return &space{free: func() (int64, bool) { return freeBytes(dir) }, gone: make(chan struct{})}
}

// full tells whether there is, or was since the last call of renew, too little.
func (s *space) full() bool {
	free, known := s.free()
	s.mu.Lock()
	defer s.mu.Unlock()
	if known && free < spaceFloor && !s.closed {
		s.closed = true
		close(s.gone)
	}
	return s.closed
}

// reached is closed when there was too little.
func (s *space) reached() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// renew forgets that there was too little.
func (s *space) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.gone, s.closed = make(chan struct{}), false
	}
}

// watch looks until ctx ends.
func (s *space) watch(ctx context.Context) {
	for pause(ctx, spacePeriod) {
		s.full()
	}
}

// await returns when as much is free as ClickHouse needs to write, false when ctx
// has ended, also while there is space: who tries again until it works has to end then.
func (s *space) await(ctx context.Context) bool {
	for {
		if ctx.Err() != nil {
			return false
		}
		if free, known := s.free(); !known || free >= 2*spaceKept {
			return true
		}
		if !pause(ctx, spaceWait) {
			return false
		}
	}
}
