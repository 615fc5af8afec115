package column

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Encoder builds messages. It is reusable and not safe for concurrent use.
// Begin, then one call per column in schema order, then AppendTo.
type Encoder struct {
	schema  *Schema
	rows    int
	columns []arrow.Array
	arena   []byte // bytes of strings and fixed-width values of this message
	offsets []int32
	memory  Memory
	err     error
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
	for i, c := range e.columns {
		c.Release()
		e.columns[i] = nil
	}
	e.columns = e.columns[:0]
	if cap(e.arena) > keepArenaBytes {
		e.arena = nil
	}
	if cap(e.offsets)*4 > keepArenaBytes {
		e.offsets = nil
	}
	e.arena, e.offsets = e.arena[:0], e.offsets[:0]
}

// next checks that the coming column is of the kind and length that the schema
// expects, and returns its Arrow type.
func (e *Encoder) next(kind Kind, length int) (arrow.DataType, bool) {
	if e.err != nil {
		return nil, false
	}
	i := len(e.columns)
	switch {
	case i >= len(e.schema.fields):
		e.err = fmt.Errorf("encode column %d: schema has only %d", i, len(e.schema.fields))
	case e.schema.fields[i].Kind != kind:
		e.err = fmt.Errorf("encode column %s: got kind %d, schema says %d", e.schema.fields[i].Name, kind, e.schema.fields[i].Kind)
	case length != e.rows:
		e.err = fmt.Errorf("encode column %s: %d rows, message has %d", e.schema.fields[i].Name, length, e.rows)
	default:
		return e.schema.arrow.Field(i).Type, true
	}
	return nil, false
}

func (e *Encoder) fixed(kind Kind, length int, raw []byte) {
	if t, ok := e.next(kind, length); ok {
		e.add(t, length, memory.NewBufferBytes(raw))
	}
}

func (e *Encoder) add(t arrow.DataType, length int, buffers ...*memory.Buffer) {
	data := array.NewData(t, length, append([]*memory.Buffer{nil}, buffers...), nil, 0, 0)
	e.columns = append(e.columns, array.MakeFromData(data))
	data.Release()
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

// Text adds a column of strings as an arena with rows+1 offsets.
func (e *Encoder) Text(offsets []int32, arena []byte) {
	if t, ok := e.next(Text, len(offsets)-1); ok {
		e.add(t, e.rows, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets)), memory.NewBufferBytes(arena))
	}
}

// Dictionary adds a column of codes into values.
func (e *Encoder) Dictionary(codes []int32, values []string) {
	t, ok := e.next(Dictionary, len(codes))
	if !ok || !e.checkCodes(codes, len(values)) {
		return
	}
	e.addDictionary(t, codes, e.texts(values))
}

// Dictionary16 adds a column of codes into 16-byte values, laid end to end.
func (e *Encoder) Dictionary16(codes []int32, packed []byte) {
	t, ok := e.next(Dictionary16, len(codes))
	if !ok || !e.checkCodes(codes, len(packed)/16) {
		return
	}
	data := array.NewData(&arrow.FixedSizeBinaryType{ByteWidth: 16}, len(packed)/16,
		[]*memory.Buffer{nil, memory.NewBufferBytes(packed)}, nil, 0, 0)
	e.addDictionary(t, codes, data)
}

func (e *Encoder) addDictionary(t arrow.DataType, codes []int32, values *array.Data) {
	data := array.NewDataWithDictionary(t, len(codes),
		[]*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(codes))}, 0, 0, values)
	e.columns = append(e.columns, array.NewDictionaryData(data))
	data.Release()
	values.Release()
}

func (e *Encoder) checkCodes(codes []int32, values int) bool {
	if !codesBelow(codes, values) {
		e.err = fmt.Errorf("encode column %s: dictionary code out of range", e.schema.fields[len(e.columns)].Name)
		return false
	}
	return true
}

// texts packs strings into the arena of this message. The arena may move when
// it grows; earlier columns keep the piece they were given.
func (e *Encoder) texts(values []string) *array.Data {
	first, start := len(e.offsets), len(e.arena)
	for _, v := range values {
		e.offsets = append(e.offsets, int32(len(e.arena)-start))
		e.arena = append(e.arena, v...)
	}
	e.offsets = append(e.offsets, int32(len(e.arena)-start))
	return array.NewData(arrow.BinaryTypes.String, len(values), []*memory.Buffer{nil,
		memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(e.offsets[first:])),
		memory.NewBufferBytes(e.arena[start:])}, nil, 0, 0)
}

// Uint16List adds a column of lists.
func (e *Encoder) Uint16List(v [][]uint16) {
	list(e, Uint16List, v, func(flat []uint16) []byte { return arrow.Uint16Traits.CastToBytes(flat) })
}

// Uint64List adds a column of lists.
func (e *Encoder) Uint64List(v [][]uint64) {
	list(e, Uint64List, v, func(flat []uint64) []byte { return arrow.Uint64Traits.CastToBytes(flat) })
}

// Int64List adds a column of lists.
func (e *Encoder) Int64List(v [][]int64) {
	list(e, Int64List, v, func(flat []int64) []byte { return arrow.Int64Traits.CastToBytes(flat) })
}

// Float64List adds a column of lists.
func (e *Encoder) Float64List(v [][]float64) {
	list(e, Float64List, v, func(flat []float64) []byte { return arrow.Float64Traits.CastToBytes(flat) })
}

// TextList adds a column of lists of strings.
func (e *Encoder) TextList(v [][]string) {
	t, ok := e.next(TextList, len(v))
	if !ok {
		return
	}
	offsets, flat := flatten(v)
	child := e.texts(flat)
	e.addList(t, offsets, child)
}

func list[T any](e *Encoder, kind Kind, v [][]T, toBytes func([]T) []byte) {
	t, ok := e.next(kind, len(v))
	if !ok {
		return
	}
	offsets, flat := flatten(v)
	child := array.NewData(t.(*arrow.ListType).Elem(), len(flat), []*memory.Buffer{nil, memory.NewBufferBytes(toBytes(flat))}, nil, 0, 0)
	e.addList(t, offsets, child)
}

func (e *Encoder) addList(t arrow.DataType, offsets []int32, child *array.Data) {
	data := array.NewData(t, e.rows, []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets))},
		[]arrow.ArrayData{child}, 0, 0)
	e.columns = append(e.columns, array.MakeFromData(data))
	data.Release()
	child.Release()
}

func flatten[T any](v [][]T) (offsets []int32, flat []T) {
	total := 0
	for _, l := range v {
		total += len(l)
	}
	offsets, flat = make([]int32, 1, len(v)+1), make([]T, 0, total)
	for _, l := range v {
		flat = append(flat, l...)
		offsets = append(offsets, int32(len(flat)))
	}
	return offsets, flat
}

// Messages with fewer rows are not compressed: their dictionaries and metadata
// outweigh their rows, and setting up the compressor costs more than it saves.
const compressRows = 128

// AppendTo appends the finished message to dst and returns the extended slice.
// The columns given since Begin are no longer referenced afterwards.
func (e *Encoder) AppendTo(dst []byte) ([]byte, error) {
	defer e.release()
	if e.err == nil && len(e.columns) != len(e.schema.fields) {
		e.err = fmt.Errorf("encode message: %d of %d columns", len(e.columns), len(e.schema.fields))
	}
	if e.err != nil {
		return dst, e.err
	}
	sink := appender{buf: dst}
	options := []ipc.Option{ipc.WithSchema(e.schema.arrow), ipc.WithAllocator(&e.memory)}
	if e.rows >= compressRows {
		options = append(options, ipc.WithLZ4())
	}
	w := ipc.NewWriter(&sink, options...)
	record := array.NewRecord(e.schema.arrow, e.columns, int64(e.rows))
	defer record.Release()
	if err := w.Write(record); err != nil {
		return dst, fmt.Errorf("encode message: %w", err)
	}
	if err := w.Close(); err != nil {
		return dst, fmt.Errorf("encode message: %w", err)
	}
	return sink.buf, nil
}

type appender struct{ buf []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.buf = append(a.buf, p...)
	return len(p), nil
}
