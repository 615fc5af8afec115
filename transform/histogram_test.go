package transform_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
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

// TestPercentileAgainstBruteForce ranks learners among 200,000 by their skills
// themselves. Half a bin of a normal distribution is at most .08 points.
func TestPercentileAgainstBruteForce(t *testing.T) {
	t.Parallel()
	random := newRandom(t)
	skills := make([]float64, 200_000)
	var h transform.Histogram
	for i := range skills {
		skills[i] = random.NormFloat64()
		if i%10 == 0 {
			skills[i] = 0.25 // ties
		}
		h.Add(transform.Bin(skills[i]), 1)
	}
	slices.Sort(skills)
	d := transform.NewDistribution(&h)
	for range 2000 {
		skill := random.NormFloat64() * 1.5
		if random.IntN(10) == 0 {
			skill = 0.25
		}
		below, _ := slices.BinarySearch(skills, skill)
		upTo, _ := slices.BinarySearch(skills, math.Nextafter(skill, 9))
		want := 50 * float64(below+upTo) / float64(len(skills))
		if skill != 0.25 && transform.Bin(skill) == transform.Bin(0.25) {
			continue // shares the bin with the ties
		}
		if got := d.Percentile(skill); math.Abs(got-want) > 0.1 {
			t.Fatalf("Percentile(%v) = %v, want %v", skill, got, want)
		}
	}
	band := d.Band(0.5, 0.04)
	if want := (transform.Band{Value: d.Percentile(0.5), Low: d.Percentile(0.5 - 1.645*0.2), High: d.Percentile(0.5 + 1.645*0.2)}); band != want {
		t.Errorf("Band = %v, want %v", band, want)
	}
	for _, percentile := range []float64{0, 1, 25, 50, 99, 100} {
		want := skills[min(int(percentile/100*float64(len(skills))), len(skills)-1)]
		if got := d.Skill(percentile); math.Abs(got-want) > 1.0/256 {
			t.Errorf("Skill(%v) = %v, want %v", percentile, got, want)
		}
	}
}

// TestExpectedAgainstBruteForce averages Φ over all learners.
func TestExpectedAgainstBruteForce(t *testing.T) {
	t.Parallel()
	random := newRandom(t)
	skills := make([]float64, 5000)
	var h transform.Histogram
	for i := range skills {
		skills[i] = random.NormFloat64()
		h.Add(transform.Bin(skills[i]), 1)
	}
	for range 50 {
		mean, variance := random.NormFloat64(), 0.01+random.Float64()
		sum := 0.0
		for _, s := range skills {
			sum += math.Erfc((s-mean)/math.Sqrt(2*variance)) / 2
		}
		want := 100 * sum / float64(len(skills))
		if got := h.Expected(mean, variance); math.Abs(got-want) > 0.1 {
			t.Fatalf("Expected(%v, %v) = %v, want %v", mean, variance, got, want)
		}
	}
}

func TestEmptyHistogram(t *testing.T) {
	t.Parallel()
	var h transform.Histogram
	d := transform.NewDistribution(&h)
	if got := d.Percentile(1); got != 50 {
		t.Errorf("Percentile in an empty group = %v, want 50", got)
	}
	if got := h.Expected(1, 1); got != 50 {
		t.Errorf("Expected in an empty group = %v, want 50", got)
	}
	if got := d.Skill(50); got != 0 {
		t.Errorf("Skill in an empty group = %v, want 0", got)
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
			histograms[order.IntN(parts)].Move(moves[i].from, moves[i].to)
		}
		var whole transform.Histogram
		for _, i := range order.Perm(parts) {
			bins, counts := histograms[i].AppendSparse(nil, nil)
			if i%2 == 0 {
				whole.Merge(&histograms[i])
			} else {
				whole.AddSparse(bins, counts)
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
