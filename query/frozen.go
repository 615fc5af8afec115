package query

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leerstroom/leerstroom/transform"
)

// frozenNorm is a frozen norm in a form that is asked. It never changes.
type frozenNorm struct {
	transform.NormVersion
	groups   map[frozenKey]*transform.Norm
	subjects map[string]string // of goals
	growth   map[growthKey]*transform.GrowthCell
}

type frozenKey struct {
	layer     transform.Layer
	key       string
	yearGroup uint8
}

type growthKey struct {
	frozenKey
	start int16
	weeks uint8
}

func newFrozenNorm(n *transform.FrozenNorm) (*frozenNorm, error) {
	f := &frozenNorm{NormVersion: n.NormVersion, groups: make(map[frozenKey]*transform.Norm, len(n.Groups)),
		subjects: map[string]string{}, growth: make(map[growthKey]*transform.GrowthCell, len(n.Growth))}
	for i := range n.Groups {
		g := &n.Groups[i]
		group, err := transform.NewNorm(g)
		if err != nil {
			return nil, fmt.Errorf("take norm %s version %d: %w", n.Name, n.Version, err)
		}
		f.groups[frozenKey{g.Layer, g.Key, g.YearGroup}] = group
		if g.Layer == transform.LayerGoal {
			f.subjects[g.Key] = g.Subject
		}
	}
	for i := range n.Growth {
		c := &n.Growth[i]
		f.growth[growthKey{frozenKey{c.Layer, c.Key, c.YearGroup}, c.Start, c.Weeks}] = c
	}
	return f, nil
}

// widths returns the distributions of a norm group and of its parents.
func (f *frozenNorm) widths(layer transform.Layer, key string, yearGroup uint8) (w widths) {
	used := 0
	put := func(layer transform.Layer, key string) {
		// A nil *Norm in an interface would not be nil.
		if group := f.groups[frozenKey{layer, key, yearGroup}]; group != nil {
			w[used] = group
		}
		used++
	}
	put(layer, key)
	if layer == transform.LayerGoal {
		put(transform.LayerSubject, f.subjects[key])
	}
	if layer != transform.LayerOverall {
		put(transform.LayerOverall, "")
	}
	return w
}

// widths returns the distributions of a learner's norm group by a choice of norm.
func (m *ReadModel) widths(by NormChoice, d *domain, layer transform.Layer, yearGroup uint8) (w widths) {
	if by.frozen != nil {
		return by.frozen.widths(layer, d.name, yearGroup)
	}
	for i := range w {
		if d == nil {
			break
		}
		if h := d.norms[yearGroup].Load(); h != nil {
			w[i] = h
		}
		d = d.parent.Load()
	}
	return w
}

// frozenNorms are those that can be chosen, the newest first.
type frozenNorms []*frozenNorm

// AddNorm makes a frozen norm available. One that is there already is passed
// over.
func (m *ReadModel) AddNorm(n *transform.FrozenNorm) error {
	added, err := newFrozenNorm(n)
	if err != nil {
		return err
	}
	for {
		old := m.frozen.Load()
		if old.has(&n.NormVersion) {
			return nil
		}
		norms := frozenNorms{added}
		if old != nil {
			norms = append(norms, *old...)
		}
		slices.SortFunc(norms, func(a, b *frozenNorm) int {
			return cmp.Or(cmp.Compare(b.AsOf, a.AsOf), strings.Compare(b.Name, a.Name), cmp.Compare(b.Version, a.Version))
		})
		if m.frozen.CompareAndSwap(old, &norms) {
			return nil
		}
	}
}

func (f *frozenNorms) has(v *transform.NormVersion) bool {
	return f != nil && slices.ContainsFunc(*f, func(n *frozenNorm) bool { return n.Name == v.Name && n.Version == v.Version })
}

// retainNorms forgets frozen norms that are no longer among the versions.
func (m *ReadModel) retainNorms(versions []transform.NormVersion) {
	old := m.frozen.Load()
	if old == nil {
		return
	}
	kept := frozenNorms{}
	for _, n := range *old {
		if slices.ContainsFunc(versions, func(v transform.NormVersion) bool {
			return v.Name == n.Name && v.Version == n.Version && v.Digest == n.Digest
		}) {
			kept = append(kept, n)
		}
	}
	if len(kept) != len(*old) {
		m.frozen.Store(&kept)
	}
}

// NormChoice is a norm to compare with. The zero value is the live one: the
// skills of this moment.
type NormChoice struct{ frozen *frozenNorm }

// valid tells whether a norm may be taken without being asked for.
func (m *ReadModel) valid(n *frozenNorm, today transform.Day) bool {
	return n.AsOf <= today && int(today-n.AsOf) <= int(m.config.NormValidity/(24*time.Hour))
}

// DefaultNorm chooses the newest frozen norm that is valid, and the live one when
// there is none.
func (m *ReadModel) DefaultNorm() NormChoice {
	if norms := m.frozen.Load(); norms != nil {
		today := m.today()
		for _, n := range *norms {
			if m.valid(n, today) {
				return NormChoice{n}
			}
		}
	}
	return NormChoice{}
}

// NormAt chooses the newest valid frozen norm of a moment, such as M.
func (m *ReadModel) NormAt(moment string) (NormChoice, bool) {
	return m.findNorm(func(n *frozenNorm) bool { return n.Moment == moment && m.valid(n, m.today()) })
}

// NormNamed chooses a frozen norm by its name and version; 0 is the newest.
func (m *ReadModel) NormNamed(name string, version uint32) (NormChoice, bool) {
	return m.findNorm(func(n *frozenNorm) bool { return n.Name == name && (version == 0 || n.Version == version) })
}

func (m *ReadModel) findNorm(is func(*frozenNorm) bool) (NormChoice, bool) {
	if norms := m.frozen.Load(); norms != nil {
		if i := slices.IndexFunc(*norms, is); i >= 0 {
			return NormChoice{(*norms)[i]}, true
		}
	}
	return NormChoice{}, false
}

func (m *ReadModel) today() transform.Day { return m.config.Calendar.Today(m.config.Now()) }

// NormUsed says what a percentile was compared with.
type NormUsed struct {
	Frozen     bool
	Name       string // school year and moment, or live
	Version    uint64 // of the frozen norm, or of the difficulties that live skills stand on
	SchoolYear transform.SchoolYear
	Moment     string        // "" = this moment
	AsOf       transform.Day // the skills of the norm are those at the end of this day, or of now
}

const liveNorm = "live"

// used describes a choice of norm at an instant.
func (m *ReadModel) used(by NormChoice, now time.Time) NormUsed {
	if f := by.frozen; f != nil {
		return NormUsed{Frozen: true, Name: f.Name, Version: uint64(f.Version), SchoolYear: f.SchoolYear, Moment: f.Moment, AsOf: f.AsOf}
	}
	today := m.config.Calendar.Today(now)
	return NormUsed{Name: liveNorm, Version: m.SnapshotVersion(), SchoolYear: today.SchoolYear(), AsOf: today}
}

// grown returns what learners who began alike had reached after some weeks.
func (f *frozenNorm) grown(layer transform.Layer, key string, yearGroup uint8, start float64, weeks uint8) *transform.GrowthCell {
	return f.growth[growthKey{frozenKey{layer, key, yearGroup}, transform.GrowthStart(start), weeks}]
}
