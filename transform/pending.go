package transform

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// pending remembers the keys of the rows that are not durable yet, so that a
// repeat among them is recognised without the store. Adding is a copy; the hash
// over them is brought up to date only when a late answer asks.
type pending struct {
	generations []*pendingIDs // oldest first; one per checkpoint under way
}

// Memory of keys that were released, of all partitions: a partition needs most of
// it only while it is behind. The keys lie in chunks, so that memory is what the
// keys need, and none is left behind when they grow.
var (
	pendingMemory = sync.Pool{New: func() any { return new(pendingIDs) }}
	pendingChunks = sync.Pool{New: func() any { return new(pendingChunk) }}
)

// pendingChunk is 16 KiB of keys.
type pendingChunk [1 << pendingChunkBits]pendingKey

const pendingChunkBits = 10

// pendingKey is the primary key of a row in its archive: event id, learner
// (who belongs to one school) and moment. A publisher may call an answer and a
// test result by the same id; their moments, milliseconds and days, differ. What it is made of are keyed digests,
// so nobody outside can choose colliding ones.
type pendingKey [16]byte

func pendingKeyOf(id *answer.EventID, learner answer.Token, moment int64) (k pendingKey) {
	token := learner.Bytes()
	first := binary.LittleEndian.Uint64(id[:8]) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(token[:8]), 17)
	second := binary.LittleEndian.Uint64(id[8:]) ^ uint64(moment)*0x9e3779b97f4a7c15
	binary.LittleEndian.PutUint64(k[:8], first)
	binary.LittleEndian.PutUint64(k[8:], second)
	return k
}

// pendingIDs are the keys between two checkpoints.
type pendingIDs struct {
	last    answer.Position // of the newest row
	chunks  []*pendingChunk // of the ids
	n       int             // ids
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
func (p *pending) add(d *delivered) {
	if d.rows == 0 {
		return
	}
	if len(p.generations) == 0 {
		p.cut()
	}
	g := p.generations[len(p.generations)-1]
	g.starts = append(g.starts, segment{first: g.n, position: d.position(0)})
	for row := range d.rows {
		if g.n == len(g.chunks)<<pendingChunkBits {
			g.chunks = append(g.chunks, pendingChunks.Get().(*pendingChunk))
		}
		*g.id(g.n) = pendingKeyOf(&d.id[row], d.learner.At(row), d.moment[row])
		g.n++
	}
	g.last = d.position(d.rows - 1)
}

// id returns where an id is.
func (g *pendingIDs) id(i int) *pendingKey {
	return &g.chunks[i>>pendingChunkBits][i&(1<<pendingChunkBits-1)]
}

// cut begins a new generation: what was added so far belongs to a checkpoint.
func (p *pending) cut() {
	if n := len(p.generations); n > 0 && p.generations[n-1].n == 0 {
		return
	}
	p.generations = append(p.generations, pendingMemory.Get().(*pendingIDs))
}

// release forgets the rows up to a position, which have become durable.
func (p *pending) release(durable answer.Position) {
	n := 0
	for n < len(p.generations) && p.generations[n].n > 0 && p.generations[n].last <= durable {
		n++
	}
	for _, g := range p.generations[:n] {
		g.reset()
		pendingMemory.Put(g)
	}
	rest := copy(p.generations, p.generations[n:])
	clear(p.generations[rest:])
	p.generations = p.generations[:rest]
}

// keepPendingSlots is the number of slots that are kept for another checkpoint.
const keepPendingSlots = 1 << 14

// rows returns how many rows are remembered.
func (p *pending) rows() int {
	n := 0
	for _, g := range p.generations {
		n += g.n
	}
	return n
}

// earliest returns the earliest remembered position of a row.
func (p *pending) earliest(key pendingKey) (answer.Position, bool) {
	for _, g := range p.generations {
		if position, ok := g.earliest(key); ok {
			return position, true
		}
	}
	return 0, false
}

func (g *pendingIDs) reset() {
	for _, c := range g.chunks {
		pendingChunks.Put(c)
	}
	clear(g.chunks)
	g.chunks, g.n, g.starts, g.indexed = g.chunks[:0], 0, g.starts[:0], 0
	if len(g.slots) > keepPendingSlots {
		g.slots = nil
	}
	clear(g.slots)
}

func (g *pendingIDs) earliest(id pendingKey) (answer.Position, bool) {
	g.index()
	if len(g.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(g.slots) - 1)
	for slot := binary.LittleEndian.Uint64(id[:8]) & mask; g.slots[slot] != 0; slot = (slot + 1) & mask {
		if i := int(g.slots[slot] - 1); *g.id(i) == id {
			return g.position(i), true
		}
	}
	return 0, false
}

// index adds the keys that came since the last question. Of a repeated one the
// first stays.
func (g *pendingIDs) index() {
	if 2*g.n > len(g.slots) {
		size := 1024
		for size < 4*g.n {
			size *= 2
		}
		g.slots, g.indexed = make([]uint32, size), 0
	}
	mask := uint64(len(g.slots) - 1)
	for ; g.indexed < g.n; g.indexed++ {
		id := g.id(g.indexed)
		slot := binary.LittleEndian.Uint64(id[:8]) & mask
		for g.slots[slot] != 0 && *g.id(int(g.slots[slot] - 1)) != *id {
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
