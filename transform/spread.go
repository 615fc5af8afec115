package transform

import (
	"math"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// Blocks of a norm histogram: runs of bins that share a sum of variances.
const (
	BlockBins  = 32
	BlockCount = Bins / BlockBins
	blockWidth = BlockBins * binWidth
)

// A skill is known with an error, and the classes of variance say with which:
// sixteen per doubling, from 2^-10 on. A class holds every variance within 2.2 %.
const (
	varianceClasses  = 256
	classesPerOctave = 16
	lowestOctave     = -10
	// VarianceUnit is what sums of variances are counted in: integers, so that
	// they add in any order to the same bits.
	VarianceUnit = 1.0 / (1 << 20)
)

// classVariances are the variances that the classes stand for, in units.
var classVariances = func() (of [varianceClasses]int64) {
	for class := range of {
		of[class] = int64(math.Round(math.Exp2(lowestOctave+float64(class)/classesPerOctave) / VarianceUnit))
	}
	return of
}()

// VarianceClass returns the class of a variance of a skill.
func VarianceClass(variance float64) uint8 {
	if !(variance > 0) {
		return 0
	}
	class := float64(filter.Log(variance)*(classesPerOctave/math.Ln2)) - lowestOctave*classesPerOctave
	return uint8(min(max(math.Round(class), 0), varianceClasses-1))
}

// ClassVariance returns the variance that a class counts for, in VarianceUnit.
func ClassVariance(class uint8) int64 { return classVariances[class] }

// Spread is the distribution of the true skills of a norm group: of those whose
// estimates lie in the same block, how many and how uncertain they are.
//
// The estimates of a norm group vary less than the true skills, because each is
// drawn to what is expected of everybody. A learner's band must be compared with
// the true skills; held against the estimates it would promise too much.
type Spread [BlockCount]SpreadBlock

// SpreadBlock is one block of a Spread.
type SpreadBlock struct {
	Learners int64
	Offset   int64 // sum over the learners: bins from the first of the block
	Variance int64 // likewise: variances, in VarianceUnit
}

// Below returns how many learners are expected to have a true skill below that of
// one whose skill is known with a variance (0: below the skill itself):
//
//	Σ_v Φ((skill - m_v)/√(s_v + variance))
//
// with the learners of a block spread evenly over its width around their mean, and
// of equal variance. The work depends on the number of blocks only.
func (s *Spread) Below(skill, variance float64) float64 {
	total := 0.0
	for i := range s {
		block := &s[i]
		if block.Learners <= 0 {
			continue
		}
		n := float64(block.Learners)
		sd := math.Sqrt(max(0, float64(block.Variance)*VarianceUnit/n) + variance)
		mean := float64(i*BlockBins) + float64(block.Offset)/n + 0.5
		from := lowestSkill + mean*binWidth - blockWidth/2
		total += n * sharedBelow(skill-from, sd)
	}
	return total
}

// farAway is how many standard deviations from a block its share is 0 or 1.
const farAway = 6

// sharedBelow returns the share below x of a skill spread evenly over [0,
// blockWidth) plus a normal error.
func sharedBelow(x, sd float64) float64 {
	switch {
	case x <= -farAway*sd:
		return 0
	case x >= blockWidth+farAway*sd:
		return 1
	case sd < blockWidth/1000:
		return min(1, max(0, x/blockWidth))
	}
	return sd / blockWidth * (integralOfPhi(x/sd) - integralOfPhi((x-blockWidth)/sd))
}

// integralOfPhi is the integral of the normal distribution function from -∞.
func integralOfPhi(z float64) float64 {
	const inverseSqrt2Pi = 0.3989422804014327
	return z*0.5*math.Erfc(-z/math.Sqrt2) + inverseSqrt2Pi*math.Exp(-z*z/2)
}
