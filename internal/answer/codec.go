package answer

import (
	"fmt"

	"github.com/leerstroom/leerstroom/internal/column"
)

// Schema names of the messages of `answers`, carried in their header. A changed
// column set gets a new name; old names stay readable.
const (
	SchemaAnswers     = "answers.v1"
	SchemaTestResults = "test-results.v1"
)

// FactsFields are the columns that AppendFacts and DecodeFacts handle, in order.
func FactsFields() []column.Field {
	return []column.Field{
		{Name: "publisher", Kind: column.Dictionary},
		{Name: "school", Kind: column.Dictionary},
		{Name: "group", Kind: column.Dictionary},
		{Name: "exercise", Kind: column.Dictionary},
		{Name: "goal", Kind: column.Dictionary},
		{Name: "subject", Kind: column.Dictionary},
		{Name: "year_group", Kind: column.Uint8},
		{Name: "kind", Kind: column.Uint8},
		{Name: "score", Kind: column.Float64},
		{Name: "attempt", Kind: column.Uint16},
		{Name: "response_time_ms", Kind: column.Int32},
		{Name: "answered_at", Kind: column.Timestamp},
		{Name: "revision", Kind: column.Uint32},
	}
}

// AppendFacts adds the columns of FactsFields to a message.
func AppendFacts(e *column.Encoder, f *Facts) {
	for _, s := range []*Strings{&f.Publisher, &f.School, &f.Group, &f.Exercise, &f.Goal, &f.Subject} {
		e.Dictionary(s.Codes, s.Values)
	}
	e.Uint8(f.YearGroup)
	e.Uint8(f.Kind)
	e.Float64(f.Score)
	e.Uint16(f.Attempt)
	e.Int32(f.ResponseTime)
	e.Timestamp(f.AnsweredAt)
	e.Uint32(f.Revision)
}

// DecodeFacts reads the columns of FactsFields. The slices live as long as the
// decoder's message.
func DecodeFacts(d *column.Decoder, rows int, f *Facts) {
	f.Rows = rows
	for _, s := range []*Strings{&f.Publisher, &f.School, &f.Group, &f.Exercise, &f.Goal, &f.Subject} {
		s.Codes, s.Values = d.Dictionary(s.Values)
	}
	f.YearGroup = d.Uint8()
	f.Kind = d.Uint8()
	f.Score = d.Float64()
	f.Attempt = d.Uint16()
	f.ResponseTime = d.Int32()
	f.AnsweredAt = d.Timestamp()
	f.Revision = d.Uint32()
}

// TestFactsFields are the columns that AppendTestFacts and DecodeTestFacts
// handle, in order.
func TestFactsFields() []column.Field {
	return []column.Field{
		{Name: "publisher", Kind: column.Dictionary},
		{Name: "school", Kind: column.Dictionary},
		{Name: "group", Kind: column.Dictionary},
		{Name: "test", Kind: column.Dictionary},
		{Name: "test_name", Kind: column.Dictionary},
		{Name: "subject", Kind: column.Dictionary},
		{Name: "part", Kind: column.Dictionary},
		{Name: "path", Kind: column.TextList},
		{Name: "year_group", Kind: column.Uint8},
		{Name: "taken_on", Kind: column.Date},
		{Name: "score", Kind: column.Float64},
		{Name: "max_score", Kind: column.Float64},
		{Name: "made", Kind: column.Int32},
		{Name: "right", Kind: column.Int32},
		{Name: "wrong", Kind: column.Int32},
		{Name: "duration_s", Kind: column.Int32},
		{Name: "norm_kinds", Kind: column.TextList},
		{Name: "norm_values", Kind: column.Float64List},
		{Name: "revision", Kind: column.Uint32},
	}
}

// AppendTestFacts adds the columns of TestFactsFields to a message.
func AppendTestFacts(e *column.Encoder, f *TestFacts) {
	for _, s := range []*Strings{&f.Publisher, &f.School, &f.Group, &f.Test, &f.TestName, &f.Subject, &f.Part} {
		e.Dictionary(s.Codes, s.Values)
	}
	e.TextList(f.Path)
	e.Uint8(f.YearGroup)
	e.Date(f.TakenOn)
	e.Float64(f.Score)
	e.Float64(f.MaxScore)
	for _, v := range [][]int32{f.Made, f.Right, f.Wrong, f.DurationS} {
		e.Int32(v)
	}
	e.TextList(f.NormKinds)
	e.Float64List(f.NormValues)
	e.Uint32(f.Revision)
}

// DecodeTestFacts reads the columns of TestFactsFields.
func DecodeTestFacts(d *column.Decoder, rows int, f *TestFacts) {
	f.Rows = rows
	for _, s := range []*Strings{&f.Publisher, &f.School, &f.Group, &f.Test, &f.TestName, &f.Subject, &f.Part} {
		s.Codes, s.Values = d.Dictionary(s.Values)
	}
	f.Path = d.TextList()
	f.YearGroup = d.Uint8()
	f.TakenOn = d.Date()
	f.Score = d.Float64()
	f.MaxScore = d.Float64()
	for _, v := range []*[]int32{&f.Made, &f.Right, &f.Wrong, &f.DurationS} {
		*v = d.Int32()
	}
	f.NormKinds = d.TextList()
	f.NormValues = d.Float64List()
	f.Revision = d.Uint32()
}

// Encoder makes messages of `answers`. It is reusable and not safe for
// concurrent use.
type Encoder struct {
	columns  column.Encoder
	schemas  schemas
	eventIDs []byte
	tokens   []byte
}

type schemas struct{ answers, testResults, commands *column.Schema }

func (s *schemas) of(name string) *column.Schema {
	if s.answers == nil {
		identity := []column.Field{{Name: "id", Kind: column.Fixed16}, {Name: "learner", Kind: column.Dictionary16}}
		s.answers = column.NewSchema(append(identity, FactsFields()...)...)
		s.testResults = column.NewSchema(append(identity, TestFactsFields()...)...)
		s.commands = commandsSchema()
	}
	switch name {
	case SchemaAnswers:
		return s.answers
	case SchemaTestResults:
		return s.testResults
	}
	return s.commands
}

// AppendAnswers appends the message of the columns to dst. KeyEpoch and
// RawOffset are not part of it: they travel in headers.
func (e *Encoder) AppendAnswers(dst []byte, c *Columns) ([]byte, error) {
	e.begin(SchemaAnswers, c.Rows, c.EventID, &c.Learner)
	AppendFacts(&e.columns, &c.Facts)
	return e.columns.AppendTo(dst)
}

// AppendTestResults appends the message of the columns to dst.
func (e *Encoder) AppendTestResults(dst []byte, c *TestResults) ([]byte, error) {
	e.begin(SchemaTestResults, c.Rows, c.EventID, &c.Learner)
	AppendTestFacts(&e.columns, &c.TestFacts)
	return e.columns.AppendTo(dst)
}

func (e *Encoder) begin(schema string, rows int, ids []EventID, learner *Tokens) {
	e.eventIDs, e.tokens = e.eventIDs[:0], appendTokens(e.tokens[:0], learner.Values)
	for i := range ids {
		e.eventIDs = append(e.eventIDs, ids[i][:]...)
	}
	e.columns.Begin(e.schemas.of(schema), rows)
	e.columns.Fixed16(e.eventIDs)
	e.columns.Dictionary16(learner.Codes, e.tokens)
}

// Decoder reads messages of `answers`. It is reusable and not safe for
// concurrent use. Decoded columns live in its memory until its next call.
type Decoder struct {
	columns column.Decoder
	schemas schemas
}

// Use makes the columns in a memory that several decoders may share.
func (d *Decoder) Use(memory *column.Memory) { d.columns.Use(memory) }

// Answers decodes a message whose digest was checked. It sets everything but
// KeyEpoch and RawOffset.
func (d *Decoder) Answers(message []byte, c *Columns) error {
	rows, err := d.open(SchemaAnswers, message, &c.EventID, &c.Learner)
	if err != nil {
		return err
	}
	DecodeFacts(&d.columns, rows, &c.Facts)
	return d.columns.Close()
}

// TestResults decodes a message whose digest was checked.
func (d *Decoder) TestResults(message []byte, c *TestResults) error {
	rows, err := d.open(SchemaTestResults, message, &c.EventID, &c.Learner)
	if err != nil {
		return err
	}
	DecodeTestFacts(&d.columns, rows, &c.TestFacts)
	for i := range c.NormKinds {
		if len(c.NormKinds[i]) != len(c.NormValues[i]) {
			return fmt.Errorf("%w: norm kinds and values differ in number", column.ErrMalformed)
		}
	}
	return d.columns.Close()
}

func (d *Decoder) open(schema string, message []byte, ids *[]EventID, learner *Tokens) (rows int, err error) {
	rows, err = d.columns.Open(d.schemas.of(schema), message)
	if err != nil {
		return 0, err
	}
	if rows > MaxRows {
		return 0, fmt.Errorf("%w: more than %d rows", column.ErrMalformed, MaxRows)
	}
	packed := d.columns.Fixed16()
	*ids = (*ids)[:0]
	for i := 0; i+16 <= len(packed); i += 16 {
		*ids = append(*ids, EventID(packed[i:i+16]))
	}
	codes, tokens := d.columns.Dictionary16()
	learner.Codes, learner.Values = codes, readTokens(learner.Values[:0], tokens)
	return rows, nil
}
