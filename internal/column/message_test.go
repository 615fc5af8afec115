package column_test

import (
	"bytes"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/ipc"
	"pgregory.net/rapid"

	"github.com/leerstroom/leerstroom/internal/column"
)

// TestMessagesAreArrows reads messages with Arrow's reader and writes what it read
// with Arrow's writer: the same bytes, compressed or not, by an encoder that is
// used over and over.
func TestMessagesAreArrows(t *testing.T) {
	t.Parallel()
	var enc column.Encoder
	rapid.Check(t, func(t *rapid.T) {
		rows, e := draw(t)
		switch rapid.IntRange(0, 3).Draw(t, "size") {
		case 0:
			rows, e = 0, everything{Offsets: []int32{0}}
		case 1, 2:
			rows, e = many(rows*rapid.IntRange(1, 40).Draw(t, "times"), &e)
		case 3: // more than a block of the compressor, of which some does not get shorter
			rows, e = many(12_000, &e)
			noise := rapid.Uint64().Draw(t, "noise")
			for i := range e.U64 {
				noise ^= noise << 13
				noise ^= noise >> 7
				noise ^= noise << 17
				e.U64[i] = noise
			}
		}
		message, err := encode(&enc, rows, &e)
		if err != nil {
			t.Fatal(err)
		}
		reader, err := ipc.NewReader(bytes.NewReader(message))
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Release()
		if !reader.Next() {
			t.Fatalf("no record batch: %v", reader.Err())
		}
		options := []ipc.Option{ipc.WithSchema(reader.Schema())}
		if rows >= 128 {
			options = append(options, ipc.WithLZ4())
		}
		var want bytes.Buffer
		writer := ipc.NewWriter(&want, options...)
		if err := writer.Write(reader.Record()); err != nil {
			t.Fatal(err)
		}
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(message, want.Bytes()) {
			t.Fatalf("a message of %d rows has %d bytes, Arrow's writer makes %d or others", rows, len(message), want.Len())
		}
	})
}

// TestEncoderMakesNoGarbage does not run beside other tests, whose objects would
// count.
func TestEncoderMakesNoGarbage(t *testing.T) {
	var enc column.Encoder
	e := everything{U8: []uint8{1}, U16: []uint16{1}, U32: []uint32{1}, U64: []uint64{1}, I32: []int32{1}, Date: []int32{1}, I64: []int64{1}, TS: []int64{1},
		F64: []float64{1}, F16: make([]byte, 16), Offsets: []int32{0, 1}, Arena: []byte("a"), Codes: []int32{0}, Values: []string{"a", "b"}, Codes16: []int32{0},
		Values16: make([]byte, 16), U16s: [][]uint16{{1}}, U64s: [][]uint64{{1}}, I64s: [][]int64{{1}}, F64s: [][]float64{{1}}, Texts: [][]string{{"a"}}}
	rows, e := many(5000, &e)
	message := make([]byte, 0, 8<<20)
	each := testing.AllocsPerRun(20, func() {
		encodeInto(&enc, rows, &e)
		if _, err := enc.AppendTo(message); err != nil {
			t.Fatal(err)
		}
	})
	if each > 0 {
		t.Errorf("%v objects for every message, want none", each)
	}
}
