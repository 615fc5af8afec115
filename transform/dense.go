package transform

import "strings"

// chunks is a growing list whose elements never move and that never holds more
// than one chunk it doesn't need: state of a million learners must not double
// when it grows. Elements without pointers cost the garbage collector nothing.
type chunks[T any] struct {
	parts []*[chunkSize]T
	n     uint32
}

const (
	chunkBits = 8
	chunkSize = 1 << chunkBits
)

// at returns an element.
func (c *chunks[T]) at(i uint32) *T { return &c.parts[i>>chunkBits][i&(chunkSize-1)] }

// add appends a zero element.
func (c *chunks[T]) add() (i uint32, element *T) {
	i = c.n
	if int(i>>chunkBits) == len(c.parts) {
		c.parts = append(c.parts, new([chunkSize]T))
	}
	c.n++
	return i, c.at(i)
}

// words numbers strings of one partition, in the order in which they are first
// seen. The empty string has number 0.
type words struct {
	numbers map[string]int32
	texts   []string
}

func newWords() words {
	return words{numbers: map[string]int32{"": 0}, texts: []string{""}}
}

func (w *words) number(text string) int32 {
	if i, ok := w.numbers[text]; ok {
		return i
	}
	owned, i := strings.Clone(text), int32(len(w.texts))
	w.numbers[owned] = i
	w.texts = append(w.texts, owned)
	return i
}

// description is what goes with a learner into every row, at the time of an
// answer. Few differ, so learners and layers hold their numbers.
type description struct {
	school, group int32 // in words
	keyEpoch      uint32
	yearGroup     uint8
}

// descriptions numbers them in the order in which they are first seen. Number 0
// is the empty one.
type descriptions struct {
	numbers map[description]int32
	all     []description
}

func newDescriptions() descriptions {
	return descriptions{numbers: map[description]int32{{}: 0}, all: make([]description, 1)}
}

func (d *descriptions) number(of description) int32 {
	if i, ok := d.numbers[of]; ok {
		return i
	}
	i := int32(len(d.all))
	d.numbers[of] = i
	d.all = append(d.all, of)
	return i
}

// layerIndex finds the layer of a learner by its key. It holds numbers of layers
// only; the layers themselves tell whether they are the ones.
type layerIndex struct {
	slots []uint32 // number of the layer + 1
	used  int
}

// hashLayer spreads (learner, layer, key) over 64 bits (the finalizer of
// SplitMix64).
func hashLayer(learner uint32, kind Layer, key int32) uint64 {
	x := uint64(learner)<<32 ^ uint64(uint32(key))<<2 ^ uint64(kind)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// find returns a layer.
func (x *layerIndex) find(layers *chunks[layer], learner uint32, kind Layer, key int32) (i uint32, found bool) {
	if len(x.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(x.slots) - 1)
	for slot := hashLayer(learner, kind, key) & mask; x.slots[slot] != 0; slot = (slot + 1) & mask {
		i = x.slots[slot] - 1
		if l := layers.at(i); l.learner == learner && l.key == key && l.kind == kind {
			return i, true
		}
	}
	return 0, false
}

// add takes in a layer that find doesn't find.
func (x *layerIndex) add(layers *chunks[layer], i uint32) {
	if 4*(x.used+1) > 3*len(x.slots) {
		x.grow(layers)
	}
	x.place(layers, i)
	x.used++
}

// reserve makes room for n layers in an empty index.
func (x *layerIndex) reserve(n int) {
	size := 256
	for 4*n > 3*size {
		size *= 2
	}
	x.slots = make([]uint32, size)
}

func (x *layerIndex) place(layers *chunks[layer], i uint32) {
	l, mask := layers.at(i), uint64(len(x.slots)-1)
	slot := hashLayer(l.learner, l.kind, l.key) & mask
	for x.slots[slot] != 0 {
		slot = (slot + 1) & mask
	}
	x.slots[slot] = i + 1
}

func (x *layerIndex) grow(layers *chunks[layer]) {
	old := x.slots
	x.slots = make([]uint32, max(256, 2*len(old)))
	for _, s := range old {
		if s != 0 {
			x.place(layers, s-1)
		}
	}
}
