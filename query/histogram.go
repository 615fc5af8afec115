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
	blockBins      = 64 // bins that share a partial sum
	histogramBlock = histogramBins / blockBins
)

// Histogram counts the learners of one norm group by their skill. A learner
// that moves is taken out of its old bin and put into the new one, so that the
// counts are those of the present states whatever the order of the moves.
//
// Counts are atomic: readers take no lock and see a count that is at most off
// by the moves in progress.
type Histogram struct {
	counts [histogramBins]atomic.Int32
	blocks [histogramBlock]atomic.Int32
	total  atomic.Int64
	sum    atomic.Int64 // of bin numbers, for the mean
}

func (h *Histogram) add(bin int, n int32) {
	h.counts[bin].Add(n)
	h.blocks[bin/blockBins].Add(n)
	h.total.Add(int64(n))
	h.sum.Add(int64(n) * int64(bin))
}

// move takes a learner from one bin to another.
func (h *Histogram) move(from, to int) {
	if from == to {
		return
	}
	h.counts[from].Add(-1)
	h.counts[to].Add(1)
	if from/blockBins != to/blockBins {
		h.blocks[from/blockBins].Add(-1)
		h.blocks[to/blockBins].Add(1)
	}
	h.sum.Add(int64(to) - int64(from))
}

// Learners returns the size of the norm group.
func (h *Histogram) Learners() int64 { return h.total.Load() }

// mean returns the mean skill of the group.
func (h *Histogram) mean() float64 {
	n := h.total.Load()
	if n == 0 {
		return 0
	}
	return histogramLow + (float64(h.sum.Load())/float64(n)+0.5)/binsPerLogit
}

// rank returns how many learners lie below a skill, ties counted half. The cost
// does not depend on the number of learners: at most 64 blocks and 63 bins.
//
// Within the bin of the skill the learners are taken as spread evenly, except
// for those that the bin has in excess of both its neighbours: they are taken
// as tied at one value and counted half, as the mid-rank of discrete skills
// asks for.
func (h *Histogram) rank(skill float64) float64 {
	if skill < histogramLow {
		return 0
	}
	bin := int(transform.Bin(skill))
	below := int64(0)
	for b := range bin / blockBins {
		below += int64(h.blocks[b].Load())
	}
	for b := bin / blockBins * blockBins; b < bin; b++ {
		below += int64(h.counts[b].Load())
	}
	within := float64(h.counts[bin].Load())
	tied := max(0, within-float64(max(h.at(bin-1), h.at(bin+1))))
	fraction := min(1, (skill-histogramLow)*binsPerLogit-float64(bin))
	return float64(below) + (within-tied)*fraction + tied/2
}

// at returns the count of a bin, 0 outside.
func (h *Histogram) at(bin int) int32 {
	if bin < 0 || bin >= histogramBins {
		return 0
	}
	return h.counts[bin].Load()
}
