package store

import (
	"math"
	"strings"

	"github.com/ClickHouse/ch-go/proto"
)

// The columns below are Go slices that the driver writes to the connection
// without copying them. They spell the exact type of the table's column: the
// server would else convert, and read an integer as seconds.

// Types of columns as the server spells them.
const (
	typeMillis    = proto.ColumnType("DateTime64(3, 'UTC')")
	typeDays      = proto.ColumnType("Date32")
	typeKind      = proto.ColumnType("Enum8('unknown' = 0, 'practice' = 1, 'test' = 2, 'tracking' = 3)")
	typeContent   = proto.ColumnType("Enum8('answers' = 0, 'test_results' = 1, 'commands' = 2, 'rebuild' = 3)")
	typeLost      = proto.ColumnType("Enum8('answers' = 0, 'test_results' = 1)")
	typeReason    = proto.ColumnType("Enum8('erased' = 0, 'double' = 1)")
	typeLayer     = proto.ColumnType("Enum8('overall' = 0, 'subject' = 1, 'goal' = 2)")
	typeComponent = proto.ColumnType("Enum8('item' = 0, 'goal' = 1, 'global' = 2)")
	typeLetter    = proto.ColumnType("Enum8('waiting' = 0, 'replaying' = 1, 'replayed' = 2, 'purged' = 3)")
	typeSnapshot  = proto.ColumnType("Enum8('item' = 0, 'goal' = 1, 'global' = 2, 'none' = 127)")
)

// millisColumn is DateTime64(3, 'UTC') of milliseconds since 1970.
type millisColumn struct{ proto.ColInt64 }

func (millisColumn) Type() proto.ColumnType { return typeMillis }

// daysColumn is Date32 of days since 1970.
type daysColumn struct{ proto.ColInt32 }

func (daysColumn) Type() proto.ColumnType { return typeDays }

// enumColumn is an Enum8 whose values are those of a Go enumeration.
type enumColumn struct {
	proto.ColUInt8
	is proto.ColumnType
}

func (c enumColumn) Type() proto.ColumnType { return c.is }

// optionalInt32 is Nullable(Int32); a negative value is unknown.
type optionalInt32 struct {
	nulls  proto.ColUInt8
	values proto.ColInt32
}

func (c *optionalInt32) append(values []int32) {
	c.values = append(c.values, values...)
	for _, v := range values {
		c.nulls = append(c.nulls, uint8(uint32(v)>>31)) // the sign bit
	}
}

func (c *optionalInt32) Reset()                 { c.nulls, c.values = c.nulls[:0], c.values[:0] }
func (c *optionalInt32) Type() proto.ColumnType { return "Nullable(Int32)" }
func (c *optionalInt32) Rows() int              { return len(c.values) }
func (c *optionalInt32) WriteColumn(w *proto.Writer) {
	c.nulls.WriteColumn(w)
	c.values.WriteColumn(w)
}
func (c *optionalInt32) EncodeColumn(b *proto.Buffer) {
	c.nulls.EncodeColumn(b)
	c.values.EncodeColumn(b)
}

// optionalFloat64 is Nullable(Float64); NaN is unknown.
type optionalFloat64 struct {
	nulls  proto.ColUInt8
	values proto.ColFloat64
}

func (c *optionalFloat64) append(values []float64) {
	for _, v := range values {
		null := uint8(0)
		if math.IsNaN(v) {
			null, v = 1, 0
		}
		c.nulls = append(c.nulls, null)
		c.values = append(c.values, v)
	}
}

func (c *optionalFloat64) Reset()                 { c.nulls, c.values = c.nulls[:0], c.values[:0] }
func (c *optionalFloat64) Type() proto.ColumnType { return "Nullable(Float64)" }
func (c *optionalFloat64) Rows() int              { return len(c.values) }
func (c *optionalFloat64) WriteColumn(w *proto.Writer) {
	c.nulls.WriteColumn(w)
	c.values.WriteColumn(w)
}
func (c *optionalFloat64) EncodeColumn(b *proto.Buffer) {
	c.nulls.EncodeColumn(b)
	c.values.EncodeColumn(b)
}

// A vocabulary numbers the distinct strings of a column, across batches, so that
// a string is copied once and not once per batch. It is dropped when it has
// grown large: the columns that use it do so until their next reset.
type vocabulary struct {
	numbers map[string]uint32
	words   []string
}

const maxVocabulary = 1 << 20

func newVocabulary() *vocabulary { return &vocabulary{numbers: make(map[string]uint32)} }

func (v *vocabulary) number(word string) uint32 {
	if n, ok := v.numbers[word]; ok {
		return n
	}
	return v.learn(word)
}

func (v *vocabulary) learn(word string) uint32 {
	n := uint32(len(v.words))
	word = strings.Clone(word) // the caller's bytes live until his next message
	v.words = append(v.words, word)
	v.numbers[word] = n
	return n
}

// wordColumn is LowCardinality(String). It takes over dictionary columns by
// renumbering their distinct values, so that no row is hashed.
type wordColumn struct {
	proto.ColLowCardinalityRaw
	index      proto.ColStr
	vocabulary *vocabulary
	local      []uint32 // of a number of the vocabulary: place in index, plus 1
	used       []uint32 // numbers of the vocabulary in index, in order
	codes      []uint32 // scratch of one message
	lastWord   string   // of appendWord
	lastCode   uint32
}

func (c *wordColumn) init() {
	c.Index = &c.index
	c.Key = proto.KeyUInt16
	c.vocabulary = newVocabulary()
}

// place returns the place of a word in the dictionary of the column.
func (c *wordColumn) place(word string) uint32 {
	n := c.vocabulary.number(word)
	if int(n) < len(c.local) && c.local[n] != 0 {
		return c.local[n] - 1
	}
	return c.enter(n)
}

func (c *wordColumn) enter(n uint32) uint32 {
	for int(n) >= len(c.local) {
		c.local = append(c.local, 0)
	}
	c.index.Append(c.vocabulary.words[n])
	c.used = append(c.used, n)
	c.local[n] = uint32(len(c.used))
	if len(c.used) > math.MaxUint16+1 && c.Key == proto.KeyUInt16 {
		c.widen()
	}
	return uint32(len(c.used)) - 1
}

func (c *wordColumn) widen() {
	for _, k := range c.Keys16 {
		c.Keys32 = append(c.Keys32, uint32(k))
	}
	c.Keys16 = c.Keys16[:0]
	c.Key = proto.KeyUInt32
}

// renumber prepares for appendCodes of the same dictionary column.
func (c *wordColumn) renumber(values []string) {
	c.codes = c.codes[:0]
	for _, word := range values {
		c.codes = append(c.codes, c.place(word))
	}
}

// appendCodes adds rows of the dictionary column last given to renumber.
func (c *wordColumn) appendCodes(codes []int32) {
	if c.Key == proto.KeyUInt16 {
		for _, code := range codes {
			c.Keys16 = append(c.Keys16, uint16(c.codes[code]))
		}
		return
	}
	for _, code := range codes {
		c.Keys32 = append(c.Keys32, c.codes[code])
	}
}

// appendWords adds rows of a plain column.
func (c *wordColumn) appendWords(words []string) {
	for _, word := range words {
		c.appendWord(word)
	}
}

// appendWord adds a row. Equal neighbours are hashed once.
func (c *wordColumn) appendWord(word string) {
	if len(c.used) == 0 || word != c.lastWord {
		c.lastCode = c.place(word)
		c.lastWord = c.vocabulary.words[c.used[c.lastCode]]
	}
	if c.Key == proto.KeyUInt16 {
		c.Keys16 = append(c.Keys16, uint16(c.lastCode))
	} else {
		c.Keys32 = append(c.Keys32, c.lastCode)
	}
}

// Reset empties the column.
func (c *wordColumn) Reset() {
	for _, n := range c.used {
		c.local[n] = 0
	}
	c.used = c.used[:0]
	c.ColLowCardinalityRaw.Reset()
	c.Key = proto.KeyUInt16
	if len(c.vocabulary.words) > maxVocabulary {
		c.vocabulary, c.local = newVocabulary(), nil
	}
}

// fill appends n times the same value.
func fill[T any](column []T, value T, n int) []T {
	for range n {
		column = append(column, value)
	}
	return column
}
