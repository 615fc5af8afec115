package transform

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// relearner learns learners anew from their answers: what they would be, had
// these been all that was delivered, in this order, and read against one
// snapshot. It is the same arithmetic in the same order as Apply, on a state of
// its own.
type relearner struct {
	partition *Partition
	snapshot  *Snapshot
	position  answer.Position // that the new states reflect
	rows      SkillRows       // the new states, of a learner together
	delta     []sumChange     // of the sums, in the order of rows
}

// sumChange is what an answer adds to the sums of its exercise, or takes back.
type sumChange struct {
	publisher, exercise, goal, subject string
	evidenceSum
}

// source names a row of what was archived (message = false) or of the message.
type source struct {
	position answer.Position
	learner  answer.Token // under which it is learnt
	row      int32
	message  bool
}

// learn takes rows of archived answers and of a message, in any order, learns
// their learners and tells what each row says, in the order of the positions,
// which sources has afterwards. epochs says by which key a token was made.
func (r *relearner) learn(sources []source, archived *ArchivedAnswers, message *answer.Columns, epochs map[answer.Token]uint32) Evidence {
	slices.SortFunc(sources, func(a, b source) int { return cmp.Compare(a.position, b.position) })
	columns := gather(sources, &archived.Columns, message)
	scratch := NewPartition(r.partition.parameters, r.partition.catalog)
	scratch.Apply(columns, nil, r.snapshot)
	var said Evidence
	scratch.SwapEvidence(&said)
	var states Checkpoint
	scratch.Checkpoint(&states)
	for i := range states.Skills.Len() {
		states.Skills.Position[i] = r.position
		states.Skills.KeyEpoch[i] = epochs[states.Skills.Learner[i]]
	}
	r.rows.AppendRange(&states.Skills, 0, states.Skills.Len())
	for i := range sources {
		r.change(columns, i, evidence{said.Gradient[i], said.Information[i]}, 1)
	}
	return said
}

// takeBack notes that an archived answer no longer counts.
func (r *relearner) takeBack(archived *ArchivedAnswers, row int) {
	r.change(&archived.Columns, row, evidence{archived.Gradient[row], archived.Information[row]}, -1)
}

func (r *relearner) change(c *answer.Columns, row int, said evidence, times int64) {
	if said.information == 0 {
		return
	}
	sum := said.sum(c.Score[row])
	r.delta = append(r.delta, sumChange{c.Publisher.At(row), c.Exercise.At(row), c.Goal.At(row), c.Subject.At(row),
		evidenceSum{times * sum.gradient, times * sum.information, times * sum.answers, times * sum.scores}})
}

// amendSums brings the sums to a position with the changes in them. They always
// move the global component, which so tells whether they are there.
func (p *Partition) amendSums(changes []sumChange, position answer.Position) {
	move := func(s *sums, i uint32, entry *sum, by evidenceSum) {
		entry.evidenceSum, entry.position = entry.plus(by), position
		s.touch(i, entry)
	}
	for k := range changes {
		c := &changes[k]
		key := answer.ItemKey(c.publisher, c.exercise)
		i, entry := p.items.of(p.catalog.Item(key))
		if entry.hash == 0 {
			entry.hash = xxhash.Sum64String(key)
		}
		if entry.goal == 0 {
			entry.goal = p.catalog.Goal(c.goal)
		}
		if entry.subject == 0 {
			entry.subject = p.catalog.Subject(c.subject)
		}
		move(&p.items, i, entry, c.evidenceSum)
		if c.goal != "" {
			i, entry := p.goals.of(p.catalog.Goal(c.goal))
			if entry.subject == 0 {
				entry.subject = p.catalog.Subject(c.subject)
			}
			move(&p.goals, i, entry, c.evidenceSum)
		}
		i, entry = p.global.of(0)
		move(&p.global, i, entry, c.evidenceSum)
	}
	i, entry := p.global.of(0)
	move(&p.global, i, entry, evidenceSum{})
}

// gather copies rows into columns of their own.
func gather(sources []source, archived, message *answer.Columns) *answer.Columns {
	c := &answer.Columns{}
	c.Rows = len(sources)
	codes := make(map[answer.Token]int32)
	from := func(s *source) *answer.Columns {
		if s.message {
			return message
		}
		return archived
	}
	for i := range sources {
		s := &sources[i]
		f := from(s)
		code, ok := codes[s.learner]
		if !ok {
			code = int32(len(c.Learner.Values))
			codes[s.learner] = code
			c.Learner.Values = append(c.Learner.Values, s.learner)
		}
		c.Learner.Codes = append(c.Learner.Codes, code)
		c.YearGroup = append(c.YearGroup, f.YearGroup[s.row])
		c.Score = append(c.Score, f.Score[s.row])
		c.Attempt = append(c.Attempt, f.Attempt[s.row])
		c.AnsweredAt = append(c.AnsweredAt, f.AnsweredAt[s.row])
		c.Revision = append(c.Revision, f.Revision[s.row])
	}
	words := func(f *answer.Columns) [6]*answer.Strings {
		return [...]*answer.Strings{&f.Publisher, &f.School, &f.Group, &f.Exercise, &f.Goal, &f.Subject}
	}
	ours, theirs, delivered := words(c), words(archived), [6]*answer.Strings{}
	if message != nil {
		delivered = words(message)
	}
	for k := range ours {
		known := make(map[string]int32)
		for i := range sources {
			text := theirs[k]
			if sources[i].message {
				text = delivered[k]
			}
			value := text.At(int(sources[i].row))
			code, ok := known[value]
			if !ok {
				code = int32(len(ours[k].Values))
				known[value] = code
				ours[k].Values = append(ours[k].Values, value)
			}
			ours[k].Codes = append(ours[k].Codes, code)
		}
	}
	return c
}
