package evaluate

import (
	"math"
	"sort"

	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// coverageTally counts bands that hold the truth.
type coverageTally struct {
	bands, percentile, skill, diagonal int
	groups, grouped                    int
	grown, growing                     int
	width, error2, variance            float64
}

// percentiles holds the bands of one norm group against the ranks of the true
// skills, and those of groups of its learners.
func (t *coverageTally) percentiles(of []*known) (examples []BandExample, err error) {
	norm, err := normOf(of)
	if err != nil {
		return nil, err
	}
	truths, n := sortedTruths(of), float64(len(of))
	var sum, truthSum, square float64
	for i, k := range of {
		se := math.Sqrt(k.estimate.Variance)
		e := BandExample{
			Percentile: 100 * (float64(norm.BelowBin(binOf(k))) + float64(norm.At(binOf(k)))/2) / n,
			Low:        100 * norm.BelowTrue(k.estimate.Mean-coverageBand*se, 0) / n,
			High:       100 * norm.BelowTrue(k.estimate.Mean+coverageBand*se, 0) / n,
			Truth:      100 * (float64(sort.SearchFloat64s(truths, k.truth)) + 0.5) / n,
		}
		e.Low, e.High = min(e.Low, e.Percentile), max(e.High, e.Percentile)
		t.bands++
		if e.Low <= e.Truth && e.Truth <= e.High {
			t.percentile++
		}
		t.width += e.High - e.Low
		if i%(max(1, len(of)/60)) == 0 {
			examples = append(examples, e)
		}
		sd := (e.High - e.Low) / (2 * coverageBand)
		sum, truthSum, square = sum+100*norm.BelowTrue(k.estimate.Mean, k.estimate.Variance)/n, truthSum+e.Truth, square+sd*sd
		if (i+1)%coverageGroup == 0 {
			t.grouped++
			if math.Abs(sum-truthSum) <= coverageBand*math.Sqrt(square) {
				t.groups++
			}
			sum, truthSum, square = 0, 0, 0
		}
	}
	sort.Slice(examples, func(a, b int) bool { return examples[a].Percentile < examples[b].Percentile })
	return examples, nil
}

// skills holds the bands of skills against the truth, relative to the mean of all:
// where zero lies is not known, and no percentile depends on it.
func (t *coverageTally) skills(of []*known) {
	shift := 0.0
	for _, k := range of {
		shift += (k.estimate.Mean - k.truth) / float64(len(of))
	}
	for _, k := range of {
		off := k.estimate.Mean - k.truth - shift
		if math.Abs(off) <= coverageBand*math.Sqrt(k.estimate.Variance) {
			t.skill++
		}
		if math.Abs(off) <= coverageBand*math.Sqrt(k.diagonal) {
			t.diagonal++
		}
		t.error2 += off * off
		t.variance += k.estimate.Variance
	}
}

// growth holds growth since the middle against the true one, relative to the mean
// of all.
func (t *coverageTally) growth(p *filter.Parameters, kind int, now, then []*known) {
	var off, se []float64
	shift := 0.0
	for i, k := range now {
		before := then[i]
		if before == nil {
			continue
		}
		wander := 0.0
		for layer := range kind + 1 {
			wander += p.Wander(layer, float64(k.answers[layer])-float64(before.answers[layer]), coverageDays-coverageMiddle)
		}
		g := filter.Growth(before.estimate, k.estimate, wander)
		off, se = append(off, g.Mean-(k.truth-before.truth)), append(se, math.Sqrt(g.Variance))
		shift += off[len(off)-1]
	}
	for i := range off {
		t.growing++
		if math.Abs(off[i]-shift/float64(len(off))) <= coverageBand*se[i] {
			t.grown++
		}
	}
}

func (t *coverageTally) coverage() LayerCoverage {
	share := func(part, whole int) float64 { return float64(part) / float64(max(1, whole)) }
	n := float64(max(1, t.bands))
	return LayerCoverage{
		Bands: t.bands, Percentile: share(t.percentile, t.bands), Skill: share(t.skill, t.bands), Diagonal: share(t.diagonal, t.bands),
		Groups: share(t.groups, t.grouped), Growth: share(t.grown, t.growing),
		Width: t.width / n, RMSE: math.Sqrt(t.error2 / n), SE: math.Sqrt(t.variance / n),
	}
}

func binOf(k *known) int { return int(transform.Bin(k.estimate.Mean)) }
