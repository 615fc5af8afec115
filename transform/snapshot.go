package transform

import "github.com/leerstroom/leerstroom/transform/filter"

// pageSize is small, because a version changes items that lie far apart and
// every page with a change is copied.
const pageSize = 64

type page [pageSize]filter.Gaussian

// Snapshot is one version of the difficulties of all exercises. It is immutable;
// versions share the pages that did not change. Version 0 holds the priors.
// Means are difficulties: higher is harder, for the global component too.
type Snapshot struct {
	version uint64
	scale   uint64             // newest refit in it, 0 = none
	prior   [3]filter.Gaussian // by Component, of what the snapshot doesn't hold
	items   pages
	goals   pages
	global  filter.Gaussian
}

type pages []*page

func (p pages) at(i int32, prior filter.Gaussian) filter.Gaussian {
	if slot := int(i / pageSize); slot < len(p) && p[slot] != nil {
		if g := p[slot][i%pageSize]; g.Variance > 0 {
			return g
		}
	}
	return prior
}

// EmptySnapshot returns version 0 under the parameters of the filter.
func EmptySnapshot(parameters *filter.Parameters) *Snapshot {
	s := &Snapshot{prior: parameters.Shared}
	// The filter's global component is an easiness.
	s.prior[ComponentGlobal].Mean = -s.prior[ComponentGlobal].Mean
	s.global = s.prior[ComponentGlobal]
	return s
}

// Version returns the number of the version.
func (s *Snapshot) Version() uint64 { return s.version }

// Item returns the item component of an exercise, by its number in the catalog
// of the process.
func (s *Snapshot) Item(item int32) filter.Gaussian {
	return s.items.at(item, s.prior[ComponentItem])
}

// Goal returns the component of a goal, by its number in the catalog.
func (s *Snapshot) Goal(goal int32) filter.Gaussian {
	return s.goals.at(goal, s.prior[ComponentGoal])
}

// Global returns the component that all exercises share.
func (s *Snapshot) Global() filter.Gaussian { return s.global }

// shared puts the components of an exercise together as the filter wants them.
func (s *Snapshot) shared(item, goal filter.Gaussian) filter.Shared {
	return filter.Shared{
		filter.ComponentItem:   item,
		filter.ComponentGoal:   goal,
		filter.ComponentGlobal: {Mean: -s.global.Mean, Variance: s.global.Variance},
	}
}

// With returns the version that the rows describe. The receiver stays as it is.
func (s *Snapshot) With(catalog *Catalog, rows *SnapshotRows) *Snapshot {
	next := &Snapshot{version: rows.Version, scale: s.scale, prior: s.prior, global: s.global}
	if rows.Scale != nil {
		next.scale = rows.Scale.Number
	}
	items, goals := copyOnWrite{shared: s.items}, copyOnWrite{shared: s.goals}
	for i := range rows.Component {
		value := filter.Gaussian{Mean: rows.Mean[i], Variance: rows.Variance[i]}
		switch rows.Component[i] {
		case ComponentItem:
			items.set(catalog.Item(rows.Key[i]), value)
		case ComponentGoal:
			goals.set(catalog.Goal(rows.Key[i]), value)
		case ComponentGlobal:
			next.global = value
		}
	}
	next.items, next.goals = items.result(), goals.result()
	return next
}

// copyOnWrite changes pages without touching those of the version before.
type copyOnWrite struct {
	shared pages
	own    pages // nil until the first change
	copied []bool
}

func (c *copyOnWrite) set(i int32, value filter.Gaussian) {
	if c.own == nil {
		c.own = append(make(pages, 0, len(c.shared)+1), c.shared...)
		c.copied = make([]bool, len(c.own))
	}
	slot := int(i / pageSize)
	for slot >= len(c.own) {
		c.own, c.copied = append(c.own, nil), append(c.copied, false)
	}
	if !c.copied[slot] {
		fresh := new(page)
		if c.own[slot] != nil {
			*fresh = *c.own[slot]
		}
		c.own[slot], c.copied[slot] = fresh, true
	}
	c.own[slot][i%pageSize] = value
}

func (c *copyOnWrite) result() pages {
	if c.own == nil {
		return c.shared
	}
	return c.own
}
