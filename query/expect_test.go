package query

import (
	"math"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// TestCorrectionIsWhatTheHeadSays: the bent line is the head's logit at every logit
// of the filter, and its inverse finds the way back.
func TestCorrectionIsWhatTheHeadSays(t *testing.T) {
	t.Parallel()
	m := NewReadModel(Config{Partitions: 1})
	head := filter.NewHead()
	head.Weights[filter.FeatureOne], head.Weights[filter.FeatureLogit] = 0.3, 0.9
	head.Weights[filter.FeatureUnlikely], head.Weights[filter.FeatureLikely], head.Weights[filter.FeatureSure] = 0.4, -0.2, 0.6
	m.items.head.Store(&head)
	s := situation{history: filter.Counters{Answers: 3, Last: 1, Slow: 0.7, Fast: 0.9}}
	c := m.correct(&s)
	for z := -6.0; z <= 6; z += 0.25 {
		prediction := filter.Predict(&filter.Learner{{Mean: z}}, &filter.Shared{}, filter.Question{})
		var f filter.Features
		f.Fill(&prediction, &s.history, &s.goalHistory, &filter.Repeats{}, 0)
		if got, want := c.probability(&prediction), head.Probability(&f); math.Abs(got-want) > 1e-12 {
			t.Errorf("at logit %v: %v, the head says %v", z, got, want)
		}
		if got := c.inverse(c.logit(z)); math.Abs(got-z) > 1e-12 {
			t.Errorf("inverse of the correction of %v = %v", z, got)
		}
	}
	head.Weights[filter.FeatureSure] = -0.6 // falls to a slope of .1: no way back
	m.items.head.Store(&head)
	if got := m.correct(&s); got != uncorrected {
		t.Errorf("a head that is nearly level gives %+v, want none", got)
	}
}
