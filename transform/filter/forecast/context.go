package forecast

import (
	"math"
	"math/bits"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// The kinds of context. Each is a situation that comes back; the Gaussian that is
// kept for it says by how many logits the filter is wrong there.
const (
	itemAfterScore = iota // item, last score
	itemAfterItem         // item, item before and its score
	itemAfterTwo          // item, two items before and their scores
	itemAfterThree        // item, last three scores
	itemAtGoal            // item, last two scores at the goal
	itemAgain             // item, how often and how it went for this learner
	goalAgain             // goal, how often and how it went for this learner
	goalAfterThree        // goal, last three scores
	goalAfterPause        // goal, time since the learner's last answer (powers of two)
	goalAfterGoal         // goal, goal before and its score
	tagOfLearner          // learner and tag
	tagOfItem             // tag
	contextKinds
)

const (
	contextVariance = 0.3  // prior of a context
	tagDrift        = 0.01 // per answer of tagOfLearner
)

// active is a context that the answer is in.
type active struct {
	kind     int
	gaussian *filter.Gaussian
}

// lastScores returns the last n scores, and 0 in a distinct place when there are
// fewer.
func lastScores(recent uint32, answers uint32, n uint32) uint64 {
	if answers < n {
		return uint64(answers)<<8 | uint64(recent&(1<<answers-1)) | 1<<16
	}
	return uint64(recent & (1<<n - 1))
}

// situate lists the contexts of the answer.
func (m *Model) situate(p *pending) {
	e, l := &p.event, p.learner
	p.active = p.active[:0]
	seen := l.history.Answers
	m.activate(p, itemAfterScore, join(e.Item, lastScores(l.recent, seen, 1)))
	m.activate(p, itemAfterThree, join(e.Item, lastScores(l.recent, seen, 3)))
	m.activate(p, itemAgain, join(e.Item, lastScores(p.item.recent, p.item.repeats.Answers, 2)))
	if seen > 0 {
		m.activate(p, itemAfterItem, join(e.Item, join(l.item1, lastScores(l.recent, seen, 1))))
	}
	if seen > 1 {
		m.activate(p, itemAfterTwo, join(e.Item, join(l.item1, join(l.item2, lastScores(l.recent, seen, 2)))))
	}
	if e.Goal != 0 {
		atGoal := p.goal.history.Answers
		m.activate(p, itemAtGoal, join(e.Item, lastScores(p.goal.recent, atGoal, 2)))
		m.activate(p, goalAgain, join(e.Goal, lastScores(p.goal.recent, atGoal, 3)))
		m.activate(p, goalAfterThree, join(e.Goal, lastScores(l.recent, seen, 3)))
		if seen > 0 {
			m.activate(p, goalAfterGoal, join(e.Goal, join(l.goal1, lastScores(l.recent, seen, 1))))
		}
		if last := l.history.LastAtMs; last > 0 && e.AtMs > 0 {
			pause := uint64(max(0, e.AtMs-last)) / 1000
			m.activate(p, goalAfterPause, join(e.Goal, uint64(bits.Len64(pause+1))))
		}
	}
	for _, tag := range e.Tags {
		own := m.activate(p, tagOfLearner, join(e.Learner, tag))
		own.Variance = min(own.Variance+tagDrift, contextVariance)
		m.activate(p, tagOfItem, tag)
	}
}

// activate adds a context of a kind.
func (m *Model) activate(p *pending, kind int, key uint64) *filter.Gaussian {
	g := start(m.contexts.at(join(uint64(kind), key)), filter.Gaussian{Variance: contextVariance})
	p.active = append(p.active, active{kind, g})
	return g
}

// correct adds the contexts to the filter's prediction and returns the logit.
func (m *Model) correct(p *pending) float64 {
	z, v := p.prediction.Z, p.prediction.V
	for _, a := range p.active {
		z += a.gaussian.Mean
		v += a.gaussian.Variance
	}
	p.ownV = v - p.prediction.V
	logit := float64(z / math.Sqrt(1+float64(math.Pi/8*v)))
	p.corrected = filter.Sigmoid(logit)
	return logit
}

// minCurvature is as in package filter.
const minCurvature = 1e-4

// learnContexts moves the contexts by what they and the filter together did not
// expect.
func learnContexts(p *pending, score float64) {
	h := max(float64(p.corrected*(1-p.corrected)), minCurvature)
	d := 1 / (1 + float64(h*p.ownV))
	move := float64((score - p.corrected) * d)
	shrink := float64(h * d)
	for _, a := range p.active {
		v := a.gaussian.Variance
		a.gaussian.Mean += float64(v * move)
		a.gaussian.Variance = v - float64(v*v*shrink)
	}
}
