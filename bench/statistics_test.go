package bench

import (
	"math"
	"testing"
)

func TestCorrelation(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		x, y []float64
		want float64
	}{
		{[]float64{1, 2, 3}, []float64{2, 4, 6}, 1},
		{[]float64{1, 2, 3}, []float64{3, 2, 1}, -1},
		{[]float64{1, 2, 3, 4}, []float64{1, 3, 2, 4}, 0.8},
		{[]float64{1, 1, 1}, []float64{1, 2, 3}, math.NaN()},
	} {
		got := correlation(test.x, test.y)
		if math.Abs(got-test.want) > 1e-12 || math.IsNaN(got) != math.IsNaN(test.want) {
			t.Errorf("correlation(%v, %v) = %v, want %v", test.x, test.y, got, test.want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var l latencies
	for i := range 1000 {
		l = append(l, float64(1000-i))
	}
	if p50, p99, p999 := l.quantiles(); p50 != 500 || p99 != 990 || p999 != 999 {
		t.Errorf("quantiles of 1..1000 = %v %v %v, want 500 990 999", p50, p99, p999)
	}
	if p50, _, _ := (latencies{}).quantiles(); !math.IsNaN(p50) {
		t.Errorf("quantile of nothing = %v, want NaN", p50)
	}
}
