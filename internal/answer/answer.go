// Package answer holds what an answer is after its learner has become a token:
// the columns, the codec of the topic `answers`, positions in the log and the
// assignment of schools to partitions.
//
// Invariants:
//   - No column can hold an identifier or a name: Facts has none, EventID and
//     Token are fixed-width keyed digests.
//   - Only package pseudonymize and the codecs make a Token; a test of the
//     import structure enforces it.
//   - A position names one delivered row for ever: it is made of the offset in
//     the topic `raw` and the row in that message, whatever later topics do.
package answer

import (
	"encoding/hex"
	"fmt"
)

// Token is a learner's pseudonym for one purpose. It is comparable.
type Token struct{ bytes [16]byte }

// MintToken makes a token of the output of the keyed function. For package
// pseudonymize and the codecs only.
func MintToken(b [16]byte) Token { return Token{bytes: b} }

// Bytes returns the 16 bytes of the token.
func (t Token) Bytes() [16]byte { return t.bytes }

// String returns the token in lower-case hex.
func (t Token) String() string { return hex.EncodeToString(t.bytes[:]) }

// IsZero tells whether the token was never filled.
func (t Token) IsZero() bool { return t == Token{} }

// EventID is the keyed digest of a publisher and the id that it gave an event:
// the idempotency key.
type EventID [16]byte

// Kind tells what an answer was given for.
type Kind uint8

// The kinds of answers.
const (
	KindPractice Kind = 1
	KindTest     Kind = 2
	KindTracking Kind = 3 // volgen
)

// ParseKind reads the text form of a kind.
func ParseKind(text string) (Kind, error) {
	for k := KindPractice; k <= KindTracking; k++ {
		if k.String() == text {
			return k, nil
		}
	}
	return 0, fmt.Errorf("parse kind: want practice, test or tracking")
}

// String returns practice, test or tracking.
func (k Kind) String() string {
	switch k {
	case KindPractice:
		return "practice"
	case KindTest:
		return "test"
	case KindTracking:
		return "tracking"
	}
	return "unknown"
}

// Strings is a dictionary column: row i holds Values[Codes[i]]. The empty
// string means unknown.
type Strings struct {
	Codes  []int32
	Values []string
}

// At returns the value of a row.
func (s *Strings) At(row int) string { return s.Values[s.Codes[row]] }

// Tokens is a dictionary column of tokens.
type Tokens struct {
	Codes  []int32
	Values []Token
}

// At returns the token of a row.
func (t *Tokens) At(row int) Token { return t.Values[t.Codes[row]] }

// Facts are the columns of answers that identify nobody. They are shared by the
// topics `raw` and `answers`: pseudonymize swaps them over without copying.
// Every column has Rows entries.
type Facts struct {
	Rows         int
	Publisher    Strings
	School       Strings // BRIN + vestiging
	Group        Strings // groep/klas
	Exercise     Strings // opgave
	Goal         Strings // leerdoel
	Subject      Strings // vakgebied
	YearGroup    []uint8 // jaargroep 1 to 8, 0 = unknown
	Kind         []uint8
	Score        []float64 // 0 to 1, correct = 1
	Attempt      []uint16  // from 1, 0 = unknown
	ResponseTime []int32   // milliseconds, -1 = unknown
	AnsweredAt   []int64   // milliseconds since 1970, UTC
	Revision     []uint32  // 0 = first delivery; a higher one corrects
}

// Columns is one message of answers after pseudonymisation.
type Columns struct {
	Facts
	EventID   []EventID
	Learner   Tokens
	KeyEpoch  uint32 // epoch of the key that made the tokens; travels in a header
	RawOffset int64  // offset of the message in `raw`; travels in a header
}

// Position returns the position of a row.
func (c *Columns) Position(row int) Position { return At(c.RawOffset, row) }

// TestFacts are the columns of test results that identify nobody.
type TestFacts struct {
	Rows       int
	Publisher  Strings
	School     Strings
	Group      Strings
	Test       Strings
	TestName   Strings
	Subject    Strings
	Part       Strings
	Path       [][]string // hierarchy path, outermost first
	YearGroup  []uint8
	TakenOn    []int32   // days since 1970
	Score      []float64 // NaN = unknown
	MaxScore   []float64 // NaN = unknown
	Made       []int32   // -1 = unknown, as in the next three
	Right      []int32
	Wrong      []int32
	DurationS  []int32
	NormKinds  [][]string  // norm-referenced values as delivered: kinds …
	NormValues [][]float64 // … and their values, same lengths
	Revision   []uint32
}

// TestResults is one message of test results after pseudonymisation.
type TestResults struct {
	TestFacts
	EventID   []EventID
	Learner   Tokens
	KeyEpoch  uint32
	RawOffset int64
}

// Position returns the position of a row.
func (c *TestResults) Position(row int) Position { return At(c.RawOffset, row) }

// Position orders all rows of a partition: offset in `raw`, then row.
type Position uint64

// A message holds at most MaxRows rows, so that offset and row fit a Position.
const (
	rowBits = 20
	MaxRows = 1 << rowBits
)

// At returns the position of a row of the raw message at an offset.
func At(rawOffset int64, row int) Position { return Position(uint64(rawOffset)<<rowBits | uint64(row)) }

// RawOffset returns the offset in `raw`.
func (p Position) RawOffset() int64 { return int64(p >> rowBits) }

// Row returns the row in the message.
func (p Position) Row() int { return int(p & (MaxRows - 1)) }

// PartitionOf returns the partition of a school: FNV-1a (32 bit) of its code,
// modulo the number of partitions, which is fixed for the life of a deployment.
func PartitionOf(school string, partitions int) int {
	hash := uint32(2166136261)
	for i := range len(school) {
		hash = (hash ^ uint32(school[i])) * 16777619
	}
	return int(hash % uint32(partitions))
}

// ItemKey names an exercise across publishers: "publisher:exercise". A
// publisher's name never holds a colon.
func ItemKey(publisher, exercise string) string { return publisher + ":" + exercise }
