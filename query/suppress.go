package query

import (
	"math"
	"math/bits"
	"time"

	"github.com/leerstroom/leerstroom/transform"
)

// MinGroup is the smallest number of learners about whom a figure is given.
const MinGroup = transform.MinGroup

// minAnswers is the smallest number of answers from which a difficulty or a
// proportion of an exercise is given. The model counts the first answer of a
// learner only, so it is a number of learners.
const minAnswers = MinGroup

// The proportion of right answers is given no further than this: a share near 0
// or 1 would tell what each single learner did.
const (
	lowestProportion  = 0.05
	highestProportion = 0.95
)

// proportion returns the capped share of right answers, false when there are too
// few answers.
func proportion(m *measure) (float64, bool) {
	if m == nil || m.answers < minAnswers {
		return 0, false
	}
	return min(highestProportion, max(lowestProportion, m.right/float64(m.answers))), true
}

// sizeShown is how the size of a group is told: in tens, so that the sizes of a
// goal, its subject and the whole can't be subtracted to find a few learners.
func sizeShown(learners int64) int64 { return learners - learners%MinGroup }

// pointShown tells whether the skill at a percentile may be told to those who see
// no learners: at least MinGroup lie below it, above it, and between it and the
// next that is told. Otherwise it would be close to the skill of one of them.
func pointShown(percentile int, learners int64) bool {
	if learners < 2*MinGroup {
		return false
	}
	step := int((100*MinGroup + learners - 1) / learners)
	n := float64(learners) / 100
	return percentile%step == 0 && float64(percentile)*n >= MinGroup && float64(100-percentile)*n >= MinGroup
}

// published is a live distribution as it was told.
type published struct {
	learners int64
	skill    [99]float64
	at       time.Time
}

// publishedOf returns the live distribution of a goal as it is told to those who
// see no learners. It is made anew only when at least MinGroup different learners
// have moved since the last time: the difference of two replies is never that of
// a few.
func (m *ReadModel) publishedOf(d *domain, yearGroup uint8, now time.Time) (*published, bool) {
	n, ok := normOf(m.widths(NormChoice{}, d, transform.LayerGoal, yearGroup))
	if !ok {
		return nil, false
	}
	h := d.norm(yearGroup)
	d.publishing.Lock()
	defer d.publishing.Unlock()
	if p := h.published; p != nil && bits.OnesCount64(h.moved.Load()) < MinGroup {
		return p, true
	}
	h.moved.Store(0)
	p := &published{learners: n.learners, skill: n.quantiles(), at: now}
	h.published = p
	return p, true
}

// told returns the skills at the percentiles that may be told, nil for the others.
func (d *Distribution) told() (skill [99]*float64) {
	for i, value := range d.Skill {
		if pointShown(i+1, d.Learners) && !math.IsNaN(value) {
			value = rounded(value, 1e4)
			skill[i] = &value
		}
	}
	return skill
}
