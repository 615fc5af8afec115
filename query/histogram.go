package query

import (
	"sync/atomic"

	"github.com/leerstroom/leerstroom/transform"
)

// A norm histogram has the bins of transform.Bin: 4,096 of 1/256 logit over
// [-8, 8). Values outside count in the outermost bins.
const (
	histogramBins  = transform.Bins
	binsPerLogit   = 256
	histogramLow   = -8.0
	blockBins      = transform.BlockBins // bins that share partial sums
	histogramBlock = transform.BlockCount
)

// Histogram counts the learners of one norm group by their skill. A learner
// that moves is taken out of its old bin and put into the new one, so that the
// counts are those of the present states whatever the order of the moves.
//
// Counts are atomic: readers take no lock and see a count that is at most off
// by the moves in progress.
type Histogram struct {
	counts    [histogramBins]atomic.Int32
	blocks    [histogramBlock]histogramSums
	total     atomic.Int64
	moved     atomic.Uint64 // marks of learners; see touch
	published *published    // under the domain's lock
}

// histogramSums are a transform.SpreadBlock that is written by many.
type histogramSums struct{ learners, offset, variance atomic.Int64 }

// place is where a learner counts: a bin, and a class of the variance of the
// skill.
type place struct {
	bin   uint16
	class uint8
}

func (h *Histogram) add(at place, n int64) {
	h.counts[at.bin].Add(int32(n))
	h.total.Add(n)
	block := &h.blocks[at.bin/blockBins]
	block.learners.Add(n)
	block.offset.Add(n * int64(at.bin%blockBins))
	block.variance.Add(n * transform.ClassVariance(at.class))
}

// move takes a learner from one place to another.
func (h *Histogram) move(from, to place) {
	if from.bin/blockBins != to.bin/blockBins {
		h.add(to, 1)
		h.add(from, -1)
		return
	}
	block := &h.blocks[to.bin/blockBins]
	if from.bin != to.bin {
		h.counts[from.bin].Add(-1)
		h.counts[to.bin].Add(1)
		block.offset.Add(int64(to.bin) - int64(from.bin))
	}
	if from.class != to.class {
		block.variance.Add(transform.ClassVariance(to.class) - transform.ClassVariance(from.class))
	}
}

// touch notes that a learner has moved: one of 64 marks, by the token. As many
// different learners as there are marks, or more, have moved since the marks were
// taken off.
func (h *Histogram) touch(mark uint8) {
	if bit := uint64(1) << (mark % 64); h.moved.Load()&bit == 0 {
		h.moved.Or(bit)
	}
}

// Learners returns the size of the norm group.
func (h *Histogram) Learners() int64 { return h.total.Load() }

// mean returns the mean skill of the group.
func (h *Histogram) mean() float64 {
	n := h.total.Load()
	if n == 0 {
		return 0
	}
	sum := int64(0) // of bin numbers
	for i := range h.blocks {
		sum += int64(i)*blockBins*h.blocks[i].learners.Load() + h.blocks[i].offset.Load()
	}
	return histogramLow + (float64(sum)/float64(n)+0.5)/binsPerLogit
}

// BelowBin returns how many learners lie in lower bins: at most 128 blocks and 31
// bins are added up.
func (h *Histogram) BelowBin(bin int) int64 {
	below := int64(0)
	for b := range bin / blockBins {
		below += h.blocks[b].learners.Load()
	}
	for b := bin / blockBins * blockBins; b < bin; b++ {
		below += int64(h.counts[b].Load())
	}
	return below
}

// At returns how many learners lie in a bin, 0 outside.
func (h *Histogram) At(bin int) int64 {
	if bin < 0 || bin >= histogramBins {
		return 0
	}
	return int64(h.counts[bin].Load())
}

// BelowTrue returns how many learners are expected to have a true skill below one
// that is known with a variance; see transform.Spread.
func (h *Histogram) BelowTrue(skill, variance float64) float64 {
	var s transform.Spread
	for i := range s {
		b := &h.blocks[i]
		s[i] = transform.SpreadBlock{Learners: b.learners.Load(), Offset: b.offset.Load(), Variance: b.variance.Load()}
	}
	return s.Below(skill, variance)
}

// distribution is what a percentile needs of a norm group: a live Histogram, or a
// frozen transform.Norm.
type distribution interface {
	Learners() int64
	BelowBin(bin int) int64
	At(bin int) int64
	BelowTrue(skill, variance float64) float64
}

// rank returns how many learners lie below a skill, ties counted half. The cost
// does not depend on the number of learners.
//
// Within the bin of the skill the learners are taken as spread evenly, except
// for those that the bin has in excess of both its neighbours: they are taken
// as tied at one value and counted half, as the mid-rank of discrete skills
// asks for.
func rank(d distribution, skill float64) float64 {
	if skill < histogramLow {
		return 0
	}
	bin := int(transform.Bin(skill))
	within := float64(d.At(bin))
	tied := max(0, within-float64(max(d.At(bin-1), d.At(bin+1))))
	fraction := min(1, (skill-histogramLow)*binsPerLogit-float64(bin))
	return float64(d.BelowBin(bin)) + (within-tied)*fraction + tied/2
}
