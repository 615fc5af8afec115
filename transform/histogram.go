package transform

// Bins of a norm histogram: Bins equal ones over [lowestSkill, -lowestSkill)
// logits. Skills outside fall into the first or the last.
const (
	Bins        = 4096
	lowestSkill = -8.0
	binWidth    = -2 * lowestSkill / Bins // 2^-8, so that binning is exact
)

// Bin returns the bin of a skill.
func Bin(skill float64) uint16 {
	// Written so that a skill that is not a number lands in the first bin.
	if !(skill >= lowestSkill) {
		return 0
	}
	return uint16(min((skill-lowestSkill)/binWidth, Bins-1))
}

// BinSkill returns the skill in the middle of a bin.
func BinSkill(bin uint16) float64 { return lowestSkill + (float64(bin)+0.5)*binWidth }

// Histogram counts the learners of a norm group per bin of skill. Counts are
// integers, so that moves and merges in any order give the same bits and a
// learner can be taken out again. The zero value is empty. It is not safe for
// concurrent use.
type Histogram struct {
	counts [Bins]int64
	total  int64
	spread Spread
}

// Add counts n learners in a bin; n < 0 takes them out.
func (h *Histogram) Add(bin uint16, n int64) {
	h.counts[bin] += n
	h.total += n
}

// AddUncertain counts n learners in a bin whose skill is known with a variance of
// a class; n < 0 takes them out.
func (h *Histogram) AddUncertain(bin uint16, class uint8, n int64) {
	h.Add(bin, n)
	block := &h.spread[bin/BlockBins]
	block.Learners += n
	block.Offset += n * int64(bin%BlockBins)
	block.Variance += n * ClassVariance(class)
}

// AppendSparse appends the bins that are not empty, ascending, with their counts.
func (h *Histogram) AppendSparse(bins []uint16, counts []int64) ([]uint16, []int64) {
	for bin, n := range h.counts {
		if n != 0 {
			bins, counts = append(bins, uint16(bin)), append(counts, n)
		}
	}
	return bins, counts
}

// Total returns the number of learners.
func (h *Histogram) Total() int64 { return h.total }

// AppendVariances appends the sums of variances of the blocks that are not empty,
// ascending, in VarianceUnit.
func (h *Histogram) AppendVariances(dst []int64) []int64 {
	for i := range h.spread {
		if h.spread[i].Learners > 0 {
			dst = append(dst, h.spread[i].Variance)
		}
	}
	return dst
}
