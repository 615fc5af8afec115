package transform

// Priors of the components of a difficulty, for what no snapshot holds yet. Means
// are 0.
const (
	itemPrior   = 1.0
	goalPrior   = 0.6
	globalPrior = 4.0
)

// pageSize is small, because a version changes items that lie far apart and
// every page with a change is copied.
const pageSize = 64

type normal struct{ mean, variance float64 }

type page [pageSize]normal

// Snapshot is one version of the difficulties of all exercises. It is immutable;
// versions share the pages that did not change. Version 0 holds the priors.
type Snapshot struct {
	version uint64
	items   pages
	goals   pages
	global  normal
}

type pages []*page

func (p pages) at(i int32, prior float64) normal {
	if slot := int(i / pageSize); slot < len(p) && p[slot] != nil {
		if n := p[slot][i%pageSize]; n.variance > 0 {
			return n
		}
	}
	return normal{variance: prior}
}

// EmptySnapshot returns version 0.
func EmptySnapshot() *Snapshot { return &Snapshot{global: normal{variance: globalPrior}} }

// Version returns the number of the version.
func (s *Snapshot) Version() uint64 { return s.version }

// Item returns mean and variance of the item component of an exercise, by its
// number in the catalog of the process.
func (s *Snapshot) Item(item int32) (mean, variance float64) {
	n := s.items.at(item, itemPrior)
	return n.mean, n.variance
}

// Goal returns mean and variance of the component of a goal.
func (s *Snapshot) Goal(goal int32) (mean, variance float64) {
	n := s.goals.at(goal, goalPrior)
	return n.mean, n.variance
}

// Global returns mean and variance of the component that all exercises share.
func (s *Snapshot) Global() (mean, variance float64) { return s.global.mean, s.global.variance }

// With returns the version that the rows describe. The receiver stays as it is.
func (s *Snapshot) With(catalog *Catalog, rows *SnapshotRows) *Snapshot {
	next := &Snapshot{version: rows.Version, global: s.global}
	items, goals := copyOnWrite{shared: s.items}, copyOnWrite{shared: s.goals}
	for i := range rows.Component {
		value := normal{mean: rows.Mean[i], variance: rows.Variance[i]}
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

func (c *copyOnWrite) set(i int32, value normal) {
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
