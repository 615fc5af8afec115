package column

import (
	"bytes"
	"fmt"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/ipc"
)

// Decoder reads messages. It is reusable and not safe for concurrent use. Open,
// then one call per column in schema order, then Close.
//
// What the Encoder made is read here, without an object for every buffer. Whatever
// else is a message of the schema, Arrow's reader reads.
type Decoder struct {
	memory *Memory // nil: each message has memory of its own
	schema *Schema
	next   int // column
	err    error

	rows         int
	arrays       []array // of the record batch, depth first
	dictionaries []array
	held         [][]byte // of memory, until the next Open

	reader *ipc.Reader // of a message that the Encoder did not make
	record arrow.Record
}

// array is one of the arrays that columns consist of.
type array struct {
	length int
	nulls  int
	values []byte // fixed-width values or offsets
	text   []byte // that the offsets point into
}

// Open starts to read a message and returns its number of rows. It refuses a
// message whose columns differ from the schema in name, order or type, and one
// that holds more than a single record batch.
func (d *Decoder) Open(schema *Schema, message []byte) (rows int, err error) {
	d.release()
	d.schema, d.next, d.err = schema, 0, nil
	if d.readOwn(message) {
		return d.rows, nil
	}
	d.release()
	if err := d.readForeign(message); err != nil {
		d.release() // nothing of it may be looked at
		return 0, err
	}
	return d.rows, nil
}

// readForeign reads a message by Arrow's reader.
func (d *Decoder) readForeign(message []byte) (err error) {
	var options []ipc.Option
	if d.memory != nil {
		options = append(options, ipc.WithAllocator(d.memory))
	}
	d.reader, err = ipc.NewReader(bytes.NewReader(message), options...)
	if err != nil {
		return fmt.Errorf("%w: no schema", ErrMalformed)
	}
	if !d.reader.Schema().Equal(d.schema.arrow) {
		return fmt.Errorf("%w: unexpected columns", ErrMalformed)
	}
	if !d.reader.Next() {
		return fmt.Errorf("%w: no record batch", ErrMalformed)
	}
	d.record = d.reader.Record()
	d.record.Retain()
	if d.reader.Next() {
		return fmt.Errorf("%w: more than one record batch", ErrMalformed)
	}
	d.rows = int(d.record.NumRows())
	for i, f := range d.schema.fields {
		data := d.record.Column(i).Data()
		d.arrays = append(d.arrays, arrayOf(data))
		switch {
		case f.Kind.dictionary():
			d.dictionaries = append(d.dictionaries, arrayOf(data.Dictionary()))
		case f.Kind.list():
			d.arrays = append(d.arrays, arrayOf(data.Children()[0]))
		}
	}
	return nil
}

// arrayOf takes an array over from Arrow's reader, which makes none with an
// offset.
func arrayOf(data arrow.ArrayData) array {
	a := array{length: data.Len(), nulls: data.NullN()}
	buffers := data.Buffers()
	if len(buffers) > 1 && buffers[1] != nil {
		a.values = buffers[1].Bytes()
	}
	if len(buffers) > 2 && buffers[2] != nil {
		a.text = buffers[2].Bytes()
	}
	return a
}

// Use makes messages in a memory that several decoders may share: the slices of
// one are overwritten by the next.
func (d *Decoder) Use(memory *Memory) { d.memory = memory }

// Close reports the first error since Open. The decoded slices stay valid until
// the next Open when the decoder uses a Memory, else for ever.
func (d *Decoder) Close() error { return d.err }

func (d *Decoder) release() {
	if d.memory != nil {
		for _, b := range d.held {
			d.memory.Free(b)
		}
	}
	clear(d.held)
	clear(d.arrays)
	clear(d.dictionaries)
	d.held, d.arrays, d.dictionaries = d.held[:0], d.arrays[:0], d.dictionaries[:0]
	if d.record != nil {
		d.record.Release()
		d.record = nil
	}
	if d.reader != nil {
		d.reader.Release()
		d.reader = nil
	}
}

func (d *Decoder) fail(name, why string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: column %s %s", ErrMalformed, name, why)
	}
}

// column returns the place of the next column when it is of the kind.
func (d *Decoder) column(kind Kind) (f *placed, ok bool) {
	if d.err != nil {
		return nil, false
	}
	if d.next >= len(d.schema.fields) {
		d.err = fmt.Errorf("decode column %d: schema has only %d", d.next, len(d.schema.fields))
		return nil, false
	}
	f = &d.schema.placed[d.next]
	if f.Kind != kind {
		d.err = fmt.Errorf("decode column %s: asked kind %d, schema says %d", f.Name, kind, f.Kind)
		return nil, false
	}
	if f.array >= len(d.arrays) {
		d.err = fmt.Errorf("decode column %s: no message is open", f.Name)
		return nil, false
	}
	d.next++
	if d.arrays[f.array].nulls != 0 {
		d.fail(f.Name, "holds nulls")
		return nil, false
	}
	return f, true
}

// fixedValues cuts the fixed-width values out of their buffer.
func (a *array) fixedValues(width int) ([]byte, bool) {
	if a.length == 0 {
		return nil, true
	}
	if a.length > len(a.values)/width {
		return nil, false
	}
	return a.values[:a.length*width], true
}

// offsets checks the offsets of strings or lists: ascending and inside of what
// they point into.
func (a *array) offsets(limit int) ([]int32, bool) {
	if a.length == 0 {
		return noOffsets, true
	}
	if a.length >= len(a.values)/4 {
		return nil, false
	}
	offsets := arrow.Int32Traits.CastFromBytes(a.values)[:a.length+1]
	previous := int32(0)
	for _, o := range offsets {
		if o < previous || int(o) > limit {
			return nil, false
		}
		previous = o
	}
	return offsets, true
}

var noOffsets = []int32{0}

func (d *Decoder) fixed(kind Kind, width int) []byte {
	f, ok := d.column(kind)
	if !ok {
		return nil
	}
	raw, ok := d.arrays[f.array].fixedValues(width)
	if !ok {
		d.fail(f.Name, "is too short")
	}
	return raw
}

// Uint8 reads a column.
func (d *Decoder) Uint8() []uint8 { return d.fixed(Uint8, 1) }

// Uint16 reads a column.
func (d *Decoder) Uint16() []uint16 { return arrow.Uint16Traits.CastFromBytes(d.fixed(Uint16, 2)) }

// Uint32 reads a column.
func (d *Decoder) Uint32() []uint32 { return arrow.Uint32Traits.CastFromBytes(d.fixed(Uint32, 4)) }

// Uint64 reads a column.
func (d *Decoder) Uint64() []uint64 { return arrow.Uint64Traits.CastFromBytes(d.fixed(Uint64, 8)) }

// Int32 reads a column.
func (d *Decoder) Int32() []int32 { return arrow.Int32Traits.CastFromBytes(d.fixed(Int32, 4)) }

// Int64 reads a column.
func (d *Decoder) Int64() []int64 { return arrow.Int64Traits.CastFromBytes(d.fixed(Int64, 8)) }

// Float64 reads a column.
func (d *Decoder) Float64() []float64 { return arrow.Float64Traits.CastFromBytes(d.fixed(Float64, 8)) }

// Timestamp reads a column of UTC milliseconds since 1970.
func (d *Decoder) Timestamp() []int64 { return arrow.Int64Traits.CastFromBytes(d.fixed(Timestamp, 8)) }

// Date reads a column of days since 1970.
func (d *Decoder) Date() []int32 { return arrow.Int32Traits.CastFromBytes(d.fixed(Date, 4)) }

// Fixed16 reads a column of 16-byte values, laid end to end.
func (d *Decoder) Fixed16() []byte { return d.fixed(Fixed16, 16) }

// Text reads a column of strings as an arena with rows+1 offsets.
func (d *Decoder) Text() (offsets []int32, arena []byte) {
	f, ok := d.column(Text)
	if !ok {
		return nil, nil
	}
	a := &d.arrays[f.array]
	if offsets, ok = a.offsets(len(a.text)); !ok {
		d.fail(f.Name, "has bad offsets")
		return nil, nil
	}
	return offsets, a.text
}

// textAt returns the bytes between two offsets as a string in the same memory.
func textAt(arena []byte, from, to int32) string {
	if from == to {
		return ""
	}
	return unsafe.String(&arena[from], to-from)
}

// Dictionary reads a column of codes. The distinct values are appended to
// dst[:0]; they point into the message's memory.
func (d *Decoder) Dictionary(dst []string) (codes []int32, distinct []string) {
	codes, values, name, ok := d.dictionary(Dictionary)
	if !ok {
		return nil, dst[:0]
	}
	if !codesBelow(codes, values.length) {
		d.fail(name, "has bad codes")
		return nil, dst[:0]
	}
	offsets, ok := values.offsets(len(values.text))
	if !ok {
		d.fail(name, "has bad offsets")
		return nil, dst[:0]
	}
	distinct = dst[:0]
	for i := range values.length {
		distinct = append(distinct, textAt(values.text, offsets[i], offsets[i+1]))
	}
	return codes, distinct
}

// Dictionary16 reads a column of codes into 16-byte values, laid end to end.
func (d *Decoder) Dictionary16() (codes []int32, packed []byte) {
	codes, values, name, ok := d.dictionary(Dictionary16)
	if !ok {
		return nil, nil
	}
	packed, ok = values.fixedValues(16)
	if !ok || !codesBelow(codes, len(packed)/16) {
		d.fail(name, "has bad codes")
		return nil, nil
	}
	return codes, packed
}

func (d *Decoder) dictionary(kind Kind) (codes []int32, values *array, name string, ok bool) {
	f, ok := d.column(kind)
	if !ok {
		return nil, nil, "", false
	}
	raw, ok := d.arrays[f.array].fixedValues(4)
	if !ok {
		d.fail(f.Name, "is too short")
		return nil, nil, f.Name, false
	}
	values = &d.dictionaries[f.dictionary]
	if values.nulls != 0 {
		d.fail(f.Name, "holds nulls")
		return nil, nil, f.Name, false
	}
	return arrow.Int32Traits.CastFromBytes(raw), values, f.Name, true
}

// codesBelow tells whether every code is in [0, limit).
func codesBelow(codes []int32, limit int) bool {
	// One comparison per code: a negative code becomes a large unsigned one.
	highest := uint32(0)
	for _, c := range codes {
		highest = max(highest, uint32(c))
	}
	return len(codes) == 0 || int64(highest) < int64(limit)
}

// Uint16List reads a column of lists.
func (d *Decoder) Uint16List() [][]uint16 {
	return lists(d, Uint16List, 2, arrow.Uint16Traits.CastFromBytes)
}

// Uint64List reads a column of lists.
func (d *Decoder) Uint64List() [][]uint64 {
	return lists(d, Uint64List, 8, arrow.Uint64Traits.CastFromBytes)
}

// Int64List reads a column of lists.
func (d *Decoder) Int64List() [][]int64 {
	return lists(d, Int64List, 8, arrow.Int64Traits.CastFromBytes)
}

// Float64List reads a column of lists.
func (d *Decoder) Float64List() [][]float64 {
	return lists(d, Float64List, 8, arrow.Float64Traits.CastFromBytes)
}

// TextList reads a column of lists of strings.
func (d *Decoder) TextList() [][]string {
	offsets, child, name, ok := d.list(TextList)
	if !ok {
		return nil
	}
	places, ok := child.offsets(len(child.text))
	if !ok {
		d.fail(name, "has bad offsets")
		return nil
	}
	out := make([][]string, len(offsets)-1)
	for i := range out {
		for j := offsets[i]; j < offsets[i+1]; j++ {
			out[i] = append(out[i], textAt(child.text, places[j], places[j+1]))
		}
	}
	return out
}

func lists[T any](d *Decoder, kind Kind, width int, cast func([]byte) []T) [][]T {
	offsets, child, name, ok := d.list(kind)
	if !ok {
		return nil
	}
	raw, ok := child.fixedValues(width)
	if !ok {
		d.fail(name, "is too short")
		return nil
	}
	flat, out := cast(raw), make([][]T, len(offsets)-1)
	for i := range out {
		out[i] = flat[offsets[i]:offsets[i+1]:offsets[i+1]]
	}
	return out
}

// list returns checked offsets and the elements of a list column.
func (d *Decoder) list(kind Kind) (offsets []int32, child *array, name string, ok bool) {
	f, ok := d.column(kind)
	if !ok {
		return nil, nil, "", false
	}
	child = &d.arrays[f.array+1]
	offsets, ok = d.arrays[f.array].offsets(child.length)
	if !ok || child.nulls != 0 {
		d.fail(f.Name, "has bad offsets")
		return nil, nil, f.Name, false
	}
	return offsets, child, f.Name, true
}
