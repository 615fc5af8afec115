package query

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"unsafe"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

const (
	learnerShards = 256
	learnerChunk  = 64 // learners that are allocated together
	recentItems   = transform.MaxRecent
)

// layer is one layer of a learner: 48 bytes, no pointers. Scores are shares of
// their type's largest value.
type layer struct {
	mean     float64
	position answer.Position // of the last answer that the state reflects
	variance float32
	answers  uint32
	lastAt   uint32 // seconds since 1970
	key      uint32 // index of the subject or goal
	subject  uint32 // index of the subject of a goal
	at       place  // where the learner counts in the norm histogram
	slow     uint16 // running averages of the score …
	fast     uint16
	kind     transform.Layer
	last     uint8 // … and that of the last answer
}

// learner is the standing of one learner. Slot 0 of layers is the overall layer
// as soon as it was seen.
type learner struct {
	token     answer.Token
	layers    []layer
	position  answer.Position     // newest of the layers
	recent    [recentItems]uint32 // low halves of the hashes of item keys, newest last
	school    uint32
	group     uint32
	keyEpoch  uint32
	yearGroup uint8
	recents   uint8
}

// history returns what the head of the predictions looks at.
func (l *layer) history() filter.Counters {
	return filter.Counters{
		Answers: l.answers, LastAtMs: int64(l.lastAt) * 1000,
		Slow: float64(l.slow) / math.MaxUint16, Fast: float64(l.fast) / math.MaxUint16, Last: float64(l.last) / math.MaxUint8,
	}
}

// share returns x, from 0 to 1, as the nearest share of limit.
func share(x float64, limit float64) float64 { return math.Round(max(0, min(1, x)) * limit) }

func (l *learner) find(kind transform.Layer, key uint32) *layer {
	for i := range l.layers {
		if l.layers[i].kind == kind && l.layers[i].key == key {
			return &l.layers[i]
		}
	}
	return nil
}

// grow adds a layer. Layers come one by one over months: room is made for two
// at a time, and more only for a learner that has many.
func (l *learner) grow() *layer {
	if len(l.layers) == cap(l.layers) {
		larger := make([]layer, len(l.layers), len(l.layers)+max(2, len(l.layers)/8))
		copy(larger, l.layers)
		l.layers = larger
	}
	l.layers = append(l.layers, layer{})
	return &l.layers[len(l.layers)-1]
}

// reserve makes room for the first layers of a learner.
func (l *learner) reserve(n int) { l.layers = make([]layer, 0, n) }

// meanOf returns the mean of the skill that a layer stands for. No time changes
// it.
func (l *learner) meanOf(inner *layer) float64 {
	mean := inner.mean
	if inner.kind == transform.LayerGoal {
		if subject := l.find(transform.LayerSubject, inner.subject); subject != nil {
			mean += subject.mean
		}
	}
	if inner.kind != transform.LayerOverall {
		if overall := l.find(transform.LayerOverall, 0); overall != nil {
			mean += overall.mean
		}
	}
	return mean
}

// learners holds all learners, split by token into shards with a lock each.
//
// Why locks and not copies on write: a write changes a few layers of one
// learner, 40 bytes each, and is done a quarter of a million times a second;
// copying maps or shards for readers would cost far more than a reader's lock
// of 256 that is held for some 100 ns. Tokens are keyed digests, so their first
// byte spreads them evenly.
type learners struct {
	shards [learnerShards]learnerShard
}

type learnerShard struct {
	mu     sync.RWMutex
	index  map[answer.Token]uint32
	chunks []*[learnerChunk]learner
	count  uint32
	vacant []uint32 // slots below count that nobody has
	// estimates is memory of who holds the lock for writing.
	estimates []filter.Estimate
	_         [64]byte // the next lock lies in another cache line
}

// ref names a learner for as long as the process lives: shard, then slot.
type ref uint32

func refOf(shard int, slot uint32) ref { return ref(uint32(shard) | slot<<8) }

func newLearners() *learners {
	l := &learners{}
	for i := range l.shards {
		l.shards[i].index = map[answer.Token]uint32{}
	}
	return l
}

func shardOf(t answer.Token) int {
	b := t.Bytes()
	return int(b[0])
}

// find returns the learner with a token, or nil. The caller holds the lock.
func (s *learnerShard) find(t answer.Token) (*learner, uint32) {
	slot, ok := s.index[t]
	if !ok {
		return nil, 0
	}
	return s.slot(slot), slot
}

func (s *learnerShard) slot(slot uint32) *learner {
	return &s.chunks[slot/learnerChunk][slot%learnerChunk]
}

// create makes the learner of a token. The caller holds the lock for writing.
func (s *learnerShard) create(t answer.Token) (*learner, uint32) {
	slot := s.count
	if n := len(s.vacant); n > 0 {
		slot, s.vacant = s.vacant[n-1], s.vacant[:n-1]
	} else {
		if slot%learnerChunk == 0 {
			s.chunks = append(s.chunks, new([learnerChunk]learner))
		}
		s.count++
	}
	s.index[t] = slot
	l := s.slot(slot)
	l.token = t
	return l, slot
}

// remove takes the learner of a token away; the slot is used again. The caller
// holds the lock for writing.
func (s *learnerShard) remove(t answer.Token, slot uint32) {
	delete(s.index, t)
	*s.slot(slot) = learner{}
	s.vacant = append(s.vacant, slot)
}

func (l *learners) len() int {
	total := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		total += int(s.count) - len(s.vacant)
		s.mu.RUnlock()
	}
	return total
}

// bytes estimates the memory of the learners: their structures, layers and the
// index at its usual load.
func (l *learners) bytes() (total, layers int64) {
	const indexEntry = 16 + 4 + 1 // token, slot, control byte
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		total += int64(len(s.chunks)*learnerChunk)*int64(unsafe.Sizeof(learner{})) + int64(s.count)*indexEntry*4/3
		for slot := range s.count {
			n := cap(s.slot(slot).layers)
			layers += int64(n)
			total += int64(n) * int64(unsafe.Sizeof(layer{}))
		}
		s.mu.RUnlock()
	}
	return total, layers
}

// groups lists the learners of a group of a school.
type groups struct {
	mu      sync.RWMutex
	members map[groupKey][]ref
}

type groupKey struct{ school, group uint32 }

func (g *groups) of(key groupKey) []ref {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Clone(g.members[key])
}

// leave takes a learner out of a group.
func (g *groups) leave(r ref, from groupKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.take(r, from)
}

func (g *groups) take(r ref, from groupKey) {
	list := g.members[from]
	if i := slices.Index(list, r); i >= 0 {
		list[i] = list[len(list)-1]
		g.members[from] = list[:len(list)-1]
	}
	if len(g.members[from]) == 0 {
		delete(g.members, from)
	}
}

func (g *groups) move(r ref, from, to groupKey, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if known {
		g.take(r, from)
	}
	g.members[to] = append(g.members[to], r)
}

// hashBits are the bits of an item's hash that a learner's ring keeps. Sixteen
// of 32 bits collide with a candidate once in 270 million.
func hashBits(hash uint64) uint32 { return uint32(hash) }

// words returns a token as two numbers.
func words(t answer.Token) (uint64, uint64) {
	b := t.Bytes()
	return binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])
}
