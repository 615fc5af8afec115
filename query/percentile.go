package query

import (
	"math"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
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
	parts    [normWidths]normPart
	used     int
}

type normPart struct {
	of     distribution
	weight float64 // of a learner: that of the part over its learners
}

const (
	shrinkBelow = 200
	shrinkPrior = 25
	normWidths  = 3 // goal, subject, overall
)

// widths are the distributions of a norm group and of its parents, narrowest
// first; nil where there is none.
type widths [normWidths]distribution

// normOf returns the norm of a group, false when the group is too small to be
// shown.
func normOf(w widths) (n norm, ok bool) {
	if w[0] == nil || w[0].Learners() < MinGroup {
		return norm{}, false
	}
	n.learners = w[0].Learners()
	rest := 1.0
	for _, d := range w {
		if d == nil || rest <= 0 {
			break
		}
		size := d.Learners()
		if size < MinGroup {
			continue
		}
		share := 1.0
		if size < shrinkBelow {
			share = float64(size) / float64(size+shrinkPrior) * (shrinkBelow + shrinkPrior) / shrinkBelow
		}
		n.parts[n.used] = normPart{d, rest * share / float64(size)}
		n.used++
		rest -= rest * share
	}
	last := &n.parts[n.used-1]
	last.weight += rest / float64(max(1, last.of.Learners()))
	return n, true
}

// percentile returns the percentile of a skill: the share of the group that lies
// below it, ties counted half, in points.
func (n *norm) percentile(skill float64) float64 {
	share := 0.0
	for _, p := range n.parts[:n.used] {
		share += p.weight * rank(p.of, skill)
	}
	return 100 * min(1, max(0, share))
}

// expected returns the percentile among true skills that one known with a variance
// is expected to have, in points.
func (n *norm) expected(skill, variance float64) float64 {
	share := 0.0
	for _, p := range n.parts[:n.used] {
		share += p.weight * p.of.BelowTrue(skill, variance)
	}
	return 100 * min(1, max(0, share))
}

// band returns the percentile of a skill, and the 90 % band of the true one: the
// places of the ends of the skill's band among the true skills of the group. The
// band holds the percentile also where few answers draw the estimates so close
// together that the order of estimates says more than is known.
func (n *norm) band(skill, se float64) (value, low, high float64) {
	value = n.percentile(skill)
	return value, min(value, n.expected(skill-band90*se, 0)), max(value, n.expected(skill+band90*se, 0))
}

// quantiles returns the skill at the percentiles 1 to 99.
func (n *norm) quantiles() (at [99]float64) {
	next, below, last := 0, 0.0, 0
	for bin := range histogramBins {
		mass := 0.0
		for _, p := range n.parts[:n.used] {
			mass += 100 * p.weight * float64(p.of.At(bin))
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
	Learners   int64   // in the norm group
	Percentile float64 // mid-rank of Skill among the skills of the norm group
	Low, High  float64 // 90 % band of the true percentile
	Expected   float64 // mean of the true percentile; a group's mean is made of these
}

// Standing is everything that the percentiles of a learner are about.
type Standing struct {
	School      string
	Group       string
	YearGroup   uint8
	Norm        NormUsed
	Percentiles []Percentile
}

// Standing returns a learner's skills and percentiles: overall, then subjects
// and goals in the order in which the learner met them. The norm is the newest
// valid one, or the live one when there is none. It is false when the model holds
// no answer of the learner.
func (m *ReadModel) Standing(token answer.Token) (Standing, bool) {
	return m.StandingBy(token, m.DefaultNorm())
}

// StandingBy is Standing with a norm of choice.
func (m *ReadModel) StandingBy(token answer.Token, by NormChoice) (Standing, bool) {
	s := &m.learners.shards[shardOf(token)]
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, _ := s.find(token)
	if l == nil {
		return Standing{}, false
	}
	return m.standing(l, by), true
}

// standing is StandingBy of a learner whose shard is locked.
func (m *ReadModel) standing(l *learner, by NormChoice) Standing {
	now := m.config.Now()
	out := Standing{
		School:      m.catalogue.schools.at(l.school),
		Group:       m.catalogue.groups.at(l.group),
		YearGroup:   l.yearGroup,
		Norm:        m.used(by, now),
		Percentiles: make([]Percentile, 0, len(l.layers)),
	}
	var buffer [usualLayers]filter.Estimate
	estimates := m.estimates(l, buffer[:0], now)
	for i := range l.layers {
		inner := &l.layers[i]
		d := m.domainOf(inner)
		p := Percentile{
			Layer: inner.kind, Key: d.name, Answers: inner.answers,
			Skill: l.meanOf(inner), SE: math.Sqrt(estimates[i].Skill),
		}
		if inner.kind == transform.LayerGoal {
			p.Subject = m.catalogue.subjects.at(inner.subject).name
		}
		p.compare(m.widths(by, d, inner.kind, l.yearGroup))
		out.Percentiles = append(out.Percentiles, p)
	}
	return out
}

// compare fills in the percentile against a norm group.
func (p *Percentile) compare(w widths) {
	n, ok := normOf(w)
	if !ok {
		return
	}
	p.Shown, p.Learners = true, n.learners
	p.Percentile, p.Low, p.High = n.band(p.Skill, p.SE)
	p.Expected = n.expected(p.Skill, p.SE*p.SE)
}

// Distribution is the skill of a norm group at the percentiles 1 to 99.
type Distribution struct {
	Learners int64
	Skill    [99]float64
	Norm     NormUsed
}

// Distribution returns how the skill of a goal is spread in a year group. It is
// false when the goal is unknown or the group too small to be shown.
func (m *ReadModel) Distribution(goal string, yearGroup uint8, by NormChoice) (Distribution, bool) {
	if yearGroup >= yearGroups {
		return Distribution{}, false
	}
	now := m.config.Now()
	d, ok := m.catalogue.findGoal(goal)
	if by.frozen == nil {
		if !ok {
			return Distribution{}, false
		}
		p, ok := m.publishedOf(d, yearGroup, now)
		if !ok {
			return Distribution{}, false
		}
		return Distribution{Learners: p.learners, Skill: p.skill, Norm: m.used(by, p.at)}, true
	}
	n, ok := normOf(by.frozen.widths(transform.LayerGoal, goal, yearGroup))
	if !ok {
		return Distribution{}, false
	}
	return Distribution{Learners: n.learners, Skill: n.quantiles(), Norm: m.used(by, now)}, true
}
