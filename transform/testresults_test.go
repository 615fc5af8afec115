package transform_test

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform"
)

// testRow is a test result of which only what decides on its fate is told, and a
// number that tells its contents from others'.
type testRow struct {
	answerKey
	revision uint32
	made     int32
}

func testRowAt(c *answer.TestResults, i int) testRow {
	return testRow{answerKey{strings.Clone(c.School.At(i)), c.Learner.At(i), int64(c.TakenOn[i]), c.EventID[i]}, c.Revision[i], c.Made[i]}
}

// testResults makes a message of test results of the learners: new ones, repeats
// of earlier ones, corrections, and both of the same event in one message.
func (w *workload) testResults(rawOffset int64, rows int) *answer.TestResults {
	c := &answer.TestResults{KeyEpoch: w.epoch, RawOffset: rawOffset}
	one := answer.Strings{Values: []string{"x"}}
	c.Publisher, c.Group, c.Test, c.TestName, c.Subject, c.Part = one, one, one, one, one, one
	for range rows {
		w.appendTest(c, w.testRow())
	}
	return c
}

func (w *workload) testRow() testRow {
	r := w.random
	if len(w.pastTests) > 0 && r.IntN(2) == 0 {
		again := w.pastTests[r.IntN(len(w.pastTests))]
		if r.IntN(2) == 0 {
			again.revision, again.made = uint32(1+r.IntN(4)), int32(r.IntN(1000))
			switch l := &w.learners[r.IntN(len(w.learners))]; r.IntN(4) {
			case 0:
				again.at++
			case 1:
				if l.school == again.school {
					again.learner = l.token
				}
			}
		} else if r.IntN(3) == 0 {
			again.learner = w.classmate(again.school, again.learner)
		}
		return again
	}
	l := &w.learners[r.IntN(len(w.learners))]
	fresh := testRow{answerKey{l.school, l.token, int64(20_000 + r.IntN(40)), answer.EventID{}}, 0, int32(r.IntN(1000))}
	w.events++
	binary.LittleEndian.PutUint64(fresh.id[:], w.events*0x9e3779b97f4a7c15)
	if r.IntN(20) == 0 {
		fresh.revision = 1 // of something that never came
	}
	w.pastTests = append(w.pastTests, fresh)
	return fresh
}

func (w *workload) appendTest(c *answer.TestResults, r testRow) {
	for _, s := range []*answer.Strings{&c.Publisher, &c.Group, &c.Test, &c.TestName, &c.Subject, &c.Part} {
		s.Codes = append(s.Codes, 0)
	}
	c.School.Codes, c.School.Values = append(c.School.Codes, int32(c.Rows)), append(c.School.Values, r.school)
	c.Learner.Codes, c.Learner.Values = append(c.Learner.Codes, int32(c.Rows)), append(c.Learner.Values, r.learner)
	c.EventID, c.Revision = append(c.EventID, r.id), append(c.Revision, r.revision)
	c.Path, c.YearGroup, c.TakenOn = append(c.Path, nil), append(c.YearGroup, 5), append(c.TakenOn, int32(r.at))
	c.Score, c.MaxScore, c.Made = append(c.Score, 1), append(c.MaxScore, 1), append(c.Made, r.made)
	c.Right, c.Wrong, c.DurationS = append(c.Right, -1), append(c.Wrong, -1), append(c.DurationS, -1)
	c.NormKinds, c.NormValues = append(c.NormKinds, nil), append(c.NormValues, nil)
	c.Rows++
}

// sendTests produces a message of test results.
func (w *world) sendTests(partition int, c *answer.TestResults) {
	w.t.Helper()
	w.messages[partition] = append(w.messages[partition], sent{tests: c})
	var encoder answer.Encoder
	value, err := encoder.AppendTestResults(nil, c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.produce(partition, stream.Message{Value: value, Headers: []stream.Header{{Key: stream.HeaderSchema, Value: []byte(answer.SchemaTestResults)},
		stream.Int64Header(stream.HeaderRawOffset, c.RawOffset), stream.Int64Header(stream.HeaderKeyEpoch, int64(c.KeyEpoch)), stream.DigestHeader(value)}})
}

// archivedTest is the newest row under a key of the archive of test results.
type archivedTest struct {
	testRow
	position, corrected, changed answer.Position
	gone                         bool
}

func (m *memory) putTests(partition int, rows []archivedTest) {
	archive := at(m.tests, partition)
	for _, row := range rows {
		if old, ok := archive[row.answerKey]; !ok || row.changed > old.changed || row.changed == old.changed && row.position <= old.position {
			archive[row.answerKey] = row
		}
	}
}

func freshTests(c *answer.TestResults, skip []bool) (rows []archivedTest) {
	for i := range c.Rows {
		if !skip[i] {
			rows = append(rows, archivedTest{testRow: testRowAt(c, i), position: c.Position(i)})
		}
	}
	return rows
}

func (m *memory) findTests(partition int, events []transform.EventName) (found []transform.Found) {
	for _, r := range m.tests[partition] {
		if slices.Contains(events, transform.EventName{School: r.school, ID: r.id}) {
			found = append(found, transform.Found{Lookup: transform.Lookup{School: r.school, Learner: r.learner, Moment: r.at, ID: r.id},
				Position: r.position, Revision: r.revision, Corrected: r.corrected, Changed: r.changed, Gone: r.gone})
		}
	}
	return found
}

func (m *memory) arrivingTests(a *transform.Amendment) (rows []archivedTest) {
	if a.TestResults != nil {
		rows = freshTests(a.TestResults, a.Skip)
		for _, r := range a.Replaced {
			rows = append(rows, archivedTest{testRow: testRowAt(a.TestResults, r.Row), position: r.Position,
				corrected: a.TestResults.Position(r.Row), changed: a.Order})
		}
	}
	for _, d := range a.Departures {
		for _, r := range m.tests[a.Partition] {
			if r.learner == d.Learner && !d.Into.IsZero() && !r.gone && r.position < a.Order && r.changed < a.Order && !isDouble(a.TestDoubles, r.position) {
				r.learner, r.changed = d.Into, a.Order
				rows = append(rows, r)
			}
		}
	}
	return rows
}

func (m *memory) leavingTests(a *transform.Amendment) (rows []archivedTest) {
	for _, l := range a.Left {
		if a.TestResults != nil {
			rows = append(rows, archivedTest{testRow: testRow{answerKey: answerKey{strings.Clone(l.School), l.Learner, l.Moment, l.ID}},
				position: l.Position, changed: a.Order, gone: true})
		}
	}
	for _, d := range a.Departures {
		for _, r := range m.tests[a.Partition] {
			if r.learner == d.Learner && !r.gone && r.position < a.Order && r.changed < a.Order {
				rows = append(rows, archivedTest{testRow: testRow{answerKey: r.answerKey}, position: r.position, changed: a.Order, gone: true})
			}
		}
	}
	return append(rows, m.testsGoingAlong(a)...)
}

// testsGoingAlong are the keys that corrections have left, which go along with a
// learner unless a test result stands there afterwards.
func (m *memory) testsGoingAlong(a *transform.Amendment) (rows []archivedTest) {
	into := make(map[answer.Token]answer.Token)
	for _, d := range a.Departures {
		into[d.Learner] = d.Into
	}
	stands := make(map[answerKey]bool) // afterwards
	for key, r := range m.tests[a.Partition] {
		if target, moves := into[r.learner]; moves {
			key.learner = target
		}
		stands[key] = stands[key] || !r.gone
	}
	for key, r := range m.tests[a.Partition] {
		target := into[r.learner]
		key.learner = target
		if r.gone && !target.IsZero() && r.changed < a.Order && !stands[key] {
			r.learner, r.changed = target, a.Order
			rows = append(rows, r)
		}
	}
	return rows
}

// testRows returns what lies in the archive of test results, by position.
func (m *memory) testRows(partition int) map[answer.Position]testRow {
	rows := make(map[answer.Position]testRow)
	for _, r := range m.tests[partition] {
		if !r.gone {
			rows[r.position] = r.testRow
		}
	}
	return rows
}

// testOracle is what becomes of test results, by the rules of corrections alone.
type testOracle struct {
	archive map[answer.Position]testRow
	seen    map[answerKey]bool
}

func newTestOracle() *testOracle {
	return &testOracle{archive: make(map[answer.Position]testRow), seen: make(map[answerKey]bool)}
}

func (o *testOracle) apply(c *answer.TestResults) {
	done := make(map[int]bool)
	for i := range c.Rows {
		if r := testRowAt(c, i); r.revision > 0 && !done[i] {
			o.correct(c, r, done)
		}
	}
	for i := range c.Rows {
		if r := testRowAt(c, i); !done[i] && !o.seen[r.answerKey] {
			o.archive[c.Position(i)], o.seen[r.answerKey] = r, true
		}
	}
}

// correct follows the correction of highest revision of an event in a message.
func (o *testOracle) correct(c *answer.TestResults, name testRow, done map[int]bool) {
	winner := -1
	for i := range c.Rows {
		if r := testRowAt(c, i); r.school == name.school && r.id == name.id {
			done[i] = true
			if r.revision > 0 && (winner < 0 || r.revision > c.Revision[winner]) {
				winner = i
			}
		}
	}
	now := testRowAt(c, winner)
	place, best := answer.Position(0), (*testRow)(nil)
	for position, r := range o.archive {
		if r.school == now.school && r.id == now.id &&
			(best == nil || r.revision > best.revision || r.revision == best.revision && position < place) {
			best, place = &r, position
		}
	}
	for i := 0; i < winner && best == nil; i++ {
		if r := testRowAt(c, i); r.school == now.school && r.id == now.id && r.revision == 0 && !o.seen[r.answerKey] {
			best, place = &r, c.Position(i)
			o.seen[r.answerKey] = true
		}
	}
	switch {
	case best == nil && o.seen[now.answerKey]:
		return
	case best == nil:
		place = c.Position(winner)
	case best.revision >= now.revision:
		return
	}
	maps.DeleteFunc(o.archive, func(_ answer.Position, r testRow) bool { return r.answerKey == now.answerKey })
	o.archive[place], o.seen[now.answerKey] = now, true
}

// command follows orders: what is under a token goes elsewhere, or nowhere.
func (o *testOracle) command(c *answer.Commands) {
	for i, kind := range c.Kind {
		for key := range maps.Clone(o.seen) {
			if key.learner == c.Learner.At(i) && kind != answer.CommandErase {
				key.learner = c.Into.At(i)
				o.seen[key] = true
			}
		}
		for position, r := range o.archive {
			switch {
			case r.learner != c.Learner.At(i):
			case kind == answer.CommandErase:
				delete(o.archive, position)
			default:
				r.learner = c.Into.At(i)
				o.archive[position], o.seen[r.answerKey] = r, true
			}
		}
		o.once()
	}
}

// once leaves of the rows at one key that of the highest revision, then the first.
func (o *testOracle) once() {
	for position, r := range maps.Clone(o.archive) {
		for other, s := range o.archive {
			if s.answerKey == r.answerKey && (s.revision > r.revision || s.revision == r.revision && other < position) {
				delete(o.archive, position)
			}
		}
	}
}
