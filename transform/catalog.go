package transform

import (
	"strings"
	"sync"
)

// Catalog numbers the exercises, goals and subjects of a process, so that
// partitions and snapshots name them by small integers. Numbers are given in the
// order in which names are first asked for: they differ between processes and
// runs and are never written anywhere. It only grows. It is safe for concurrent
// use.
type Catalog struct {
	mu       sync.RWMutex
	items    names
	goals    names
	subjects names
}

// NewCatalog makes an empty catalog. The empty name has number 0 everywhere.
func NewCatalog() *Catalog {
	c := &Catalog{}
	for _, n := range []*names{&c.items, &c.goals, &c.subjects} {
		n.numbers = map[string]int32{"": 0}
		n.names = []string{""}
	}
	return c
}

type names struct {
	numbers map[string]int32
	names   []string
}

// number returns the number of a name. The name is copied when it is new: it
// may point into memory of a message.
func (c *Catalog) number(n *names, name string) int32 {
	c.mu.RLock()
	i, ok := n.numbers[name]
	c.mu.RUnlock()
	if ok {
		return i
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i, ok := n.numbers[name]; ok {
		return i
	}
	i = int32(len(n.names))
	owned := strings.Clone(name)
	n.numbers[owned] = i
	n.names = append(n.names, owned)
	return i
}

func (c *Catalog) name(n *names, i int32) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return n.names[i]
}

// Item returns the number of an exercise, by its answer.ItemKey.
func (c *Catalog) Item(key string) int32 { return c.number(&c.items, key) }

// item returns the number of an exercise without making a string of its key.
func (c *Catalog) item(key []byte) int32 {
	c.mu.RLock()
	i, ok := c.items.numbers[string(key)]
	c.mu.RUnlock()
	if ok {
		return i
	}
	return c.Item(string(key))
}

// Goal returns the number of a goal.
func (c *Catalog) Goal(goal string) int32 { return c.number(&c.goals, goal) }

// Subject returns the number of a subject.
func (c *Catalog) Subject(subject string) int32 { return c.number(&c.subjects, subject) }

// ItemKey returns the key of an exercise by its number.
func (c *Catalog) ItemKey(i int32) string { return c.name(&c.items, i) }

// GoalName returns a goal by its number.
func (c *Catalog) GoalName(i int32) string { return c.name(&c.goals, i) }

// SubjectName returns a subject by its number.
func (c *Catalog) SubjectName(i int32) string { return c.name(&c.subjects, i) }
