package filter

// Wander returns the variance by which the filter lets a layer wander during some
// days and answers; at most what two learners differ by.
func (p *Parameters) Wander(layer int, answers, days float64) float64 {
	l := &p.Learner[layer]
	return min(float64(l.DriftPerDay*max(0, days))+float64(l.DriftPerAnswer*max(0, answers)), 2*l.Variance)
}

// Growth returns how far a skill has moved from then to now, given how far it may
// have wandered in between. A part of what changed in the estimate is that the old
// one was off, as the answers since have shown: the estimate of the past in the
// light of the present (Rauch, Tung and Striebel 1965) leaves, with the share
// c = s/(s+wander) for the variance s then,
//
//	mean      (1-c)·(now-then)
//	variance  (1-c)²·(variance now) + c·wander
func Growth(then, now Gaussian, wander float64) Gaussian {
	if !(then.Variance+wander > 0) {
		return Gaussian{Mean: now.Mean - then.Mean}
	}
	c := then.Variance / (then.Variance + wander)
	moved := 1 - c
	return Gaussian{Mean: float64(moved * (now.Mean - then.Mean)), Variance: float64(moved*moved*now.Variance) + float64(c*wander)}
}
