package ingest

import (
	"hash/maphash"

	"github.com/leerstroom/leerstroom/ingest/line"
	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
)

// columns is the part of a message that is being filled. One goroutine at a time
// uses it.
type columns interface {
	schema() string
	rows() int
	// bytes estimates the size of the message before compression.
	bytes() int
	encode(e *raw.Encoder, dst []byte) ([]byte, error)
	// reset empties the columns, wipes what identified learners, and keeps the
	// memory.
	reset()
}

// identified are the columns that only `raw` has.
type identified struct {
	ids     raw.Texts
	learner dictionary
	codes   []int32
	packed  []byte
}

func newIdentified(seed maphash.Seed) identified {
	return identified{ids: raw.Texts{Offsets: []int32{0}}, learner: newDictionary(seed)}
}

func (c *identified) append(publisher string, w *line.Who) {
	c.ids.Bytes = append(c.ids.Bytes, w.ID...)
	c.ids.Offsets = append(c.ids.Offsets, int32(len(c.ids.Bytes)))
	if w.Scheme != raw.SchemePublisher {
		publisher = ""
	}
	c.packed = raw.AppendIdentity(c.packed[:0], w.Scheme, w.School, publisher, w.Learner)
	c.codes = append(c.codes, c.learner.code(c.packed))
}

func (c *identified) bytes() int { return len(c.ids.Bytes) + c.learner.bytes() }

func (c *identified) reset() {
	clear(c.ids.Bytes)
	clear(c.packed)
	c.ids.Bytes, c.ids.Offsets = c.ids.Bytes[:0], append(c.ids.Offsets[:0], 0)
	c.learner.reset()
	c.codes = c.codes[:0]
}

// coded is a dictionary column.
type coded struct {
	dictionary
	codes []int32
}

func (c *coded) append(text []byte) { c.codes = append(c.codes, c.code(text)) }

func (c *coded) finish() answer.Strings {
	return answer.Strings{Codes: c.codes, Values: c.strings()}
}

func (c *coded) reset() {
	c.dictionary.reset()
	c.codes = c.codes[:0]
}

// Sizes of the fixed-width part of a row, for bytes.
const (
	answerRowBytes = 7*4 + 4 + 2 + 8 + 2 + 4 + 8 + 4
	resultRowBytes = 8*4 + 4 + 1 + 4 + 16 + 16 + 12 + 4
)

// answerColumns are the columns of answers.
type answerColumns struct {
	identified
	publisher, school, group, exercise, goal, subject coded
	facts                                             answer.Facts
}

func newAnswerColumns() *answerColumns {
	seed := maphash.MakeSeed()
	c := &answerColumns{identified: newIdentified(seed)}
	for _, d := range c.dictionaries() {
		d.dictionary = newDictionary(seed)
	}
	return c
}

func (c *answerColumns) dictionaries() [6]*coded {
	return [...]*coded{&c.publisher, &c.school, &c.group, &c.exercise, &c.goal, &c.subject}
}

// append adds one row.
func (c *answerColumns) append(publisher string, a *line.Answer) {
	c.identified.append(publisher, &a.Who)
	c.publisher.append([]byte(publisher))
	c.school.append(a.School)
	c.group.append(a.Group)
	c.exercise.append(a.Exercise)
	c.goal.append(a.Goal)
	c.subject.append(a.Subject)
	f := &c.facts
	f.Rows++
	f.YearGroup = append(f.YearGroup, a.YearGroup)
	f.Kind = append(f.Kind, uint8(a.Kind))
	f.Score = append(f.Score, a.Score)
	f.Attempt = append(f.Attempt, a.Attempt)
	f.ResponseTime = append(f.ResponseTime, a.ResponseTime)
	f.AnsweredAt = append(f.AnsweredAt, a.AnsweredAt)
	f.Revision = append(f.Revision, a.Revision)
}

func (c *answerColumns) schema() string { return raw.SchemaAnswers }
func (c *answerColumns) rows() int      { return c.facts.Rows }

func (c *answerColumns) bytes() int {
	return c.facts.Rows*answerRowBytes + c.identified.bytes() + c.exercise.bytes() + c.goal.bytes() + c.group.bytes() + c.subject.bytes()
}

func (c *answerColumns) encode(e *raw.Encoder, dst []byte) ([]byte, error) {
	f := &c.facts
	f.Publisher, f.School, f.Group = c.publisher.finish(), c.school.finish(), c.group.finish()
	f.Exercise, f.Goal, f.Subject = c.exercise.finish(), c.goal.finish(), c.subject.finish()
	return e.AppendPackedAnswers(dst, f, &c.ids, c.codes, c.learner.strings())
}

func (c *answerColumns) reset() {
	c.identified.reset()
	for _, d := range c.dictionaries() {
		d.reset()
	}
	f := &c.facts
	*f = answer.Facts{YearGroup: f.YearGroup[:0], Kind: f.Kind[:0], Score: f.Score[:0], Attempt: f.Attempt[:0],
		ResponseTime: f.ResponseTime[:0], AnsweredAt: f.AnsweredAt[:0], Revision: f.Revision[:0]}
}

// resultColumns are the columns of test results.
type resultColumns struct {
	identified
	publisher, school, group, test, testName, subject, part coded
	facts                                                   answer.TestFacts
	listBytes                                               int
}

func newResultColumns() *resultColumns {
	seed := maphash.MakeSeed()
	c := &resultColumns{identified: newIdentified(seed)}
	for _, d := range c.dictionaries() {
		d.dictionary = newDictionary(seed)
	}
	return c
}

func (c *resultColumns) dictionaries() [7]*coded {
	return [...]*coded{&c.publisher, &c.school, &c.group, &c.test, &c.testName, &c.subject, &c.part}
}

// append adds one row.
func (c *resultColumns) append(publisher string, r *line.TestResult) {
	c.identified.append(publisher, &r.Who)
	c.publisher.append([]byte(publisher))
	c.school.append(r.School)
	c.group.append(r.Group)
	c.test.append(r.Test)
	c.testName.append(r.TestName)
	c.subject.append(r.Subject)
	c.part.append(r.Part)
	f := &c.facts
	f.Rows++
	f.Path = append(f.Path, c.texts(r.Path))
	f.YearGroup = append(f.YearGroup, r.YearGroup)
	f.TakenOn = append(f.TakenOn, r.TakenOn)
	f.Score, f.MaxScore = append(f.Score, r.Score), append(f.MaxScore, r.MaxScore)
	f.Made, f.Right, f.Wrong = append(f.Made, r.Made), append(f.Right, r.Right), append(f.Wrong, r.Wrong)
	f.DurationS = append(f.DurationS, r.DurationS)
	f.NormKinds = append(f.NormKinds, c.texts(r.NormKinds))
	f.NormValues = append(f.NormValues, append([]float64(nil), r.NormValues...))
	f.Revision = append(f.Revision, r.Revision)
}

// texts copies a list. Test results are few, so a row may allocate.
func (c *resultColumns) texts(list [][]byte) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, len(list))
	for i := range list {
		out[i] = string(list[i])
		c.listBytes += len(list[i]) + 16
	}
	return out
}

func (c *resultColumns) schema() string { return raw.SchemaTestResults }
func (c *resultColumns) rows() int      { return c.facts.Rows }

func (c *resultColumns) bytes() int {
	size := c.facts.Rows*resultRowBytes + c.identified.bytes() + c.listBytes
	for _, d := range c.dictionaries() {
		size += d.bytes()
	}
	return size
}

func (c *resultColumns) encode(e *raw.Encoder, dst []byte) ([]byte, error) {
	f := &c.facts
	f.Publisher, f.School, f.Group = c.publisher.finish(), c.school.finish(), c.group.finish()
	f.Test, f.TestName, f.Subject, f.Part = c.test.finish(), c.testName.finish(), c.subject.finish(), c.part.finish()
	return e.AppendPackedTestResults(dst, f, &c.ids, c.codes, c.learner.strings())
}

func (c *resultColumns) reset() {
	c.identified.reset()
	for _, d := range c.dictionaries() {
		d.reset()
	}
	c.listBytes = 0
	f := &c.facts
	clear(f.Path)
	clear(f.NormKinds)
	clear(f.NormValues)
	*f = answer.TestFacts{Path: f.Path[:0], YearGroup: f.YearGroup[:0], TakenOn: f.TakenOn[:0], Score: f.Score[:0], MaxScore: f.MaxScore[:0],
		Made: f.Made[:0], Right: f.Right[:0], Wrong: f.Wrong[:0], DurationS: f.DurationS[:0],
		NormKinds: f.NormKinds[:0], NormValues: f.NormValues[:0], Revision: f.Revision[:0]}
}
