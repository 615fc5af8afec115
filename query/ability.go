package query

import (
	"math"
	"time"

	"github.com/leerstroom/leerstroom/transform"
)

const daySeconds = 86400

// priorVariance and driftPerDay are those of the filter's learner layers.
func priorVariance(kind transform.Layer) float64 {
	if kind == transform.LayerOverall {
		return 1
	}
	return 0.6
}

func driftPerDay(kind transform.Layer) float64 {
	switch kind {
	case transform.LayerOverall:
		return 0.002
	case transform.LayerSubject:
		return 0.005
	}
	return 0.01
}

// aged returns the variance of the layer at a moment: a skill that was not seen
// for long is known less well, but never worse than that of a new learner.
func (l *layer) aged(now time.Time) float64 {
	days := float64(max(0, now.Unix()-int64(l.lastAt))) / daySeconds
	v := float64(l.variance)
	return max(v, min(v+driftPerDay(l.kind)*days, priorVariance(l.kind)))
}

// success returns the probability of a right answer when skill minus difficulty
// has mean z and variance v: the logistic function averaged over a normal
// distribution (probit approximation).
func success(z, v float64) float64 {
	return 1 / (1 + math.Exp(-z/math.Sqrt(1+math.Pi/8*v)))
}

// margin is the inverse of success: how far the skill lies above the difficulty
// of an exercise that is answered right with probability p.
func margin(p, v float64) float64 {
	return math.Log(p/(1-p)) * math.Sqrt(1+math.Pi/8*v)
}
