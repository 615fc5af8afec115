package main

import (
	"os"
	"runtime"
	"testing"
)

// TestThreadForBroker does not run beside other tests: the number is the process's.
func TestThreadForBroker(t *testing.T) {
	t.Setenv("GOMAXPROCS", "") // restores it afterwards
	if err := os.Unsetenv("GOMAXPROCS"); err != nil {
		t.Fatal(err)
	}
	before := runtime.GOMAXPROCS(0)
	end := threadForBroker()
	if got := runtime.GOMAXPROCS(0); got != before+1 {
		t.Errorf("%d threads beside the broker, want %d", got, before+1)
	}
	end()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d threads afterwards, want %d as before", got, before)
	}
	t.Setenv("GOMAXPROCS", "7")
	threadForBroker()()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d threads, although GOMAXPROCS is set, want %d", got, before)
	}
}
