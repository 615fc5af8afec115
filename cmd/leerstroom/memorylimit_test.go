package main

import (
	"runtime/debug"
	"testing"
)

func TestAutomaticLimit(t *testing.T) {
	for alive := uint64(0); alive < 64<<30; alive = alive*5/4 + 1<<20 {
		limit := automaticLimit(alive)
		if limit < memoryFloor || limit < int64(alive/8*9+memoryMargin) || limit > max(memoryFloor, int64(alive/8*9+memoryMargin+2*memoryStep)) {
			t.Fatalf("automaticLimit(%d) = %d", alive, limit)
		}
	}
}

// TestLimitMemory does not run beside other tests: the limit is the process's.
func TestLimitMemory(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	limit := func() int64 { return debug.SetMemoryLimit(-1) }
	before := limit()
	stop := limitMemory(700)
	if got := limit(); got != 700<<20 {
		t.Errorf("the configured limit is %d, want %d", got, 700<<20)
	}
	stop()
	stop = limitMemory(0)
	if got := limit(); got < memoryFloor || got == before {
		t.Errorf("the automatic limit is %d, want at least %d", got, memoryFloor)
	}
	stop()
	t.Setenv("GOMEMLIMIT", "1GiB")
	limitMemory(0)()
	if got := limit(); got != before {
		t.Errorf("the limit is %d afterwards, want %d as before", got, before)
	}
}
