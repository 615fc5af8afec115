package filter

import (
	"fmt"
	"math"
)

// minCurvature keeps the information of an answer that was (nearly) certain
// above zero, so that a surprise can still move the learner.
const minCurvature = 1e-4

// Question is what is known of an exercise and of the circumstances of an answer
// besides its difficulty. The zero value is an open question, attempted for the
// first time.
type Question struct {
	Guess          float64 // chance to be right without knowing: 1/options for multiple choice
	Discrimination float64 // slope a; 0 means 1
	Weight         float64 // of the evidence, up to 1; 0 means 1, a retry may have less
}

// Largest values of a Question; the bounds of Contribution follow from them.
const (
	MaxGuess          = 0.9
	MaxDiscrimination = 4
)

// Validate names the field that is out of range.
func (q *Question) Validate() error {
	switch {
	case !(q.Guess >= 0 && q.Guess <= MaxGuess):
		return fmt.Errorf("question guess: want 0 to %v", MaxGuess)
	case !(q.Discrimination >= 0 && q.Discrimination <= MaxDiscrimination):
		return fmt.Errorf("question discrimination: want 0 to %v", MaxDiscrimination)
	case !(q.Weight >= 0 && q.Weight <= 1):
		return fmt.Errorf("question weight: want 0 to 1")
	}
	return nil
}

// Prediction is what is expected of an answer before it is seen. It holds all
// that an update needs.
type Prediction struct {
	Z float64 // mean of the logit before discrimination
	V float64 // variance of Z
	P float64 // probability that the answer is right, guessing included

	success  float64 // probability to know the answer, guessing excluded
	slope    float64 // discrimination × weight
	discount float64 // 1/√(1+πa²V/8)
	h        float64 // information of the answer about Z
}

// Logit returns the logit of P: the first feature of the logistic head.
func (p *Prediction) Logit() float64 {
	if p.success == p.P {
		return float64(p.discount * p.Z)
	}
	return Logit(p.P)
}

// Predict returns what to expect of the answer of a learner. The learner's
// layers must have been drifted to the moment of the answer.
func Predict(l *Learner, s *Shared, q Question) Prediction {
	p := Prediction{
		Z: l[0].Mean + l[1].Mean + l[2].Mean - s[0].Mean - s[1].Mean + s[2].Mean,
		V: l[0].Variance + l[1].Variance + l[2].Variance + s[0].Variance + s[1].Variance + s[2].Variance,
	}
	a := q.Discrimination
	if a == 0 {
		a = 1
	}
	p.discount = a / math.Sqrt(1+float64(math.Pi/8*a*a*p.V))
	p.success = Sigmoid(p.discount * p.Z)
	p.slope = a
	p.P = p.success
	h := float64(p.success * (1 - p.success))
	if q.Guess > 0 {
		p.P = q.Guess + float64((1-q.Guess)*p.success)
		h = float64(p.success * p.success * (1 - p.P) / p.P)
	}
	p.h = float64(a * a * max(h, minCurvature))
	if q.Weight != 0 {
		p.slope = float64(p.slope * q.Weight)
		p.h = float64(p.h * q.Weight)
	}
	return p
}

// gradient returns the derivative of the log-likelihood with respect to Z at a
// score between 0 and 1.
func (p *Prediction) gradient(score float64) float64 {
	if p.success == p.P {
		return float64(p.slope * (score - p.P))
	}
	// With guessing only the part of a success that was knowledge counts.
	return float64(p.slope * (score - p.P) * p.success / p.P)
}

// Update moves all layers of a learner by an answer that was predicted from
// these very layers. A score between 0 and 1 counts as that share of a right
// answer.
func (l *Learner) Update(p *Prediction, score float64) {
	d := 1 / (1 + float64(p.h*p.V))
	move := float64(p.gradient(score) * d)
	shrink := float64(p.h * d)
	for i := range l {
		s := l[i].Variance
		l[i].Mean += float64(s * move)
		l[i].Variance = s - float64(s*s*shrink)
	}
}

// Update moves all shared components at once, as Learner.Update moves the
// layers. It is for those who see all answers in one order; partitions use
// Contribution and Reduce.
func (s *Shared) Update(p *Prediction, score float64) {
	d := 1 / (1 + float64(p.h*p.V))
	move := float64(p.gradient(score) * d)
	shrink := float64(p.h * d)
	for i := range s {
		v := s[i].Variance
		s[i].Mean += float64(sharedSign[i] * v * move)
		s[i].Variance = v - float64(v*v*shrink)
	}
}
