package column

import (
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
)

// Encoder builds messages. It is reusable and not safe for concurrent use.
// Begin, then one call per column in schema order, then AppendTo.
type Encoder struct {
	schema  *Schema
	rows    int
	columns int // given so far
	err     error

	batch        payload
	dictionaries []payload
	arena        []byte // bytes of strings and lists of this message
	offsets      []int32
	framer       framer
}

// Begin starts a message of the given number of rows.
func (e *Encoder) Begin(schema *Schema, rows int) {
	e.release()
	e.schema, e.rows, e.err = schema, rows, nil
}

// The arenas grow to what a message needs. One above this capacity is not kept
// for the next message, so that a single huge message doesn't hold memory.
const keepArenaBytes = 4 << 20

func (e *Encoder) release() {
	e.columns = 0
	e.batch.reset()
	for i := range e.dictionaries {
		e.dictionaries[i].reset()
	}
	e.dictionaries = e.dictionaries[:0]
	if cap(e.arena) > keepArenaBytes {
		e.arena = nil
	}
	if cap(e.offsets)*4 > keepArenaBytes {
		e.offsets = nil
	}
	e.arena, e.offsets = e.arena[:0], e.offsets[:0]
}

// next checks that the coming column is of the kind and length that the schema
// expects.
func (e *Encoder) next(kind Kind, length int) bool {
	if e.err != nil {
		return false
	}
	i := e.columns
	switch {
	case i >= len(e.schema.fields):
		e.err = fmt.Errorf("encode column %d: schema has only %d", i, len(e.schema.fields))
	case e.schema.fields[i].Kind != kind:
		e.err = fmt.Errorf("encode column %s: got kind %d, schema says %d", e.schema.fields[i].Name, kind, e.schema.fields[i].Kind)
	case length != e.rows:
		e.err = fmt.Errorf("encode column %s: %d rows, message has %d", e.schema.fields[i].Name, length, e.rows)
	default:
		e.columns++
		return true
	}
	return false
}

// fail notes what is wrong with the column that next was called for.
func (e *Encoder) fail(why string) {
	e.err = fmt.Errorf("encode column %s: %s", e.schema.fields[e.columns-1].Name, why)
}

func (e *Encoder) fixed(kind Kind, length int, raw []byte) {
	if e.next(kind, length) {
		e.batch.add(length, raw)
	}
}

// Uint8 adds a column.
func (e *Encoder) Uint8(v []uint8) { e.fixed(Uint8, len(v), v) }

// Uint16 adds a column.
func (e *Encoder) Uint16(v []uint16) { e.fixed(Uint16, len(v), arrow.Uint16Traits.CastToBytes(v)) }

// Uint32 adds a column.
func (e *Encoder) Uint32(v []uint32) { e.fixed(Uint32, len(v), arrow.Uint32Traits.CastToBytes(v)) }

// Uint64 adds a column.
func (e *Encoder) Uint64(v []uint64) { e.fixed(Uint64, len(v), arrow.Uint64Traits.CastToBytes(v)) }

// Int32 adds a column.
func (e *Encoder) Int32(v []int32) { e.fixed(Int32, len(v), arrow.Int32Traits.CastToBytes(v)) }

// Int64 adds a column.
func (e *Encoder) Int64(v []int64) { e.fixed(Int64, len(v), arrow.Int64Traits.CastToBytes(v)) }

// Float64 adds a column.
func (e *Encoder) Float64(v []float64) { e.fixed(Float64, len(v), arrow.Float64Traits.CastToBytes(v)) }

// Timestamp adds a column of UTC milliseconds since 1970.
func (e *Encoder) Timestamp(v []int64) { e.fixed(Timestamp, len(v), arrow.Int64Traits.CastToBytes(v)) }

// Date adds a column of days since 1970.
func (e *Encoder) Date(v []int32) { e.fixed(Date, len(v), arrow.Int32Traits.CastToBytes(v)) }

// Fixed16 adds a column of 16-byte values, laid end to end.
func (e *Encoder) Fixed16(packed []byte) { e.fixed(Fixed16, len(packed)/16, packed) }

// Text adds a column of strings as an arena with rows+1 offsets, the first 0.
func (e *Encoder) Text(offsets []int32, arena []byte) {
	if !e.next(Text, len(offsets)-1) {
		return
	}
	end := int(offsets[len(offsets)-1])
	if offsets[0] != 0 || end > len(arena) {
		e.fail("bad offsets")
		return
	}
	e.batch.add(e.rows, arrow.Int32Traits.CastToBytes(offsets), arena[:end])
}

// Dictionary adds a column of codes into values.
func (e *Encoder) Dictionary(codes []int32, values []string) {
	if e.next(Dictionary, len(codes)) && e.addCodes(codes, len(values)) {
		offsets, bytes := e.texts(values)
		e.dictionary().add(len(values), offsets, bytes)
	}
}

// Dictionary16 adds a column of codes into 16-byte values, laid end to end.
func (e *Encoder) Dictionary16(codes []int32, packed []byte) {
	if e.next(Dictionary16, len(codes)) && e.addCodes(codes, len(packed)/16) {
		e.dictionary().add(len(packed)/16, packed)
	}
}

func (e *Encoder) addCodes(codes []int32, values int) bool {
	if !codesBelow(codes, values) {
		e.fail("dictionary code out of range")
		return false
	}
	e.batch.add(len(codes), arrow.Int32Traits.CastToBytes(codes))
	return true
}

// dictionary returns a further dictionary, with the memory of an earlier one.
func (e *Encoder) dictionary() *payload {
	n := len(e.dictionaries)
	e.dictionaries = slices.Grow(e.dictionaries, 1)[:n+1]
	return &e.dictionaries[n]
}

// texts packs strings into the arena of this message. The arena may move when
// it grows; earlier columns keep the piece they were given.
func (e *Encoder) texts(values []string) (offsets, bytes []byte) {
	first, start := len(e.offsets), len(e.arena)
	for _, v := range values {
		e.offsets = append(e.offsets, int32(len(e.arena)-start))
		e.arena = append(e.arena, v...)
	}
	e.offsets = append(e.offsets, int32(len(e.arena)-start))
	return arrow.Int32Traits.CastToBytes(e.offsets[first:]), e.arena[start:]
}

// Uint16List adds a column of lists.
func (e *Encoder) Uint16List(v [][]uint16) {
	list(e, Uint16List, v, func(l []uint16) []byte { return arrow.Uint16Traits.CastToBytes(l) })
}

// Uint64List adds a column of lists.
func (e *Encoder) Uint64List(v [][]uint64) {
	list(e, Uint64List, v, func(l []uint64) []byte { return arrow.Uint64Traits.CastToBytes(l) })
}

// Int64List adds a column of lists.
func (e *Encoder) Int64List(v [][]int64) {
	list(e, Int64List, v, func(l []int64) []byte { return arrow.Int64Traits.CastToBytes(l) })
}

// Float64List adds a column of lists.
func (e *Encoder) Float64List(v [][]float64) {
	list(e, Float64List, v, func(l []float64) []byte { return arrow.Float64Traits.CastToBytes(l) })
}

// TextList adds a column of lists of strings.
func (e *Encoder) TextList(v [][]string) {
	if !e.next(TextList, len(v)) {
		return
	}
	n := lengths(e, v)
	first, start := len(e.offsets), len(e.arena)
	for _, l := range v {
		for _, text := range l {
			e.offsets = append(e.offsets, int32(len(e.arena)-start))
			e.arena = append(e.arena, text...)
		}
	}
	e.offsets = append(e.offsets, int32(len(e.arena)-start))
	e.batch.add(n, arrow.Int32Traits.CastToBytes(e.offsets[first:]), e.arena[start:])
}

func list[T any](e *Encoder, kind Kind, v [][]T, toBytes func([]T) []byte) {
	if !e.next(kind, len(v)) {
		return
	}
	n, start := lengths(e, v), len(e.arena)
	for _, l := range v {
		e.arena = append(e.arena, toBytes(l)...)
	}
	e.batch.add(n, e.arena[start:])
}

// lengths adds the array of a list column, whose elements are the next array, and
// returns their number.
func lengths[T any](e *Encoder, v [][]T) int {
	first, n := len(e.offsets), 0
	for _, l := range v {
		e.offsets = append(e.offsets, int32(n))
		n += len(l)
	}
	e.offsets = append(e.offsets, int32(n))
	e.batch.add(len(v), arrow.Int32Traits.CastToBytes(e.offsets[first:]))
	return n
}

// Messages with fewer rows are not compressed: their dictionaries and metadata
// outweigh their rows, and setting up the compressor costs more than it saves.
const compressRows = 128

// AppendTo appends the finished message to dst and returns the extended slice.
// The columns given since Begin are no longer referenced afterwards.
func (e *Encoder) AppendTo(dst []byte) ([]byte, error) {
	defer e.release()
	return e.finish(dst)
}
