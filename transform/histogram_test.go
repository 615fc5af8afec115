package transform_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leerstroom/leerstroom/transform"
)

func TestBin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		skill float64
		want  uint16
	}{
		{-8, 0}, {-9, 0}, {math.Inf(-1), 0}, {math.NaN(), 0}, {math.Nextafter(-8+1.0/256, -9), 0}, {-8 + 1.0/256, 1},
		{-1e-9, 2047}, {0, 2048}, {math.Nextafter(8, 0), 4095}, {8, 4095}, {math.Inf(1), 4095},
	} {
		if got := transform.Bin(c.skill); got != c.want {
			t.Errorf("Bin(%v) = %d, want %d", c.skill, got, c.want)
		}
	}
	for bin := range uint16(transform.Bins) {
		if got := transform.Bin(transform.BinSkill(bin)); got != bin {
			t.Errorf("Bin(BinSkill(%d)) = %d", bin, got)
		}
	}
}

// TestHistogramCommutes moves and merges in two orders.
func TestHistogramCommutes(t *testing.T) {
	t.Parallel()
	random := newRandom(t)
	type move struct{ from, to uint16 }
	var moves []move
	bin := make([]uint16, 300)
	for range 5000 {
		learner := random.IntN(len(bin))
		to := uint16(random.IntN(transform.Bins))
		moves = append(moves, move{bin[learner], to})
		bin[learner] = to
	}
	run := func(parts int, order *rand.Rand) string {
		histograms := make([]transform.Histogram, parts)
		histograms[0].Add(0, int64(len(bin)))
		for _, i := range order.Perm(len(moves)) {
			h := &histograms[order.IntN(parts)]
			h.Add(moves[i].from, -1)
			h.Add(moves[i].to, 1)
		}
		var whole transform.Histogram
		for _, i := range order.Perm(parts) {
			bins, counts := histograms[i].AppendSparse(nil, nil)
			for k, bin := range bins {
				whole.Add(bin, counts[k])
			}
		}
		bins, counts := whole.AppendSparse(nil, nil)
		return fmt.Sprint(bins, counts, whole.Total())
	}
	want := run(1, rand.New(rand.NewPCG(1, 1)))
	for parts := 2; parts < 6; parts++ {
		if got := run(parts, random); got != want {
			t.Fatalf("%d parts give another histogram", parts)
		}
	}
}
