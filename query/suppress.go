package query

// MinGroup is the smallest number of learners about whom a figure is given.
const MinGroup = 10

// minAnswers is the smallest number of answers from which a difficulty or a
// proportion of an exercise is given. The model counts the first answer of a
// learner only, so it is a number of learners.
const minAnswers = MinGroup

// The proportion of right answers is given no further than this: a share near 0
// or 1 would tell what each single learner did.
const (
	lowestProportion  = 0.05
	highestProportion = 0.95
)

// proportion returns the capped share of right answers, false when there are too
// few answers.
func proportion(m *measure) (float64, bool) {
	if m == nil || m.answers < minAnswers {
		return 0, false
	}
	return min(highestProportion, max(lowestProportion, m.right/float64(m.answers))), true
}
