package filter

import "math"

// The features of the logistic head, index of a Features. A learner, goal or item
// that has not been answered has 0 in its features, and 1 in its New feature.
const (
	FeatureOne = iota
	FeatureLogit
	FeatureUnlikely // how far the logit is below that of one right in ten
	FeatureLikely   // how far it is above that of one right in two
	FeatureSure     // how far it is above that of nine right in ten
	FeatureLearnerSlow
	FeatureLearnerFast
	FeatureLearnerAnswers
	FeatureLearnerLast
	FeatureLearnerElapsed
	FeatureLearnerNew
	FeatureGoalSlow
	FeatureGoalFast
	FeatureGoalAnswers
	FeatureGoalLast
	FeatureGoalElapsed
	FeatureGoalLastElapsed
	FeatureGoalNew
	FeatureItemSeen
	FeatureItemLast
	FeatureItemAnswers
	FeatureItemRight
	FeatureCount
)

// Features are what the logistic head sees of an answer before it is given.
type Features [FeatureCount]float64

// Scales of the features, so that all are of the order of one: a typical share of
// right answers, half a point, and logarithms of counts and of seconds.
const (
	typicalScore   = 0.6
	halfScore      = 0.5
	answersScale   = 1.0 / 3
	goalScale      = 1.0 / 2
	secondsScale   = 1.0 / 8
	secondsPerTick = 1.0 / 1000
	// NineOfTen is the logit of nine right in ten: there, and at its opposite and 0,
	// what the head makes of the filter's logit may bend.
	NineOfTen = 2.1972245773362196
)

// elapsedFeature returns log(1+seconds)/8 between two moments in milliseconds, 0
// when one is unknown.
func elapsedFeature(fromMs, toMs int64) float64 {
	if fromMs <= 0 || toMs <= fromMs {
		return 0
	}
	return float64(Log1p(float64(toMs-fromMs)*secondsPerTick) * secondsScale)
}

// Fill sets the features of an answer at atMs (ms, 0 = unknown) from its
// prediction and the histories before it. Histories that are not kept are empty
// ones.
func (f *Features) Fill(p *Prediction, learner, goal *Counters, item *Repeats, atMs int64) {
	logit := p.Logit()
	*f = Features{FeatureOne: 1, FeatureLogit: logit, FeatureUnlikely: max(0, -NineOfTen-logit),
		FeatureLikely: max(0, logit), FeatureSure: max(0, logit-NineOfTen)}
	if learner.Answers > 0 {
		f[FeatureLearnerSlow] = learner.Slow - typicalScore
		f[FeatureLearnerFast] = learner.Fast - typicalScore
		f[FeatureLearnerAnswers] = float64(Log1p(float64(learner.Answers)) * answersScale)
		f[FeatureLearnerLast] = learner.Last - halfScore
		f[FeatureLearnerElapsed] = elapsedFeature(learner.LastAtMs, atMs)
	} else {
		f[FeatureLearnerNew] = 1
	}
	if goal.Answers > 0 {
		f[FeatureGoalSlow] = goal.Slow - typicalScore
		f[FeatureGoalFast] = goal.Fast - typicalScore
		f[FeatureGoalAnswers] = float64(Log1p(float64(goal.Answers)) * goalScale)
		f[FeatureGoalLast] = goal.Last - halfScore
		f[FeatureGoalElapsed] = elapsedFeature(goal.LastAtMs, atMs)
		f[FeatureGoalLastElapsed] = float64(f[FeatureGoalLast] * f[FeatureGoalElapsed])
	} else {
		f[FeatureGoalNew] = 1
	}
	if item.Answers > 0 {
		f[FeatureItemSeen] = 1
		f[FeatureItemLast] = item.Last - halfScore
		f[FeatureItemAnswers] = Log1p(float64(item.Answers))
		f[FeatureItemRight] = Log1p(item.Right)
	}
}

// Head corrects the filter's prediction by what the recent history tells. Its
// weights are trained on past answers and stand still while it is in use.
type Head struct {
	Weights Features
}

// NewHead returns the head that believes the filter.
func NewHead() Head {
	var h Head
	h.Weights[FeatureLogit] = 1
	return h
}

// Logit returns the corrected logit of success.
func (h *Head) Logit(f *Features) float64 {
	var z float64
	for i := range f {
		z += float64(h.Weights[i] * f[i])
	}
	return z
}

// Probability returns the corrected probability of success.
func (h *Head) Probability(f *Features) float64 { return Sigmoid(h.Logit(f)) }

// Trainer trains a head answer by answer: the weights are a Gaussian, from that of
// the head that believes the filter with variances of 1, which every answer moves by
// its gradient times the whole covariance (an extended Kalman filter; one pass comes
// near the maximum of the likelihood, and no step has to be chosen).
type Trainer struct {
	Head       Head
	Covariance [FeatureCount]Features
}

// NewTrainer returns a trainer that starts with the head that believes the filter.
func NewTrainer() Trainer {
	t := Trainer{Head: NewHead()}
	for i := range t.Covariance {
		t.Covariance[i][i] = 1
	}
	return t
}

// Learn moves the weights by an answer for which the head gave probability p.
func (t *Trainer) Learn(f *Features, p, score float64) {
	var gain Features // covariance times features
	var variance float64
	for i, x := range f {
		if x == 0 {
			continue
		}
		for j := range gain {
			gain[j] += float64(t.Covariance[i][j] * x)
		}
	}
	for i, x := range f {
		variance += float64(gain[i] * x)
	}
	h := max(float64(p*(1-p)), minCurvature)
	d := 1 / (1 + float64(h*variance))
	move, shrink := float64(d*(score-p)), float64(d*h)
	for i, g := range gain {
		t.Head.Weights[i] += float64(g * move)
		part := float64(g * shrink)
		for j := i; j < len(gain); j++ {
			t.Covariance[i][j] -= float64(part * gain[j])
			t.Covariance[j][i] = t.Covariance[i][j]
		}
	}
}

// Rate is the step of AdaGrad.
const Rate = 0.1

// Descend moves one weight by the gradient of the log-likelihood, with the step
// of AdaGrad; squares is its sum of squared gradients, from 1.
func Descend(weight, squares *float64, gradient float64) {
	*squares += float64(gradient * gradient)
	*weight += float64(Rate * gradient / math.Sqrt(*squares))
}
