package store_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

// TestAmend corrects an answer, moves a learner and erases another, each twice
// as after a crash, and purges what has left.
func TestAmend(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	ctx := t.Context()
	w := newWorkload(5, 1)
	c := w.message(0, 300)
	said := &transform.Evidence{Gradient: make([]int32, 300), Information: make([]uint16, 300), Replayed: make([]bool, 300)}
	for i := range 300 {
		said.Gradient[i], said.Information[i] = int32(i-100), uint16(i+1)
	}
	if err := s.Archive(ctx, 0, c, nil, said); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, s, &transform.Checkpoint{Position: c.Position(299)})

	// Row 0 of the second message takes the place of row 7 of the first, at
	// another moment.
	found, err := s.FindEvents(ctx, 0, transform.AnswersArchive, []transform.EventName{{School: c.School.At(7), ID: c.EventID[7]}})
	if err != nil || len(found) != 1 || found[0].Position != c.Position(7) || found[0].Gone || found[0].Learner != c.Learner.At(7) {
		t.Fatalf("FindEvents = %+v, %v, want row 7", found, err)
	}
	correction := w.message(0, 1)
	correction.School.Codes[0], correction.Learner.Codes[0] = c.School.Codes[7], c.Learner.Codes[7]
	correction.EventID[0], correction.Revision[0] = c.EventID[7], 1
	amendment := &transform.Amendment{Order: correction.Position(0), RawOffset: 1, Answers: correction, Skip: []bool{true},
		Said:     &transform.Evidence{Gradient: []int32{5}, Information: []uint16{9}, Replayed: []bool{false}},
		Replaced: []transform.Replacement{{Row: 0, Position: c.Position(7)}}, Left: []transform.Left{{Lookup: found[0].Lookup, Position: c.Position(7)}},
		Learners: []transform.LearnerName{{School: c.School.At(8), Learner: c.Learner.At(8)}},
		Rescored: []transform.Rescored{{Position: c.Position(8), Gradient: 77, Information: 88}}}
	amendment.Position = correction.Position(0)
	amendment.Sums = transform.ItemSumRows{Component: []transform.Component{transform.ComponentGlobal}, Key: []string{""}, Goal: []string{""}, Subject: []string{""},
		Gradient: []int64{1}, Information: []int64{1}, Answers: []int64{300}, ScoreSum: []int64{1}, Position: []answer.Position{amendment.Position}}
	amendTwice(t, s, amendment)
	for query, want := range map[string]int64{
		"SELECT count() FROM {t} FINAL": 300,
		"SELECT count() FROM {t} FINAL WHERE position = 7 AND revision = 1 AND corrected = 1048576 AND evidence_gradient = 5 AND evidence_information = 9": 1,
		"SELECT count() FROM {t} FINAL WHERE position = 8 AND evidence_gradient = 77 AND evidence_information = 88":                                        1,
	} {
		s.want(t, "answers", query, want)
	}
	s.want(t, "raw_ledger", "SELECT count() FROM {t} FINAL WHERE raw_offset = 1 AND archived = 0 AND corrections = 1", 1)

	testOrders(t, s, c)
}

// testOrders moves the learner of row 20 and erases that of row 30.
func testOrders(t *testing.T, s testStore, c *answer.Columns) {
	t.Helper()
	ctx := t.Context()
	nameOf := func(row int) transform.LearnerName {
		return transform.LearnerName{School: c.School.At(row), Learner: c.Learner.At(row)}
	}
	moved, erased, into := nameOf(20), nameOf(30), answer.MintToken([16]byte{9, 9})
	before, err := s.LearnerAnswers(ctx, 0, []transform.LearnerName{moved}, answer.At(2, 0))
	if err != nil || before.Rows == 0 {
		t.Fatalf("LearnerAnswers = %+v, %v, want some", before, err)
	}
	gone, err := s.LearnerAnswers(ctx, 0, []transform.LearnerName{erased}, answer.At(2, 0))
	if err != nil {
		t.Fatal(err)
	}
	orders := &transform.Amendment{Order: answer.At(2, 0), RawOffset: 2, Commands: 2,
		Departures: []transform.Departure{{LearnerName: moved, Into: into, KeyEpoch: 4}, {LearnerName: erased}}}
	orders.Position = answer.At(2, 1)
	amendTwice(t, s, orders)
	after, err := s.LearnerAnswers(ctx, 0, []transform.LearnerName{{School: moved.School, Learner: into}}, answer.At(3, 0))
	if err != nil || !slices.Equal(after.Position, before.Position) || !slices.Equal(after.Gradient, before.Gradient) ||
		!slices.Equal(after.AnsweredAt, before.AnsweredAt) || after.Epoch[0] != 4 {
		t.Errorf("after a move = %+v, %v, want what was there before", after, err)
	}
	s.want(t, "answers", "SELECT count() FROM {t} FINAL", int64(300-gone.Rows))
	s.want(t, "erased", "SELECT sum(rows) FROM {t} FINAL", int64(gone.Rows))
	s.want(t, "departed", "SELECT count() FROM {t} FINAL WHERE purged = 0", 2)
	if err := s.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	token := moved.Learner.Bytes()
	s.want(t, "answers", "SELECT count() FROM {t} WHERE learner = unhex('"+moved.Learner.String()+"') OR is_deleted = 1 AND learner != unhex('"+c.Learner.At(7).String()+"')", 0)
	s.want(t, "departed", "SELECT count() FROM {t} FINAL WHERE purged = 2", 2)
	restored, err := s.Restore(ctx, 0)
	if err != nil || len(restored.Departed) != 2 || token == ([16]byte{}) {
		t.Errorf("Restore = %d departed, %v, want 2", len(restored.Departed), err)
	}
}

// TestLeftKeysGoAlong: an answer that was corrected to another moment is still
// known where it first stood, also when its learner got another token since; and
// what stands somewhere is never hidden by a key that was left there.
func TestLeftKeysGoAlong(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	ctx := t.Context()
	w := newWorkload(6, 1)
	c := w.message(0, 20)
	said := &transform.Evidence{Gradient: make([]int32, 20), Information: make([]uint16, 20), Replayed: make([]bool, 20)}
	if err := s.Archive(ctx, 0, c, nil, said); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, s, &transform.Checkpoint{Position: c.Position(19)})
	lookup := func(learner answer.Token) transform.Lookup {
		return transform.Lookup{School: c.School.At(3), Learner: learner, Moment: c.AnsweredAt[3], ID: c.EventID[3]}
	}
	// Row 3 comes to stand at another moment.
	correction := w.message(0, 1)
	correction.School.Codes[0], correction.Learner.Codes[0] = c.School.Codes[3], c.Learner.Codes[3]
	correction.EventID[0], correction.Revision[0] = c.EventID[3], 1
	amendment := &transform.Amendment{Order: correction.Position(0), RawOffset: 1, Answers: correction, Skip: []bool{true},
		Said:     &transform.Evidence{Gradient: []int32{5}, Information: []uint16{9}, Replayed: []bool{false}},
		Replaced: []transform.Replacement{{Row: 0, Position: c.Position(3)}}, Left: []transform.Left{{Lookup: lookup(c.Learner.At(3)), Position: c.Position(3)}}}
	amendment.Position = correction.Position(0)
	amendTwice(t, s, amendment)
	// Twice its learner gets another token.
	from := c.Learner.At(3)
	for n := range 2 {
		into := answer.MintToken([16]byte{7, byte(n)})
		orders := &transform.Amendment{Order: answer.At(int64(2+n), 0), RawOffset: int64(2 + n), Commands: 1, Departures: []transform.Departure{
			{LearnerName: transform.LearnerName{School: c.School.At(3), Learner: from}, Into: into, KeyEpoch: 4}}}
		orders.Position = orders.Order
		amendTwice(t, s, orders)
		known, err := s.Known(ctx, transform.AnswersArchive, []transform.Lookup{lookup(into)})
		if err != nil || known[c.EventID[3]] != c.Position(3) {
			t.Errorf("after %d moves the answer is known at %v, %v, want its position %d", n+1, known, err, c.Position(3))
		}
		s.want(t, "answers", "SELECT count() FROM {t} FINAL", 20)
		from = into
	}
}

// TestLeftKeysOfOneLearnerStay: an answer was corrected to another learner; then
// both get other tokens by the same order, as in a rotation. What stands with the
// one does not hide that the other once had it.
func TestLeftKeysOfOneLearnerStay(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	ctx := t.Context()
	w := newWorkload(6, 1)
	c := w.message(0, 20)
	said := &transform.Evidence{Gradient: make([]int32, 20), Information: make([]uint16, 20), Replayed: make([]bool, 20)}
	if err := s.Archive(ctx, 0, c, nil, said); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, s, &transform.Checkpoint{Position: c.Position(19)})
	key := transform.Lookup{School: c.School.At(3), Learner: c.Learner.At(3), Moment: c.AnsweredAt[3], ID: c.EventID[3]}
	correction := w.message(0, 1)
	correction.School.Codes[0], correction.AnsweredAt[0] = c.School.Codes[3], key.Moment
	correction.Learner.Values, correction.Learner.Codes[0] = []answer.Token{answer.MintToken([16]byte{5})}, 0
	correction.EventID[0], correction.Revision[0] = key.ID, 1
	amendment := &transform.Amendment{Order: correction.Position(0), RawOffset: 1, Answers: correction, Skip: []bool{true},
		Said:     &transform.Evidence{Gradient: []int32{5}, Information: []uint16{9}, Replayed: []bool{false}},
		Replaced: []transform.Replacement{{Row: 0, Position: c.Position(3)}}, Left: []transform.Left{{Lookup: key, Position: c.Position(3)}}}
	amendment.Position = correction.Position(0)
	amendTwice(t, s, amendment)
	orders := &transform.Amendment{Order: answer.At(2, 0), RawOffset: 2, Commands: 2}
	for n, from := range []answer.Token{key.Learner, correction.Learner.At(0)} {
		orders.Departures = append(orders.Departures, transform.Departure{LearnerName: transform.LearnerName{School: key.School, Learner: from},
			Into: answer.MintToken([16]byte{7, byte(n)}), KeyEpoch: 4})
	}
	orders.Position = answer.At(2, 1)
	amendTwice(t, s, orders)
	for _, d := range orders.Departures {
		key.Learner = d.Into
		known, err := s.Known(ctx, transform.AnswersArchive, []transform.Lookup{key})
		if err != nil || known[key.ID] != c.Position(3) {
			t.Errorf("under the token of %v the answer is known at %v, %v, want its position %d", d.LearnerName, known, err, c.Position(3))
		}
	}
	s.want(t, "answers", "SELECT count() FROM {t} FINAL", 20)
}

// TestAmendHidesNobodyTooEarly fails where the skills are written: a learner who
// is not at the new token yet must not have left the old one.
func TestAmendHidesNobodyTooEarly(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	c := newWorkload(5, 1).message(0, 10)
	into := answer.MintToken([16]byte{9, 9})
	orders := &transform.Amendment{Order: answer.At(1, 0), RawOffset: 1, Commands: 1, Departures: []transform.Departure{
		{LearnerName: transform.LearnerName{School: c.School.At(0), Learner: c.Learner.At(0)}, Into: into, KeyEpoch: 2}}}
	orders.Position = orders.Order
	orders.Skills.AppendRange(oneSkill(into, orders.Order), 0, 1)
	s.execute(t, "ALTER TABLE "+s.table("skills")+" RENAME COLUMN fast_mean TO slower_mean")
	if err := s.Amend(t.Context(), orders); !errors.Is(err, store.ErrRejected) {
		t.Fatalf("Amend without a column of skills = %v, want ErrRejected", err)
	}
	s.want(t, "departed", "SELECT count() FROM {t}", 0)
	s.execute(t, "ALTER TABLE "+s.table("skills")+" RENAME COLUMN slower_mean TO fast_mean")
	if err := s.Amend(t.Context(), orders); err != nil {
		t.Fatal(err)
	}
	s.want(t, "departed", "SELECT count() FROM {t}", 1)
}

func oneSkill(learner answer.Token, position answer.Position) *transform.SkillRows {
	return &transform.SkillRows{Learner: []answer.Token{learner}, School: []string{"12AB00"}, Group: []string{""}, YearGroup: []uint8{5},
		KeyEpoch: []uint32{2}, Layer: []transform.Layer{transform.LayerOverall}, Key: []string{""}, Subject: []string{""}, Mean: []float64{0},
		Variance: []float64{1}, Answers: []uint32{1}, LastAt: []int64{0}, FastMean: []float64{0}, SlowMean: []float64{0}, LastScore: []float64{0},
		Position: []answer.Position{position}, Recent: [][]uint64{nil}}
}

func amendTwice(t *testing.T, s testStore, a *transform.Amendment) {
	t.Helper()
	if err := s.Amend(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if a.Sums.Len() > 0 {
		if err := s.Amend(t.Context(), a); !errors.Is(err, transform.ErrAmended) {
			t.Fatalf("Amend again = %v, want ErrAmended", err)
		}
	}
	a.SumsDone, a.Sums = true, transform.ItemSumRows{}
	if err := s.Amend(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

func (s testStore) want(t *testing.T, table, query string, want int64) {
	t.Helper()
	const placeholder = "{t}"
	for i := 0; i+len(placeholder) <= len(query); i++ {
		if query[i:i+len(placeholder)] == placeholder {
			query = query[:i] + s.table(table) + query[i+len(placeholder):]
		}
	}
	if n := s.number(t, query); n != want {
		t.Errorf("%s = %d, want %d", query, n, want)
	}
}
