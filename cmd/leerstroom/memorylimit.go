package main

import (
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// Bounds of the automatic limit.
const (
	memoryFloor    = 448 << 20 // with what is not Go's, less than 512 MiB are resident
	brokerMemory   = 192 << 20 // more where the embedded broker lives in this process
	memoryMargin   = 32 << 20  // for stacks and what else is not heap
	memoryStep     = 16 << 20
	memoryInterval = 100 * time.Millisecond // between two looks
)

// loadingPercent is how much garbage and what is new there may be before the
// collector looks again, in parts of what was alive, while states are read back.
// Nearly everything that is allocated stays then: it would find little, and look
// often, because what is alive grows.
const loadingPercent = 400

// memoryBound sets the soft limit of this process's memory. Go's collector lets
// as much garbage lie as there is alive; what is alive here is mostly columns that
// live long and hold no pointers, so that it costs little to collect more often.
//
// A limit that was configured holds as it is, and so does GOMEMLIMIT. The
// automatic one, 0, follows what is alive, and is half of the memory that the
// machine has left while states are read back. GOGC, when set, holds at any time.
type memoryBound struct {
	automatic   bool
	limit       int64 // that was set last; owned by follow
	limitBefore int64
	percent     int // Go's, when it is not touched; negative = it must not be

	readings *readings    // nil = none
	engines  atomic.Int64 // bytes for engines in this process

	quit, ended chan struct{}
}

// boundMemory bounds memory until stop is called.
func boundMemory(limitMiB int, readings *readings) *memoryBound {
	m := &memoryBound{readings: readings, automatic: limitMiB == 0 && os.Getenv("GOMEMLIMIT") == "", limit: memoryFloor, percent: -1,
		limitBefore: debug.SetMemoryLimit(-1), quit: make(chan struct{}), ended: make(chan struct{})}
	switch {
	case m.automatic:
		debug.SetMemoryLimit(m.limit)
	case limitMiB > 0:
		debug.SetMemoryLimit(int64(limitMiB) << 20)
	}
	if os.Getenv("GOGC") == "" {
		m.percent = debug.SetGCPercent(100)
		debug.SetGCPercent(m.percent)
	}
	go func() { // until stop, which waits for it
		defer close(m.ended)
		m.follow()
	}()
	return m
}

// besideBroker makes room for the embedded broker, whose buffers and garbage are not
// the stages', until the returned function is called.
func (m *memoryBound) besideBroker() (end func()) {
	m.engines.Add(brokerMemory)
	return func() { m.engines.Add(-brokerMemory) }
}

// stop ends the bound.
func (m *memoryBound) stop() {
	close(m.quit)
	<-m.ended
	debug.SetMemoryLimit(m.limitBefore)
}

// follow moves limit and collector until the bound ends.
func (m *memoryBound) follow() {
	ticker := time.NewTicker(memoryInterval)
	defer ticker.Stop()
	loading, roomBytes := false, int64(0)
	for {
		select {
		case <-ticker.C:
		case <-m.quit:
			m.collect(loading, false)
			return
		}
		if before := loading; m.readings.areUnderWay() != before {
			loading = !before
			m.collect(before, loading)
			if roomBytes = 0; loading {
				roomBytes = spareBytes() / 2
			}
		}
		if next := max(automaticLimit(aliveBytes(), m.engines.Load()), roomBytes); m.automatic && next != m.limit {
			debug.SetMemoryLimit(next)
			m.limit = next
		}
	}
}

// collect tells the collector how often to look.
func (m *memoryBound) collect(before, loading bool) {
	switch {
	case m.percent < 0 || before == loading:
	case loading:
		debug.SetGCPercent(max(m.percent, loadingPercent))
	default:
		debug.SetGCPercent(m.percent)
	}
}

// automaticLimit is memoryFloor, with what engines in this process need, or an eighth
// more than what is alive: with a limit below that, the collector would run all the
// time. It moves in steps, for a move stops the program for a moment.
func automaticLimit(alive uint64, engines int64) int64 {
	wanted := min(alive, math.MaxInt64/16)*9/8 + memoryMargin
	return max(memoryFloor+engines, int64((wanted+memoryStep-1)/memoryStep*memoryStep))
}

// aliveBytes is what the last cycle of the collector found alive.
func aliveBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
