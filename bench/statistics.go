package bench

import (
	"math"
	"slices"
)

// correlation is Pearson's r of two equally long series; NaN when one of them
// does not vary.
func correlation(x, y []float64) float64 {
	n := float64(len(x))
	var mx, my float64
	for i := range x {
		mx += x[i] / n
		my += y[i] / n
	}
	var xx, yy, xy float64
	for i := range x {
		dx, dy := x[i]-mx, y[i]-my
		xx += dx * dx
		yy += dy * dy
		xy += dx * dy
	}
	return xy / math.Sqrt(xx*yy)
}

// quantile returns the smallest value that a share q of the sorted values does
// not exceed; NaN of none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// latencies are durations in milliseconds.
type latencies []float64

// quantiles returns p50, p99 and p99.9.
func (l latencies) quantiles() (p50, p99, p999 float64) {
	sorted := slices.Sorted(slices.Values(l))
	return quantile(sorted, 0.5), quantile(sorted, 0.99), quantile(sorted, 0.999)
}
