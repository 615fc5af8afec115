package filter_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
)

func TestNewHeadBelievesTheFilter(t *testing.T) {
	t.Parallel()
	l := filter.Learner{{Mean: 0.7, Variance: 0.5}, {}, {Mean: -0.2, Variance: 0.1}}
	s := filter.Shared{{Mean: 0.4, Variance: 0.3}}
	for _, q := range []filter.Question{{}, {Guess: 0.25}, {Discrimination: 2}} {
		p := filter.Predict(&l, &s, q)
		var f filter.Features
		f.Fill(&p, &filter.Counters{Answers: 3, Last: 1, Slow: 0.7, Fast: 0.9, LastAtMs: 1000}, &filter.Counters{}, &filter.Repeats{}, 9000)
		head := filter.NewHead()
		if got := head.Probability(&f); !near(got, p.P) {
			t.Errorf("%+v: head %v, filter %v", q, got, p.P)
		}
		want := filter.Features{
			filter.FeatureOne: 1, filter.FeatureLogit: filter.Logit(p.P), filter.FeatureLikely: max(0, filter.Logit(p.P)),
			filter.FeatureLearnerSlow: 0.7 - 0.6, filter.FeatureLearnerFast: 0.9 - 0.6,
			filter.FeatureLearnerAnswers: math.Log(4) / 3, filter.FeatureLearnerLast: 0.5,
			filter.FeatureLearnerElapsed: math.Log(9) / 8, filter.FeatureGoalNew: 1,
		}
		for i := range f {
			if !near(f[i], want[i]) {
				t.Errorf("%+v: feature %d = %v, want %v", q, i, f[i], want[i])
			}
		}
	}
}

func TestCountersFollowTheAnswers(t *testing.T) {
	t.Parallel()
	var c filter.Counters
	c.Add(1, 5)
	if !near(c.Slow, 0.72) || !near(c.Fast, 0.84) {
		t.Errorf("after one right answer: %+v, want slow .72, fast .84", c)
	}
	c.Add(0, 7)
	if c.Answers != 2 || c.Last != 0 || c.LastAtMs != 7 || !near(c.Slow, 0.72*0.85) || !near(c.Fast, 0.84*0.6) {
		t.Errorf("after a wrong one: %+v", c)
	}
	var r filter.Repeats
	r.Add(1)
	r.Add(0.5)
	if r != (filter.Repeats{Answers: 2, Right: 1.5, Last: 0.5}) {
		t.Errorf("Repeats = %+v", r)
	}
}

func TestTrainerFindsABiasedFilter(t *testing.T) {
	t.Parallel()
	const seed = 7
	random := rand.New(rand.NewPCG(seed, seed))
	// The truth is σ(1 + 0.5·logit); the filter says logit.
	trainer := filter.NewTrainer()
	var f filter.Features
	f[filter.FeatureOne] = 1
	for range 200_000 {
		f[filter.FeatureLogit] = 2 * random.NormFloat64()
		score := 0.0
		if random.Float64() < filter.Sigmoid(1+0.5*f[filter.FeatureLogit]) {
			score = 1
		}
		trainer.Learn(&f, trainer.Head.Probability(&f), score)
	}
	w := trainer.Head.Weights
	if math.Abs(w[filter.FeatureOne]-1) > 0.05 || math.Abs(w[filter.FeatureLogit]-0.5) > 0.05 {
		t.Errorf("weights %v and %v, want 1 and .5 (seed %d)", w[filter.FeatureOne], w[filter.FeatureLogit], seed)
	}
}

func TestHeadAllocatesNothing(t *testing.T) {
	trainer := filter.NewTrainer()
	l, s := filter.Learner{{Variance: 1}}, filter.Shared{{Variance: 1}}
	var c filter.Counters
	var r filter.Repeats
	n := testing.AllocsPerRun(100, func() {
		p := filter.Predict(&l, &s, filter.Question{})
		var f filter.Features
		f.Fill(&p, &c, &c, &r, 0)
		trainer.Learn(&f, trainer.Head.Probability(&f), 1)
		c.Add(1, 0)
	})
	if n != 0 {
		t.Errorf("a head's answer allocates %v times, want 0", n)
	}
}

func BenchmarkHead(b *testing.B) {
	b.ReportAllocs()
	head := filter.NewHead()
	l, s := filter.Learner{{Variance: 1}}, filter.Shared{{Variance: 1}}
	c := filter.Counters{Answers: 5, Slow: 0.5, Fast: 0.5, LastAtMs: 1}
	sum := 0.0
	for b.Loop() {
		p := filter.Predict(&l, &s, filter.Question{})
		var f filter.Features
		f.Fill(&p, &c, &c, &filter.Repeats{}, 60_000)
		sum += head.Probability(&f)
	}
	if sum <= 0 {
		b.Fatal("no probability")
	}
}
