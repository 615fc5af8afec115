package store

import (
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// replacedBlock are rows of the table answers that take the place of others.
type replacedBlock struct {
	*answersBlock
	corrected, changed proto.ColUInt64
}

func newReplacedBlock(database string) *replacedBlock {
	b := &replacedBlock{answersBlock: newAnswersBlock(database)}
	b.block = newBlock(database, "answers", append(b.answerColumns(), column("corrected", &b.corrected), column("changed", &b.changed))...)
	return b
}

func (b *replacedBlock) append(a *transform.Amendment) {
	only := fill(make([]bool, 0, a.Answers.Rows), true, a.Answers.Rows)
	said := transform.Evidence{Gradient: a.Said.Gradient, Information: a.Said.Information}
	for _, r := range a.Replaced {
		only[r.Row] = false
		b.answersBlock.append(a.Partition, a.Answers, only, &said)
		only[r.Row] = true
		b.position[len(b.position)-1] = uint64(r.Position)
		b.corrected = append(b.corrected, uint64(a.Answers.Position(r.Row)))
		b.changed = append(b.changed, uint64(a.Order))
	}
}

// leftBlock are rows of the table answers that have left their key.
type leftBlock struct {
	block
	id, learner       proto.ColFixedStr16
	school            wordColumn
	answeredAt        millisColumn
	partition         proto.ColUInt16
	position, changed proto.ColUInt64
	isDeleted         proto.ColUInt8
}

func newLeftBlock(database string) *leftBlock {
	b := &leftBlock{}
	b.school.init()
	b.block = newBlock(database, "answers", column("id", &b.id), column("learner", &b.learner), column("school", &b.school),
		column("answered_at", &b.answeredAt), column("source_partition", &b.partition), column("position", &b.position),
		column("changed", &b.changed), column("is_deleted", &b.isDeleted))
	return b
}

func (b *leftBlock) append(a *transform.Amendment) {
	for i := range a.Left {
		l := &a.Left[i]
		b.id = append(b.id, l.ID)
		b.learner = append(b.learner, l.Learner.Bytes())
		b.school.appendWord(l.School)
		b.answeredAt.ColInt64 = append(b.answeredAt.ColInt64, l.AnsweredAt)
		b.position = append(b.position, uint64(l.Position))
	}
	b.partition = fill(b.partition, uint16(a.Partition), len(a.Left))
	b.changed = fill(b.changed, uint64(a.Order), len(a.Left))
	b.isDeleted = fill(b.isDeleted, 1, len(a.Left))
}

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
		b.answeredMs = append(b.answeredMs, uint64(max(0, a.Left[i].AnsweredAt)))
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

// appendAmended adds the row of a message with corrections. An answer that came
// and was corrected in the same message is archived once.
func (b *ledgerBlock) appendAmended(a *transform.Amendment) {
	b.append(a.Partition, a.RawOffset, contentAnswers, a.Answers.EventID[:a.Answers.Rows], a.Skip)
	last := len(b.archived) - 1
	for _, r := range a.Replaced {
		if r.Fresh {
			b.archived[last]++
			b.idSum[last] += firstBytes(&a.Answers.EventID[r.Row])
		}
		b.corrections[last]++
	}
}

func (b *ledgerBlock) appendCommands(a *transform.Amendment) {
	b.append(a.Partition, a.RawOffset, contentCommands, make([]answer.EventID, a.Commands), fill([]bool(nil), true, a.Commands))
}
