// Package column turns typed Go slices into one self-contained Arrow IPC stream
// with a single record batch, and back. It is the only place, beside the Arrow
// reply of the query service, that knows the Arrow library: a move to another
// release changes this package alone.
//
// Invariants:
//   - A message decodes alone: dictionaries are sent whole, never as deltas.
//   - Encoding borrows the caller's slices until AppendTo returns; it copies
//     nothing but strings of dictionaries and fixed-width identifiers.
//   - Decoded slices live in memory of the Decoder until its next Open. They
//     must not be written to.
//   - Open must only see bytes whose integrity was proven before (an opened
//     seal, or a digest): the Arrow reader, which reads what another writer made,
//     can't be bounded against hostile lengths. Every dictionary code and every
//     column length is still checked.
//   - What the Encoder makes are the bytes of Arrow's own writer.
//
// Columns are written and read in the order of the schema; the first error
// sticks and is returned by AppendTo or Close.
package column

import (
	"errors"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
)

// ErrMalformed reports a message that is not what its schema says. It never
// quotes the message.
var ErrMalformed = errors.New("malformed column message")

// Kind is the type of a column.
type Kind uint8

// The kinds of columns. A dictionary holds int32 codes into a list of distinct
// values.
const (
	Uint8 Kind = iota
	Uint16
	Uint32
	Uint64
	Int32
	Int64
	Float64
	Timestamp    // int64 milliseconds since 1970, UTC
	Date         // int32 days since 1970
	Fixed16      // 16 bytes
	Text         // UTF-8 arena with offsets
	Dictionary   // of UTF-8
	Dictionary16 // of 16 bytes
	Uint16List
	Uint64List
	Int64List
	Float64List
	TextList
)

// Field names one column.
type Field struct {
	Name string
	Kind Kind
}

// Schema is an ordered list of columns. It is immutable and may be shared.
type Schema struct {
	fields  []Field
	arrow   *arrow.Schema
	message []byte // with which every message begins
	placed  []placed

	arrays       []shape // of a record batch, depth first
	dictionaries []shape
}

// placed tells where a column is in a message.
type placed struct {
	Field
	array      int // its first array
	dictionary int // its dictionary, if it has one
}

// shape tells which buffers an array has behind its bitmap of nulls: one, or a
// second one with text.
type shape struct{ text bool }

// NewSchema makes a schema of the fields.
func NewSchema(fields ...Field) *Schema {
	s := &Schema{fields: fields}
	converted := make([]arrow.Field, len(fields))
	for i, f := range fields {
		converted[i] = arrow.Field{Name: f.Name, Type: f.Kind.arrowType()}
	}
	s.arrow = arrow.NewSchema(converted, nil)
	s.message = schemaMessage(s.arrow)
	for _, f := range fields {
		s.placed = append(s.placed, placed{f, len(s.arrays), len(s.dictionaries)})
		s.arrays = append(s.arrays, shape{text: f.Kind == Text})
		switch {
		case f.Kind.dictionary():
			s.dictionaries = append(s.dictionaries, shape{text: f.Kind == Dictionary})
		case f.Kind.list():
			s.arrays = append(s.arrays, shape{text: f.Kind == TextList})
		}
	}
	return s
}

// dictionary tells whether a column of the kind has a dictionary.
func (k Kind) dictionary() bool { return k == Dictionary || k == Dictionary16 }

// list tells whether a column of the kind has an array of elements.
func (k Kind) list() bool { return k >= Uint16List && k <= TextList }

func (k Kind) arrowType() arrow.DataType {
	switch k {
	case Uint8:
		return arrow.PrimitiveTypes.Uint8
	case Uint16:
		return arrow.PrimitiveTypes.Uint16
	case Uint32:
		return arrow.PrimitiveTypes.Uint32
	case Uint64:
		return arrow.PrimitiveTypes.Uint64
	case Int32:
		return arrow.PrimitiveTypes.Int32
	case Int64:
		return arrow.PrimitiveTypes.Int64
	case Float64:
		return arrow.PrimitiveTypes.Float64
	case Timestamp:
		return &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}
	case Date:
		return arrow.FixedWidthTypes.Date32
	case Fixed16:
		return &arrow.FixedSizeBinaryType{ByteWidth: 16}
	case Text:
		return arrow.BinaryTypes.String
	case Dictionary:
		return &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	case Dictionary16:
		return &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: &arrow.FixedSizeBinaryType{ByteWidth: 16}}
	case Uint16List:
		return arrow.ListOfNonNullable(arrow.PrimitiveTypes.Uint16)
	case Uint64List:
		return arrow.ListOfNonNullable(arrow.PrimitiveTypes.Uint64)
	case Int64List:
		return arrow.ListOfNonNullable(arrow.PrimitiveTypes.Int64)
	case Float64List:
		return arrow.ListOfNonNullable(arrow.PrimitiveTypes.Float64)
	case TextList:
		return arrow.ListOfNonNullable(arrow.BinaryTypes.String)
	}
	panic(fmt.Sprintf("column: unknown kind %d", k))
}
