package main

import (
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Bounds of the automatic limit.
const (
	memoryFloor    = 448 << 20 // with what is not Go's, less than 512 MiB are resident
	memoryMargin   = 32 << 20  // for stacks and what else is not heap
	memoryStep     = 16 << 20
	memoryInterval = 100 * time.Millisecond // between two looks
)

// limitMemory sets the soft limit of this process's memory until the returned
// function is called. Go's collector lets as much garbage lie as there is alive;
// what is alive here is mostly columns that live long and hold no pointers, so
// that it costs little to collect more often.
//
// A limit that was configured holds as it is, and so does GOMEMLIMIT. The
// automatic one, 0, follows what is alive.
func limitMemory(limitMiB int) (stop func()) {
	if limitMiB == 0 && os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	limit := int64(limitMiB) << 20
	if limitMiB == 0 {
		limit = memoryFloor
	}
	before := debug.SetMemoryLimit(limit)
	if limitMiB > 0 {
		return func() { debug.SetMemoryLimit(before) }
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() { // until stop, which waits for it
		defer close(ended)
		followMemory(limit, quit)
	}()
	return func() {
		close(quit)
		<-ended
		debug.SetMemoryLimit(before)
	}
}

// followMemory moves the automatic limit until quit is closed.
func followMemory(limit int64, quit <-chan struct{}) {
	ticker := time.NewTicker(memoryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-quit:
			return
		}
		if next := automaticLimit(aliveBytes()); next != limit {
			debug.SetMemoryLimit(next)
			limit = next
		}
	}
}

// automaticLimit is memoryFloor, or an eighth more than what is alive: with a limit
// below that, the collector would run all the time. It moves in steps, for a move
// stops the program for a moment.
func automaticLimit(alive uint64) int64 {
	wanted := min(alive, math.MaxInt64/16)*9/8 + memoryMargin
	return max(memoryFloor, int64((wanted+memoryStep-1)/memoryStep*memoryStep))
}

// aliveBytes is what the last cycle of the collector found alive.
func aliveBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
