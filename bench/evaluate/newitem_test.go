package evaluate

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// TestNewItemIsKnownAfterThirtyAnswers: thirty answers of learners whose skills are
// known with a standard error of a half give a new item a difficulty that is as good
// as its standard error says, and good enough to choose by.
func TestNewItemIsKnownAfterThirtyAnswers(t *testing.T) {
	t.Parallel()
	const items, answers, skillVariance = 2000, 30, 0.25
	random := rand.New(rand.NewPCG(1, 0x1e))
	parameters := filter.DefaultParameters()
	var square, reported float64
	for range items {
		truth := random.NormFloat64()
		shared := filter.Shared{parameters.Shared[filter.ComponentItem]}
		for range answers {
			skill := random.NormFloat64() + 1 // of those who have three of four right on average
			l := filter.Learner{{Mean: skill, Variance: skillVariance}}
			score := 0.0
			if random.Float64() < filter.Sigmoid(skill+math.Sqrt(skillVariance)*random.NormFloat64()-truth) {
				score = 1
			}
			p := filter.Predict(&l, &shared, filter.Question{})
			shared.Update(&p, score)
		}
		square += math.Pow(shared[filter.ComponentItem].Mean-truth, 2) / items
		reported += shared[filter.ComponentItem].Variance / items
	}
	t.Logf("after %d answers: root mean square error %.3f, reported %.3f", answers, math.Sqrt(square), math.Sqrt(reported))
	if math.Sqrt(square) > 0.45 || math.Abs(math.Sqrt(reported/square)-1) > 0.1 {
		t.Errorf("after %d answers: root mean square error %.3f, reported %.3f; want at most .45, and within 10 %%", answers, math.Sqrt(square), math.Sqrt(reported))
	}
}
