package transform

import (
	"encoding/binary"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// pending remembers the event ids of the rows that are not durable yet, so that
// a repeat among them is recognised without the store. Adding is a copy; the
// hash over them is brought up to date only when a late answer asks.
type pending struct {
	generations []*pendingIDs // oldest first; one per checkpoint under way
	free        *pendingIDs
}

// pendingIDs are the ids between two checkpoints.
type pendingIDs struct {
	last    answer.Position // of the newest row
	ids     []answer.EventID
	starts  []segment
	slots   []uint32 // id index + 1, open addressing by the id's first bytes
	indexed int      // ids that the slots know
}

// segment says at which position a run of ids of one message begins.
type segment struct {
	first    int // index of its first id
	position answer.Position
}

// add remembers the rows of a message, which come in the order of the log.
func (p *pending) add(c *answer.Columns) {
	if c.Rows == 0 {
		return
	}
	if len(p.generations) == 0 {
		p.cut()
	}
	g := p.generations[len(p.generations)-1]
	g.starts = append(g.starts, segment{first: len(g.ids), position: c.Position(0)})
	g.ids = append(g.ids, c.EventID...)
	g.last = c.Position(c.Rows - 1)
}

// cut begins a new generation: what was added so far belongs to a checkpoint.
func (p *pending) cut() {
	fresh := p.free
	if fresh == nil {
		fresh = &pendingIDs{}
	}
	p.free = nil
	p.generations = append(p.generations, fresh)
}

// release forgets the rows up to a position, which have become durable.
func (p *pending) release(durable answer.Position) {
	n := 0
	for n < len(p.generations) && len(p.generations[n].ids) > 0 && p.generations[n].last <= durable {
		n++
	}
	for _, g := range p.generations[:n] {
		if p.free == nil && cap(g.ids) <= keepPending {
			g.reset()
			p.free = g
		}
	}
	rest := copy(p.generations, p.generations[n:])
	clear(p.generations[rest:])
	p.generations = p.generations[:rest]
}

// keepPending is the number of ids whose memory is kept for the next checkpoint.
const keepPending = 1 << 17

// rows returns how many rows are remembered.
func (p *pending) rows() int {
	n := 0
	for _, g := range p.generations {
		n += len(g.ids)
	}
	return n
}

// earliest returns the earliest remembered position of an event.
func (p *pending) earliest(id *answer.EventID) (answer.Position, bool) {
	for _, g := range p.generations {
		if position, ok := g.earliest(id); ok {
			return position, true
		}
	}
	return 0, false
}

func (g *pendingIDs) reset() {
	g.ids, g.starts, g.indexed = g.ids[:0], g.starts[:0], 0
	clear(g.slots)
}

func (g *pendingIDs) earliest(id *answer.EventID) (answer.Position, bool) {
	g.index()
	if len(g.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(g.slots) - 1)
	for slot := binary.LittleEndian.Uint64(id[:8]) & mask; g.slots[slot] != 0; slot = (slot + 1) & mask {
		if i := int(g.slots[slot] - 1); g.ids[i] == *id {
			return g.position(i), true
		}
	}
	return 0, false
}

// index adds the ids that came since the last question. Of a repeated id the
// first stays. Ids are keyed digests, so nobody outside can choose colliding ones.
func (g *pendingIDs) index() {
	if 2*len(g.ids) > len(g.slots) {
		size := 1024
		for size < 4*len(g.ids) {
			size *= 2
		}
		g.slots, g.indexed = make([]uint32, size), 0
	}
	mask := uint64(len(g.slots) - 1)
	for ; g.indexed < len(g.ids); g.indexed++ {
		id := &g.ids[g.indexed]
		slot := binary.LittleEndian.Uint64(id[:8]) & mask
		for g.slots[slot] != 0 && g.ids[g.slots[slot]-1] != *id {
			slot = (slot + 1) & mask
		}
		if g.slots[slot] == 0 {
			g.slots[slot] = uint32(g.indexed + 1)
		}
	}
}

// position finds the message that an id came in.
func (g *pendingIDs) position(i int) answer.Position {
	low, high := 0, len(g.starts)-1
	for low < high {
		middle := (low + high + 1) / 2
		if g.starts[middle].first <= i {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return g.starts[low].position + answer.Position(i-g.starts[low].first)
}
