package column

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	flatbuffers "github.com/google/flatbuffers/go"
)

// The frame of a message, after Arrow's columnar format 1.4, "Serialization and
// Interprocess Communication", and its Message.fbs. It is what Arrow's own writer
// makes, to the bit, without an object for every buffer. Arrow's writer makes the
// message of the schema, once.

// schemaMessage returns the message with which every message of the schema begins.
func schemaMessage(schema *arrow.Schema) []byte {
	var out bytes.Buffer
	if err := ipc.NewWriter(&out, ipc.WithSchema(schema)).Close(); err != nil {
		panic("column: write a schema: " + err.Error()) // into memory
	}
	return bytes.TrimSuffix(out.Bytes(), endOfStream)
}

var endOfStream = []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// Values of Message.fbs and Schema.fbs.
const (
	metadataV5            = 4
	headerDictionaryBatch = 2
	headerRecordBatch     = 3
)

// payload is a record batch in the making, or the values of a dictionary.
type payload struct {
	lengths []int    // of arrays, depth first
	buffers [][]byte // of arrays; nil for a bitmap of nulls, as there are none
}

func (p *payload) reset() {
	clear(p.buffers)
	p.lengths, p.buffers = p.lengths[:0], p.buffers[:0]
}

// add adds an array without nulls.
func (p *payload) add(length int, buffers ...[]byte) {
	p.lengths = append(p.lengths, length)
	p.buffers = append(p.buffers, nil)
	p.buffers = append(p.buffers, buffers...)
}

// framer appends payloads to messages. It is reusable and not safe for concurrent
// use.
type framer struct {
	builder  *flatbuffers.Builder
	compress compressor
	body     []byte
	extents  []extent
}

// extent is where a buffer lies in a body.
type extent struct{ offset, length int }

// append appends the payload as a record batch of so many rows, or, when
// dictionary is not negative, as the values of that dictionary.
func (f *framer) append(dst []byte, p *payload, rows, dictionary int, compressed bool) []byte {
	f.body, f.extents = f.body[:0], f.extents[:0]
	if cap(f.body) > keepArenaBytes {
		f.body = nil
	}
	for _, raw := range p.buffers {
		offset := len(f.body)
		if compressed && len(raw) > 0 {
			f.body = f.compress.append(f.body, raw)
		} else {
			f.body = append(f.body, raw...)
		}
		f.extents = append(f.extents, extent{offset, len(f.body) - offset})
		f.body = pad(f.body, offset)
	}
	metadata := f.metadata(p, rows, dictionary, compressed)
	begin := len(dst)
	dst = append(dst, endOfStream[:4]...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32((len(metadata)+7)/8*8))
	dst = append(dst, metadata...)
	dst = pad(dst, begin)
	return append(dst, f.body...)
}

// pad fills what begins at an offset up to a multiple of 8 bytes.
func pad(b []byte, begin int) []byte {
	for (len(b)-begin)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// metadata describes the body that was made. It is valid until the next call.
func (f *framer) metadata(p *payload, rows, dictionary int, compressed bool) []byte {
	if f.builder == nil {
		f.builder = flatbuffers.NewBuilder(1 << 10)
	}
	b := f.builder
	b.Reset()
	header, kind := f.recordBatch(p, rows, compressed), byte(headerRecordBatch)
	if dictionary >= 0 {
		b.StartObject(3) // DictionaryBatch
		b.PrependInt64Slot(0, int64(dictionary), 0)
		b.PrependUOffsetTSlot(1, header, 0)
		header, kind = b.EndObject(), headerDictionaryBatch
	}
	b.StartObject(5) // Message
	b.PrependInt16Slot(0, metadataV5, 0)
	b.PrependByteSlot(1, kind, 0)
	b.PrependUOffsetTSlot(2, header, 0)
	b.PrependInt64Slot(3, int64(len(f.body)), 0)
	b.Finish(b.EndObject())
	return b.FinishedBytes()
}

func (f *framer) recordBatch(p *payload, rows int, compressed bool) flatbuffers.UOffsetT {
	b := f.builder
	b.StartVector(16, len(p.lengths), 8) // of FieldNode: length, nulls
	for i := len(p.lengths) - 1; i >= 0; i-- {
		b.Prep(8, 16)
		b.PrependInt64(0)
		b.PrependInt64(int64(p.lengths[i]))
	}
	nodes := b.EndVector(len(p.lengths))
	b.StartVector(16, len(f.extents), 8) // of Buffer: offset, length
	for i := len(f.extents) - 1; i >= 0; i-- {
		b.Prep(8, 16)
		b.PrependInt64(int64(f.extents[i].length))
		b.PrependInt64(int64(f.extents[i].offset))
	}
	buffers := b.EndVector(len(f.extents))
	var compression flatbuffers.UOffsetT
	if compressed {
		b.StartObject(2) // BodyCompression: frames of LZ4, each buffer by itself, are the defaults
		compression = b.EndObject()
	}
	b.StartObject(5) // RecordBatch
	b.PrependInt64Slot(0, int64(rows), 0)
	b.PrependUOffsetTSlot(1, nodes, 0)
	b.PrependUOffsetTSlot(2, buffers, 0)
	b.PrependUOffsetTSlot(3, compression, 0)
	return b.EndObject()
}

// finish checks that all columns are there and appends the message.
func (e *Encoder) finish(dst []byte) ([]byte, error) {
	if e.err == nil && e.columns != len(e.schema.fields) {
		e.err = fmt.Errorf("encode message: %d of %d columns", e.columns, len(e.schema.fields))
	}
	if e.err != nil {
		return dst, e.err
	}
	compressed := e.rows >= compressRows
	dst = append(dst, e.schema.message...)
	for i := range e.dictionaries {
		d := &e.dictionaries[i]
		dst = e.framer.append(dst, d, d.lengths[0], i, compressed)
	}
	dst = e.framer.append(dst, &e.batch, e.rows, -1, compressed)
	return append(dst, endOfStream...), nil
}
