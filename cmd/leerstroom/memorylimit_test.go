package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

func TestAutomaticLimit(t *testing.T) {
	for _, engines := range []int64{0, brokerMemory} {
		floor := memoryFloor + engines
		for alive := uint64(0); alive < 64<<30; alive = alive*5/4 + 1<<20 {
			limit := automaticLimit(alive, engines)
			if limit < floor || limit < int64(alive/8*9+memoryMargin) || limit > max(floor, int64(alive/8*9+memoryMargin+2*memoryStep)) {
				t.Fatalf("automaticLimit(%d, %d) = %d", alive, engines, limit)
			}
		}
	}
}

// TestBoundMemory does not run beside other tests: the limit is the process's.
func TestBoundMemory(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	limit := func() int64 { return debug.SetMemoryLimit(-1) }
	before := limit()
	m := boundMemory(700, nil)
	if got := limit(); got != 700<<20 {
		t.Errorf("the configured limit is %d, want %d", got, 700<<20)
	}
	m.stop()
	m = boundMemory(0, nil)
	if got := limit(); got < memoryFloor || got == before {
		t.Errorf("the automatic limit is %d, want at least %d", got, memoryFloor)
	}
	end := m.besideBroker()
	enginetest.Eventually(t, time.Minute, "room for the broker", func() error {
		if got := limit(); got < memoryFloor+brokerMemory {
			return fmt.Errorf("the limit is %d, want at least %d", got, memoryFloor+brokerMemory)
		}
		return nil
	})
	beside := limit()
	end()
	enginetest.Eventually(t, time.Minute, "the room to be given back", func() error {
		if got := limit(); got >= beside {
			return fmt.Errorf("the limit is %d, want less than %d", got, beside)
		}
		return nil
	})
	m.stop()
	t.Setenv("GOMEMLIMIT", "1GiB")
	boundMemory(0, nil).stop()
	if got := limit(); got != before {
		t.Errorf("the limit is %d afterwards, want %d as before", got, before)
	}
}

// TestMemoryWhileLoading does not run beside other tests, either.
func TestMemoryWhileLoading(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	t.Setenv("GOGC", "")
	usual := percentNow()
	var r readings
	m := boundMemory(0, &r)
	defer m.stop()
	done := r.begin()
	enginetest.Eventually(t, time.Minute, "the collector to look less often", func() error {
		if got := percentNow(); got != loadingPercent {
			return fmt.Errorf("GC percent = %d", got)
		}
		if got, want := debug.SetMemoryLimit(-1), int64(memoryFloor); spareBytes()/2 > want && got <= want {
			return fmt.Errorf("limit = %d", got)
		}
		return nil
	})
	done()
	enginetest.Eventually(t, time.Minute, "the collector to look as usual", func() error {
		if got := percentNow(); got != usual {
			return fmt.Errorf("GC percent = %d, want %d", got, usual)
		}
		return nil
	})
}

// percentNow returns how often the collector looks.
func percentNow() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}

func TestSpareBytes(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"proc/meminfo":                   "MemTotal: 9000 kB\nMemAvailable:    4096 kB\n",
		"proc/self/cgroup":               "0::/school/inner\n",
		"groups/school/memory.max":       "3000000\n",
		"groups/school/memory.current":   "1000000\n",
		"groups/school/inner/memory.max": "max\n",
	}
	dir := t.TempDir()
	write := func(name, content string) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		write(name, content)
	}
	spare := func() int64 { return spareBytesAt(filepath.Join(dir, "proc"), filepath.Join(dir, "groups")) }
	for _, c := range []struct {
		name, file, content string
		want                int64
	}{
		{"bounded by a group further out", "unrelated", "", 2_000_000},
		{"by the group itself", "groups/school/inner/memory.max", "500000", 0}, // nobody knows what is used
		{"known what is used", "groups/school/inner/memory.current", "400000", 100_000},
		{"more used than allowed", "groups/school/inner/memory.current", "600000", 0},
		{"in no group", "proc/self/cgroup", "1:cpu:/\n", 4096 << 10},
		{"not told", "proc/meminfo", "MemTotal: 9000 kB\n", 0},
	} {
		write(c.file, c.content)
		if got := spare(); got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, got, c.want)
		}
	}
}
