package column_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/internal/column"
	"pgregory.net/rapid"
)

var everyKind = column.NewSchema(
	column.Field{Name: "u8", Kind: column.Uint8}, column.Field{Name: "u16", Kind: column.Uint16}, column.Field{Name: "u32", Kind: column.Uint32},
	column.Field{Name: "u64", Kind: column.Uint64}, column.Field{Name: "i32", Kind: column.Int32}, column.Field{Name: "i64", Kind: column.Int64},
	column.Field{Name: "f64", Kind: column.Float64}, column.Field{Name: "ts", Kind: column.Timestamp}, column.Field{Name: "date", Kind: column.Date},
	column.Field{Name: "f16", Kind: column.Fixed16}, column.Field{Name: "text", Kind: column.Text}, column.Field{Name: "dict", Kind: column.Dictionary},
	column.Field{Name: "dict16", Kind: column.Dictionary16}, column.Field{Name: "u16s", Kind: column.Uint16List}, column.Field{Name: "u64s", Kind: column.Uint64List},
	column.Field{Name: "i64s", Kind: column.Int64List}, column.Field{Name: "f64s", Kind: column.Float64List}, column.Field{Name: "texts", Kind: column.TextList},
)

// everything holds a value of each kind for each row.
type everything struct {
	U8        []uint8
	U16       []uint16
	U32       []uint32
	U64       []uint64
	I32, Date []int32
	I64, TS   []int64
	F64       []float64
	F16       []byte
	Offsets   []int32
	Arena     []byte
	Codes     []int32
	Values    []string
	Codes16   []int32
	Values16  []byte
	U16s      [][]uint16
	U64s      [][]uint64
	I64s      [][]int64
	F64s      [][]float64
	Texts     [][]string
}

func some[T any](t *rapid.T, label string, g *rapid.Generator[T], n int) []T {
	return rapid.SliceOfN(g, n, n).Draw(t, label)
}

func draw(t *rapid.T) (rows int, e everything) {
	rows = rapid.IntRange(1, 30).Draw(t, "rows")
	e = everything{
		U8: some(t, "u8", rapid.Uint8(), rows), U16: some(t, "u16", rapid.Uint16(), rows), U32: some(t, "u32", rapid.Uint32(), rows),
		U64: some(t, "u64", rapid.Uint64(), rows), I32: some(t, "i32", rapid.Int32(), rows), Date: some(t, "date", rapid.Int32(), rows),
		I64: some(t, "i64", rapid.Int64(), rows), TS: some(t, "ts", rapid.Int64(), rows), F64: some(t, "f64", rapid.Float64(), rows),
		F16: some(t, "f16", rapid.Byte(), 16*rows), Offsets: []int32{0},
		Values: some(t, "values", rapid.String(), 3), Values16: some(t, "values16", rapid.Byte(), 32),
		Codes: some(t, "codes", rapid.Int32Range(0, 2), rows), Codes16: some(t, "codes16", rapid.Int32Range(0, 1), rows),
		U16s: some(t, "u16s", rapid.SliceOfN(rapid.Uint16(), 0, 4), rows), U64s: some(t, "u64s", rapid.SliceOfN(rapid.Uint64(), 0, 4), rows),
		I64s: some(t, "i64s", rapid.SliceOfN(rapid.Int64(), 0, 4), rows), F64s: some(t, "f64s", rapid.SliceOfN(rapid.Float64(), 0, 4), rows),
		Texts: some(t, "texts", rapid.SliceOfN(rapid.String(), 1, 4), rows),
	}
	for _, s := range some(t, "text", rapid.String(), rows) {
		e.Arena = append(e.Arena, s...)
		e.Offsets = append(e.Offsets, int32(len(e.Arena)))
	}
	return rows, e
}

func encode(enc *column.Encoder, rows int, e *everything) ([]byte, error) {
	encodeInto(enc, rows, e)
	return enc.AppendTo(nil)
}

func encodeInto(enc *column.Encoder, rows int, e *everything) {
	enc.Begin(everyKind, rows)
	enc.Uint8(e.U8)
	enc.Uint16(e.U16)
	enc.Uint32(e.U32)
	enc.Uint64(e.U64)
	enc.Int32(e.I32)
	enc.Int64(e.I64)
	enc.Float64(e.F64)
	enc.Timestamp(e.TS)
	enc.Date(e.Date)
	enc.Fixed16(e.F16)
	enc.Text(e.Offsets, e.Arena)
	enc.Dictionary(e.Codes, e.Values)
	enc.Dictionary16(e.Codes16, e.Values16)
	enc.Uint16List(e.U16s)
	enc.Uint64List(e.U64s)
	enc.Int64List(e.I64s)
	enc.Float64List(e.F64s)
	enc.TextList(e.Texts)
}

func decode(dec *column.Decoder, message []byte) (rows int, e everything, err error) {
	rows, err = dec.Open(everyKind, message)
	if err != nil {
		return 0, e, err
	}
	e.U8, e.U16, e.U32, e.U64, e.I32, e.I64 = dec.Uint8(), dec.Uint16(), dec.Uint32(), dec.Uint64(), dec.Int32(), dec.Int64()
	e.F64, e.TS, e.Date, e.F16 = dec.Float64(), dec.Timestamp(), dec.Date(), dec.Fixed16()
	e.Offsets, e.Arena = dec.Text()
	e.Codes, e.Values = dec.Dictionary(nil)
	e.Codes16, e.Values16 = dec.Dictionary16()
	e.U16s, e.U64s, e.I64s, e.F64s, e.Texts = dec.Uint16List(), dec.Uint64List(), dec.Int64List(), dec.Float64List(), dec.TextList()
	return rows, e, dec.Close()
}

func TestEveryKindSurvives(t *testing.T) {
	t.Parallel()
	var enc column.Encoder
	var dec column.Decoder
	rapid.Check(t, func(t *rapid.T) {
		rows, want := draw(t)
		message, err := encode(&enc, rows, &want)
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		gotRows, got, err := decode(&dec, message)
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		// As text, because NaN differs from itself and an empty list may be nil.
		if g, w := fmt.Sprintf("%d %+q", gotRows, fmt.Sprint(got)), fmt.Sprintf("%d %+q", rows, fmt.Sprint(want)); g != w {
			t.Fatalf("decode(encode(x)) = %s, want %s", g, w)
		}
	})
}

func TestNoRows(t *testing.T) {
	t.Parallel()
	var enc column.Encoder
	message, err := encode(&enc, 0, &everything{Offsets: []int32{0}})
	if err != nil {
		t.Fatal(err)
	}
	var dec column.Decoder
	rows, got, err := decode(&dec, message)
	if err != nil || rows != 0 || len(got.U8) != 0 || len(got.Texts) != 0 {
		t.Errorf("decode(empty) = %d rows, %+v, %v", rows, got, err)
	}
}

func TestEncoderRefusesMistakes(t *testing.T) {
	t.Parallel()
	two := column.NewSchema(column.Field{Name: "a", Kind: column.Int64}, column.Field{Name: "b", Kind: column.Uint8})
	for name, test := range map[string]struct {
		add  func(*column.Encoder)
		want string
	}{
		"missing column":   {func(e *column.Encoder) { e.Int64([]int64{1}) }, "1 of 2 columns"},
		"wrong kind":       {func(e *column.Encoder) { e.Uint8([]uint8{1}) }, "column a"},
		"wrong length":     {func(e *column.Encoder) { e.Int64([]int64{1, 2}) }, "2 rows, message has 1"},
		"too many columns": {func(e *column.Encoder) { e.Int64([]int64{1}); e.Uint8([]uint8{1}); e.Uint8([]uint8{1}) }, "schema has only 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var enc column.Encoder
			enc.Begin(two, 1)
			test.add(&enc)
			if _, err := enc.AppendTo(nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("AppendTo = %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestDecoderRefusesOtherColumns(t *testing.T) {
	t.Parallel()
	var enc column.Encoder
	enc.Begin(column.NewSchema(column.Field{Name: "a", Kind: column.Int64}), 1)
	enc.Int64([]int64{1})
	message, err := enc.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]column.Field{"name": {Name: "b", Kind: column.Int64}, "type": {Name: "a", Kind: column.Float64}} {
		var dec column.Decoder
		if _, err := dec.Open(column.NewSchema(other), message); !errors.Is(err, column.ErrMalformed) {
			t.Errorf("Open with another %s = %v, want ErrMalformed", name, err)
		}
	}
	var dec column.Decoder
	if _, err := dec.Open(column.NewSchema(column.Field{Name: "a", Kind: column.Int64}), message[:10]); !errors.Is(err, column.ErrMalformed) {
		t.Errorf("Open(truncated) = %v, want ErrMalformed", err)
	}
}
