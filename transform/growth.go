package transform

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// What growth counts.
const (
	growthWeeks   = 53 // longest look back
	growthFresh   = 28 // days: at both ends the layer has moved within these
	growthAnswers = 10 // that the layer is made of at the start, or more
	reachedBins   = 128
	reachedWidth  = 2 * -lowestSkill / reachedBins
)

// GrowthWeeks are the numbers of weeks after which growth is told.
var GrowthWeeks = [...]uint8{4, 8, 12, 16, 20, 26, 39, 52}

// GrowthMinAnswers is how many answers a start must be made of.
const GrowthMinAnswers = growthAnswers

// GrowthStart returns the class of a skill at the start.
func GrowthStart(skill float64) int16 {
	return int16(math.Floor(min(max(skill, lowestSkill), -lowestSkill) / GrowthStep))
}

// growth counts what learners had reached some weeks after a start. A learner
// counts once in a cell, with the first start that belongs there.
type growth struct {
	cells map[growthKey]*growthCounts
	path  []pathLayer // scratch: by layer of the replay
	seen  map[growthKey]struct{}
}

type growthKey struct {
	groupKey
	start int16
	weeks uint8
}

type growthCounts struct {
	learners int64
	reached  [reachedBins]uint32
}

// pathLayer is a layer at the end of each week; NaN where it was not fresh.
type pathLayer struct {
	skill     [growthWeeks + 1]float64
	start     [growthWeeks + 1]bool // enough answers to begin with
	yearGroup [growthWeeks + 1]uint8
}

// follow goes through the weeks before a day and counts.
func (g *growth) follow(r *Replay, asOf Day) {
	g.path = g.path[:0]
	for week := range growthWeeks + 1 {
		day := asOf - Day(7*(growthWeeks-week))
		r.Advance(day)
		yearGroup, _ := r.YearGroup(day - growthFresh)
		for len(g.path) < len(r.layers) {
			g.path = append(g.path, pathLayer{})
			for i := range growthWeeks + 1 {
				g.path[len(g.path)-1].skill[i] = math.NaN()
			}
		}
		for i := range r.layers {
			l, p := &r.layers[i], &g.path[i]
			if l.Day > day-growthFresh {
				p.skill[week], p.start[week], p.yearGroup[week] = r.skillOf(l), l.Answers >= growthAnswers, yearGroup
			}
		}
	}
	for i := range g.path {
		g.countLayer(&r.layers[i], &g.path[i])
	}
}

func (g *growth) countLayer(l *DailySkill, p *pathLayer) {
	if l.Key == "" && l.Layer != LayerOverall {
		return
	}
	if g.seen == nil {
		g.seen = make(map[growthKey]struct{})
	}
	clear(g.seen)
	for week, skill := range p.skill {
		if math.IsNaN(skill) || !p.start[week] || p.yearGroup[week] == 0 {
			continue
		}
		key := growthKey{groupKey: groupKey{l.Layer, l.Key, p.yearGroup[week]}, start: GrowthStart(skill)}
		for _, weeks := range GrowthWeeks {
			end := week + int(weeks)
			if end > growthWeeks {
				break
			}
			if reached := p.skill[end]; !math.IsNaN(reached) {
				key.weeks = weeks
				g.count(key, reached)
			}
		}
	}
}

func (g *growth) count(key growthKey, reached float64) {
	if _, counted := g.seen[key]; counted {
		return
	}
	g.seen[key] = struct{}{}
	cell := g.cells[key]
	if cell == nil {
		cell = &growthCounts{}
		key.key = strings.Clone(key.key)
		g.cells[key] = cell
	}
	cell.learners++
	cell.reached[min(max(int((reached-lowestSkill)/reachedWidth), 0), reachedBins-1)]++
}

// cellsShown returns the cells with enough learners, in order.
func (g *growth) cellsShown() []GrowthCell {
	var shown []GrowthCell
	for key, cell := range g.cells {
		if cell.learners < MinGroup {
			continue
		}
		c := GrowthCell{Layer: key.layer, Key: key.key, YearGroup: key.yearGroup, Start: key.start, Weeks: key.weeks,
			Learners: cell.learners, Median: cell.quantile(0.5), Low: math.NaN(), High: math.NaN()}
		if cell.learners >= 4*MinGroup {
			c.Low, c.High = cell.quantile(0.25), cell.quantile(0.75)
		}
		shown = append(shown, c)
	}
	slices.SortFunc(shown, func(a, b GrowthCell) int {
		return cmp.Or(groupKey{a.Layer, a.Key, a.YearGroup}.compare(groupKey{b.Layer, b.Key, b.YearGroup}),
			cmp.Compare(a.Start, b.Start), cmp.Compare(a.Weeks, b.Weeks))
	})
	return shown
}

// quantile returns the skill below which a share of the learners lies, to half a
// tenth of a logit: no learner's own.
func (c *growthCounts) quantile(share float64) float64 {
	want, below := share*float64(c.learners), 0.0
	for bin, n := range c.reached {
		if below+float64(n) >= want && n > 0 {
			at := lowestSkill + (float64(bin)+(want-below)/float64(n))*reachedWidth
			return math.Round(at*20) / 20
		}
		below += float64(n)
	}
	return -lowestSkill
}
