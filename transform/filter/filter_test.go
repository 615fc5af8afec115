package filter_test

import (
	"math"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
	"pgregory.net/rapid"
)

// near tells whether two numbers agree to 1e-12, absolutely or relatively.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-12*max(1, math.Abs(a), math.Abs(b)) }

func gaussian(t *rapid.T, name string) filter.Gaussian {
	return filter.Gaussian{
		Mean:     rapid.Float64Range(-4, 4).Draw(t, name+" mean"),
		Variance: rapid.Float64Range(1e-4, 4).Draw(t, name+" variance"),
	}
}

func learner(t *rapid.T) filter.Learner {
	return filter.Learner{gaussian(t, "overall"), gaussian(t, "subject"), gaussian(t, "goal")}
}

func shared(t *rapid.T) filter.Shared {
	return filter.Shared{gaussian(t, "item"), gaussian(t, "goal component"), gaussian(t, "global")}
}

func question(t *rapid.T) filter.Question {
	return filter.Question{
		Guess:          rapid.SampledFrom([]float64{0, 0, 0.25, 0.5}).Draw(t, "guess"),
		Discrimination: rapid.SampledFrom([]float64{0, 1, 0.5, 2}).Draw(t, "discrimination"),
		Weight:         rapid.SampledFrom([]float64{0, 1, 0.5}).Draw(t, "weight"),
	}
}

func TestDefaultParametersAreValid(t *testing.T) {
	t.Parallel()
	p := filter.DefaultParameters()
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	p.Learner[filter.LayerSubject].DriftPerDay = math.NaN()
	if err := p.Validate(); err == nil {
		t.Error("a drift that is not a number is accepted")
	}
}

func TestOneAnswerHasTheKnownPosterior(t *testing.T) {
	t.Parallel()
	// One layer of variance 1 against an item known to have difficulty 0: p = 1/2,
	// h = 1/4, D = 5/4, so the mean moves by (1/2)/(5/4) and the variance becomes
	// 1 - (1/4)/(5/4).
	l := filter.Learner{filter.LayerOverall: {Variance: 1}}
	var s filter.Shared
	p := filter.Predict(&l, &s, filter.Question{})
	if p.P != 0.5 || p.Z != 0 || p.V != 1 {
		t.Fatalf("Predict = %+v, want P 0.5, Z 0, V 1", p)
	}
	l.Update(&p, 1)
	want := filter.Learner{filter.LayerOverall: {Mean: 0.4, Variance: 0.8}}
	if l != want {
		t.Errorf("after a right answer: %+v, want %+v", l, want)
	}
	// The same with a guessing chance of 1/2: p' = 3/4, success 1/2,
	// e = (1/4)(1/2)/(3/4) = 1/6, h = (1/4)(1/4)/(3/4) = 1/12, D = 13/12.
	l = filter.Learner{filter.LayerOverall: {Variance: 1}}
	p = filter.Predict(&l, &s, filter.Question{Guess: 0.5})
	l.Update(&p, 1)
	if !near(p.P, 0.75) || !near(l[0].Mean, 2.0/13) || !near(l[0].Variance, 12.0/13) {
		t.Errorf("with guessing: P %v, layer %+v, want 0.75, {2/13 12/13}", p.P, l[0])
	}
	// A score of 1/2 where 1/2 is expected moves nothing and is still information.
	l = filter.Learner{filter.LayerOverall: {Variance: 1}}
	p = filter.Predict(&l, &s, filter.Question{})
	l.Update(&p, 0.5)
	if l[0] != (filter.Gaussian{Mean: 0, Variance: 0.8}) {
		t.Errorf("after half a point: %+v, want {0 0.8}", l[0])
	}
}

func TestAbsentLayerNeverMoves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l, s := learner(t), shared(t)
		l[filter.LayerSubject], s[filter.ComponentGoal] = filter.Gaussian{}, filter.Gaussian{}
		p := filter.Predict(&l, &s, question(t))
		score := rapid.Float64Range(0, 1).Draw(t, "score")
		l.Update(&p, score)
		s.Update(&p, score)
		if l[filter.LayerSubject] != (filter.Gaussian{}) || s[filter.ComponentGoal] != (filter.Gaussian{}) {
			t.Fatalf("an absent layer moved: %+v %+v", l, s)
		}
	})
}

func TestAnswersOnlyAddCertainty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l, s, q := learner(t), shared(t), question(t)
		for _, score := range rapid.SliceOfN(rapid.Float64Range(0, 1), 1, 50).Draw(t, "scores") {
			before, sharedBefore := l, s
			p := filter.Predict(&l, &s, q)
			if !(p.P >= q.Guess && p.P <= 1) {
				t.Fatalf("P = %v, want within [%v, 1]", p.P, q.Guess)
			}
			l.Update(&p, score)
			s.Update(&p, score)
			for i := range l {
				if !(l[i].Variance > 0 && l[i].Variance < before[i].Variance) {
					t.Fatalf("layer %d: variance %v after %v", i, l[i].Variance, before[i].Variance)
				}
				if (l[i].Mean-before[i].Mean)*(score-p.P) < 0 {
					t.Fatalf("layer %d moved against the answer", i)
				}
			}
			for i := range s {
				if !(s[i].Variance > 0 && s[i].Variance < sharedBefore[i].Variance) {
					t.Fatalf("component %d: variance %v after %v", i, s[i].Variance, sharedBefore[i].Variance)
				}
			}
		}
	})
}

func TestRightAndWrongAreSymmetric(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l, s := learner(t), shared(t)
		mirrored, sharedMirrored := l, s
		for i := range l {
			mirrored[i].Mean = -l[i].Mean
			sharedMirrored[i].Mean = -s[i].Mean
		}
		p, m := filter.Predict(&l, &s, filter.Question{}), filter.Predict(&mirrored, &sharedMirrored, filter.Question{})
		if !near(p.P+m.P, 1) || p.Z != -m.Z {
			t.Fatalf("P %v and mirrored %v do not add to 1", p.P, m.P)
		}
		score := rapid.Float64Range(0, 1).Draw(t, "score")
		l.Update(&p, score)
		mirrored.Update(&m, 1-score)
		for i := range l {
			if !near(l[i].Mean, -mirrored[i].Mean) || !near(l[i].Variance, mirrored[i].Variance) {
				t.Fatalf("layer %d: %+v and mirrored %+v", i, l[i], mirrored[i])
			}
		}
	})
}

func TestEpochOfOneAnswerIsTheSequentialUpdate(t *testing.T) {
	t.Parallel()
	parameters := filter.DefaultParameters()
	parameters.MaxStep = 10
	rapid.Check(t, func(t *rapid.T) {
		l, s := learner(t), shared(t)
		p := filter.Predict(&l, &s, question(t))
		score := rapid.Float64Range(0, 1).Draw(t, "score")
		contributions := s.Contribute(&p, score)
		sequential := s
		sequential.Update(&p, score)
		for i := range s {
			reduced := parameters.Reduce(s[i], contributions[i])
			if math.Abs(reduced.Mean-sequential[i].Mean) > 1e-8 || math.Abs(reduced.Variance-sequential[i].Variance) > 1e-8 {
				t.Fatalf("component %d: reduced %+v, sequential %+v", i, reduced, sequential[i])
			}
		}
	})
}

func TestSumsDoNotDependOnTheirOrder(t *testing.T) {
	t.Parallel()
	parameters := filter.DefaultParameters()
	rapid.Check(t, func(t *rapid.T) {
		s := shared(t)
		n := rapid.IntRange(1, 40).Draw(t, "answers")
		each := make([]filter.Contribution, n)
		var forward filter.Contribution
		for i := range each {
			l := learner(t)
			p := filter.Predict(&l, &s, question(t))
			each[i] = s.Contribute(&p, rapid.Float64Range(0, 1).Draw(t, "score"))[filter.ComponentItem]
			forward = forward.Add(each[i])
		}
		cut := rapid.IntRange(0, n).Draw(t, "cut")
		var left, right filter.Contribution
		for i := n - 1; i >= 0; i-- {
			if i < cut {
				left = left.Add(each[i])
			} else {
				right = right.Add(each[i])
			}
		}
		if right.Add(left) != forward || forward.Sub(left) != right {
			t.Fatalf("merged %+v, want %+v", right.Add(left), forward)
		}
		g := parameters.Reduce(s[0], forward)
		if !(g.Variance > 0 && g.Variance < s[0].Variance) || math.Abs(g.Mean-s[0].Mean) > parameters.MaxStep+1e-9 {
			t.Fatalf("Reduce(%+v) = %+v", s[0], g)
		}
	})
}

func TestReduceOfNothingChangesNothing(t *testing.T) {
	t.Parallel()
	p := filter.DefaultParameters()
	g := filter.Gaussian{Mean: 1.25, Variance: 0.3}
	if got := p.Reduce(g, filter.Contribution{}); got != g {
		t.Errorf("Reduce(%+v, nothing) = %+v", g, got)
	}
	// One unit of information on a prior of variance 1 that is pulled by 1/2:
	// precision 2, step 1/4.
	got := p.Reduce(filter.Gaussian{Variance: 1}, filter.Contribution{Gradient: 1 << 31, Information: 1 << 32})
	if got != (filter.Gaussian{Mean: 0.25, Variance: 0.5}) {
		t.Errorf("Reduce = %+v, want {0.25 0.5}", got)
	}
	if got := p.Reduce(filter.Gaussian{Variance: 1}, filter.Contribution{Gradient: 10 << 32, Information: 1 << 32}); got.Mean != 1 {
		t.Errorf("mean after a huge gradient = %v, want the largest step 1", got.Mean)
	}
}

// TestDriftKeepsThePopulation: a population that is as wide as the prior stays so
// whatever the time that passes, an unlimited time leaves nothing known, and time
// that runs backwards counts as none.
func TestDriftKeepsThePopulation(t *testing.T) {
	t.Parallel()
	p := filter.DefaultParameters()
	p.Learner[filter.LayerGoal] = filter.LayerParameters{Mean: 0.5, Variance: 0.5, DriftPerAnswer: 0.25, DriftPerDay: 0.25}
	g := filter.Gaussian{Mean: 2.5, Variance: 0.125}
	for _, c := range []struct {
		elapsedMs      int64
		mean, variance float64
	}{
		{0, 0.5 + 2*math.Sqrt(2./3), 0.25}, {filter.MillisecondsPerDay, 0.5 + math.Sqrt2, 0.3125},
		{-5 * filter.MillisecondsPerDay, 0.5 + 2*math.Sqrt(2./3), 0.25}, {math.MaxInt64, 0.5, 0.5},
	} {
		got := p.Drift(filter.LayerGoal, g, c.elapsedMs)
		if math.Abs(got.Mean-c.mean) > 1e-4 || math.Abs(got.Variance-c.variance) > 1e-9 {
			t.Errorf("Drift(%d ms) = %+v, want {%v %v}", c.elapsedMs, got, c.mean, c.variance)
		}
	}
	for _, variance := range []float64{0, 0.2, 0.5} {
		// Estimates that differ by the rest of the population's variance.
		estimate := filter.Gaussian{Mean: 0.5 + math.Sqrt(0.5-variance), Variance: variance}
		got := p.Drift(filter.LayerGoal, estimate, 3*filter.MillisecondsPerDay)
		if whole := (got.Mean-0.5)*(got.Mean-0.5) + got.Variance; math.Abs(whole-0.5) > 1e-12 {
			t.Errorf("from variance %v drift makes the population %v wide, want .5", variance, whole)
		}
	}
	if got := p.Drift(filter.LayerGoal, filter.Gaussian{Mean: 1, Variance: 0.7}, 1000); !(got.Variance < 0.7 && got.Variance > 0.5) {
		t.Errorf("drift changed a variance above the ceiling .5 from .7 to %v, want it between", got.Variance)
	}
	still := filter.Parameters{}
	if got := still.Drift(filter.LayerGoal, g, 1000); got != g {
		t.Errorf("without drift %+v became %+v", g, got)
	}
}

func TestSkillAndDifficultyAreSums(t *testing.T) {
	t.Parallel()
	l := filter.Learner{{Mean: 1, Variance: 0.25}, {Mean: 0.5, Variance: 0.5}, {Mean: -0.25, Variance: 1}}
	if got := l.Skill(); got != (filter.Gaussian{Mean: 1.25, Variance: 1.75}) {
		t.Errorf("Skill = %+v, want {1.25 1.75}", got)
	}
	s := filter.Shared{{Mean: 1, Variance: 0.25}, {Mean: 0.5, Variance: 0.5}, {Mean: -0.25, Variance: 1}}
	if got := s.Difficulty(); got != (filter.Gaussian{Mean: 1.75, Variance: 1.75}) {
		t.Errorf("Difficulty = %+v, want {1.75 1.75}", got)
	}
}

// step is the whole way of one answer through the filter.
func step(p *filter.Parameters, l *filter.Learner, s *filter.Shared, score float64) filter.Contributions {
	for i := range l {
		l[i] = p.Drift(i, l[i], 60_000)
	}
	prediction := filter.Predict(l, s, filter.Question{})
	c := s.Contribute(&prediction, score)
	l.Update(&prediction, score)
	return c
}

func fresh(p *filter.Parameters) (filter.Learner, filter.Shared) {
	return filter.Learner{p.Prior(0), p.Prior(1), p.Prior(2)}, p.Shared
}

func TestAnswerAllocatesNothing(t *testing.T) {
	p := filter.DefaultParameters()
	l, s := fresh(&p)
	var total filter.Contribution
	n := testing.AllocsPerRun(100, func() {
		c := step(&p, &l, &s, 1)
		total = total.Add(c[filter.ComponentItem])
		s[filter.ComponentItem] = p.Reduce(s[filter.ComponentItem], c[filter.ComponentItem])
	})
	if n != 0 {
		t.Errorf("an answer allocates %v times, want 0", n)
	}
	if total.Information <= 0 {
		t.Errorf("no information in 100 answers: %+v", total)
	}
}

func BenchmarkAnswer(b *testing.B) {
	b.ReportAllocs()
	p := filter.DefaultParameters()
	l, s := fresh(&p)
	var total filter.Contribution
	for i := 0; b.Loop(); i++ {
		total = total.Add(step(&p, &l, &s, float64(i&1))[filter.ComponentItem])
	}
	if total.Information <= 0 {
		b.Fatalf("no information: %+v", total)
	}
}

func BenchmarkPhi(b *testing.B) {
	b.ReportAllocs()
	sum := 0.0
	for i := 0; b.Loop(); i++ {
		sum += filter.Phi(float64(i&1023)/128 - 4)
	}
	if sum <= 0 {
		b.Fatal("no sum")
	}
}
