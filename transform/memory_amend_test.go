package transform_test

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// archivedRow is the newest row under a key of the archive.
type archivedRow struct {
	row
	epoch                        uint32
	position, corrected, changed answer.Position
	gone                         bool
	gradient                     int32
	information                  uint16
}

// newer tells which of two rows of a key stays, as the store does it.
func (a archivedRow) newer(b archivedRow) bool {
	return cmp.Or(cmp.Compare(a.changed, b.changed), cmp.Compare(b.position, a.position)) >= 0
}

func (m *memory) put(partition int, rows []archivedRow) {
	archive := at(m.archive, partition)
	for _, row := range rows {
		if old, ok := archive[row.key()]; !ok || row.newer(old) {
			archive[row.key()] = row
		}
	}
}

// ownRow is rowAt with texts of its own: those of a message die with it.
func ownRow(c *answer.Columns, i int) row {
	r := rowAt(c, i)
	for _, text := range []*string{&r.publisher, &r.school, &r.group, &r.exercise, &r.goal, &r.subject} {
		*text = strings.Clone(*text)
	}
	return r
}

func freshRows(c *answer.Columns, skip []bool, said *transform.Evidence) (rows []archivedRow) {
	for i := range c.Rows {
		if !skip[i] && !said.Replayed[i] {
			rows = append(rows, archivedRow{row: ownRow(c, i), epoch: c.KeyEpoch, position: c.Position(i),
				gradient: said.Gradient[i], information: said.Information[i]})
		}
	}
	return rows
}

func (m *memory) FindEvents(_ context.Context, partition int, which transform.Archive, events []transform.EventName) (found []transform.Found, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return nil, err
	}
	if which == transform.TestResultsArchive {
		return m.findTests(partition, events), nil
	}
	for _, r := range m.archive[partition] {
		if slices.Contains(events, transform.EventName{School: r.school, ID: r.id}) {
			found = append(found, transform.Found{Lookup: transform.Lookup{School: r.school, Learner: r.learner, Moment: r.at, ID: r.id},
				Position: r.position, Revision: r.revision, Corrected: r.corrected, Changed: r.changed, Gone: r.gone})
		}
	}
	return found, nil
}

// Doubles does what the store's query does, row by row.
func (m *memory) Doubles(_ context.Context, partition int, which transform.Archive, learners []transform.Joining, before answer.Position) ([]transform.Double, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return nil, err
	}
	into := make(map[transform.LearnerName]answer.Token)
	for _, l := range learners {
		into[l.LearnerName] = l.Into
	}
	type standing struct {
		revision uint32
		position answer.Position
	}
	stand := make(map[answerKey][]standing)
	note := func(key answerKey, s standing, gone bool) {
		target, joins := into[transform.LearnerName{School: key.school, Learner: key.learner}]
		if key.learner = target; joins && !gone && s.position < before && !slices.Contains(stand[key], s) {
			stand[key] = append(stand[key], s)
		}
	}
	for key, r := range m.archive[partition] {
		if which == transform.AnswersArchive {
			note(key, standing{r.revision, r.position}, r.gone)
		}
	}
	for key, r := range m.tests[partition] {
		if which == transform.TestResultsArchive {
			note(key, standing{r.revision, r.position}, r.gone)
		}
	}
	var doubles []transform.Double
	for key, rows := range stand {
		slices.SortFunc(rows, func(a, b standing) int {
			return cmp.Or(cmp.Compare(b.revision, a.revision), cmp.Compare(a.position, b.position))
		})
		for _, s := range rows[1:] {
			doubles = append(doubles, transform.Double{Position: s.position, ID: key.id, Into: key.learner})
		}
	}
	slices.SortFunc(doubles, func(a, b transform.Double) int { return cmp.Compare(a.Position, b.Position) })
	return doubles, nil
}

// isDouble tells whether a row does not come along.
func isDouble(doubles []transform.Double, position answer.Position) bool {
	return slices.ContainsFunc(doubles, func(d transform.Double) bool { return d.Position == position })
}

func (m *memory) LearnerAnswers(_ context.Context, partition int, learners []transform.LearnerName, before answer.Position) (*transform.ArchivedAnswers, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return nil, err
	}
	var rows []archivedRow
	for _, r := range m.archive[partition] {
		if !r.gone && r.position < before && slices.Contains(learners, transform.LearnerName{School: r.school, Learner: r.learner}) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b archivedRow) int { return cmp.Compare(a.position, b.position) })
	return archivedAnswers(rows), nil
}

// Amend makes an amendment durable, each half of each step by itself, so that a
// failing call leaves the rest undone.
func (m *memory) Amend(_ context.Context, a *transform.Amendment) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	global := at(m.sums, a.Partition)[componentName{component: transform.ComponentGlobal}]
	if !a.SumsDone && global.position >= a.Order && (global.position > 0 || global.answers > 0) {
		return transform.ErrAmended
	}
	steps := []func(){func() { m.putAdoptions(&a.Checkpoint) }, func() { m.putSums(&a.Checkpoint) }, func() { m.putNorms(&a.Checkpoint) }}
	arrivingTests, leavingTests := m.arrivingTests(a), m.leavingTests(a)
	for _, rows := range [][]archivedTest{arrivingTests, leavingTests} {
		half := len(rows) / 2
		steps = append(steps, func() { m.putTests(a.Partition, rows[:half]) }, func() { m.putTests(a.Partition, rows[half:]) })
	}
	arriving, leaving := m.arriving(a), m.leaving(a)
	for _, rows := range [][]archivedRow{arriving, leaving} {
		m.shuffle(rows)
		half := len(rows) / 2
		steps = append(steps, func() { m.put(a.Partition, rows[:half]) }, func() { m.put(a.Partition, rows[half:]) })
	}
	steps = append(steps, func() { m.noteAmended(a) }, func() {
		vacated := at(m.vacated, a.Partition)
		for _, l := range a.Left {
			if a.TestResults != nil {
				break
			}
			vacated[l.Learner] = max(vacated[l.Learner], l.Moment)
		}
		for _, d := range a.Departures {
			if newest, ok := vacated[d.Learner]; ok && !d.Into.IsZero() {
				vacated[d.Into] = max(vacated[d.Into], newest)
			}
		}
	}, func() {
		for _, d := range a.Departures {
			at(m.departed, a.Partition)[d.Learner] = a.Position
		}
	}, func() { m.putSkills(&a.Checkpoint, 0, a.Skills.Len()) }, func() { m.putProgress(&a.Checkpoint) })
	for _, step := range steps {
		if err := m.called(); err != nil {
			return err
		}
		step()
	}
	return nil
}

// shuffle brings rows into an order that depends on chance.
func (m *memory) shuffle(rows []archivedRow) {
	slices.SortFunc(rows, func(a, b archivedRow) int { return cmp.Compare(a.gradient, b.gradient) })
}

// arriving are the rows in their new places.
func (m *memory) arriving(a *transform.Amendment) (rows []archivedRow) {
	if a.Answers != nil {
		rows = freshRows(a.Answers, a.Skip, a.Said)
		for _, r := range a.Replaced {
			rows = append(rows, archivedRow{row: ownRow(a.Answers, r.Row), epoch: a.Answers.KeyEpoch, position: r.Position,
				corrected: a.Answers.Position(r.Row), changed: a.Order, gradient: a.Said.Gradient[r.Row], information: a.Said.Information[r.Row]})
		}
	}
	into := make(map[answer.Token]transform.Departure)
	for _, d := range a.Departures {
		into[d.Learner] = d
	}
	scores := make(map[answer.Position]transform.Rescored)
	for _, s := range a.Rescored {
		scores[s.Position] = s
	}
	for _, r := range m.archive[a.Partition] {
		d, moves := into[r.learner]
		score, scored := scores[r.position]
		if r.gone || r.position >= a.Order || r.changed >= a.Order || moves && d.Into.IsZero() || !moves && !scored || isDouble(a.Doubles, r.position) {
			continue
		}
		if moves {
			r.learner, r.epoch = d.Into, d.KeyEpoch
		}
		if scored {
			r.gradient, r.information = score.Gradient, score.Information
		}
		r.changed = a.Order
		rows = append(rows, r)
	}
	return rows
}

// leaving are the rows that have left their places.
func (m *memory) leaving(a *transform.Amendment) (rows []archivedRow) {
	for _, l := range a.Left {
		if a.TestResults != nil {
			break
		}
		rows = append(rows, archivedRow{row: row{id: l.ID, learner: l.Learner, school: strings.Clone(l.School), at: l.Moment},
			position: l.Position, changed: a.Order, gone: true})
	}
	for _, d := range a.Departures {
		for _, r := range m.archive[a.Partition] {
			if r.learner == d.Learner && !r.gone && r.position < a.Order && r.changed < a.Order {
				rows = append(rows, archivedRow{row: row{id: r.id, learner: r.learner, school: r.school, at: r.at}, position: r.position, changed: a.Order, gone: true})
			}
		}
	}
	return append(rows, m.goingAlong(a)...)
}

// goingAlong are the keys that corrections have left, which go along with a
// learner.
func (m *memory) goingAlong(a *transform.Amendment) (rows []archivedRow) {
	into := make(map[answer.Token]answer.Token)
	for _, d := range a.Departures {
		into[d.Learner] = d.Into
	}
	stands := make(map[answerKey]bool) // afterwards
	for key, r := range m.archive[a.Partition] {
		if target, moves := into[r.learner]; moves {
			key.learner = target
		}
		stands[key] = stands[key] || !r.gone
	}
	for key, r := range m.archive[a.Partition] {
		target := into[r.learner]
		key.learner = target
		if r.gone && !target.IsZero() && r.changed < a.Order && !stands[key] {
			r.learner, r.changed = target, a.Order
			rows = append(rows, r)
		}
	}
	return rows
}

func (m *memory) Purge(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return err
	}
	m.purges++
	for partition, departed := range m.departed {
		maps.DeleteFunc(m.archive[partition], func(key answerKey, r archivedRow) bool { return r.gone && departed[key.learner] > 0 })
		maps.DeleteFunc(m.tests[partition], func(key answerKey, r archivedTest) bool { return r.gone && departed[key.learner] > 0 })
		maps.DeleteFunc(m.skills[partition], func(name layerName, s stored) bool { return s.rows.Answers[0] == 0 && departed[name.learner] > 0 })
	}
	return nil
}

// rows returns how many answers are in the archive.
func (m *memory) rows() (n int) {
	for _, archive := range m.archive {
		for _, r := range archive {
			if !r.gone {
				n++
			}
		}
	}
	return n
}
