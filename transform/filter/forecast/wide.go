package forecast

import "github.com/leerstroom/leerstroom/transform/filter"

// The dense features of the full expert: those of the filter's head, the means of
// the five components of the filter, and how the quick filter differs,
// the learner's pace, and the sum of means per kind of context.
const (
	featureOverall = filter.FeatureCount + iota
	featureGoal
	featureItemDifficulty
	featureGoalDifficulty
	featureGlobal
	featureQuick
	featurePaceKnown
	featurePaceLast
	featurePaceUsual
	featurePaceLastScore
	featureContexts
	wideCount = featureContexts + contextKinds
)

// weight is a trained weight with its sum of squared gradients.
type weight struct{ value, squares float64 }

// own is a weight of one item or one goal, with its feature.
type own struct {
	weight *weight
	x      float64
}

// wide is the head of the full expert. Besides the dense weights, each item and
// each goal has a few of its own.
type wide struct {
	dense [wideCount]weight
	x     [wideCount]float64
	own   []own
}

func newWide() wide {
	var w wide
	for i := range w.dense {
		w.dense[i].squares = 1
	}
	w.dense[filter.FeatureLogit].value = 1
	return w
}

// The weights that an item or a goal has of its own.
const (
	ownItem = iota
	ownItemLogit
	ownItemLast
	ownGoal
	ownGoalLogit
	ownGoalLast
	ownGoalAnswers
	ownGoalSlow
)

// predict fills the features and returns the probability of success.
func (w *wide) predict(p *pending, logit float64, weights *table[weight]) float64 {
	w.x = [wideCount]float64{}
	copy(w.x[:], p.features[:])
	w.x[filter.FeatureLogit] = logit
	w.x[featureOverall] = p.skill[filter.LayerOverall].Mean
	w.x[featureGoal] = p.skill[filter.LayerGoal].Mean
	w.x[featureItemDifficulty] = -p.shared[filter.ComponentItem].Mean
	w.x[featureGoalDifficulty] = -p.shared[filter.ComponentGoal].Mean
	w.x[featureGlobal] = p.shared[filter.ComponentGlobal].Mean
	w.x[featureQuick] = p.hasty.Logit() - p.prediction.Logit()
	if r := &p.learner.pace; r.known {
		w.x[featurePaceKnown], w.x[featurePaceLast], w.x[featurePaceUsual] = 1, r.last, r.usual
		w.x[featurePaceLastScore] = float64(r.last * p.features[filter.FeatureLearnerLast])
	}
	for _, a := range p.active {
		w.x[featureContexts+a.kind] += a.gaussian.Mean
	}
	w.own = w.own[:0]
	e := &p.event
	w.add(weights, ownItem, e.Item, 1)
	w.add(weights, ownItemLogit, e.Item, 0.5*logit)
	w.add(weights, ownItemLast, e.Item, p.features[filter.FeatureLearnerLast])
	if e.Goal != 0 {
		w.add(weights, ownGoal, e.Goal, 1)
		w.add(weights, ownGoalLogit, e.Goal, 0.5*logit)
		w.add(weights, ownGoalLast, e.Goal, p.features[filter.FeatureGoalLast])
		w.add(weights, ownGoalAnswers, e.Goal, filter.Log1p(float64(p.goal.history.Answers)))
		w.add(weights, ownGoalSlow, e.Goal, p.features[filter.FeatureGoalSlow])
	}
	var z float64
	for i := range w.x {
		z += float64(w.dense[i].value * w.x[i])
	}
	for _, o := range w.own {
		z += float64(o.weight.value * o.x)
	}
	return filter.Sigmoid(z)
}

func (w *wide) add(weights *table[weight], kind, of uint64, x float64) {
	if x == 0 {
		return
	}
	o := weights.at(join(kind, of))
	if o.squares == 0 {
		o.squares = 1
	}
	w.own = append(w.own, own{o, x})
}

// learn moves the weights by the answer that was predicted.
func (w *wide) learn(p *pending, score float64) {
	e := score - p.forecast.Full
	for i, x := range w.x {
		if x != 0 {
			filter.Descend(&w.dense[i].value, &w.dense[i].squares, float64(e*x))
		}
	}
	for _, o := range w.own {
		filter.Descend(&o.weight.value, &o.weight.squares, float64(e*o.x))
	}
}
