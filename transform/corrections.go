package transform

import (
	"context"
	"slices"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// Corrections: an answer or a test result with a revision above 0 takes the place
// of the one of its school with the same event id, whoever gave that and whenever.
// It keeps that one's position: it counts as if it had been delivered in the first
// place.
//
//   - Of the corrections of one event in a message the highest revision counts,
//     and of equal ones the first.
//   - One whose revision is not above that of what is archived is a repeat.
//   - One that finds nothing to correct is delivered like others, unless something
//     stood at its key before.
//   - Another row of the event that stands where the corrected one comes to stand
//     counts no more: it was delivered for two learners, and now belongs to one.
//
// The learners that an answer leaves and comes to are learnt anew. What the
// archive says may be what this very message has made of it, before a crash;
// then the outcome is the same, because contents come from the message and
// everything else stays where it was.

// corrected is a row and what takes its place.
type corrected struct {
	row   int             // of the message
	place answer.Position // of what is corrected
	fresh bool            // that is in the same message
}

// planTestResults decides on a message of test results. They move nobody.
func (r *run) planTestResults(ctx context.Context, w *workspace, a *amendment) error {
	a.TestResults, a.Skip = &a.unit.tests, a.unit.skip
	all, err := r.corrections(ctx, w, a, newLearnerSet(nil))
	r.stage.metrics.testResults.WithLabelValues("correction").Add(float64(len(all)))
	return err
}

// planAnswers decides on a message of answers.
func (r *run) planAnswers(ctx context.Context, w *workspace, a *amendment) error {
	u := a.unit
	c := &u.answers
	a.Answers, a.Skip, a.Said = c, u.skip, &u.said
	affected := newLearnerSet(a)
	all, err := r.corrections(ctx, w, a, affected)
	if err != nil {
		return err
	}
	replaced := make(map[answer.Position]bool, len(all))
	extra := make(map[answer.Token][]source)
	for _, hit := range all {
		token := c.Learner.At(hit.row)
		replaced[hit.place] = true
		extra[token] = append(extra[token], source{position: hit.place, learner: token, row: int32(hit.row), message: true})
	}
	for row := range c.Rows {
		token := c.Learner.At(row)
		if !u.skip[row] && affected.has(c.School.At(row), token) {
			u.repeat[row] = true // learnt with the others, not applied
			extra[token] = append(extra[token], source{position: c.Position(row), learner: token, row: int32(row), message: true})
			a.epochs[token] = c.KeyEpoch
		}
	}
	for _, hit := range all {
		a.epochs[c.Learner.At(hit.row)] = c.KeyEpoch
	}
	applied := r.state.Apply(c, u.repeat, u.snapshot)
	r.state.SwapEvidence(&u.said)
	r.stage.metrics.count(applied)
	r.stage.metrics.answers.WithLabelValues("correction").Add(float64(len(all)))
	a.Learners = a.affected
	if err := r.relearn(ctx, a, replaced, extra); err != nil {
		return err
	}
	return r.exchange(a)
}

// corrections returns what is corrected, and notes in the amendment what that
// does to the archive. The learners concerned are added to affected.
func (r *run) corrections(ctx context.Context, w *workspace, a *amendment, affected *learnerSet) ([]corrected, error) {
	u := a.unit
	if err := r.findRepeats(ctx, w, w.units[:1]); err != nil {
		return nil, err
	}
	winners, names := u.winners()
	found, err := r.config.Persistence.FindEvents(ctx, r.partition, u.archive(), names)
	if err != nil {
		return nil, err
	}
	byName := make(map[EventName][]Found)
	for _, f := range found {
		name := EventName{f.School, f.ID}
		byName[name] = append(byName[name], f)
	}
	var all []corrected
	for _, name := range names {
		hit, effective := u.correct(a, byName[name], winners[name], affected)
		if effective {
			all = append(all, hit)
			a.Replaced = append(a.Replaced, Replacement{Row: hit.row, Position: hit.place, Fresh: hit.fresh})
		}
	}
	return all, nil
}

// winners returns, of the corrections in a message, the one that counts of every
// event, and the events in the order of their first rows. All others are repeats,
// and for now the winners are too.
func (u *unit) winners() (map[EventName]int, []EventName) {
	d := &u.rows
	winners := make(map[EventName]int)
	var names []EventName
	for row, revision := range d.revision[:d.rows] {
		if revision == 0 {
			continue
		}
		u.repeat[row], u.skip[row] = true, true
		name := EventName{d.school.At(row), d.id[row]}
		best, known := winners[name]
		if !known {
			names = append(names, name)
		}
		if !known || revision > d.revision[best] {
			winners[name] = row
		}
	}
	return winners, names
}

// correct decides what a correction does, given what is archived under its event.
func (u *unit) correct(a *amendment, found []Found, row int, affected *learnerSet) (hit corrected, effective bool) {
	d := &u.rows
	own := d.position(row)
	original := u.originals(found, row, a.Order)
	place, fresh := answer.Position(0), false
	switch best := bestOf(found, own, a.Order); {
	case best != nil && best.Corrected != own && best.Revision >= d.revision[row]:
		return hit, false
	case best != nil:
		place, fresh = best.Position, best.Position >= a.Order
	case original >= 0:
		place, fresh = d.position(original), true
	default:
		known := slices.ContainsFunc(found, func(f Found) bool { return f.Lookup == d.lookup(row) && f.Position < own })
		u.repeat[row], u.skip[row] = known, known
		return hit, false
	}
	affected.add(d.school.At(row), d.learner.At(row))
	if original >= 0 {
		affected.add(d.school.At(original), d.learner.At(original))
	}
	now := d.lookup(row)
	for _, f := range found {
		if f.Lookup == now && f.Position != place && !f.Gone && f.Position < a.Order {
			a.noteDouble(u.archive(), Double{f.Position, f.ID, f.Learner})
		}
		if f.Position != place || f.Gone && f.Changed != a.Order {
			continue
		}
		affected.add(f.School, f.Learner)
		if f.Lookup != now {
			a.Left = append(a.Left, Left{f.Lookup, place})
		}
	}
	if first := d.lookup(original); original >= 0 && first != now {
		a.Left = append(a.Left, Left{first, place})
	}
	return corrected{row: row, place: place, fresh: fresh}, true
}

// noteDouble notes a row that counts no more.
func (a *amendment) noteDouble(which Archive, d Double) {
	if which == TestResultsArchive {
		a.TestDoubles = append(a.TestDoubles, d)
		return
	}
	a.Doubles = append(a.Doubles, d)
	a.double(d.Position)
}

// bestOf returns the row that a correction at a position corrects: the one that
// it has written itself, before a crash, or else that of the highest revision,
// then the earliest. Rows of the message itself are none, unless corrected.
func bestOf(found []Found, own, order answer.Position) *Found {
	var best *Found
	for i := range found {
		f := &found[i]
		switch {
		case f.Gone || f.Corrected != own && f.Position >= order:
			continue
		case f.Corrected == own:
			return f
		case best == nil || f.Revision > best.Revision || f.Revision == best.Revision && f.Position < best.Position:
			best = f
		}
	}
	return best
}

// originals marks the first deliveries in the message of the event of a
// correction as repeats. It returns the one that the correction corrects, when
// the archive has none from before: the first that stands before it, or -1.
func (u *unit) originals(found []Found, winner int, order answer.Position) int {
	d := &u.rows
	archived := false
	for i := range found {
		archived = archived || found[i].Position < order && (!found[i].Gone || found[i].Changed == order)
	}
	original := -1
	for row := range d.rows {
		if d.revision[row] != 0 || d.id[row] != d.id[winner] || d.school.At(row) != d.school.At(winner) {
			continue
		}
		if original < 0 && row < winner && !archived && !u.skip[row] {
			original = row
		}
		u.repeat[row], u.skip[row] = true, true
	}
	return original
}

// learnerSet is the affected learners of an amendment; without one it takes none.
type learnerSet struct {
	amendment *amendment
	known     map[LearnerName]bool
}

func newLearnerSet(a *amendment) *learnerSet {
	return &learnerSet{amendment: a, known: make(map[LearnerName]bool)}
}

func (s *learnerSet) has(school string, token answer.Token) bool {
	return s.known[LearnerName{school, token}]
}

func (s *learnerSet) add(school string, token answer.Token) {
	if name := (LearnerName{school, token}); s.amendment != nil && !s.known[name] && !token.IsZero() {
		s.known[name] = true
		s.amendment.affected = append(s.amendment.affected, name)
	}
}
