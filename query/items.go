package query

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// measure is the estimate of one component of the item side, as an item
// snapshot gives it.
type measure struct {
	mean, variance float64
	answers        int64
	right          float64 // sum of the scores
}

// Item is one exercise.
type Item struct {
	key     string // publisher:exercise
	hash    uint32
	goal    atomic.Pointer[domain]
	measure atomic.Pointer[measure]
	given   atomic.Uint32 // selections, halved from time to time
	changed uint64        // version that changed it last; the writer's
}

// bank holds the exercises of a goal. It is never changed, only replaced, so
// that selecting takes no lock.
type bank struct {
	difficulty []float64 // means of items, rising
	items      []*Item   // in the order of difficulty, then key
	byKey      []*Item
}

// items holds all exercises. One writer at a time; readers take no lock but for
// the index.
type items struct {
	catalogue *catalogue
	mu        sync.RWMutex
	index     map[string]*Item
	writer    sync.Mutex
	version   atomic.Uint64 // of the newest snapshot that is in the banks
	global    atomic.Pointer[measure]
	head      atomic.Pointer[filter.Head] // nil: believe the filter
}

func newItems(c *catalogue) *items {
	return &items{catalogue: c, index: map[string]*Item{}}
}

func (i *items) find(key string) *Item {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.index[key]
}

func (i *items) len() int {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return len(i.index)
}

// apply puts a snapshot version into the banks. A version that is not newer
// than the newest is passed over: its rows are in the banks already.
func (i *items) apply(version uint64, rows *transform.SnapshotRows) {
	i.writer.Lock()
	defer i.writer.Unlock()
	if version <= i.version.Load() {
		return
	}
	if rows.Scale != nil {
		head := rows.Scale.Head
		i.head.Store(&head)
	}
	touched := map[*domain][]*Item{}
	for n := range rows.Len() {
		m := &measure{
			mean: rows.Mean[n], variance: rows.Variance[n], answers: rows.Answers[n],
			right: float64(rows.ScoreSum[n]) / (1 << 32),
		}
		switch rows.Component[n] {
		case transform.ComponentGlobal:
			m.mean = -m.mean // the filter's global component is an easiness
			i.global.Store(m)
		case transform.ComponentGoal:
			i.catalogue.goal(rows.Key[n], rows.Subject[n]).measure.Store(m)
		case transform.ComponentItem:
			d := i.catalogue.goal(rows.Goal[n], rows.Subject[n])
			i.applyItem(version, rows.Key[n], d, m, touched)
		}
	}
	for d, changed := range touched {
		d.bank.Store(d.bank.Load().with(d, changed, version))
	}
	i.version.Store(version)
}

func (i *items) applyItem(version uint64, key string, d *domain, m *measure, touched map[*domain][]*Item) {
	item := i.find(key)
	if item == nil {
		key = strings.Clone(key) // the rows live in the memory of a decoder
		item = &Item{key: key, hash: hashBits(xxhash.Sum64String(key))}
		i.mu.Lock()
		i.index[key] = item
		i.mu.Unlock()
	}
	item.measure.Store(m)
	if old := item.goal.Load(); old != nil && old != d {
		if _, ok := touched[old]; !ok {
			touched[old] = nil // it leaves that bank
		}
	}
	item.goal.Store(d)
	if item.changed != version {
		item.changed = version
		touched[d] = append(touched[d], item)
	}
}

// with returns the bank with some items changed or added, and without those
// that have gone to another goal. What did not change is merged, not sorted.
func (b *bank) with(d *domain, changed []*Item, version uint64) *bank {
	byDifficulty := func(x, y *Item) int {
		return cmp.Or(cmp.Compare(x.measure.Load().mean, y.measure.Load().mean), strings.Compare(x.key, y.key))
	}
	byKey := func(x, y *Item) int { return strings.Compare(x.key, y.key) }
	next := &bank{}
	fresh := slices.Clone(changed)
	if b == nil {
		b = &bank{}
	}
	keep := func(list []*Item) []*Item {
		kept := make([]*Item, 0, len(list))
		for _, item := range list {
			if item.changed != version && item.goal.Load() == d {
				kept = append(kept, item)
			}
		}
		return kept
	}
	slices.SortFunc(fresh, byDifficulty)
	next.items = merge(keep(b.items), fresh, byDifficulty)
	slices.SortFunc(fresh, byKey)
	next.byKey = merge(keep(b.byKey), fresh, byKey)
	next.difficulty = make([]float64, len(next.items))
	for i, item := range next.items {
		next.difficulty[i] = item.measure.Load().mean
	}
	return next
}

// merge joins two sorted lists.
func merge(a, b []*Item, compare func(x, y *Item) int) []*Item {
	out := make([]*Item, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if compare(a[0], b[0]) <= 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// page returns up to n items of the bank whose key is greater than after.
func (b *bank) page(after string, n int) []*Item {
	if b == nil {
		return nil
	}
	from := 0
	if after != "" {
		from = sort.Search(len(b.byKey), func(i int) bool { return b.byKey[i].key > after })
	}
	return b.byKey[from:min(len(b.byKey), from+n)]
}
