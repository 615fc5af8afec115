package query

import (
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// leastSlope is the least slope of a head that is used: one that hardly looks at the
// difficulty can't tell which exercise meets a target.
const leastSlope = 0.2

// correction is what the head makes of the filter's logit for one learner at one
// goal, whatever the exercise: a line that bends at -NineOfTen, 0 and NineOfTen.
type correction struct {
	offset float64    // where it is at 0
	slopes [4]float64 // from left to right
}

// uncorrected believes the filter.
var uncorrected = correction{slopes: [4]float64{1, 1, 1, 1}}

// correct computes the correction. An exercise that is given is one that the
// learner has not answered lately, so the history of the pair is empty.
func (m *ReadModel) correct(s *situation) correction {
	head := m.items.head.Load()
	if head == nil {
		return uncorrected
	}
	var f filter.Features
	f.Fill(&filter.Prediction{}, &s.history, &s.goalHistory, &filter.Repeats{}, m.config.Now().UnixMilli())
	w := &head.Weights
	middle := w[filter.FeatureLogit]
	right := middle + w[filter.FeatureLikely]
	c := correction{offset: head.Logit(&f), slopes: [4]float64{middle - w[filter.FeatureUnlikely], middle, right, right + w[filter.FeatureSure]}}
	for _, slope := range c.slopes {
		if !(slope >= leastSlope) {
			return uncorrected
		}
	}
	return c
}

// logit returns the corrected logit.
func (c *correction) logit(of float64) float64 {
	return c.offset + float64(c.slopes[0]*min(0, of+filter.NineOfTen)) + float64(c.slopes[1]*min(0, max(-filter.NineOfTen, of))) +
		float64(c.slopes[2]*max(0, min(filter.NineOfTen, of))) + float64(c.slopes[3]*max(0, of-filter.NineOfTen))
}

// inverse returns the filter's logit that has a corrected one.
func (c *correction) inverse(corrected float64) float64 {
	x := corrected - c.offset
	low, high := -float64(c.slopes[1]*filter.NineOfTen), float64(c.slopes[2]*filter.NineOfTen)
	switch {
	case x < low:
		return (x-low)/c.slopes[0] - filter.NineOfTen
	case x < 0:
		return x / c.slopes[1]
	case x < high:
		return x / c.slopes[2]
	}
	return (x-high)/c.slopes[3] + filter.NineOfTen
}

// probability returns the probability of success behind a prediction.
func (c *correction) probability(p *filter.Prediction) float64 {
	return filter.Sigmoid(c.logit(p.Logit()))
}

// Expectation is what is expected of a learner at an exercise, with what a head
// is trained on.
type Expectation struct {
	Probability float64 // of a right answer
	Features    filter.Features
}

// Expect returns what to expect of a learner's answer now. goal is that of the
// exercise, which need not be known.
func (m *ReadModel) Expect(learner answer.Token, exercise, goal string) Expectation {
	d, known := m.catalogue.findGoal(goal)
	if !known {
		d = m.unknownGoal
	}
	s := m.situationAt(learner, d)
	shared := filter.Shared{
		filter.ComponentItem:   m.parameters.Shared[filter.ComponentItem],
		filter.ComponentGlobal: m.gaussian(filter.ComponentGlobal, m.items.global.Load()),
	}
	if item := m.items.find(exercise); item != nil {
		shared[filter.ComponentItem] = m.gaussian(filter.ComponentItem, item.measure.Load())
	}
	if goal == "" {
		s.layers[filter.LayerGoal] = filter.Gaussian{}
	} else {
		shared[filter.ComponentGoal] = m.gaussian(filter.ComponentGoal, d.measure.Load())
	}
	var e Expectation
	prediction := filter.Predict(&s.layers, &shared, filter.Question{})
	e.Features.Fill(&prediction, &s.history, &s.goalHistory, &filter.Repeats{}, m.config.Now().UnixMilli())
	c := m.correct(&s)
	e.Probability = c.probability(&prediction)
	return e
}

// situationAt copies what is known of a learner at a goal.
func (m *ReadModel) situationAt(learner answer.Token, goal *domain) situation {
	sh := &m.learners.shards[shardOf(learner)]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	l, _ := sh.find(learner)
	if l == nil {
		return situation{layers: m.newcomer(0)}
	}
	return m.situationOfKnown(l, goal)
}

// situationOfKnown copies what is known of a learner at a goal. The caller holds
// the lock of the learner's shard.
func (m *ReadModel) situationOfKnown(l *learner, goal *domain) situation {
	s := situation{known: true, yearGroup: l.yearGroup, position: l.position, recent: l.recent, recents: int(l.recents)}
	if goal == nil {
		return s
	}
	s.layers = m.layersOf(l, transform.LayerGoal, goal.parent.Load().index, goal.index, m.config.Now())
	if overall := l.find(transform.LayerOverall, 0); overall != nil {
		s.history = overall.history()
	}
	if own := l.find(transform.LayerGoal, goal.index); own != nil {
		s.goalHistory = own.history()
	}
	return s
}
