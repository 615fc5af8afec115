package filter_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// simulated returns answers of learners of N(0, spread²) to all of some items.
func simulated(seed uint64, learners int, spread float64, difficulty, slope []float64) []filter.Response {
	random := rand.New(rand.NewPCG(seed, seed))
	var log []filter.Response
	for u := range learners {
		skill := spread * random.NormFloat64()
		for i, b := range difficulty {
			r := filter.Response{Learner: int32(u), Item: int32(i)}
			if random.Float64() < filter.Sigmoid(slope[i]*(skill-b)) {
				r.Score = 1
			}
			log = append(log, r)
		}
	}
	return log
}

func constant(x float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = x
	}
	return out
}

func TestRefitRecoversTheScale(t *testing.T) {
	t.Parallel()
	difficulty := []float64{-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2}
	slope := []float64{0.6, 1.5, 1, 0.7, 1.4, 1, 0.6, 1.5, 1}
	for _, c := range []struct {
		name  string
		slope []float64
		refit filter.RefitConfig
	}{
		{"one slope", constant(1, 9), filter.RefitConfig{}},
		{"own slopes", slope, filter.RefitConfig{Slopes: true}},
	} {
		const seed, learners = 3, 8000
		s, err := filter.Refit(simulated(seed, learners, 1.3, difficulty, c.slope), learners, 9, c.refit)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Converged {
			t.Errorf("%s: not converged after %d rounds", c.name, s.Rounds)
		}
		for i, g := range s.Difficulty {
			// A common shift and stretch of the scale belongs to the sample.
			if math.Abs(g.Mean-difficulty[i]) > 0.25 || math.Abs(s.Slope[i]-c.slope[i]) > 0.25 {
				t.Errorf("%s: item %d: difficulty %.2f slope %.2f, want %.2f and %.2f (seed %d)",
					c.name, i, g.Mean, s.Slope[i], difficulty[i], c.slope[i], seed)
			}
		}
		if v := s.Learners.Variance; v < 1.3 || v > 2.1 {
			t.Errorf("%s: variance of skills %.2f, want 1.69 (seed %d)", c.name, v, seed)
		}
	}
}

// TestRefitReportsItsError repeats a fit on many logs of the same items and
// compares the spread of the difficulties with the error that is reported.
func TestRefitReportsItsError(t *testing.T) {
	t.Parallel()
	difficulty := []float64{-1.5, -1, -0.5, 0, 0, 0.5, 1, 1.5}
	const fits, learners = 40, 300
	var reported, empirical float64
	for seed := range uint64(fits) {
		s, err := filter.Refit(simulated(seed+1, learners, 1, difficulty, constant(1, 8)), learners, 8, filter.RefitConfig{})
		if err != nil {
			t.Fatal(err)
		}
		var mean float64
		for _, g := range s.Difficulty {
			mean += g.Mean / 8
		}
		for i, g := range s.Difficulty {
			reported += s.Relative[i]
			empirical += (g.Mean - mean - difficulty[i]) * (g.Mean - mean - difficulty[i])
			if s.Relative[i] > g.Variance {
				t.Errorf("item %d: variance %v without the common shift, %v with", i, s.Relative[i], g.Variance)
			}
		}
	}
	if ratio := math.Sqrt(reported / empirical); ratio < 0.9 || ratio > 1.1 {
		t.Errorf("reported error / empirical error = %.3f, want .9 to 1.1 (seeds 1 to %d)", ratio, fits)
	}
}

func TestRefitIsAFunctionOfTheLog(t *testing.T) {
	t.Parallel()
	log := simulated(9, 100, 1, []float64{-1, 0, 1}, constant(1, 3))
	first, err := filter.Refit(log, 100, 4, filter.RefitConfig{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := filter.Refit(log, 100, 4, filter.RefitConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range first.Difficulty {
		if first.Difficulty[i] != second.Difficulty[i] {
			t.Errorf("item %d: %+v and %+v", i, first.Difficulty[i], second.Difficulty[i])
		}
	}
	// The fourth item has no answers: it gets the mean of the items, and about the
	// variance of their population.
	unseen := first.Difficulty[3]
	if math.Abs(unseen.Mean-first.Items.Mean) > 0.05 || unseen.Variance < 0.9*first.Items.Variance {
		t.Errorf("item without answers: %+v, want about %+v", unseen, first.Items)
	}
	// All learners right or wrong everywhere must not run away.
	all, err := filter.Refit([]filter.Response{{Learner: 0, Item: 0, Score: 1}, {Learner: 1, Item: 0, Score: 1}}, 2, 1, filter.RefitConfig{Slopes: true})
	if err != nil || !(math.Abs(all.Difficulty[0].Mean) < 10 && all.Difficulty[0].Variance > 0) {
		t.Errorf("an item that all have right: %+v, %v", all, err)
	}
}

func TestRefitRefusesWhatIsOutOfRange(t *testing.T) {
	t.Parallel()
	for _, log := range [][]filter.Response{nil, {{Learner: 2}}, {{Item: 1}}, {{Score: 1.5}}, {{Score: math.NaN()}}, {{Learner: -1}}} {
		if _, err := filter.Refit(log, 2, 1, filter.RefitConfig{}); err == nil {
			t.Errorf("Refit(%v) gives no error", log)
		}
	}
}

func TestLinkScalesFindsTheConstants(t *testing.T) {
	t.Parallel()
	from := []filter.Gaussian{{Mean: -1, Variance: 1e-6}, {Mean: 0, Variance: 1e-6}, {Mean: 2, Variance: 1e-6}}
	to := make([]filter.Gaussian, len(from))
	for i, g := range from {
		to[i] = filter.Gaussian{Mean: 0.75 + 1.25*g.Mean, Variance: 1e-6}
	}
	l, err := filter.LinkScales(from, to, false)
	if err != nil || math.Abs(l.Slope-1.25) > 1e-4 || math.Abs(l.Shift-0.75) > 1e-4 || l.Items != 3 {
		t.Errorf("LinkScales = %+v, %v, want slope 1.25, shift .75", l, err)
	}
	if got := l.Apply(from[2]); math.Abs(got.Mean-to[2].Mean) > 1e-4 || math.Abs(got.Variance-1.25*1.25*1e-6) > 1e-9 {
		t.Errorf("Apply = %+v, want %+v", got, to[2])
	}
	l, err = filter.LinkScales(from, to, true)
	if err != nil || l.Slope != 1 || math.Abs(l.Shift-(0.75+0.25/3)) > 1e-9 {
		t.Errorf("LinkScales with one slope = %+v, %v, want shift %v", l, err, 0.75+0.25/3)
	}
	for _, bad := range [][2][]filter.Gaussian{{nil, nil}, {from, to[:2]}, {{{}}, {{}}}} {
		if _, err := filter.LinkScales(bad[0], bad[1], false); err == nil {
			t.Errorf("LinkScales(%v) gives no error", bad)
		}
	}
}
