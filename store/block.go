package store

import (
	"slices"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// block is the columns of one table, filled row by row group and sent as one
// insert, which ClickHouse takes as a whole or not at all (per month or year of
// the table).
type block struct {
	table string
	body  string // of the INSERT statement
	input proto.Input
}

func newBlock(database, table string, columns ...proto.InputColumn) block {
	input := proto.Input(columns)
	return block{table: table, input: input, body: "INSERT INTO " + database + "." + table + " " + input.Columns() + " VALUES"}
}

func (b *block) rows() int { return b.input[0].Data.Rows() }

func (b *block) reset() { b.input.Reset() }

func column(name string, data proto.ColInput) proto.InputColumn {
	return proto.InputColumn{Name: name, Data: data}
}

// delivered are the columns that answers and test results share.
type delivered struct {
	id        proto.ColFixedStr16
	learner   proto.ColFixedStr16
	keyEpoch  proto.ColUInt32
	yearGroup proto.ColUInt8
	revision  proto.ColUInt32
	partition proto.ColUInt16
	position  proto.ColUInt64
}

func (d *delivered) columns() []proto.InputColumn {
	return []proto.InputColumn{
		column("id", &d.id), column("learner", &d.learner), column("key_epoch", &d.keyEpoch), column("year_group", &d.yearGroup),
		column("revision", &d.revision), column("source_partition", &d.partition), column("position", &d.position),
	}
}

func (d *delivered) append(partition int, rawOffset int64, keyEpoch uint32, ids []answer.EventID, learner *answer.Tokens, first, last int) {
	for _, id := range ids[first:last] {
		d.id = append(d.id, id)
	}
	for _, code := range learner.Codes[first:last] {
		d.learner = append(d.learner, learner.Values[code].Bytes())
	}
	d.keyEpoch = fill(d.keyEpoch, keyEpoch, last-first)
	d.partition = fill(d.partition, uint16(partition), last-first)
	position := uint64(answer.At(rawOffset, first))
	for range last - first {
		d.position = append(d.position, position)
		position++
	}
}

// answersBlock are rows of the table answers.
type answersBlock struct {
	block
	delivered
	publisher, school, group, exercise, goal, subject wordColumn

	kind         enumColumn
	score        proto.ColFloat64
	attempt      proto.ColUInt16
	responseTime optionalInt32
	answeredAt   millisColumn
	gradient     proto.ColInt32
	information  proto.ColUInt16

	left []bool // scratch: rows of a message that are left out
}

func newAnswersBlock(database string) *answersBlock {
	b := &answersBlock{kind: enumColumn{is: typeKind}}
	for _, w := range []*wordColumn{&b.publisher, &b.school, &b.group, &b.exercise, &b.goal, &b.subject} {
		w.init()
	}
	b.block = newBlock(database, "answers", b.answerColumns()...)
	return b
}

func (b *answersBlock) answerColumns() []proto.InputColumn {
	return append(b.columns(),
		column("publisher", &b.publisher), column("school", &b.school), column("group", &b.group), column("exercise", &b.exercise),
		column("goal", &b.goal), column("subject", &b.subject), column("kind", &b.kind), column("score", &b.score),
		column("attempt", &b.attempt), column("response_time_ms", &b.responseTime), column("answered_at", &b.answeredAt),
		column("evidence_gradient", &b.gradient), column("evidence_information", &b.information))
}

// words pairs the columns of strings with their sources.
func (b *answersBlock) words(c *answer.Columns) [6]wordSource {
	return [...]wordSource{{&b.publisher, &c.Publisher}, {&b.school, &c.School}, {&b.group, &c.Group},
		{&b.exercise, &c.Exercise}, {&b.goal, &c.Goal}, {&b.subject, &c.Subject}}
}

type wordSource struct {
	to   *wordColumn
	from *answer.Strings
}

// append adds the rows of a message that are neither to be skipped nor archived
// already. Without evidence they are taken to have moved no exercise.
func (b *answersBlock) append(partition int, c *answer.Columns, skip []bool, said *transform.Evidence) {
	if said == nil {
		b.gradient, b.information = fill(b.gradient, 0, c.Rows), fill(b.information, 0, c.Rows)
		said = &transform.Evidence{Gradient: b.gradient[len(b.gradient)-c.Rows:], Information: b.information[len(b.information)-c.Rows:]}
		b.gradient, b.information = b.gradient[:len(b.gradient)-c.Rows], b.information[:len(b.information)-c.Rows]
	}
	skip = b.leaveOut(skip, said.Replayed)
	words := b.words(c)
	for _, w := range words {
		w.to.renumber(w.from.Values)
	}
	for first, last := range runs(c.Rows, skip) {
		b.delivered.append(partition, c.RawOffset, c.KeyEpoch, c.EventID, &c.Learner, first, last)
		for _, w := range words {
			w.to.appendCodes(w.from.Codes[first:last])
		}
		b.yearGroup = append(b.yearGroup, c.YearGroup[first:last]...)
		b.kind.ColUInt8 = append(b.kind.ColUInt8, c.Kind[first:last]...)
		b.score = append(b.score, c.Score[first:last]...)
		b.attempt = append(b.attempt, c.Attempt[first:last]...)
		b.responseTime.append(c.ResponseTime[first:last])
		b.answeredAt.ColInt64 = append(b.answeredAt.ColInt64, c.AnsweredAt[first:last]...)
		b.revision = append(b.revision, c.Revision[first:last]...)
		b.gradient = append(b.gradient, said.Gradient[first:last]...)
		b.information = append(b.information, said.Information[first:last]...)
	}
}

// leaveOut joins rows to skip and rows that were replayed; nil means none.
func (b *answersBlock) leaveOut(skip, replayed []bool) []bool {
	if !slices.Contains(replayed, true) {
		return skip
	}
	b.left = append(b.left[:0], replayed...)
	for row, skipped := range skip {
		b.left[row] = b.left[row] || skipped
	}
	return b.left
}

// runs yields the ranges of rows that are not skipped.
func runs(rows int, skip []bool) func(yield func(first, last int) bool) {
	return func(yield func(first, last int) bool) {
		if skip == nil {
			if rows > 0 {
				yield(0, rows)
			}
			return
		}
		for first := 0; first < rows; {
			if skip[first] {
				first++
				continue
			}
			last := first + 1
			for last < rows && !skip[last] {
				last++
			}
			if !yield(first, last) {
				return
			}
			first = last
		}
	}
}

// testResultsBlock are rows of the table test_results.
type testResultsBlock struct {
	block
	delivered
	publisher, school, group, test, testName, subject, part wordColumn

	path                         *proto.ColArr[string]
	takenOn                      daysColumn
	score, maxScore              optionalFloat64
	made, right, wrong, duration optionalInt32
	normKinds                    *proto.ColArr[string]
	normValues                   *proto.ColArr[float64]
}

func newTestResultsBlock(database string) *testResultsBlock {
	b := &testResultsBlock{path: new(proto.ColStr).Array(), normKinds: new(proto.ColStr).LowCardinality().Array(), normValues: new(proto.ColFloat64).Array()}
	for _, w := range []*wordColumn{&b.publisher, &b.school, &b.group, &b.test, &b.testName, &b.subject, &b.part} {
		w.init()
	}
	b.block = newBlock(database, "test_results", b.testResultColumns()...)
	return b
}

func (b *testResultsBlock) testResultColumns() []proto.InputColumn {
	return append(b.columns(),
		column("publisher", &b.publisher), column("school", &b.school), column("group", &b.group), column("test", &b.test),
		column("test_name", &b.testName), column("subject", &b.subject), column("part", &b.part), column("path", b.path),
		column("taken_on", &b.takenOn), column("score", &b.score), column("max_score", &b.maxScore), column("made", &b.made),
		column("right", &b.right), column("wrong", &b.wrong), column("duration_s", &b.duration),
		column("norm_kinds", b.normKinds), column("norm_values", b.normValues))
}

func (b *testResultsBlock) append(partition int, c *answer.TestResults, skip []bool) {
	words := [...]wordSource{{&b.publisher, &c.Publisher}, {&b.school, &c.School}, {&b.group, &c.Group}, {&b.test, &c.Test},
		{&b.testName, &c.TestName}, {&b.subject, &c.Subject}, {&b.part, &c.Part}}
	for _, w := range words {
		w.to.renumber(w.from.Values)
	}
	for first, last := range runs(c.Rows, skip) {
		b.delivered.append(partition, c.RawOffset, c.KeyEpoch, c.EventID, &c.Learner, first, last)
		for _, w := range words {
			w.to.appendCodes(w.from.Codes[first:last])
		}
		b.yearGroup = append(b.yearGroup, c.YearGroup[first:last]...)
		b.takenOn.ColInt32 = append(b.takenOn.ColInt32, c.TakenOn[first:last]...)
		b.score.append(c.Score[first:last])
		b.maxScore.append(c.MaxScore[first:last])
		b.made.append(c.Made[first:last])
		b.right.append(c.Right[first:last])
		b.wrong.append(c.Wrong[first:last])
		b.duration.append(c.DurationS[first:last])
		b.revision = append(b.revision, c.Revision[first:last]...)
		for i := first; i < last; i++ {
			b.path.Append(c.Path[i])
			b.normKinds.Append(c.NormKinds[i])
			b.normValues.Append(c.NormValues[i])
		}
	}
}

// ledgerBlock are rows of the table raw_ledger, one per message.
type ledgerBlock struct {
	block
	partition             proto.ColUInt16
	rawOffset             proto.ColUInt64
	content               enumColumn
	total                 proto.ColUInt32
	archived, corrections proto.ColUInt32
	idSum                 proto.ColUInt64
}

func newLedgerBlock(database string) *ledgerBlock {
	b := &ledgerBlock{content: enumColumn{is: typeContent}}
	b.block = newBlock(database, "raw_ledger",
		column("partition", &b.partition), column("raw_offset", &b.rawOffset), column("content", &b.content), column("rows", &b.total),
		column("archived", &b.archived), column("corrections", &b.corrections), column("id_sum", &b.idSum))
	return b
}

// Contents of a message, as in typeContent.
const (
	contentAnswers     = 0
	contentTestResults = 1
	contentCommands    = 2
	contentRebuild     = 3
)

func (b *ledgerBlock) append(partition int, rawOffset int64, content uint8, ids []answer.EventID, skip []bool) {
	archived, sum := 0, uint64(0)
	for first, last := range runs(len(ids), skip) {
		archived += last - first
		for i := first; i < last; i++ {
			sum += firstBytes(&ids[i])
		}
	}
	b.partition = append(b.partition, uint16(partition))
	b.rawOffset = append(b.rawOffset, uint64(rawOffset))
	b.content.ColUInt8 = append(b.content.ColUInt8, content)
	b.total = append(b.total, uint32(len(ids)))
	b.archived = append(b.archived, uint32(archived))
	b.corrections = append(b.corrections, 0)
	b.idSum = append(b.idSum, sum)
}

// firstBytes is what an id adds to id_sum. An id is the output of a keyed
// digest, so its first bytes are as good a checksum as a hash of it.
func firstBytes(id *answer.EventID) uint64 {
	return uint64(id[0]) | uint64(id[1])<<8 | uint64(id[2])<<16 | uint64(id[3])<<24 |
		uint64(id[4])<<32 | uint64(id[5])<<40 | uint64(id[6])<<48 | uint64(id[7])<<56
}
