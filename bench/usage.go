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
// passes: it leaves out how stages begin and end, as far as it sees the count
// move. Looking at the count allocates nothing.
func steady(ctx context.Context, rows func() int64, total int64) (perRow float64, err error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	from := sample{objects: allocations()}
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		now := sample{rows(), allocations()}
		if now.rows >= total-total/4 && now.rows > from.rows {
			return float64(now.objects-from.objects) / float64(now.rows-from.rows), nil
		}
		if now.rows <= total/4 {
			from = now
		}
	}
}

// sample is what was counted at one moment.
type sample struct {
	rows    int64
	objects uint64
}

// residentMiB returns the resident memory of this process; 0 where the
// system does not tell.
func residentMiB() float64 {
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
		peak := residentMiB()
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				peak = max(peak, residentMiB())
			case <-quit:
				largest <- max(peak, residentMiB())
				return
			}
		}
	}()
	return func() float64 { close(quit); return <-largest }
}
