package column

import (
	"bytes"
	"encoding/binary"
)

// readOwn reads a message that the Encoder has made, or one that looks like it. It
// returns false for any other, also for a damaged one, and has then taken memory
// that release gives back.
func (d *Decoder) readOwn(message []byte) bool {
	if !bytes.HasPrefix(message, d.schema.message) {
		return false
	}
	rest, ok := message[len(d.schema.message):], true
	for i := range d.schema.dictionaries {
		var rows int
		if rows, d.dictionaries, rest, ok = d.payload(rest, i, d.schema.dictionaries[i:i+1], d.dictionaries); !ok || rows != d.dictionaries[i].length {
			return false
		}
	}
	if d.rows, d.arrays, rest, ok = d.payload(rest, -1, d.schema.arrays, d.arrays); !ok {
		return false
	}
	for i := range d.schema.placed {
		if d.arrays[d.schema.placed[i].array].length != d.rows {
			return false
		}
	}
	return bytes.Equal(rest, endOfStream)
}

// payload reads a record batch, or the values of a dictionary when that is not
// negative: arrays of the given shapes.
func (d *Decoder) payload(message []byte, dictionary int, shapes []shape, dst []array) (rows int, arrays []array, rest []byte, ok bool) {
	b := &bounded{bytes: message}
	size := b.uint32(4)
	if b.uint32(0) != 0xffffffff || b.bad || size > uint32(len(message)-8) {
		return 0, dst, nil, false
	}
	body := message[8+size:]
	b = &bounded{bytes: message[8 : 8+size]}
	root := int(b.uint32(0))
	bodyLength := b.int64(b.field(root, 3))
	if b.uint16(b.field(root, 0)) != metadataV5 || b.bad || bodyLength < 0 || bodyLength > int64(len(body)) {
		return 0, dst, nil, false
	}
	body, rest = body[:bodyLength], body[bodyLength:]
	kind, batch := b.uint8(b.field(root, 1)), b.table(root, 2)
	if dictionary >= 0 {
		if kind != headerDictionaryBatch || b.int64(b.field(batch, 0)) != int64(dictionary) || b.uint8(b.field(batch, 2)) != 0 {
			return 0, dst, nil, false
		}
		batch = b.table(batch, 1)
	} else if kind != headerRecordBatch {
		return 0, dst, nil, false
	}
	arrays, ok = d.batch(b, batch, body, shapes, dst)
	rows64 := b.int64(b.field(batch, 0))
	return int(rows64), arrays, rest, ok && !b.bad && rows64 >= 0 && rows64 <= maxLength
}

// maxLength is more values than any array of a message has.
const maxLength = 1 << 31

// batch reads the arrays that a RecordBatch describes.
func (d *Decoder) batch(b *bounded, batch int, body []byte, shapes []shape, dst []array) ([]array, bool) {
	compressed := b.field(batch, 3) != 0
	if compressed {
		compression := b.table(batch, 3)
		if b.uint8(b.field(compression, 0)) != 0 || b.uint8(b.field(compression, 1)) != 0 {
			return dst, false
		}
	}
	nodes, buffers := b.vector(batch, 1, 16), b.vector(batch, 2, 16)
	for i, s := range shapes {
		node := b.element(nodes, i, 16)
		length, nulls := b.int64(node), b.int64(node+8)
		a := array{length: int(length)}
		count := 2
		if s.text {
			count = 3
		}
		for k := range count {
			extent := b.element(buffers, 0, 16)
			buffers.first, buffers.count = buffers.first+16, buffers.count-1
			offset, size := b.int64(extent), b.int64(extent+8)
			if b.bad || offset < 0 || size < 0 || offset > int64(len(body)) || size > int64(len(body))-offset {
				return dst, false
			}
			raw, ok := d.buffer(body[offset:offset+size], compressed)
			if !ok || k == 0 && len(raw) > 0 {
				return dst, false
			}
			switch k {
			case 1:
				a.values = raw
			case 2:
				a.text = raw
			}
		}
		if b.bad || nulls != 0 || length < 0 || length > maxLength {
			return dst, false
		}
		dst = append(dst, a)
	}
	return dst, nodes.count == len(shapes) && buffers.count == 0
}

// buffer copies or decompresses a buffer into memory of the decoder.
func (d *Decoder) buffer(raw []byte, compressed bool) ([]byte, bool) {
	if len(raw) == 0 {
		return nil, true
	}
	size := int64(len(raw))
	if compressed {
		if len(raw) < 8 {
			return nil, false
		}
		size = int64(binary.LittleEndian.Uint64(raw))
		if size < 0 || size > 255*int64(len(raw)) { // LZ4 makes nothing shorter than by 255
			return nil, false
		}
	}
	var out []byte
	if d.memory != nil {
		out = d.memory.Allocate(int(size))
		d.held = append(d.held, out)
	} else {
		out = make([]byte, size)
	}
	if compressed {
		return out, decompress(out, raw[8:])
	}
	copy(out, raw)
	return out, true
}

// bounded reads a FlatBuffer and notes when something is outside of it.
type bounded struct {
	bytes []byte
	bad   bool
}

func (b *bounded) at(place, size int) []byte {
	if place < 0 || place > len(b.bytes)-size {
		b.bad = true
		return zeros[:size]
	}
	return b.bytes[place : place+size]
}

var zeros [8]byte

// A place of 0, where no field can be, is that of one that is left out: it has its
// default, 0.

func (b *bounded) uint8(place int) uint8 {
	if place == 0 {
		return 0
	}
	return b.at(place, 1)[0]
}

func (b *bounded) uint16(place int) uint16 {
	if place == 0 {
		return 0
	}
	return binary.LittleEndian.Uint16(b.at(place, 2))
}

func (b *bounded) int64(place int) int64 {
	if place == 0 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b.at(place, 8)))
}

// uint32 reads an offset, which is never left out.
func (b *bounded) uint32(place int) uint32 { return binary.LittleEndian.Uint32(b.at(place, 4)) }

// field returns the place of a table's field, 0 when it is left out.
func (b *bounded) field(table, slot int) int {
	fields := table - int(int32(b.uint32(table)))
	if size := int(binary.LittleEndian.Uint16(b.at(fields, 2))); 4+2*slot+2 > size {
		return 0
	}
	offset := int(binary.LittleEndian.Uint16(b.at(fields+4+2*slot, 2)))
	if offset == 0 {
		return 0
	}
	return table + offset
}

// table returns the place of the table in a field.
func (b *bounded) table(table, slot int) int {
	place := b.field(table, slot)
	if place == 0 {
		b.bad = true
		return 0
	}
	return place + int(b.uint32(place))
}

// vector is a vector of structs.
type vector struct{ first, count int }

func (b *bounded) vector(table, slot, size int) vector {
	place := b.table(table, slot)
	v := vector{first: place + 4, count: int(b.uint32(place))}
	if v.count > (len(b.bytes)-v.first)/size {
		b.bad = true
		return vector{}
	}
	return v
}

// element returns the place of an element.
func (b *bounded) element(v vector, i, size int) int {
	if i >= v.count {
		b.bad = true
		return 0
	}
	return v.first + i*size
}
