package query

import (
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// yearGroups is the number of norm groups of a domain: 0 (unknown) and the year
// groups 1 to 8.
const yearGroups = 9

// domain is what a skill can be of: everything (overall), a subject or a goal.
// It holds the live norms of its year groups. Its address is its identity; it is
// never removed.
type domain struct {
	index   uint32 // among the domains of its layer
	name    string // "" for overall
	hash    uint64 // of the name
	parent  atomic.Pointer[domain]
	norms   [yearGroups]atomic.Pointer[Histogram]
	bank    atomic.Pointer[bank] // exercises of a goal; nil for the others
	measure atomic.Pointer[measure]
	given   atomic.Uint64 // selections from the bank, halved with its counters
	halving sync.Mutex    // held while the exposure counters are halved

	publishing sync.Mutex // held while a live distribution is told
}

// norm returns the histogram of a year group, made on first use.
func (d *domain) norm(yearGroup uint8) *Histogram {
	if h := d.norms[yearGroup].Load(); h != nil {
		return h
	}
	d.norms[yearGroup].CompareAndSwap(nil, new(Histogram))
	return d.norms[yearGroup].Load()
}

// learners returns the size of a norm group.
func (d *domain) learners(yearGroup uint8) int64 {
	if h := d.norms[yearGroup].Load(); h != nil {
		return h.Learners()
	}
	return 0
}

// names gives the distinct values of a text column small numbers. Reading a
// number's value takes no lock.
type names[T any] struct {
	mu     sync.RWMutex
	index  map[string]uint32
	values atomic.Pointer[[]T] // append only; readers see a prefix
	make   func(index uint32, name string) T
}

func newNames[T any](build func(index uint32, name string) T) *names[T] {
	n := &names[T]{index: map[string]uint32{}, make: build}
	n.values.Store(new([]T))
	return n
}

// find returns the number of a name, false when nobody has used it.
func (n *names[T]) find(name string) (uint32, bool) {
	n.mu.RLock()
	i, ok := n.index[name]
	n.mu.RUnlock()
	return i, ok
}

// intern returns the number of a name and gives it one when it is new.
func (n *names[T]) intern(name string) uint32 {
	if i, ok := n.find(name); ok {
		return i
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if i, ok := n.index[name]; ok {
		return i
	}
	old := *n.values.Load()
	i := uint32(len(old))
	// A decoded name lives in the memory of its decoder.
	kept := string([]byte(name))
	values := append(old, n.make(i, kept))
	n.values.Store(&values)
	n.index[kept] = i
	return i
}

// at returns the value of a number that intern has given.
func (n *names[T]) at(i uint32) T { return (*n.values.Load())[i] }

// all returns all values in the order of their numbers. The caller must not
// write to it.
func (n *names[T]) all() []T { return *n.values.Load() }

// newTexts numbers texts that stand for nothing else.
func newTexts() *texts {
	return &texts{newNames(func(_ uint32, name string) string { return name })}
}

// texts are names that are their own values.
type texts struct{ *names[string] }

// again returns the number of a name that most often is the one that a number
// stands for already.
func (t *texts) again(last uint32, name string) uint32 {
	if all := t.all(); int(last) < len(all) && all[last] == name {
		return last
	}
	return t.intern(name)
}

// catalogue holds the domains, and the names of schools and groups.
type catalogue struct {
	overall  *domain
	subjects *names[*domain]
	goals    *names[*domain]
	schools  *texts
	groups   *texts
}

func newCatalogue() *catalogue {
	build := func(i uint32, name string) *domain {
		return &domain{index: i, name: name, hash: xxhash.Sum64String(name)}
	}
	return &catalogue{
		overall:  &domain{},
		subjects: newNames(build), goals: newNames(build),
		schools: newTexts(), groups: newTexts(),
	}
}

// subject returns the domain of a subject, made on first use.
func (c *catalogue) subject(name string) *domain {
	d := c.subjects.at(c.subjects.intern(name))
	d.parent.CompareAndSwap(nil, c.overall)
	return d
}

// goal returns the domain of a goal, made on first use. The first subject that
// it comes with is the parent of its norms.
func (c *catalogue) goal(name, subject string) *domain {
	d := c.goals.at(c.goals.intern(name))
	if d.parent.Load() == nil {
		d.parent.CompareAndSwap(nil, c.subject(subject))
	}
	return d
}

// findGoal returns the domain of a goal that has been seen.
func (c *catalogue) findGoal(name string) (*domain, bool) {
	i, ok := c.goals.find(name)
	if !ok {
		return nil, false
	}
	return c.goals.at(i), true
}
