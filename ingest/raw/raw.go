// Package raw holds answers and test results while their learners can still be
// recognised: the columns of the topic `raw`, their codec, and the seal around
// it.
//
// A message of `raw` is the seal (package seal) around one Arrow IPC stream of
// the schema that its header names. The columns are `id`, the publisher's id of
// the event; `learner`, a dictionary of packed identities; and then exactly the
// columns that later stages see. A packed identity is
//
//	scheme digit | school | publisher, or nothing | normalised value
//
// with bars between them; only the value may hold a bar.
//
// Invariants:
//   - Nothing here prints, logs or encodes an identifier other than sealed.
//   - Only bytes that the seal proved genuine reach the Arrow reader.
//   - A message is bound to its topic, schema and partition.
package raw

import (
	"errors"
	"fmt"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/column"
)

// Schema names of the messages of `raw`, carried in their header.
const (
	SchemaAnswers     = "raw-answers.v1"
	SchemaTestResults = "raw-test-results.v1"
)

// ErrSchema reports a message of a schema that this program does not know.
var ErrSchema = errors.New("unknown schema of raw message")

// Identities is the dictionary column of learners: row i belongs to
// Values[Codes[i]]. Values are distinct.
type Identities struct {
	Codes  []int32
	Values []Identity
}

// At returns the identity of a row.
func (i *Identities) At(row int) *Identity { return &i.Values[i.Codes[row]] }

// Answers is one message of answers before pseudonymisation.
type Answers struct {
	answer.Facts
	EventID  Texts
	Identity Identities
}

// TestResults is one message of test results before pseudonymisation.
type TestResults struct {
	answer.TestFacts
	EventID  Texts
	Identity Identities
}

type schemas struct{ answers, testResults *column.Schema }

func (s *schemas) of(name string) *column.Schema {
	if s.answers == nil {
		identified := []column.Field{{Name: "id", Kind: column.Text}, {Name: "learner", Kind: column.Dictionary}}
		s.answers = column.NewSchema(append(identified, answer.FactsFields()...)...)
		s.testResults = column.NewSchema(append(identified, answer.TestFactsFields()...)...)
	}
	if name == SchemaAnswers {
		return s.answers
	}
	return s.testResults
}

// AppendIdentity appends the packed form of an identity to dst.
func AppendIdentity[S, P, V ~string | ~[]byte](dst []byte, scheme Scheme, school S, publisher P, value V) []byte {
	dst = append(dst, '0'+byte(scheme), '|')
	dst = append(dst, school...)
	dst = append(dst, '|')
	dst = append(dst, publisher...)
	dst = append(dst, '|')
	return append(dst, value...)
}

// unpack reads a packed identity. It does not copy.
func unpack(packed string) (Identity, bool) {
	var id Identity
	if len(packed) < 2 || packed[1] != '|' {
		return id, false
	}
	id.Scheme = Scheme(packed[0] - '0')
	if id.Scheme < SchemeECKID || id.Scheme > SchemePublisher {
		return id, false
	}
	rest := packed[2:]
	for _, part := range []*string{&id.School, &id.Publisher} {
		at := bar(rest)
		if at < 0 {
			return Identity{}, false
		}
		*part, rest = rest[:at], rest[at+1:]
	}
	id.Value = rest
	return id, id.School != "" && id.Value != "" && (id.Publisher != "") == (id.Scheme == SchemePublisher)
}

func bar(text string) int {
	for i := range len(text) {
		if text[i] == '|' {
			return i
		}
	}
	return -1
}

// Encoder makes the inner part of messages. It is reusable and not safe for
// concurrent use.
type Encoder struct {
	columns column.Encoder
	schemas schemas
	arena   []byte
	packed  []string
}

// AppendAnswers appends the Arrow IPC stream of the columns to dst.
func (e *Encoder) AppendAnswers(dst []byte, a *Answers) ([]byte, error) {
	e.pack(&a.Identity)
	return e.AppendPackedAnswers(dst, &a.Facts, &a.EventID, a.Identity.Codes, e.packed)
}

// AppendTestResults appends the Arrow IPC stream of the columns to dst.
func (e *Encoder) AppendTestResults(dst []byte, r *TestResults) ([]byte, error) {
	e.pack(&r.Identity)
	return e.AppendPackedTestResults(dst, &r.TestFacts, &r.EventID, r.Identity.Codes, e.packed)
}

// pack leaves the packed identities in e.packed.
func (e *Encoder) pack(identities *Identities) {
	e.packed = e.packed[:0]
	for i := range identities.Values {
		v := &identities.Values[i]
		e.arena = AppendIdentity(e.arena[:0], v.Scheme, v.School, v.Publisher, v.Value)
		e.packed = append(e.packed, string(e.arena))
	}
}

// AppendPackedAnswers is AppendAnswers for identities that AppendIdentity has
// packed already.
func (e *Encoder) AppendPackedAnswers(dst []byte, facts *answer.Facts, ids *Texts, codes []int32, packed []string) ([]byte, error) {
	e.begin(SchemaAnswers, facts.Rows, ids, codes, packed)
	answer.AppendFacts(&e.columns, facts)
	return e.columns.AppendTo(dst)
}

// AppendPackedTestResults is AppendTestResults for packed identities.
func (e *Encoder) AppendPackedTestResults(dst []byte, facts *answer.TestFacts, ids *Texts, codes []int32, packed []string) ([]byte, error) {
	e.begin(SchemaTestResults, facts.Rows, ids, codes, packed)
	answer.AppendTestFacts(&e.columns, facts)
	return e.columns.AppendTo(dst)
}

func (e *Encoder) begin(schema string, rows int, ids *Texts, codes []int32, packed []string) {
	e.columns.Begin(e.schemas.of(schema), rows)
	offsets := ids.Offsets
	if len(offsets) == 0 {
		offsets = []int32{0}
	}
	e.columns.Text(offsets, ids.Bytes)
	e.columns.Dictionary(codes, packed)
}

// Decoder reads the inner part of messages whose seal was opened. It is reusable
// and not safe for concurrent use; decoded columns live in its memory until its
// next call.
type Decoder struct {
	columns column.Decoder
	schemas schemas
	packed  []string
}

// Use makes the columns in a memory that several decoders may share.
func (d *Decoder) Use(memory *column.Memory) { d.columns.Use(memory) }

// Answers decodes answers.
func (d *Decoder) Answers(message []byte, a *Answers) error {
	rows, err := d.open(SchemaAnswers, message, &a.EventID, &a.Identity)
	if err != nil {
		return err
	}
	answer.DecodeFacts(&d.columns, rows, &a.Facts)
	return d.columns.Close()
}

// TestResults decodes test results.
func (d *Decoder) TestResults(message []byte, r *TestResults) error {
	rows, err := d.open(SchemaTestResults, message, &r.EventID, &r.Identity)
	if err != nil {
		return err
	}
	answer.DecodeTestFacts(&d.columns, rows, &r.TestFacts)
	if err := d.columns.Close(); err != nil {
		return err
	}
	for i := range r.NormKinds {
		if len(r.NormKinds[i]) != len(r.NormValues[i]) {
			return fmt.Errorf("%w: norm kinds and values differ in number", column.ErrMalformed)
		}
	}
	return nil
}

func (d *Decoder) open(schema string, message []byte, ids *Texts, identities *Identities) (rows int, err error) {
	rows, err = d.columns.Open(d.schemas.of(schema), message)
	if err != nil {
		return 0, err
	}
	if rows > answer.MaxRows {
		return 0, fmt.Errorf("%w: more than %d rows", column.ErrMalformed, answer.MaxRows)
	}
	ids.Offsets, ids.Bytes = d.columns.Text()
	identities.Codes, d.packed = d.columns.Dictionary(d.packed)
	identities.Values = identities.Values[:0]
	for _, packed := range d.packed {
		id, ok := unpack(packed)
		if !ok {
			return 0, fmt.Errorf("%w: column learner holds something else", column.ErrMalformed)
		}
		identities.Values = append(identities.Values, id)
	}
	return rows, d.columns.Close()
}
