package query

import (
	"math"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// band90 is the half-width of a 90 % band in standard errors.
const band90 = 1.6448536269514722

// norm is the distribution of skill that a percentile compares with: that of a
// norm group, shrunk towards those of its parents when the group is small.
//
// The parent of a goal is its subject and that of a subject is overall, each of
// the same year group. A group of n < 200 learners has the weight
//
//	w = n/(n+25) · 225/200
//
// and its parent the rest. n/(n+25) is the share that minimises the expected
// square error when the parent's distribution lies some .1 away from the
// group's: the sampling variance of a share near the median is .25/n, and
// .1²/(.1² + .25/n) = n/(n+25). The factor makes the step at 200, from where a
// group stands for itself, go away. A parent under MinGroup is passed over.
type norm struct {
	learners int64 // of the group itself
	parts    [3]normPart
	used     int
}

type normPart struct {
	histogram *Histogram
	weight    float64
}

const (
	shrinkBelow = 200
	shrinkPrior = 25
)

// normOf returns the norm of a year group in a domain, false when the group is
// too small to be shown.
func normOf(d *domain, yearGroup uint8) (n norm, ok bool) {
	rest := 1.0
	for ; d != nil && rest > 0; d = d.parent.Load() {
		h := d.norms[yearGroup].Load()
		var size int64
		if h != nil {
			size = h.Learners()
		}
		if n.used == 0 {
			if size < MinGroup {
				return norm{}, false
			}
			n.learners = size
		}
		if size < MinGroup {
			continue
		}
		w := 1.0
		if size < shrinkBelow {
			w = float64(size) / float64(size+shrinkPrior) * (shrinkBelow + shrinkPrior) / shrinkBelow
		}
		n.parts[n.used] = normPart{h, rest * w}
		n.used++
		rest -= rest * w
	}
	n.parts[n.used-1].weight += rest
	return n, true
}

// percentile returns the percentile of a skill: the share of the group that lies
// below it, ties counted half, in points.
func (n *norm) percentile(skill float64) float64 {
	share := 0.0
	for _, p := range n.parts[:n.used] {
		if total := p.histogram.Learners(); total > 0 {
			share += p.weight * p.histogram.rank(skill) / float64(total)
		}
	}
	return 100 * min(1, max(0, share))
}

// quantiles returns the skill at the percentiles 1 to 99.
func (n *norm) quantiles() (at [99]float64) {
	next, below := 0, 0.0
	var scale [3]float64
	for i, p := range n.parts[:n.used] {
		scale[i] = 100 * p.weight / float64(max(1, p.histogram.Learners()))
	}
	last := 0
	for bin := range histogramBins {
		mass := 0.0
		for i, p := range n.parts[:n.used] {
			mass += scale[i] * float64(p.histogram.counts[bin].Load())
		}
		for mass > 0 && next < len(at) && below+mass >= float64(next+1) {
			at[next] = histogramLow + (float64(bin)+(float64(next+1)-below)/mass)/binsPerLogit
			next++
		}
		if mass > 0 {
			last = bin
		}
		below += mass
	}
	for ; next < len(at); next++ { // counts moved while they were read
		at[next] = transform.BinSkill(uint16(last))
	}
	return at
}

// Percentile is where a learner stands in its norm group.
type Percentile struct {
	Layer   transform.Layer
	Key     string // subject or goal, "" for overall
	Subject string // of a goal
	Answers uint32 // that the layer is made of
	Skill   float64
	SE      float64 // standard error of Skill

	// Shown is false when the norm group holds fewer than MinGroup learners; then
	// what follows is zero.
	Shown      bool
	Learners   int64 // in the norm group
	Percentile float64
	Low, High  float64 // 90 % band
}

// Standing is everything that the percentiles of a learner are about.
type Standing struct {
	School      string
	Group       string
	YearGroup   uint8
	Percentiles []Percentile
}

// Standing returns a learner's skills and percentiles: overall, then subjects
// and goals in the order in which the learner met them. It is false when the
// model holds no answer of the learner.
func (m *ReadModel) Standing(token answer.Token) (Standing, bool) {
	s := &m.learners.shards[shardOf(token)]
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, _ := s.find(token)
	if l == nil {
		return Standing{}, false
	}
	return m.standing(l), true
}

// standing is Standing of a learner whose shard is locked.
func (m *ReadModel) standing(l *learner) Standing {
	now := m.config.Now()
	out := Standing{
		School:      m.catalogue.schools.at(l.school),
		Group:       m.catalogue.groups.at(l.group),
		YearGroup:   l.yearGroup,
		Percentiles: make([]Percentile, 0, len(l.layers)),
	}
	for i := range l.layers {
		out.Percentiles = append(out.Percentiles, m.percentileOf(l, &l.layers[i], now))
	}
	return out
}

func (m *ReadModel) percentileOf(l *learner, inner *layer, now time.Time) Percentile {
	d := m.domainOf(inner)
	s := m.skillOf(l, inner, now)
	p := Percentile{
		Layer: inner.kind, Key: d.name, Answers: inner.answers,
		Skill: s.Mean, SE: math.Sqrt(s.Variance),
	}
	if inner.kind == transform.LayerGoal {
		p.Subject = m.catalogue.subjects.at(inner.subject).name
	}
	n, ok := normOf(d, l.yearGroup)
	if !ok {
		return p
	}
	p.Shown, p.Learners = true, n.learners
	p.Percentile = n.percentile(s.Mean)
	p.Low = n.percentile(s.Mean - band90*p.SE)
	p.High = n.percentile(s.Mean + band90*p.SE)
	return p
}

// Distribution is the skill of a norm group at the percentiles 1 to 99.
type Distribution struct {
	Learners int64
	Skill    [99]float64
}

// Distribution returns how the skill of a goal is spread in a year group. It is
// false when the goal is unknown or the group too small to be shown.
func (m *ReadModel) Distribution(goal string, yearGroup uint8) (Distribution, bool) {
	d, ok := m.catalogue.findGoal(goal)
	if !ok || yearGroup >= yearGroups {
		return Distribution{}, false
	}
	n, ok := normOf(d, yearGroup)
	if !ok {
		return Distribution{}, false
	}
	return Distribution{Learners: n.learners, Skill: n.quantiles()}, true
}
