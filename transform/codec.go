package transform

import (
	"fmt"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/column"
)

// Schema names of the messages of `skills`, `item-sums` and `items`, carried in
// their header. A changed column set gets a new name; old names stay readable.
// An empty value holds no rows in each of them.
const (
	SchemaSkills   = "skills.v1"
	SchemaItemSums = "item-sums.v1"
	SchemaItems    = "items.v1"
)

type codecSchemas struct{ skills, sums, items *column.Schema }

func newCodecSchemas() codecSchemas {
	component := []column.Field{
		{Name: "component", Kind: column.Uint8},
		{Name: "key", Kind: column.Dictionary},
		{Name: "goal", Kind: column.Dictionary},
		{Name: "subject", Kind: column.Dictionary},
		{Name: "gradient", Kind: column.Int64},
		{Name: "information", Kind: column.Int64},
		{Name: "answers", Kind: column.Int64},
		{Name: "score_sum", Kind: column.Int64},
	}
	return codecSchemas{
		skills: column.NewSchema(
			column.Field{Name: "learner", Kind: column.Dictionary16},
			column.Field{Name: "school", Kind: column.Dictionary},
			column.Field{Name: "group", Kind: column.Dictionary},
			column.Field{Name: "year_group", Kind: column.Uint8},
			column.Field{Name: "key_epoch", Kind: column.Uint32},
			column.Field{Name: "layer", Kind: column.Uint8},
			column.Field{Name: "key", Kind: column.Dictionary},
			column.Field{Name: "subject", Kind: column.Dictionary},
			column.Field{Name: "mean", Kind: column.Float64},
			column.Field{Name: "variance", Kind: column.Float64},
			column.Field{Name: "answers", Kind: column.Uint32},
			column.Field{Name: "last_at", Kind: column.Timestamp},
			column.Field{Name: "fast_mean", Kind: column.Float64},
			column.Field{Name: "slow_mean", Kind: column.Float64},
			column.Field{Name: "last_score", Kind: column.Float64},
			column.Field{Name: "position", Kind: column.Uint64},
			column.Field{Name: "recent", Kind: column.Uint64List},
		),
		sums: column.NewSchema(append(component[:len(component):len(component)],
			column.Field{Name: "position", Kind: column.Uint64})...),
		items: column.NewSchema(append(component[:len(component):len(component)],
			column.Field{Name: "mean", Kind: column.Float64},
			column.Field{Name: "variance", Kind: column.Float64})...),
	}
}

// Encoder makes messages of `skills`, `item-sums` and `items`. It is reusable
// and not safe for concurrent use.
type Encoder struct {
	schemas codecSchemas
	columns column.Encoder
	words   [4]dictionary
	tokens  []byte
	codes   []int32
	bytes   []uint8
	numbers []uint64
}

// NewEncoder makes an encoder.
func NewEncoder() *Encoder { return &Encoder{schemas: newCodecSchemas()} }

// AppendSkills appends the message of the rows to dst; nothing when there are
// none.
func (e *Encoder) AppendSkills(dst []byte, r *SkillRows) ([]byte, error) {
	if r.Len() == 0 {
		return dst, nil
	}
	e.columns.Begin(e.schemas.skills, r.Len())
	e.learners(r.Learner)
	e.text(0, r.School)
	e.text(1, r.Group)
	e.columns.Uint8(r.YearGroup)
	e.columns.Uint32(r.KeyEpoch)
	e.bytes = appendConverted(e.bytes[:0], r.Layer)
	e.columns.Uint8(e.bytes)
	e.text(2, r.Key)
	e.text(3, r.Subject)
	e.columns.Float64(r.Mean)
	e.columns.Float64(r.Variance)
	e.columns.Uint32(r.Answers)
	e.columns.Timestamp(r.LastAt)
	e.columns.Float64(r.FastMean)
	e.columns.Float64(r.SlowMean)
	e.columns.Float64(r.LastScore)
	e.numbers = appendConverted(e.numbers[:0], r.Position)
	e.columns.Uint64(e.numbers)
	e.columns.Uint64List(r.Recent)
	return e.finish(dst, SchemaSkills)
}

// AppendSums appends the message of the rows to dst; nothing when there are
// none.
func (e *Encoder) AppendSums(dst []byte, r *ItemSumRows) ([]byte, error) {
	if r.Len() == 0 {
		return dst, nil
	}
	e.columns.Begin(e.schemas.sums, r.Len())
	e.component(r.Component, r.Key, r.Goal, r.Subject)
	for _, v := range [][]int64{r.Gradient, r.Information, r.Answers, r.ScoreSum} {
		e.columns.Int64(v)
	}
	e.numbers = appendConverted(e.numbers[:0], r.Position)
	e.columns.Uint64(e.numbers)
	return e.finish(dst, SchemaItemSums)
}

// AppendItems appends the message of the rows to dst; nothing when there are
// none. The version is not part of it: it travels in a header.
func (e *Encoder) AppendItems(dst []byte, r *SnapshotRows) ([]byte, error) {
	if r.Len() == 0 {
		return dst, nil
	}
	e.columns.Begin(e.schemas.items, r.Len())
	e.component(r.Component, r.Key, r.Goal, r.Subject)
	for _, v := range [][]int64{r.Gradient, r.Information, r.Answers, r.ScoreSum} {
		e.columns.Int64(v)
	}
	e.columns.Float64(r.Mean)
	e.columns.Float64(r.Variance)
	return e.finish(dst, SchemaItems)
}

func (e *Encoder) finish(dst []byte, schema string) ([]byte, error) {
	dst, err := e.columns.AppendTo(dst)
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", schema, err)
	}
	return dst, nil
}

func (e *Encoder) component(components []Component, key, goal, subject []string) {
	e.bytes = appendConverted(e.bytes[:0], components)
	e.columns.Uint8(e.bytes)
	e.text(0, key)
	e.text(1, goal)
	e.text(2, subject)
}

// learners writes tokens. The rows of a learner stand together, so comparing
// with the row before finds nearly every repeat.
func (e *Encoder) learners(tokens []answer.Token) {
	e.tokens, e.codes = e.tokens[:0], e.codes[:0]
	for i := range tokens {
		if i == 0 || tokens[i] != tokens[i-1] {
			b := tokens[i].Bytes()
			e.tokens = append(e.tokens, b[:]...)
		}
		e.codes = append(e.codes, int32(len(e.tokens)/16-1))
	}
	e.columns.Dictionary16(e.codes, e.tokens)
}

func (e *Encoder) text(slot int, values []string) {
	d := &e.words[slot]
	d.fill(values)
	e.columns.Dictionary(d.codes, d.distinct)
}

// dictionary numbers strings in the order in which they are first seen.
type dictionary struct {
	codes    []int32
	distinct []string
	seen     map[string]int32
}

// A dictionary that once had more values than this does not keep its memory.
const keepWords = 1 << 16

func (d *dictionary) fill(values []string) {
	if d.seen == nil || len(d.seen) > keepWords {
		*d = dictionary{seen: make(map[string]int32)}
	}
	clear(d.seen)
	clear(d.distinct)
	d.codes, d.distinct = d.codes[:0], d.distinct[:0]
	for i, v := range values {
		if i > 0 && v == values[i-1] {
			d.codes = append(d.codes, d.codes[i-1])
			continue
		}
		code, ok := d.seen[v]
		if !ok {
			code = int32(len(d.distinct))
			d.seen[v] = code
			d.distinct = append(d.distinct, v)
		}
		d.codes = append(d.codes, code)
	}
}

// appendConverted appends numbers of another type of the same width.
func appendConverted[D, S ~uint8 | ~uint64](dst []D, src []S) []D {
	for _, v := range src {
		dst = append(dst, D(v))
	}
	return dst
}

// Decoder reads messages of `skills`, `item-sums` and `items`. It is reusable
// and not safe for concurrent use. Decoded rows, strings too, live in its memory
// until its next call. Messages must have passed Message.CheckDigest.
type Decoder struct {
	schemas codecSchemas
	columns column.Decoder
	words   []string
}

// NewDecoder makes a decoder.
func NewDecoder() *Decoder { return &Decoder{schemas: newCodecSchemas()} }

// Skills decodes a message into rows, which it empties first.
func (d *Decoder) Skills(message []byte, r *SkillRows) error {
	r.Reset()
	if len(message) == 0 {
		return nil
	}
	rows, err := d.columns.Open(d.schemas.skills, message)
	if err != nil {
		return fmt.Errorf("decode %s: %w", SchemaSkills, err)
	}
	codes, packed := d.columns.Dictionary16()
	for _, c := range codes {
		r.Learner = append(r.Learner, answer.MintToken([16]byte(packed[16*c:])))
	}
	r.School = d.text(r.School)
	r.Group = d.text(r.Group)
	r.YearGroup = append(r.YearGroup, d.columns.Uint8()...)
	r.KeyEpoch = append(r.KeyEpoch, d.columns.Uint32()...)
	r.Layer = appendConverted(r.Layer, d.columns.Uint8())
	r.Key = d.text(r.Key)
	r.Subject = d.text(r.Subject)
	r.Mean = append(r.Mean, d.columns.Float64()...)
	r.Variance = append(r.Variance, d.columns.Float64()...)
	r.Answers = append(r.Answers, d.columns.Uint32()...)
	r.LastAt = append(r.LastAt, d.columns.Timestamp()...)
	r.FastMean = append(r.FastMean, d.columns.Float64()...)
	r.SlowMean = append(r.SlowMean, d.columns.Float64()...)
	r.LastScore = append(r.LastScore, d.columns.Float64()...)
	r.Position = appendConverted(r.Position, d.columns.Uint64())
	r.Recent = append(r.Recent, d.columns.Uint64List()...)
	return d.finish(SchemaSkills, rows, r.check(rows))
}

// Sums decodes a message into rows, which it empties first.
func (d *Decoder) Sums(message []byte, r *ItemSumRows) error {
	r.Reset()
	if len(message) == 0 {
		return nil
	}
	rows, err := d.columns.Open(d.schemas.sums, message)
	if err != nil {
		return fmt.Errorf("decode %s: %w", SchemaItemSums, err)
	}
	r.Component = appendConverted(r.Component, d.columns.Uint8())
	r.Key = d.text(r.Key)
	r.Goal = d.text(r.Goal)
	r.Subject = d.text(r.Subject)
	for _, v := range []*[]int64{&r.Gradient, &r.Information, &r.Answers, &r.ScoreSum} {
		*v = append(*v, d.columns.Int64()...)
	}
	r.Position = appendConverted(r.Position, d.columns.Uint64())
	return d.finish(SchemaItemSums, rows, r.check(rows))
}

// Items decodes a message into rows, which it empties first. It leaves the
// version 0: that travels in a header.
func (d *Decoder) Items(message []byte, r *SnapshotRows) error {
	r.Reset()
	r.Version = 0
	if len(message) == 0 {
		return nil
	}
	rows, err := d.columns.Open(d.schemas.items, message)
	if err != nil {
		return fmt.Errorf("decode %s: %w", SchemaItems, err)
	}
	r.Component = appendConverted(r.Component, d.columns.Uint8())
	r.Key = d.text(r.Key)
	r.Goal = d.text(r.Goal)
	r.Subject = d.text(r.Subject)
	for _, v := range []*[]int64{&r.Gradient, &r.Information, &r.Answers, &r.ScoreSum} {
		*v = append(*v, d.columns.Int64()...)
	}
	r.Mean = append(r.Mean, d.columns.Float64()...)
	r.Variance = append(r.Variance, d.columns.Float64()...)
	return d.finish(SchemaItems, rows, r.check(rows))
}

// finish reports the first error of the columns, or else of the rows.
func (d *Decoder) finish(schema string, rows int, err error) error {
	if closed := d.columns.Close(); closed != nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("decode %s of %d rows: %w", schema, rows, err)
	}
	return nil
}

func (d *Decoder) text(dst []string) []string {
	codes, words := d.columns.Dictionary(d.words)
	for _, c := range codes {
		dst = append(dst, words[c])
	}
	clear(words) // they point into the message, which must not be held by them
	d.words = words[:0]
	return dst
}
