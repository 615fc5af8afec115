package transform

import (
	"errors"
	"sort"
	"time"
)

// MinGroup is the smallest number of learners about whom a figure is kept in a
// norm, or given at all.
const MinGroup = 10

// FrozenNorm is a norm as it was at a moment. It never changes: a percentile
// against it moves only through the learner.
type FrozenNorm struct {
	NormVersion
	Groups []NormGroup
	Growth []GrowthCell
}

// NormVersion names a frozen norm.
type NormVersion struct {
	Name       string // school year and moment, such as 2026-2027-M
	Version    uint32 // from 1
	SchoolYear SchoolYear
	Moment     string
	AsOf       Day // the skills are those at the end of this day
	TakenAt    time.Time
	Learners   int64 // who answered in the school year
	GroupCount int
	CellCount  int
	Digest     string // SHA-256 of groups and growth, hex
}

// NormGroup is the distribution of skill of one norm group.
type NormGroup struct {
	Layer     Layer
	Key       string // "" for overall, the subject, or the goal
	Subject   string // of a goal, or the subject itself
	YearGroup uint8
	Bins      []uint16 // ascending; see Bin
	Counts    []int64  // learners in each bin, > 0
	Variances []int64  // per block that holds a learner, ascending: sum of the variances, in VarianceUnit
}

// GrowthCell says what learners who began alike had reached some weeks later. It
// holds nobody's data: at least MinGroup learners, each counted once.
type GrowthCell struct {
	Layer     Layer
	Key       string
	YearGroup uint8 // at the start
	Start     int16 // skill at the start: [Start, Start+1) × GrowthStep logits
	Weeks     uint8 // later
	Learners  int64
	Median    float64 // skill reached
	// Low and High are the quartiles, NaN when fewer than MinGroup learners would
	// lie beyond them.
	Low, High float64
}

// GrowthStep is the width of the skills at the start that count as alike, in
// logits.
const GrowthStep = 0.5

// Norm is a distribution of skill that never changes, in a form that answers in
// a time that does not depend on the number of learners. It is safe for
// concurrent use.
type Norm struct {
	bins   []uint16
	below  []int64 // learners below each bin; one more for all
	spread Spread
}

var errNormGroup = errors.New("norm group: bins, counts and variances do not fit together")

// NewNorm makes the norm of a group.
func NewNorm(g *NormGroup) (*Norm, error) {
	if len(g.Bins) != len(g.Counts) {
		return nil, errNormGroup
	}
	n := &Norm{bins: g.Bins, below: make([]int64, len(g.Bins)+1)}
	block, used := -1, 0
	for i, bin := range g.Bins {
		if bin >= Bins || g.Counts[i] <= 0 || i > 0 && bin <= g.Bins[i-1] {
			return nil, errNormGroup
		}
		n.below[i+1] = n.below[i] + g.Counts[i]
		if b := int(bin) / BlockBins; b != block {
			if used >= len(g.Variances) {
				return nil, errNormGroup
			}
			block = b
			n.spread[b].Variance = g.Variances[used]
			used++
		}
		n.spread[block].Learners += g.Counts[i]
		n.spread[block].Offset += g.Counts[i] * int64(bin%BlockBins)
	}
	if used != len(g.Variances) {
		return nil, errNormGroup
	}
	return n, nil
}

// Learners returns the size of the group.
func (n *Norm) Learners() int64 { return n.below[len(n.bins)] }

// BelowBin returns how many learners lie in lower bins.
func (n *Norm) BelowBin(bin int) int64 { return n.below[n.find(bin)] }

// At returns how many learners lie in a bin, 0 outside.
func (n *Norm) At(bin int) int64 {
	i := n.find(bin)
	if i == len(n.bins) || int(n.bins[i]) != bin {
		return 0
	}
	return n.below[i+1] - n.below[i]
}

// BelowTrue returns how many learners are expected to have a true skill below one
// that is known with a variance; see Spread.
func (n *Norm) BelowTrue(skill, variance float64) float64 { return n.spread.Below(skill, variance) }

// find returns the place of the first bin from the given one on: at most twelve
// steps.
func (n *Norm) find(bin int) int {
	return sort.Search(len(n.bins), func(i int) bool { return int(n.bins[i]) >= bin })
}
