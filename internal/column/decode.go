package column

import (
	"bytes"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
)

// Decoder reads messages. It is reusable and not safe for concurrent use. Open,
// then one call per column in schema order, then Close.
type Decoder struct {
	memory *Memory // nil: each message has memory of its own
	schema *Schema
	reader *ipc.Reader
	record arrow.Record
	next   int
	err    error
}

// Open starts to read a message and returns its number of rows. It refuses a
// message whose columns differ from the schema in name, order or type, and one
// that holds more than a single record batch.
func (d *Decoder) Open(schema *Schema, message []byte) (rows int, err error) {
	d.release()
	d.schema, d.next, d.err = schema, 0, nil
	var options []ipc.Option
	if d.memory != nil {
		options = append(options, ipc.WithAllocator(d.memory))
	}
	d.reader, err = ipc.NewReader(bytes.NewReader(message), options...)
	if err != nil {
		return 0, fmt.Errorf("%w: no schema", ErrMalformed)
	}
	if !d.reader.Schema().Equal(schema.arrow) {
		return 0, fmt.Errorf("%w: unexpected columns", ErrMalformed)
	}
	if !d.reader.Next() {
		return 0, fmt.Errorf("%w: no record batch", ErrMalformed)
	}
	d.record = d.reader.Record()
	d.record.Retain()
	if d.reader.Next() {
		return 0, fmt.Errorf("%w: more than one record batch", ErrMalformed)
	}
	return int(d.record.NumRows()), nil
}

// Use makes messages in a memory that several decoders may share: the slices of
// one are overwritten by the next.
func (d *Decoder) Use(memory *Memory) { d.memory = memory }

// Close reports the first error since Open. The decoded slices stay valid until
// the next Open when the decoder uses a Memory, else for ever.
func (d *Decoder) Close() error { return d.err }

func (d *Decoder) release() {
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

// column returns the data of the next column when it is of the kind.
func (d *Decoder) column(kind Kind) (data arrow.ArrayData, name string, ok bool) {
	if d.err != nil {
		return nil, "", false
	}
	if d.next >= len(d.schema.fields) {
		d.err = fmt.Errorf("decode column %d: schema has only %d", d.next, len(d.schema.fields))
		return nil, "", false
	}
	f := d.schema.fields[d.next]
	if f.Kind != kind {
		d.err = fmt.Errorf("decode column %s: asked kind %d, schema says %d", f.Name, kind, f.Kind)
		return nil, "", false
	}
	data = d.record.Column(d.next).Data()
	d.next++
	if data.NullN() != 0 {
		d.fail(f.Name, "holds nulls")
		return nil, "", false
	}
	return data, f.Name, true
}

// values cuts the fixed-width values of the data out of its buffer.
func values(data arrow.ArrayData, width int) ([]byte, bool) {
	if data.Len() == 0 {
		return nil, true
	}
	buffers := data.Buffers()
	if len(buffers) < 2 || buffers[1] == nil {
		return nil, false
	}
	raw := buffers[1].Bytes()
	first, last := data.Offset()*width, (data.Offset()+data.Len())*width
	if last > len(raw) {
		return nil, false
	}
	return raw[first:last], true
}

func (d *Decoder) fixed(kind Kind, width int) []byte {
	data, name, ok := d.column(kind)
	if !ok {
		return nil
	}
	raw, ok := values(data, width)
	if !ok {
		d.fail(name, "is too short")
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
	data, name, ok := d.column(Text)
	if !ok {
		return nil, nil
	}
	offsets, arena, ok = texts(data)
	if !ok {
		d.fail(name, "has bad offsets")
	}
	return offsets, arena
}

// texts checks the offsets of a string column: ascending and inside the arena.
func texts(data arrow.ArrayData) (offsets []int32, arena []byte, ok bool) {
	if data.Len() == 0 {
		return []int32{0}, nil, true
	}
	buffers := data.Buffers()
	if len(buffers) < 3 || buffers[1] == nil {
		return nil, nil, false
	}
	all := arrow.Int32Traits.CastFromBytes(buffers[1].Bytes())
	if data.Offset()+data.Len()+1 > len(all) {
		return nil, nil, false
	}
	offsets = all[data.Offset() : data.Offset()+data.Len()+1]
	if buffers[2] != nil {
		arena = buffers[2].Bytes()
	}
	previous := int32(0)
	for _, o := range offsets {
		if o < previous || int(o) > len(arena) {
			return nil, nil, false
		}
		previous = o
	}
	return offsets, arena, true
}

// Dictionary reads a column of codes. The distinct values are appended to
// dst[:0]; they point into the message's memory.
func (d *Decoder) Dictionary(dst []string) (codes []int32, distinct []string) {
	codes, dictionary, name, ok := d.dictionary(Dictionary)
	if !ok {
		return nil, dst[:0]
	}
	text, ok := dictionary.(*array.String)
	if !ok || !codesBelow(codes, text.Len()) {
		d.fail(name, "has bad codes")
		return nil, dst[:0]
	}
	if _, _, ok := texts(text.Data()); !ok {
		d.fail(name, "has bad offsets")
		return nil, dst[:0]
	}
	distinct = dst[:0]
	for i := range text.Len() {
		distinct = append(distinct, text.Value(i))
	}
	return codes, distinct
}

// Dictionary16 reads a column of codes into 16-byte values, laid end to end.
func (d *Decoder) Dictionary16() (codes []int32, packed []byte) {
	codes, dictionary, name, ok := d.dictionary(Dictionary16)
	if !ok {
		return nil, nil
	}
	packed, ok = values(dictionary.Data(), 16)
	if !ok || !codesBelow(codes, len(packed)/16) {
		d.fail(name, "has bad codes")
		return nil, nil
	}
	return codes, packed
}

func (d *Decoder) dictionary(kind Kind) (codes []int32, distinct arrow.Array, name string, ok bool) {
	data, name, ok := d.column(kind)
	if !ok {
		return nil, nil, name, false
	}
	raw, ok := values(data, 4)
	if !ok {
		d.fail(name, "is too short")
		return nil, nil, name, false
	}
	dictionary := d.record.Column(d.next - 1).(*array.Dictionary).Dictionary()
	if dictionary.NullN() != 0 {
		d.fail(name, "holds nulls")
		return nil, nil, name, false
	}
	return arrow.Int32Traits.CastFromBytes(raw), dictionary, name, true
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
	if _, _, ok := texts(child.Data()); !ok {
		d.fail(name, "has bad offsets")
		return nil
	}
	text := child.(*array.String)
	out := make([][]string, len(offsets)-1)
	for i := range out {
		for j := offsets[i]; j < offsets[i+1]; j++ {
			out[i] = append(out[i], text.Value(int(j)))
		}
	}
	return out
}

func lists[T any](d *Decoder, kind Kind, width int, cast func([]byte) []T) [][]T {
	offsets, child, name, ok := d.list(kind)
	if !ok {
		return nil
	}
	raw, ok := values(child.Data(), width)
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

// list returns checked offsets and the child of a list column.
func (d *Decoder) list(kind Kind) (offsets []int32, child arrow.Array, name string, ok bool) {
	data, name, ok := d.column(kind)
	if !ok {
		return nil, nil, name, false
	}
	child = d.record.Column(d.next - 1).(*array.List).ListValues()
	if data.Len() == 0 {
		return []int32{0}, child, name, true
	}
	all := arrow.Int32Traits.CastFromBytes(data.Buffers()[1].Bytes())
	if data.Offset()+data.Len()+1 > len(all) || child.NullN() != 0 {
		d.fail(name, "is too short")
		return nil, nil, name, false
	}
	offsets = all[data.Offset() : data.Offset()+data.Len()+1]
	previous := int32(0)
	for _, o := range offsets {
		if o < previous || int(o) > child.Len() {
			d.fail(name, "has bad offsets")
			return nil, nil, name, false
		}
		previous = o
	}
	return offsets, child, name, true
}
