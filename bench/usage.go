package bench

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// allocations returns the number of heap objects that this process has ever
// allocated.
func allocations() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// steady measures allocations per row while the middle half of total rows
// passes: it leaves out how stages begin and end. Looking at the count allocates
// nothing.
func steady(ctx context.Context, rows func() int64, total int64) (perRow float64, err error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	reach := func(limit int64) error {
		for rows() < limit {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	}
	if err := reach(total / 4); err != nil {
		return 0, err
	}
	fromRows, fromObjects := rows(), allocations()
	if err := reach(total - total/4); err != nil {
		return 0, err
	}
	return float64(allocations()-fromObjects) / float64(max(1, rows()-fromRows)), nil
}

// residentMB returns the resident memory of this process; 0 where the
// system does not tell.
func residentMB() float64 {
	kb, err := strconv.ParseFloat(strings.TrimSuffix(procField("/proc/self/status", "VmRSS"), " kB"), 64)
	if err != nil {
		return 0
	}
	return kb / 1024
}

// watchResident samples resident memory until the returned function is called,
// which gives the largest sample.
func watchResident() (stop func() float64) {
	runtime.GC()
	debug.FreeOSMemory()
	quit, largest := make(chan struct{}), make(chan float64)
	go func() { // ends with stop, which waits for it
		peak := residentMB()
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				peak = max(peak, residentMB())
			case <-quit:
				largest <- max(peak, residentMB())
				return
			}
		}
	}()
	return func() float64 { close(quit); return <-largest }
}
