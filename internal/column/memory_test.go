package column_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/leerstroom/leerstroom/internal/column"
	"pgregory.net/rapid"
)

// TestDecodersShareMemory decodes messages in turn with two decoders that share a
// memory: what one holds stays while the other reads on, also after a message
// that can't be read.
func TestDecodersShareMemory(t *testing.T) {
	t.Parallel()
	for _, wipe := range []bool{false, true} {
		memory := column.Memory{Wipe: wipe}
		var enc column.Encoder
		var decoders [2]column.Decoder
		for i := range decoders {
			decoders[i].Use(&memory)
		}
		rapid.Check(t, func(t *rapid.T) {
			var held [2]everything
			var want [2]string
			for turn := range rapid.IntRange(2, 6).Draw(t, "turns") {
				i := rapid.IntRange(0, 1).Draw(t, "decoder")
				rows, next := draw(t)
				if turn%2 == 1 { // enough rows to be compressed
					rows, next = many(rows*40, &next)
				}
				message, err := encode(&enc, rows, &next)
				if err != nil {
					t.Fatalf("encode: %v", err)
				}
				if cut := rapid.IntRange(1, 4*len(message)).Draw(t, "cut"); cut < len(message) {
					_, _, _ = decode(&decoders[i], message[:cut]) // whatever it says, the next message is whole
				}
				if _, held[i], err = decode(&decoders[i], message); err != nil {
					t.Fatalf("decode: %v", err)
				}
				want[i] = fmt.Sprint(next)
				for k := range held {
					if want[k] != "" && fmt.Sprint(held[k]) != want[k] {
						t.Fatalf("decoder %d holds something else after decoder %d has read", k, i)
					}
				}
			}
		})
	}
}

// many returns the rows over and over.
func many(rows int, e *everything) (int, everything) {
	n := len(e.U8)
	rows = rows / n * n
	var out everything
	for range rows / n {
		out.U8, out.U16, out.U32, out.U64 = append(out.U8, e.U8...), append(out.U16, e.U16...), append(out.U32, e.U32...), append(out.U64, e.U64...)
		out.I32, out.Date, out.I64, out.TS = append(out.I32, e.I32...), append(out.Date, e.Date...), append(out.I64, e.I64...), append(out.TS, e.TS...)
		out.F64, out.F16, out.Codes, out.Codes16 = append(out.F64, e.F64...), append(out.F16, e.F16...), append(out.Codes, e.Codes...), append(out.Codes16, e.Codes16...)
		out.U16s, out.U64s, out.I64s = append(out.U16s, e.U16s...), append(out.U64s, e.U64s...), append(out.I64s, e.I64s...)
		out.F64s, out.Texts = append(out.F64s, e.F64s...), append(out.Texts, e.Texts...)
		for _, o := range e.Offsets[:n] {
			out.Offsets = append(out.Offsets, o+int32(len(out.Arena)))
		}
		out.Arena = append(out.Arena, e.Arena...)
	}
	out.Offsets = append(out.Offsets, int32(len(out.Arena)))
	out.Values, out.Values16 = e.Values, e.Values16
	return rows, out
}

// TestMemoryMakesNoGarbage decodes the same message many times: its bodies come
// from what was given back. It does not run beside other tests, whose garbage
// would count.
func TestMemoryMakesNoGarbage(t *testing.T) {
	schema := column.NewSchema(column.Field{Name: "n", Kind: column.Int64}, column.Field{Name: "x", Kind: column.Float64})
	const rows, times = 10_000, 50
	var enc column.Encoder
	enc.Begin(schema, rows)
	enc.Int64(make([]int64, rows))
	enc.Float64(make([]float64, rows))
	message, err := enc.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	var memory column.Memory
	var dec column.Decoder
	dec.Use(&memory)
	read := func() {
		if _, err := dec.Open(schema, message); err != nil {
			t.Fatal(err)
		}
		if got := len(dec.Int64()) + len(dec.Float64()); got != 2*rows {
			t.Fatalf("%d values, want %d", got, 2*rows)
		}
	}
	read()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		read()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / times; each > rows*8 {
		t.Errorf("%d bytes of garbage per message, want less than one of its two columns of %d", each, rows*8)
	}
}
