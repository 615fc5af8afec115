package store

import (
	"encoding/binary"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// replacing are the columns of rows that take the place of others.
type replacing struct {
	corrected, changed proto.ColUInt64
}

func (r *replacing) columns() []proto.InputColumn {
	return []proto.InputColumn{column("corrected", &r.corrected), column("changed", &r.changed)}
}

// put adds the places of all rows that are replaced. add adds a row of the
// message to the block, at its own place, which is then changed.
func (r *replacing) put(a *transform.Amendment, positions *proto.ColUInt64, rows int, add func(skip []bool)) {
	skip := fill(make([]bool, 0, rows), true, rows)
	for _, replaced := range a.Replaced {
		skip[replaced.Row] = false
		add(skip)
		skip[replaced.Row] = true
		(*positions)[len(*positions)-1] = uint64(replaced.Position)
		r.corrected = append(r.corrected, uint64(answer.At(a.RawOffset, replaced.Row)))
		r.changed = append(r.changed, uint64(a.Order))
	}
}

// replacedAnswersBlock are rows of the table answers that take the place of others.
type replacedAnswersBlock struct {
	*answersBlock
	replacing
}

func newReplacedAnswersBlock(database string) *replacedAnswersBlock {
	b := &replacedAnswersBlock{answersBlock: newAnswersBlock(database)}
	b.block = newBlock(database, "answers", append(b.answerColumns(), b.replacing.columns()...)...)
	return b
}

func (b *replacedAnswersBlock) append(a *transform.Amendment) {
	said := transform.Evidence{Gradient: a.Said.Gradient, Information: a.Said.Information}
	b.put(a, &b.position, a.Answers.Rows, func(skip []bool) { b.answersBlock.append(a.Partition, a.Answers, skip, &said) })
}

// replacedTestResultsBlock are rows of the table test_results that take the place
// of others.
type replacedTestResultsBlock struct {
	*testResultsBlock
	replacing
}

func newReplacedTestResultsBlock(database string) *replacedTestResultsBlock {
	b := &replacedTestResultsBlock{testResultsBlock: newTestResultsBlock(database)}
	b.block = newBlock(database, "test_results", append(b.testResultColumns(), b.replacing.columns()...)...)
	return b
}

func (b *replacedTestResultsBlock) append(a *transform.Amendment) {
	b.put(a, &b.position, a.TestResults.Rows, func(skip []bool) { b.testResultsBlock.append(a.Partition, a.TestResults, skip) })
}

// leftBlock are rows of an archive that have left their key.
type leftBlock struct {
	block
	id, learner       proto.ColFixedStr16
	school            wordColumn
	moment            momentColumn
	partition         proto.ColUInt16
	position, changed proto.ColUInt64
	isDeleted         proto.ColUInt8
}

func newLeftBlock(database string, archive archive) *leftBlock {
	b := &leftBlock{moment: archive.newMoments()}
	b.school.init()
	b.block = newBlock(database, archive.table, column("id", &b.id), column("learner", &b.learner), column("school", &b.school),
		column(archive.moment, b.moment), column("source_partition", &b.partition), column("position", &b.position),
		column("changed", &b.changed), column("is_deleted", &b.isDeleted))
	return b
}

func (b *leftBlock) append(a *transform.Amendment) {
	for i := range a.Left {
		l := &a.Left[i]
		b.id = append(b.id, l.ID)
		b.learner = append(b.learner, l.Learner.Bytes())
		b.school.appendWord(l.School)
		b.moment.appendMoment(l.Moment)
		b.position = append(b.position, uint64(l.Position))
	}
	b.partition = fill(b.partition, uint16(a.Partition), len(a.Left))
	b.changed = fill(b.changed, uint64(a.Order), len(a.Left))
	b.isDeleted = fill(b.isDeleted, 1, len(a.Left))
}

// erasedBlock are rows of the table erased.
type erasedBlock struct {
	block
	partition                    proto.ColUInt16
	orderedAt, rawOffset, idSums proto.ColUInt64
	content, reason              enumColumn
	rowCounts                    proto.ColUInt32
}

func newErasedBlock(database string) *erasedBlock {
	b := &erasedBlock{content: enumColumn{is: typeLost}, reason: enumColumn{is: typeReason}}
	b.block = newBlock(database, "erased", column("partition", &b.partition), column("ordered_at", &b.orderedAt), column("content", &b.content),
		column("reason", &b.reason), column("raw_offset", &b.rawOffset), column("rows", &b.rowCounts), column("id_sum", &b.idSums))
	return b
}

// append adds the rows that stand twice, by the message that brought them.
func (b *erasedBlock) append(a *transform.Amendment) {
	for content, doubles := range [][]transform.Double{contentAnswers: a.Doubles, contentTestResults: a.TestDoubles} {
		first := b.block.rows()
		for _, d := range doubles {
			offset := uint64(d.Position.RawOffset())
			at := first
			for at < b.block.rows() && b.rawOffset[at] != offset {
				at++
			}
			if at == b.block.rows() {
				b.partition = append(b.partition, uint16(a.Partition))
				b.orderedAt, b.rawOffset = append(b.orderedAt, uint64(a.Order)), append(b.rawOffset, offset)
				b.content.ColUInt8, b.reason.ColUInt8 = append(b.content.ColUInt8, uint8(content)), append(b.reason.ColUInt8, reasonDouble)
				b.rowCounts, b.idSums = append(b.rowCounts, 0), append(b.idSums, 0)
			}
			b.rowCounts[at]++
			b.idSums[at] += binary.LittleEndian.Uint64(d.ID[:8])
		}
	}
}

// reasonDouble is the value double of the column reason.
const reasonDouble = 1

// vacatedBlock are rows of the table vacated.
type vacatedBlock struct {
	block
	partition  proto.ColUInt16
	learner    proto.ColFixedStr16
	answeredMs proto.ColUInt64
}

func newVacatedBlock(database string) *vacatedBlock {
	b := &vacatedBlock{}
	b.block = newBlock(database, "vacated", column("partition", &b.partition), column("learner", &b.learner), column("answered_ms", &b.answeredMs))
	return b
}

func (b *vacatedBlock) append(a *transform.Amendment) {
	b.partition = fill(b.partition, uint16(a.Partition), len(a.Left))
	for i := range a.Left {
		b.learner = append(b.learner, a.Left[i].Learner.Bytes())
		b.answeredMs = append(b.answeredMs, uint64(max(0, a.Left[i].Moment)))
	}
}

// departedBlock are rows of the table departed.
type departedBlock struct {
	block
	partition     proto.ColUInt16
	learner, into proto.ColFixedStr16
	position      proto.ColUInt64
	school        wordColumn
}

func newDepartedBlock(database string) *departedBlock {
	b := &departedBlock{}
	b.school.init()
	b.block = newBlock(database, "departed", column("partition", &b.partition), column("learner", &b.learner),
		column("position", &b.position), column("school", &b.school), column("into", &b.into))
	return b
}

func (b *departedBlock) append(a *transform.Amendment) {
	for _, d := range a.Departures {
		b.learner = append(b.learner, d.Learner.Bytes())
		b.into = append(b.into, d.Into.Bytes())
		b.school.appendWord(d.School)
	}
	b.partition = fill(b.partition, uint16(a.Partition), len(a.Departures))
	b.position = fill(b.position, uint64(a.Position), len(a.Departures))
}

// appendAmended adds the row of a message with corrections. A row that came and
// was corrected in the same message is archived once.
func (b *ledgerBlock) appendAmended(a *transform.Amendment, content uint8, ids []answer.EventID) {
	b.append(a.Partition, a.RawOffset, content, ids, a.Skip)
	last := len(b.archived) - 1
	for _, r := range a.Replaced {
		if r.Fresh {
			b.archived[last]++
			b.idSum[last] += firstBytes(&ids[r.Row])
		}
		b.corrections[last]++
	}
}

// relearntBlock are rows of the table relearnt.
type relearntBlock struct {
	block
	partition proto.ColUInt16
	learner   proto.ColFixedStr16
	position  proto.ColUInt64
}

func newRelearntBlock(database string) *relearntBlock {
	b := &relearntBlock{}
	b.block = newBlock(database, "relearnt", column("partition", &b.partition), column("learner", &b.learner), column("position", &b.position))
	return b
}

func (b *relearntBlock) append(a *transform.Amendment) {
	for _, name := range a.Learners {
		b.learner = append(b.learner, name.Learner.Bytes())
	}
	b.partition = fill(b.partition, uint16(a.Partition), len(a.Learners))
	b.position = fill(b.position, uint64(a.Position), len(a.Learners))
}

func (b *ledgerBlock) appendCommands(a *transform.Amendment) {
	b.append(a.Partition, a.RawOffset, contentCommands, make([]answer.EventID, a.Commands), fill([]bool(nil), true, a.Commands))
}
