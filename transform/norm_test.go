package transform_test

import (
	"math"
	"testing"

	"github.com/leerstroom/leerstroom/transform"
)

// TestSpreadAgainstBruteForce adds up Φ over all learners, of whom some are known
// well and some hardly.
func TestSpreadAgainstBruteForce(t *testing.T) {
	t.Parallel()
	random := newRandom(t)
	const n = 20_000
	type known struct{ skill, variance float64 }
	learners := make([]known, n)
	var h transform.Histogram
	for i := range learners {
		l := known{random.NormFloat64() * 0.8, 0.03 + random.Float64()*random.Float64()*0.7}
		learners[i] = l
		h.AddUncertain(transform.Bin(l.skill), transform.VarianceClass(l.variance), 1)
	}
	group := &transform.NormGroup{}
	group.Bins, group.Counts = h.AppendSparse(nil, nil)
	group.Variances = h.AppendVariances(nil)
	norm, err := transform.NewNorm(group)
	if err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	for range 200 {
		skill, variance := random.NormFloat64()*1.5, 0.0
		if random.IntN(2) == 0 {
			variance = random.Float64()
		}
		want := 0.0
		for _, l := range learners {
			want += math.Erfc((l.skill-skill)/math.Sqrt(2*(l.variance+variance))) / 2
		}
		worst = max(worst, 100*math.Abs(norm.BelowTrue(skill, variance)-want)/n)
	}
	t.Logf("largest difference from brute force %.4f points", worst)
	// Their uncertainty differs, and a block holds its mean only.
	if worst > 0.3 {
		t.Errorf("largest difference = %.4f points, want <= .3", worst)
	}
}

func TestVarianceClass(t *testing.T) {
	t.Parallel()
	for variance := 0.001; variance < 60; variance *= 1.01 {
		got := float64(transform.ClassVariance(transform.VarianceClass(variance))) * transform.VarianceUnit
		if math.Abs(got/variance-1) > 0.025 {
			t.Fatalf("class of %v counts for %v", variance, got)
		}
	}
	for _, variance := range []float64{0, -1, math.NaN()} {
		if got := transform.VarianceClass(variance); got != 0 {
			t.Errorf("VarianceClass(%v) = %d, want 0", variance, got)
		}
	}
}

// TestNormCounts holds a norm against the histogram that it is made of.
func TestNormCounts(t *testing.T) {
	t.Parallel()
	random := newRandom(t)
	var h transform.Histogram
	counts := make([]int64, transform.Bins)
	for range 3000 {
		bin := uint16(random.IntN(40) * 97)
		h.AddUncertain(bin, 80, 1)
		counts[bin]++
	}
	group := &transform.NormGroup{}
	group.Bins, group.Counts = h.AppendSparse(nil, nil)
	group.Variances = h.AppendVariances(nil)
	norm, err := transform.NewNorm(group)
	if err != nil {
		t.Fatal(err)
	}
	below := int64(0)
	for bin, n := range counts {
		if norm.At(bin) != n || norm.BelowBin(bin) != below {
			t.Fatalf("bin %d: %d learners, %d below, want %d, %d", bin, norm.At(bin), norm.BelowBin(bin), n, below)
		}
		below += n
	}
	if norm.Learners() != 3000 || norm.At(-1) != 0 || norm.At(transform.Bins) != 0 {
		t.Errorf("Learners = %d, want 3000, and nobody outside", norm.Learners())
	}
	for name, bad := range map[string]transform.NormGroup{
		"counts":      {Bins: []uint16{1}, Counts: nil},
		"nobody":      {Bins: []uint16{1}, Counts: []int64{0}, Variances: []int64{1}},
		"descending":  {Bins: []uint16{2, 1}, Counts: []int64{1, 1}, Variances: []int64{1}},
		"beyond":      {Bins: []uint16{transform.Bins}, Counts: []int64{1}, Variances: []int64{1}},
		"no variance": {Bins: []uint16{1}, Counts: []int64{1}},
		"variances":   {Bins: []uint16{1}, Counts: []int64{1}, Variances: []int64{1, 2}},
	} {
		if _, err := transform.NewNorm(&bad); err == nil {
			t.Errorf("%s: a norm that does not fit together is taken", name)
		}
	}
}
