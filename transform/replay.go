package transform

import (
	"cmp"
	"slices"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// Replay goes through the history of one learner. Its memory is used again for
// the next.
type Replay struct {
	rows      []DailySkill
	next      int
	index     map[replayKey]int
	layers    []DailySkill // newest of each layer, in the order in which they were met
	estimates []filter.Estimate
	standings []PastStanding
}

type replayKey struct {
	layer Layer
	key   string
}

// PastStanding is a skill as it was.
type PastStanding struct {
	Layer    Layer
	Key      string
	Subject  string
	Day      Day     // of its newest answer
	Skill    float64 // sum of the layer and the wider ones, logits
	Variance float64
	Spread   float64 // see filter.Estimate
	Answers  uint32
	Layers   [filter.Layers]DailySkill // that it is the sum of; those not met are zero
}

// Begin takes the history of a learner. The rows are sorted in place and must
// stay until the next Begin.
func (r *Replay) Begin(rows []DailySkill) {
	slices.SortStableFunc(rows, func(a, b DailySkill) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Position, b.Position))
	})
	if r.index == nil {
		r.index = make(map[replayKey]int)
	}
	clear(r.index)
	r.rows, r.next, r.layers = rows, 0, r.layers[:0]
}

// Advance goes to the end of a day.
func (r *Replay) Advance(day Day) {
	for ; r.next < len(r.rows) && r.rows[r.next].Day <= day; r.next++ {
		row := r.rows[r.next]
		key := replayKey{row.Layer, row.Key}
		i, known := r.index[key]
		if !known {
			i = len(r.layers)
			r.index[key] = i
			r.layers = append(r.layers, row)
			continue
		}
		r.layers[i] = row
	}
}

// YearGroup returns the year group of the newest answer, false when it is unknown
// or that answer was given before a day.
func (r *Replay) YearGroup(since Day) (yearGroup uint8, known bool) {
	i, ok := r.index[replayKey{layer: LayerOverall}]
	if !ok || r.layers[i].Day < since || r.layers[i].YearGroup == 0 {
		return 0, false
	}
	return r.layers[i].YearGroup, true
}

// subject returns the place of the subject that a layer stands on, -1 without.
func (r *Replay) subject(l *DailySkill) int {
	if l.Layer != LayerGoal || l.Subject == "" {
		return -1
	}
	if i, ok := r.index[replayKey{LayerSubject, l.Subject}]; ok {
		return i
	}
	return -1
}

// skillOf returns the skill that a layer stands for.
func (r *Replay) skillOf(l *DailySkill) float64 {
	skill := l.Mean
	if i := r.subject(l); i >= 0 {
		skill += r.layers[i].Mean
	}
	if l.Layer != LayerOverall {
		if i, ok := r.index[replayKey{layer: LayerOverall}]; ok {
			skill += r.layers[i].Mean
		}
	}
	return skill
}

// Standings returns all skills as they are known at the end of a day. The slice
// is used again.
func (r *Replay) Standings(p *filter.Parameters, day Day) []PastStanding {
	r.estimates, r.standings = r.estimates[:0], r.standings[:0]
	for i := range r.layers {
		l := &r.layers[i]
		age := int64(day-l.Day) * filter.MillisecondsPerDay
		g := p.Drift(int(l.Layer), filter.Gaussian{Mean: l.Mean, Variance: l.Variance}, age)
		r.estimates = append(r.estimates, filter.Estimate{
			Layer: int(l.Layer), Subject: r.subject(l), Variance: g.Variance, Answers: l.Answers, AgeMs: age})
	}
	p.SkillVariances(r.estimates)
	for i := range r.layers {
		l := &r.layers[i]
		s := PastStanding{Layer: l.Layer, Key: l.Key, Subject: l.Subject, Day: l.Day, Skill: r.skillOf(l),
			Variance: r.estimates[i].Skill, Spread: r.estimates[i].Spread, Answers: l.Answers}
		s.Layers[l.Layer] = *l
		if k := r.estimates[i].Subject; k >= 0 {
			s.Layers[LayerSubject] = r.layers[k]
		}
		if k, ok := r.index[replayKey{layer: LayerOverall}]; ok {
			s.Layers[LayerOverall] = r.layers[k]
		}
		r.standings = append(r.standings, s)
	}
	return r.standings
}
