package transform

import "math"

// Bins of a norm histogram: Bins equal ones over [lowestSkill, -lowestSkill)
// logits. Skills outside fall into the first or the last.
const (
	Bins        = 4096
	lowestSkill = -8.0
	binWidth    = -2 * lowestSkill / Bins // 2^-8, so that binning is exact
)

// bandWidth is the half width of a 90% band in standard deviations.
const bandWidth = 1.645

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
}

// Add counts n learners in a bin; n < 0 takes them out.
func (h *Histogram) Add(bin uint16, n int64) {
	h.counts[bin] += n
	h.total += n
}

// Move takes a learner from one bin to another.
func (h *Histogram) Move(from, to uint16) {
	h.counts[from]--
	h.counts[to]++
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	for bin, n := range o.counts {
		h.counts[bin] += n
	}
	h.total += o.total
}

// AddSparse adds counts as a row of NormRows holds them.
func (h *Histogram) AddSparse(bins []uint16, counts []int64) {
	for i, bin := range bins {
		h.Add(bin, counts[i])
	}
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

// Reset empties the histogram.
func (h *Histogram) Reset() { *h = Histogram{} }

// Expected returns the percentile (0 to 100) that a learner of uncertain skill
// is expected to have: 100 Σ c_k Φ((mean-t_k)/√variance), where c_k is the share
// of the group in bin k and t_k its middle. It is 50 in an empty group. It costs
// a pass over the bins; for the percentile of a point use a Distribution.
func (h *Histogram) Expected(mean, variance float64) float64 {
	if h.total <= 0 {
		return 50
	}
	if variance <= 0 {
		return NewDistribution(h).Percentile(mean)
	}
	scale := 1 / math.Sqrt(2*variance)
	sum := 0.0
	for bin, n := range h.counts {
		if n != 0 {
			sum += float64(n) * math.Erfc((BinSkill(uint16(bin))-mean)*scale)
		}
	}
	return 50 * sum / float64(h.total)
}

// Band is a percentile (0 to 100) with the interval that holds the learner's
// true percentile in 90% of cases, given the norm group.
type Band struct{ Value, Low, High float64 }

// Distribution is an immutable cumulative view of a histogram: it answers in
// constant time.
type Distribution struct {
	below [Bins + 1]int64 // learners in lower bins
}

// NewDistribution makes the view of a histogram as it is now.
func NewDistribution(h *Histogram) *Distribution {
	d := &Distribution{}
	for bin, n := range h.counts {
		d.below[bin+1] = d.below[bin] + n
	}
	return d
}

// Total returns the number of learners.
func (d *Distribution) Total() int64 { return d.below[Bins] }

// Percentile returns the mid-rank percentile of a skill: 100 times the share of
// learners in lower bins plus half the share in its own. It is 50 in an empty
// group.
func (d *Distribution) Percentile(skill float64) float64 {
	if d.Total() <= 0 {
		return 50
	}
	bin := Bin(skill)
	return 50 * float64(d.below[bin]+d.below[bin+1]) / float64(d.Total())
}

// Band returns the percentile of a mean with those of mean ± 1.645 √variance.
func (d *Distribution) Band(mean, variance float64) Band {
	half := bandWidth * math.Sqrt(max(variance, 0))
	return Band{Value: d.Percentile(mean), Low: d.Percentile(mean - half), High: d.Percentile(mean + half)}
}

// Skill returns the skill at a percentile (0 to 100): the middle of the lowest
// bin up to which at least that share of learners lies. It is 0 in an empty
// group.
func (d *Distribution) Skill(percentile float64) float64 {
	if d.Total() <= 0 {
		return 0
	}
	want := max(percentile/100*float64(d.Total()), 1)
	low, high := 0, Bins-1
	for low < high {
		middle := (low + high) / 2
		if float64(d.below[middle+1]) >= want {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return BinSkill(uint16(low))
}
