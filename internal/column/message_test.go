package column_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
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
		switch rapid.IntRange(0, 2).Draw(t, "size") {
		case 0:
			rows, e = 0, everything{Offsets: []int32{0}}
		case 1:
			rows, e = many(rows*rapid.IntRange(1, 40).Draw(t, "times"), &e)
		}
		asArrow(t, &enc, rows, &e)
	})
}

// TestLargeMessagesAreArrows does the same with more than a block of the
// compressor, of which some does not get shorter.
func TestLargeMessagesAreArrows(t *testing.T) {
	t.Parallel()
	rows, e := many(12_000, one())
	noise := uint64(1)
	for i := range e.U64 {
		noise ^= noise << 13
		noise ^= noise >> 7
		noise ^= noise << 17
		e.U64[i] = noise
	}
	asArrow(t, new(column.Encoder), rows, &e)
}

func asArrow(t rapid.TB, enc *column.Encoder, rows int, e *everything) {
	message, err := encode(enc, rows, e)
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
	if err := errors.Join(writer.Write(reader.Record()), writer.Close()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(message, want.Bytes()) {
		t.Fatalf("a message of %d rows has %d bytes, Arrow's writer makes %d or others", rows, len(message), want.Len())
	}
}

// one is a row of every kind.
func one() *everything {
	return &everything{U8: []uint8{1}, U16: []uint16{1}, U32: []uint32{1}, U64: []uint64{1}, I32: []int32{1}, Date: []int32{1}, I64: []int64{1}, TS: []int64{1},
		F64: []float64{1}, F16: make([]byte, 16), Offsets: []int32{0, 1}, Arena: []byte("a"), Codes: []int32{0}, Values: []string{"a", "b"}, Codes16: []int32{0},
		Values16: make([]byte, 16), U16s: [][]uint16{{1}}, U64s: [][]uint64{{1}}, I64s: [][]int64{{1}}, F64s: [][]float64{{1}}, Texts: [][]string{{"a"}}}
}

// TestForeignMessages reads messages that another writer could make of the same
// columns.
func TestForeignMessages(t *testing.T) {
	t.Parallel()
	var enc column.Encoder
	var dec column.Decoder
	var memory column.Memory
	dec.Use(&memory)
	rapid.Check(t, func(t *rapid.T) {
		rows, e := draw(t)
		if rapid.Bool().Draw(t, "many") {
			rows, e = many(rows*10, &e)
		}
		message, err := encode(&enc, rows, &e)
		if err != nil {
			t.Fatal(err)
		}
		reader, err := ipc.NewReader(bytes.NewReader(message))
		if err != nil || !reader.Next() {
			t.Fatalf("no record batch: %v", err)
		}
		defer reader.Release()
		schema := reader.Schema()
		metadata := arrow.NewMetadata([]string{"made by"}, []string{"another writer"})
		for name, options := range map[string][]ipc.Option{
			"zstd": {ipc.WithSchema(schema), ipc.WithZstd()}, "plain": {ipc.WithSchema(schema)}, "lz4": {ipc.WithSchema(schema), ipc.WithLZ4()},
			"metadata": {ipc.WithSchema(arrow.NewSchema(schema.Fields(), &metadata))},
		} {
			var foreign bytes.Buffer
			writer := ipc.NewWriter(&foreign, options...)
			record := reader.Record()
			if name == "metadata" {
				record = array.NewRecord(arrow.NewSchema(schema.Fields(), &metadata), record.Columns(), record.NumRows())
			}
			if err := errors.Join(writer.Write(record), writer.Close()); err != nil {
				t.Fatal(err)
			}
			got, values, err := decode(&dec, foreign.Bytes())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if g, w := fmt.Sprintf("%d %+q", got, fmt.Sprint(values)), fmt.Sprintf("%d %+q", rows, fmt.Sprint(e)); g != w {
				t.Fatalf("%s: read %s, want %s", name, g, w)
			}
		}
	})
}

// TestDecoderMakesNoGarbage does not run beside other tests, whose objects would
// count.
func TestDecoderMakesNoGarbage(t *testing.T) {
	schema := column.NewSchema(column.Field{Name: "n", Kind: column.Int64}, column.Field{Name: "text", Kind: column.Text},
		column.Field{Name: "word", Kind: column.Dictionary}, column.Field{Name: "token", Kind: column.Dictionary16})
	const rows = 10_000
	var enc column.Encoder
	enc.Begin(schema, rows)
	enc.Int64(make([]int64, rows))
	enc.Text(make([]int32, rows+1), nil)
	enc.Dictionary(make([]int32, rows), []string{"a", "b"})
	enc.Dictionary16(make([]int32, rows), make([]byte, 16))
	message, err := enc.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	var memory column.Memory
	var dec column.Decoder
	dec.Use(&memory)
	words := make([]string, 2)
	each := testing.AllocsPerRun(20, func() {
		if _, err := dec.Open(schema, message); err != nil {
			t.Fatal(err)
		}
		dec.Int64()
		dec.Text()
		dec.Dictionary(words)
		dec.Dictionary16()
		if err := dec.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if each > 0 {
		t.Errorf("%v objects for every message, want none", each)
	}
}

// TestEncoderMakesNoGarbage does not run beside other tests, whose objects would
// count.
func TestEncoderMakesNoGarbage(t *testing.T) {
	var enc column.Encoder
	rows, e := many(5000, one())
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
