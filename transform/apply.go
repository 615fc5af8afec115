package transform

import (
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// Applied counts what Apply did with the rows of a message.
type Applied struct {
	Rows     int // that moved their learner
	First    int // of these: that moved the item side too
	Repeats  int
	Replayed int // that their learner's state held already
	Invalid  int // without a token or with a score off the scale
}

// message holds what the distinct values of a message stand for, by code.
type message struct {
	scanned  *answer.Columns // whose learners are looked up
	offset   int64
	learners []uint32 // learner + 1, 0 = not looked up
	schools  []int32
	groups   []int32
	subjects []int32
	goals    []goalSlot
	items    []itemSlot
	others   map[uint64]itemSlot // exercises whose code another publisher's has taken
	key      []byte
}

type goalSlot struct {
	number   int32
	gaussian filter.Gaussian // 0 for the unknown goal: it takes no part
}

// itemSlot is an exercise of a message. Exercises of the same name of several
// publishers share a code; the first has the slot.
type itemSlot struct {
	publisher int32 // code + 1, 0 = empty
	sum       uint32
	hash      uint64
	gaussian  filter.Gaussian
}

// resize returns a slice of n zero elements, reusing memory.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	s = s[:n]
	clear(s)
	return s
}

// Scan looks at a message before it is applied. It appends to late the rows
// that may be repeats: those not newer than everything that their learner was
// seen to answer, in this or an earlier message, corrections, and in a replay
// those that the learner's state holds already. Messages must be scanned in the order in which
// they will be applied.
func (p *Partition) Scan(c *answer.Columns, late []int32) []int32 {
	p.resolve(c)
	for row := range c.Rows {
		if !valid(c, row) {
			continue
		}
		l := p.learners.at(p.learnerAt(c, row))
		switch at := c.AnsweredAt[row]; {
		case at > l.newest && c.Revision[row] == 0 && !p.applied(l, c.Position(row)):
			l.newest = at
		default:
			late = append(late, int32(row))
		}
	}
	return late
}

// valid tells whether a row can move anything.
func valid(c *answer.Columns, row int) bool {
	score := c.Score[row]
	return score >= 0 && score <= 1 && !c.Learner.At(row).IsZero()
}

// Apply moves the state by the rows of a message, except those marked as repeats
// (nil marks none), on the difficulties of a snapshot. Changes then returns what
// changed.
func (p *Partition) Apply(c *answer.Columns, repeat []bool, snapshot *Snapshot) Applied {
	p.begin(c, snapshot)
	p.said.reset(c.Rows)
	var done Applied
	for row := range c.Rows {
		switch {
		case !valid(c, row):
			done.Invalid++
		case repeat != nil && repeat[row]:
			done.Repeats++
		default:
			i := p.learnerAt(c, row)
			l := p.learners.at(i)
			if p.applied(l, c.Position(row)) {
				done.Replayed++
				p.said.Replayed[row] = true
				continue
			}
			done.Rows++
			if p.answer(c, row, i, l, snapshot) {
				done.First++
			}
		}
	}
	p.position = max(p.position, End(c))
	return done
}

// SwapEvidence hands over what the rows last given to Apply said of their
// exercises, and takes memory for the next time.
func (p *Partition) SwapEvidence(e *Evidence) { p.said, *e = *e, p.said }

// End returns the position of the last row of a message, or of where its first
// would be.
func End(c *answer.Columns) answer.Position { return c.Position(max(c.Rows, 1) - 1) }

// Pass notes that the log has come to a position, for messages without answers.
func (p *Partition) Pass(position answer.Position) { p.position = max(p.position, position) }

// resolve prepares the tables of a message that Scan needs.
func (p *Partition) resolve(c *answer.Columns) {
	m := &p.message
	m.scanned, m.offset = c, c.RawOffset
	m.learners = resize(m.learners, len(c.Learner.Values))
}

// begin prepares the tables of a message that Apply needs.
func (p *Partition) begin(c *answer.Columns, snapshot *Snapshot) {
	m := &p.message
	if m.scanned != c || m.offset != c.RawOffset {
		p.resolve(c)
	}
	m.scanned = nil
	p.forgetChanges()
	p.keyEpoch = c.KeyEpoch
	m.schools = p.numbers(m.schools, c.School.Values)
	m.groups = p.numbers(m.groups, c.Group.Values)
	m.subjects = resize(m.subjects, len(c.Subject.Values))
	for code, subject := range c.Subject.Values {
		m.subjects[code] = p.catalog.Subject(subject)
	}
	m.goals = resize(m.goals, len(c.Goal.Values))
	for code, goal := range c.Goal.Values {
		if goal != "" {
			number := p.catalog.Goal(goal)
			m.goals[code] = goalSlot{number: number, gaussian: snapshot.Goal(number)}
		}
	}
	m.items = resize(m.items, len(c.Exercise.Values))
	if m.others == nil || len(m.others) > keepWords {
		m.others = make(map[uint64]itemSlot)
	}
	clear(m.others)
}

func (p *Partition) numbers(dst []int32, texts []string) []int32 {
	dst = dst[:0]
	for _, text := range texts {
		dst = append(dst, p.words.number(text))
	}
	return dst
}

func (p *Partition) learnerAt(c *answer.Columns, row int) uint32 {
	slot := &p.message.learners[c.Learner.Codes[row]]
	if *slot == 0 {
		*slot = 1 + p.learnerOf(c.Learner.At(row))
	}
	return *slot - 1
}

// itemAt returns the exercise of a row.
func (p *Partition) itemAt(c *answer.Columns, row int, snapshot *Snapshot) itemSlot {
	publisher := c.Publisher.Codes[row] + 1
	slot := &p.message.items[c.Exercise.Codes[row]]
	switch slot.publisher {
	case publisher:
		return *slot
	case 0:
		*slot = p.resolveItem(c, row, snapshot)
		return *slot
	}
	key := uint64(publisher)<<32 | uint64(c.Exercise.Codes[row])
	other, ok := p.message.others[key]
	if !ok {
		other = p.resolveItem(c, row, snapshot)
		p.message.others[key] = other
	}
	return other
}

func (p *Partition) resolveItem(c *answer.Columns, row int, snapshot *Snapshot) itemSlot {
	m := &p.message
	m.key = append(m.key[:0], c.Publisher.At(row)...)
	m.key = append(m.key, ':')
	m.key = append(m.key, c.Exercise.At(row)...)
	number := p.catalog.item(m.key)
	i, entry := p.items.of(number)
	if entry.hash == 0 {
		entry.hash = xxhash.Sum64(m.key)
	}
	return itemSlot{publisher: c.Publisher.Codes[row] + 1, sum: i, hash: entry.hash, gaussian: snapshot.Item(number)}
}

// answer moves everything by one answer. It tells whether the item side took
// part.
func (p *Partition) answer(c *answer.Columns, row int, owner uint32, l *learner, snapshot *Snapshot) (first bool) {
	m, position, at, score := &p.message, c.Position(row), c.AnsweredAt[row], c.Score[row]
	item, goal, subject := p.itemAt(c, row, snapshot), &m.goals[c.Goal.Codes[row]], m.subjects[c.Subject.Codes[row]]
	known := l.remember(item.hash)
	l.newest = max(l.newest, at)
	first = !known && c.Attempt[row] <= 1
	p.describe(owner, l, c, row)

	chosen := p.chooseLayers(owner, l, goal.number, subject)
	var skill filter.Learner
	for kind, number := range chosen {
		if number != 0 {
			skill[kind] = p.drifted(Layer(kind), p.layers.at(number-1), at)
		}
	}
	shared := snapshot.shared(item.gaussian, goal.gaussian)
	prediction := filter.Predict(&skill, &shared, filter.Question{})
	if first {
		said := evidenceOf(&skill, &shared, prediction, score)
		p.said.put(row, said)
		p.count(said, score, position, item.sum, goal.number, subject)
	}
	skill.Update(&prediction, score)
	for kind, number := range chosen {
		if number != 0 {
			p.layers.at(number-1).take(skill[kind], score, at, position, l.about)
			p.touch(number - 1)
		}
	}
	return first
}

// maxYearGroup is the highest year group (jaargroep) of a primary school.
const maxYearGroup = 8

// describe keeps what the newest answer in the log says of the learner; what it
// doesn't know stays.
func (p *Partition) describe(owner uint32, l *learner, c *answer.Columns, row int) {
	old := p.about.all[l.about]
	now := description{
		school:    p.message.schools[c.School.Codes[row]],
		group:     p.message.groups[c.Group.Codes[row]],
		keyEpoch:  p.keyEpoch,
		yearGroup: c.YearGroup[row],
	}
	if now.group == 0 {
		now.group = old.group
	}
	if now.yearGroup == 0 || now.yearGroup > maxYearGroup {
		now.yearGroup = old.yearGroup
	}
	if now == old {
		return
	}
	if now.yearGroup != old.yearGroup && p.layers.at(l.overall).Answers > 0 {
		p.norms.leave(owner, old.yearGroup)
	}
	l.about = p.about.number(now)
}

// chooseLayers returns the layers that an answer is about, as number + 1, by
// kind; 0 where the answer doesn't say.
func (p *Partition) chooseLayers(owner uint32, l *learner, goal, subject int32) (chosen [3]uint32) {
	chosen[LayerOverall] = l.overall + 1
	if goal == 0 {
		if subject != 0 {
			chosen[LayerSubject] = p.layerOf(owner, LayerSubject, subject) + 1
		}
		return chosen
	}
	number := p.layerOf(owner, LayerGoal, goal)
	entry := p.layers.at(number)
	chosen[LayerGoal] = number + 1
	if subject != entry.subject && subject != 0 {
		// New, or the goal was given another subject: the newest counts.
		entry.subject = subject
		entry.parent = p.layerOf(owner, LayerSubject, subject) + 1
	}
	chosen[LayerSubject] = entry.parent
	return chosen
}

// drifted returns a layer as it is at a moment, before the answer.
func (p *Partition) drifted(kind Layer, l *layer, at int64) filter.Gaussian {
	if l.Answers == 0 {
		return p.parameters.Prior(int(kind))
	}
	return p.parameters.Drift(int(kind), l.Gaussian, at-l.LastAtMs)
}

// evidenceOf returns information w = h/(1+h·v), where v is the uncertainty of the
// learner alone, and w·d plus the gradient at d, where d is the difficulty that
// was used. Their quotient over many answers is the difficulty that these
// answers show, wherever the snapshot stood that each was read against. A
// reducer may therefore lag behind, or run ahead of, the answers.
//
// Both are rounded to what the archive holds of them, so that sums are exactly
// the sums over its rows. Rounding errs by 2^-17 at most, where an answer says
// something of the order of 0.2.
func evidenceOf(skill *filter.Learner, shared *filter.Shared, prediction filter.Prediction, score float64) evidence {
	// With this variance the contribution of the item leaves out nothing but the
	// uncertainty of the exercise itself.
	prediction.V = skill.Skill().Variance + shared[filter.ComponentItem].Variance
	said := shared.Contribute(&prediction, score)[filter.ComponentItem]
	weighted := float64(said.Information) * shared.Difficulty().Mean
	return evidence{
		gradient:    clampTo[int32](said.Gradient + int64(math.RoundToEven(weighted))),
		information: max(1, clampTo[uint16](said.Information)),
	}
}

// count adds evidence to the item, to its goal and to the global component.
func (p *Partition) count(e evidence, score float64, position answer.Position, item uint32, goal, subject int32) {
	said := e.sum(score)
	entry := p.items.all.at(item)
	if entry.add(said, position) {
		if entry.goal == 0 {
			entry.goal = goal
		}
		if entry.subject == 0 {
			entry.subject = subject
		}
		p.items.touch(item, entry)
	}
	if goal != 0 {
		i, entry := p.goals.of(goal)
		if entry.add(said, position) {
			if entry.subject == 0 {
				entry.subject = subject
			}
			p.goals.touch(i, entry)
		}
	}
	if i, entry := p.global.of(0); entry.add(said, position) {
		p.global.touch(i, entry)
	}
}

// add adds evidence unless the sum has that row in it.
func (s *sum) add(said evidenceSum, position answer.Position) bool {
	if s.seen() && position <= s.position {
		return false
	}
	s.evidenceSum = s.plus(said)
	s.position = position
	return true
}

// seen tells whether the sum has ever held anything.
func (s *sum) seen() bool { return s.answers > 0 || s.position > 0 }
