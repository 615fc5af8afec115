package filter

import (
	"fmt"
	"math"
)

// The layers of a learner's skill, index of a Learner.
const (
	LayerOverall = 0
	LayerSubject = 1
	LayerGoal    = 2
	Layers       = 3
)

// The shared components of an exercise, index of a Shared.
const (
	ComponentItem   = 0 // difficulty: higher is harder
	ComponentGoal   = 1 // difficulty: higher is harder
	ComponentGlobal = 2 // easiness: higher is easier for everybody
	Components      = 3
)

// sharedSign is what a shared component does to the logit of success.
var sharedSign = [Components]float64{-1, -1, +1}

// MillisecondsPerDay is the unit of DriftPerDay.
const MillisecondsPerDay = 86_400_000

// Gaussian is what is known of one component, in logits. Variance 0 is
// certainty.
type Gaussian struct {
	Mean     float64
	Variance float64
}

// Learner is the skill of a learner: one Gaussian per layer.
type Learner [Layers]Gaussian

// Skill returns the skill that the layers make together. The variance is that of
// independent layers; the covariances that the filter leaves out are negative,
// so it is never too small on their account.
func (l *Learner) Skill() Gaussian {
	return Gaussian{
		Mean:     l[LayerOverall].Mean + l[LayerSubject].Mean + l[LayerGoal].Mean,
		Variance: l[LayerOverall].Variance + l[LayerSubject].Variance + l[LayerGoal].Variance,
	}
}

// Shared is the difficulty of an exercise and the global component.
type Shared [Components]Gaussian

// Difficulty returns item + goal - global: the skill with which half of the
// answers are right (without guessing). Higher is harder.
func (s *Shared) Difficulty() Gaussian {
	return Gaussian{
		Mean:     s[ComponentItem].Mean + s[ComponentGoal].Mean - s[ComponentGlobal].Mean,
		Variance: s[ComponentItem].Variance + s[ComponentGoal].Variance + s[ComponentGlobal].Variance,
	}
}

// LayerParameters say what is thought of a layer before the first answer, and
// how fast the knowledge of it ages.
type LayerParameters struct {
	Mean           float64 // before the first answer, logits
	Variance       float64 // before the first answer
	DriftPerAnswer float64 // variance of the wandering before each answer but the first
	DriftPerDay    float64 // variance of the wandering per day since the layer's last answer
	Ceiling        float64 // variance that drift leads to; 0 = Variance
}

// Parameters are the constants of the filter.
type Parameters struct {
	Learner [Layers]LayerParameters
	Shared  [Components]Gaussian // before the first answer
	// MaxStep is the largest move of a shared component at the end of an epoch,
	// in logits.
	MaxStep float64
}

// DefaultParameters returns the constants that are used when nothing better is
// known: a population in which learners differ by one logit and items by one
// logit, and goals by about three quarters of one. Skill at a goal moves while it
// is being practised (.01 per answer), the overall level hardly (.001); a year of
// silence takes half of the way back to knowing nothing at a goal, and a quarter of
// it overall. Predictions hardly change when a drift is doubled or halved.
func DefaultParameters() Parameters {
	return Parameters{
		Learner: [Layers]LayerParameters{
			LayerOverall: {Variance: 1, DriftPerAnswer: 0.001, DriftPerDay: 0.001},
			LayerSubject: {Variance: 0.4, DriftPerAnswer: 0.002, DriftPerDay: 0.001},
			LayerGoal:    {Variance: 0.6, DriftPerAnswer: 0.01, DriftPerDay: 0.002},
		},
		Shared: [Components]Gaussian{
			ComponentItem:   {Variance: 1},
			ComponentGoal:   {Variance: 0.6},
			ComponentGlobal: {Variance: 4},
		},
		MaxStep: 1,
	}
}

// maxVariance bounds priors and ceilings, so that no sum overflows and no
// prediction degenerates.
const maxVariance = 100

// Validate names the field that is out of range.
func (p *Parameters) Validate() error {
	for i, l := range p.Learner {
		switch {
		case !(l.Mean >= -10 && l.Mean <= 10):
			return fmt.Errorf("filter learner[%d].mean: want -10 to 10", i)
		case !(l.Variance >= 0 && l.Variance <= maxVariance):
			return fmt.Errorf("filter learner[%d].variance: want 0 to %d", i, maxVariance)
		case !(l.DriftPerAnswer >= 0 && l.DriftPerAnswer <= 1):
			return fmt.Errorf("filter learner[%d].drift per answer: want 0 to 1", i)
		case !(l.DriftPerDay >= 0 && l.DriftPerDay <= 1):
			return fmt.Errorf("filter learner[%d].drift per day: want 0 to 1", i)
		case !(l.Ceiling >= 0 && l.Ceiling <= maxVariance):
			return fmt.Errorf("filter learner[%d].ceiling: want 0 to %d", i, maxVariance)
		}
	}
	for i, s := range p.Shared {
		switch {
		case !(s.Mean >= -10 && s.Mean <= 10):
			return fmt.Errorf("filter shared[%d].mean: want -10 to 10", i)
		case !(s.Variance >= 0 && s.Variance <= maxVariance):
			return fmt.Errorf("filter shared[%d].variance: want 0 to %d", i, maxVariance)
		}
	}
	if !(p.MaxStep > 0 && p.MaxStep <= 10) {
		return fmt.Errorf("filter max step: want above 0, at most 10")
	}
	return nil
}

// Prior returns a layer before its first answer.
func (p *Parameters) Prior(layer int) Gaussian {
	return Gaussian{Mean: p.Learner[layer].Mean, Variance: p.Learner[layer].Variance}
}

// Drift returns a layer that has seen answers, as it is elapsedMs milliseconds
// after the last of them, just before the next one. Time that runs backwards
// counts as none.
//
// Drift adds the variance q and at the same time draws the layer to where it was
// before the first answer, so that a population stays as wide as it was: with the
// ceiling c and the share k = 1/(1+q/c) that is kept, the deviation becomes √k of
// it and the variance k·s + (1-k)·c (Ornstein and Uhlenbeck 1930).
func (p *Parameters) Drift(layer int, g Gaussian, elapsedMs int64) Gaussian {
	l := &p.Learner[layer]
	ceiling := l.Ceiling
	if ceiling == 0 {
		ceiling = l.Variance
	}
	wander := l.DriftPerAnswer
	if elapsedMs > 0 {
		wander += float64(float64(elapsedMs) * (1.0 / MillisecondsPerDay) * l.DriftPerDay)
	}
	if !(wander > 0) || !(ceiling > 0) {
		return g
	}
	kept := 1 / (1 + wander/ceiling)
	g.Mean = l.Mean + float64((g.Mean-l.Mean)*math.Sqrt(kept))
	g.Variance = float64(kept*g.Variance) + float64((1-kept)*ceiling)
	return g
}
