package column

import (
	"testing"

	"pgregory.net/rapid"
)

var damageable = NewSchema(Field{"n", Int64}, Field{"text", Text}, Field{"word", Dictionary}, Field{"token", Dictionary16}, Field{"list", Uint64List},
	Field{"texts", TextList})

// TestDamagedMessages changes messages, mostly in what describes them, and reads
// all columns of those that are still taken for the Encoder's: nothing is read
// that lies outside of them.
func TestDamagedMessages(t *testing.T) {
	t.Parallel()
	var enc Encoder
	var memory Memory
	var dec Decoder
	dec.Use(&memory)
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SampledFrom([]int{1, 5, 300}).Draw(t, "rows")
		enc.Begin(damageable, rows)
		numbers, offsets, lists, texts := make([]int64, rows), make([]int32, rows+1), make([][]uint64, rows), make([][]string, rows)
		for i := range rows {
			numbers[i], offsets[i+1], lists[i], texts[i] = int64(i), int32(i+1), []uint64{uint64(i)}, []string{"a", "b"}
		}
		enc.Int64(numbers)
		enc.Text(offsets, make([]byte, rows))
		enc.Dictionary(make([]int32, rows), []string{"one", "two"})
		enc.Dictionary16(make([]int32, rows), make([]byte, 32))
		enc.Uint64List(lists)
		enc.TextList(texts)
		message, err := enc.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		first := len(damageable.message)
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			at := rapid.IntRange(first, len(message)-1).Draw(t, "at")
			message[at] = rapid.SampledFrom([]byte{0, 1, 4, 8, 0x7f, 0x80, 0xff, message[at] ^ 1}).Draw(t, "byte")
		}
		message = message[:rapid.IntRange(len(message)*3/4, len(message)).Draw(t, "cut")]
		dec.release()
		dec.schema, dec.next, dec.err = damageable, 0, nil
		if !dec.readOwn(message) {
			return
		}
		dec.Int64()
		dec.Text()
		dec.Dictionary(nil)
		dec.Dictionary16()
		dec.Uint64List()
		dec.TextList()
	})
}
