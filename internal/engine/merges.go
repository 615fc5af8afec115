package engine

import (
	"sync"
	"time"
)

// After a crash ClickHouse finds many parts and begins to merge them at once,
// while those who were killed with it read their states back from the same
// parts. Reading does not wait for merges, so merges wait for the reading.
const (
	stopMerges  = "SYSTEM STOP MERGES"
	startMerges = "SYSTEM START MERGES"

	startMergesAgain = time.Second // after a failure
)

// heldMerges tells when merges need not wait any longer.
type heldMerges struct {
	released chan struct{}
	once     sync.Once
}

func newHeldMerges() *heldMerges { return &heldMerges{released: make(chan struct{})} }

func (h *heldMerges) release() { h.once.Do(func() { close(h.released) }) }

// ReleaseMerges is that of Engines.
func (s *ClickHouseServer) ReleaseMerges() { s.merges.release() }

// mergeAgain lets the server merge once that is wanted, after the limit in any
// case, or ends with the server. A child that was started again meanwhile merges
// already.
func (s *ClickHouseServer) mergeAgain(limit time.Duration) {
	held := time.NewTimer(limit)
	defer held.Stop()
	select {
	case <-s.merges.released:
	case <-held.C:
	case <-s.ctx.Done():
		return
	}
	again := time.NewTicker(startMergesAgain)
	defer again.Stop()
	for {
		err := s.startMerges()
		if err == nil {
			return
		}
		s.logger.Warn("embedded clickhouse does not merge yet, trying again", "error", err)
		select {
		case <-again.C:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *ClickHouseServer) startMerges() error {
	s.mu.Lock()
	child := s.child
	s.mu.Unlock()
	if child == nil {
		return errEnded
	}
	return child.statement(s.ctx, s.ClickHouse, startMerges)
}
