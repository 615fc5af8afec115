package store_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	strs "strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/deadletter"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

// write archives a message and waits until it is durable.
func write(t testing.TB, s testStore, partition int, c *answer.Columns, skip []bool) {
	t.Helper()
	if err := s.Archive(t.Context(), partition, c, skip, nil); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, s, &transform.Checkpoint{Partition: partition, Position: c.Position(max(c.Rows, 1) - 1)})
}

func checkpoint(t testing.TB, s testStore, c *transform.Checkpoint) {
	t.Helper()
	call, outcome := durable()
	c.Durable = call
	if err := s.Checkpoint(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; err != nil {
		t.Fatal(err)
	}
}

func quick(c *store.Config) { c.MaxDelay = 10 * time.Millisecond }

// TestArchiveKeepsEveryColumn reads every column back and compares it with what
// was handed over, also when rows are skipped and come unsorted.
func TestArchiveKeepsEveryColumn(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	w := newWorkload(31, 4)
	c := w.message(3, 2000)
	skip := make([]bool, c.Rows)
	byID := make(map[string]int)
	for row := range c.Rows {
		c.AnsweredAt[row] -= int64(w.random.IntN(1e10)) // over several months
		c.ResponseTime[row] = int32(row%3) - 1
		c.Revision[row] = uint32(row % 2)
		c.Kind[row] = uint8(row % 4)
		skip[row] = row%7 == 0 || row < 10 || row > 1990
		if !skip[row] {
			byID[string(c.EventID[row][:])] = row
		}
	}
	archived := int64(len(byID))
	write(t, s, 3, c, skip)
	rows, err := s.db.QueryContext(t.Context(), "SELECT id, learner, key_epoch, publisher, school, `group`, year_group, exercise, goal, subject, toUInt8(kind), score, attempt,"+
		" toInt32(ifNull(response_time_ms, -1)), toUnixTimestamp64Milli(answered_at), revision, source_partition, source_offset, source_row FROM "+s.table("answers")+" FINAL")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, learner, publisher, school, group, exercise, goal, subject string
		var keyEpoch, revision, sourceRow uint32
		var yearGroup, kind uint8
		var score float64
		var attempt, partition uint16
		var response int32
		var at int64
		var offset uint64
		if err := rows.Scan(&id, &learner, &keyEpoch, &publisher, &school, &group, &yearGroup, &exercise, &goal, &subject, &kind, &score, &attempt,
			&response, &at, &revision, &partition, &offset, &sourceRow); err != nil {
			t.Fatal(err)
		}
		row, ok := byID[id]
		if !ok {
			t.Fatal("a row that was skipped or never written")
		}
		delete(byID, id)
		token := c.Learner.At(row).Bytes()
		got := []any{learner, keyEpoch, publisher, school, group, yearGroup, exercise, goal, subject, kind, score, attempt, response, at, revision, partition, offset, sourceRow}
		want := []any{string(token[:]), c.KeyEpoch, c.Publisher.At(row), c.School.At(row), c.Group.At(row), c.YearGroup[row], c.Exercise.At(row), c.Goal.At(row),
			c.Subject.At(row), c.Kind[row], c.Score[row], c.Attempt[row], c.ResponseTime[row], c.AnsweredAt[row], c.Revision[row], uint16(3), uint64(c.RawOffset), uint32(row)}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("row %d = %v, want %v", row, got, want)
		}
	}
	if err := rows.Err(); err != nil || len(byID) != 0 {
		t.Errorf("%d rows are missing, %v", len(byID), err)
	}
	if n := s.number(t, "SELECT archived FROM "+s.table("raw_ledger")+" WHERE rows = 2000 AND content = 'answers'"); n != archived {
		t.Errorf("the ledger says %d archived, want %d", n, archived)
	}
}

// TestRepeatsChangeNothing: the same messages again, in other batches, leave the
// same rows; of two rows with the same key that of the earlier position stays.
func TestRepeatsChangeNothing(t *testing.T) {
	t.Parallel()
	s := openStore(t, func(c *store.Config) { c.MaxDelay, c.MaxRows = 10*time.Millisecond, 700 })
	w := newWorkload(32, 1)
	var messages []*answer.Columns
	for range 5 {
		messages = append(messages, w.message(0, 300))
	}
	digest := "SELECT sum(cityHash64(*)) FROM " + s.table("answers") + " FINAL"
	for _, m := range messages {
		write(t, s, 0, m, nil)
	}
	want := s.number(t, digest)
	for _, m := range messages[1:] { // all in one batch or two
		if err := s.Archive(t.Context(), 0, m, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	write(t, s, 0, messages[0], nil)
	if got := s.number(t, digest); got != want {
		t.Errorf("digest after repeats = %d, want %d", got, want)
	}
	later := *messages[2]
	later.RawOffset = 99
	write(t, s, 0, &later, nil)
	if got := s.number(t, digest); got != want {
		t.Errorf("digest after a later delivery of the same rows = %d, want %d", got, want)
	}
	later.RawOffset = 100
	write(t, s, 0, &later, nil)
	if n := s.number(t, "SELECT count() FROM "+s.table("answers")+" FINAL"); n != 5*300 {
		t.Errorf("%d rows, want %d", n, 5*300)
	}
	if n := s.number(t, "SELECT raw_offset FROM "+s.table("progress")+" FINAL"); n != 100 {
		t.Errorf("progress = %d, want 100: an older one must not win", n)
	}
	checkpoint(t, s, &transform.Checkpoint{Position: answer.At(50, 0)})
	if n := s.number(t, "SELECT raw_offset FROM "+s.table("progress")+" FINAL"); n != 100 {
		t.Errorf("progress after an older checkpoint = %d, want 100", n)
	}
}

func TestKnown(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	w := newWorkload(33, 1)
	c := w.message(0, 1000)
	write(t, s, 0, c, nil)
	again := *c
	again.RawOffset = 7
	write(t, s, 0, &again, nil)
	var rows []transform.Lookup
	want := make(map[answer.EventID]answer.Position)
	for row := range c.Rows {
		l := transform.Lookup{School: c.School.At(row), Learner: c.Learner.At(row), Moment: c.AnsweredAt[row], ID: c.EventID[row]}
		switch row % 5 {
		case 1:
			l.Moment++
		case 2:
			l.School = "nowhere' OR 1=1 --"
		case 3:
			l.ID[3]++
		default:
			want[l.ID] = c.Position(row)
		}
		rows = append(rows, l)
	}
	got, err := s.Known(t.Context(), transform.AnswersArchive, rows)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Known = %d rows, %v, want %d", len(got), err, len(want))
	}
	if got, err := s.Known(t.Context(), transform.AnswersArchive, nil); err != nil || len(got) != 0 {
		t.Errorf("Known of nothing = %v, %v", got, err)
	}
}

func TestSnapshots(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	save := func(version uint64, keys ...string) {
		var rows transform.SnapshotRows
		for _, key := range keys {
			rows.Append(&transform.SnapshotRows{Component: []transform.Component{transform.ComponentItem}, Key: []string{key}, Goal: []string{"g"}, Subject: []string{"s"},
				Mean: []float64{float64(version)}, Variance: []float64{1}, Gradient: []int64{-1}, Information: []int64{2}, Answers: []int64{3}, ScoreSum: []int64{4}}, 0)
		}
		for range 2 { // saving again changes nothing
			if err := s.SaveSnapshot(t.Context(), version, &rows); err != nil {
				t.Fatal(err)
			}
		}
	}
	load := func(atMost, wantVersion uint64, want map[string]float64) {
		t.Helper()
		version, rows, err := s.LoadSnapshot(t.Context(), atMost)
		got := make(map[string]float64)
		for i := range rows.Len() {
			got[rows.Key[i]] = rows.Mean[i]
		}
		if err != nil || version != wantVersion || rows.Version != version || len(got) != rows.Len() || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("LoadSnapshot(%d) = %d, %v, %v, want %d, %v", atMost, version, got, err, wantVersion, want)
		}
	}
	scaleOf := func(atMost uint64) string {
		t.Helper()
		_, rows, err := s.LoadSnapshot(t.Context(), atMost)
		if err != nil {
			t.Fatal(err)
		}
		if rows.Scale == nil {
			return "none"
		}
		return fmt.Sprintf("%d %v %.2f", rows.Scale.Number, rows.Scale.Links, rows.Scale.Head.Weights[2])
	}
	load(0, 0, map[string]float64{})
	save(1, "p:a", "p:b")
	save(2, "p:b", "p:c")
	save(3)
	load(0, 3, map[string]float64{"p:a": 1, "p:b": 2, "p:c": 2})
	load(2, 2, map[string]float64{"p:a": 1, "p:b": 2, "p:c": 2})
	load(1, 1, map[string]float64{"p:a": 1, "p:b": 1})
	for number := uint64(1); number <= 2; number++ {
		scale := &transform.Scale{Number: number, Links: []transform.GoalLink{{Goal: "g", Answers: 7, Exercises: 3, Slope: 0.5, Shift: -0.25, ShiftError: 0.125}, {Goal: "h"}}}
		scale.Head.Weights[2] = float64(number) / 4
		if err := s.SaveSnapshot(t.Context(), 3+number, &transform.SnapshotRows{Scale: scale}); err != nil {
			t.Fatal(err)
		}
	}
	for atMost, want := range map[uint64]string{3: "none", 4: "1 [{g 7 3 0.5 -0.25 0.125} {h 0 0 0 0 0}] 0.25", 0: "2 [{g 7 3 0.5 -0.25 0.125} {h 0 0 0 0 0}] 0.50"} {
		if got := scaleOf(atMost); got != want {
			t.Errorf("scale of versions up to %d = %s, want %s", atMost, got, want)
		}
	}
}

// TestLargeCheckpoint: skills of more rows than an insert holds, with more
// distinct words than two bytes count, come back whole; learners stay together.
func TestLargeCheckpoint(t *testing.T) {
	t.Parallel()
	s := openStore(t, func(c *store.Config) { c.MaxDelay, c.MaxRows = 10*time.Millisecond, 150_000 })
	w := newWorkload(34, 1)
	skills := w.skills(40_000, 6, answer.At(4, 5))
	for i := range skills.Len() {
		if skills.Layer[i] == transform.LayerGoal {
			skills.Key[i] = fmt.Sprintf("goal-%d-%d", i%6, i/6)
		}
	}
	checkpoint(t, s, &transform.Checkpoint{Position: answer.At(4, 5), Skills: skills})
	restored, err := s.Restore(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	sameSkills(t, &restored.Skills, &skills)
	if n := s.number(t, "SELECT count() FROM (SELECT learner FROM "+s.table("skills")+" GROUP BY learner HAVING uniqExact(_part) > 1)"); n != 0 {
		t.Errorf("%d learners lie in two inserts", n)
	}
	if n := s.number(t, "SELECT count() FROM "+s.table("skills_daily")+" FINAL"); n != int64(skills.Len()) {
		t.Errorf("%d rows of daily history, want %d", n, skills.Len())
	}
}

func TestTestResults(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	strings := func(values ...string) answer.Strings {
		return answer.Strings{Codes: []int32{0, int32(len(values) - 1)}, Values: values}
	}
	learners := []answer.Token{answer.MintToken([16]byte{1}), answer.MintToken([16]byte{2})}
	c := &answer.TestResults{TestFacts: answer.TestFacts{Rows: 2, Publisher: strings("baps"), School: strings("12AB00"), Group: strings("5A", ""), Test: strings("pp4"),
		TestName: strings("Pluspunt"), Subject: strings("rekenen"), Part: strings("bewerkingen", ""), Path: [][]string{{"blok 3", "bewerkingen"}, nil}, YearGroup: []uint8{5, 0},
		TakenOn: []int32{20000, 20001}, Score: []float64{17, math.NaN()}, MaxScore: []float64{20, math.NaN()}, Made: []int32{20, -1}, Right: []int32{17, 0}, Wrong: []int32{3, -1},
		DurationS: []int32{1500, -1}, NormKinds: [][]string{{"vaardigheidsscore"}, nil}, NormValues: [][]float64{{83}, nil}, Revision: []uint32{0, 0}},
		EventID: []answer.EventID{{1}, {2}}, Learner: answer.Tokens{Codes: []int32{0, 1}, Values: learners}, KeyEpoch: 1, RawOffset: 3}
	for range 2 {
		if err := s.ArchiveTestResults(t.Context(), 0, c, nil); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint(t, s, &transform.Checkpoint{Position: c.Position(1)})
	for query, want := range map[string]int64{
		"SELECT count() FROM {t} FINAL": 2,
		"SELECT count() FROM {t} FINAL WHERE score = 17 AND max_score = 20 AND made = 20 AND right = 17 AND wrong = 3 AND duration_s = 1500 AND path = ['blok 3', 'bewerkingen']" +
			" AND norm_kinds = ['vaardigheidsscore'] AND norm_values = [83] AND taken_on = toDate32(20000) AND test_name = 'Pluspunt'": 1,
		"SELECT count() FROM {t} FINAL WHERE isNull(score) AND isNull(max_score) AND isNull(made) AND right = 0 AND isNull(wrong) AND isNull(duration_s) AND empty(path) AND part = ''": 1,
	} {
		if n := s.number(t, strs.ReplaceAll(query, "{t}", s.table("test_results"))); n != want {
			t.Errorf("%s = %d, want %d", query, n, want)
		}
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	letters := []deadletter.Entry{
		{LetterPartition: 1, LetterOffset: 5, Topic: "raw", Partition: 1, Offset: 9, Stage: "pseudonymize", Reason: "seal-broken", Bytes: 100, State: deadletter.Replayed, ReplayOffset: 12},
		{LetterPartition: 1, LetterOffset: 4, Topic: "raw", Partition: 1, Offset: 8, Stage: "pseudonymize", Reason: "malformed", Bytes: 200, ReplayOffset: -1},
		{LetterPartition: 0, LetterOffset: 0, Topic: "answers", Partition: -1, Offset: -1, Stage: "", Reason: "", State: deadletter.Purged, ReplayOffset: -1},
	}
	// The stage enters a letter again after it has moved on.
	entered := slices.Clone(letters)
	for i := range entered {
		entered[i].State, entered[i].ReplayOffset = deadletter.Waiting, -1
	}
	for _, entries := range [][]deadletter.Entry{entered, letters, entered} {
		if err := s.IndexDeadLetters(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
	}
	var got []deadletter.Entry
	err := s.ListDeadLetters(t.Context(), func(l deadletter.Entry) error {
		if time.Since(l.WrittenAt) > time.Minute {
			t.Errorf("written at %v, want now", l.WrittenAt)
		}
		l.WrittenAt = time.Time{}
		got = append(got, l)
		return nil
	})
	if want := []deadletter.Entry{letters[2], letters[1], letters[0]}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ListDeadLetters = %+v, %v, want %+v", got, err, want)
	}
	stop := errors.New("enough")
	if err := s.ListDeadLetters(t.Context(), func(deadletter.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("ListDeadLetters = %v, want the caller's error", err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for field, c := range map[string]store.Config{
		"addresses": {}, "database": {Addresses: []string{"a:1"}, Database: "a b"}, "max_rows": {Addresses: []string{"a:1"}, MaxRows: -1},
		"max_delay": {Addresses: []string{"a:1"}, MaxDelay: time.Hour}, "pause": {Addresses: []string{"a:1"}, Pause: time.Hour}, "batches": {Addresses: []string{"a:1"}, Batches: 100},
		"in_flight": {Addresses: []string{"a:1"}, InFlight: 17}, "timeout": {Addresses: []string{"a:1"}, Timeout: -1},
	} {
		if err := c.Validate(); err == nil || !strs.Contains(err.Error(), "field "+field) {
			t.Errorf("Validate with a bad %s = %v, want an error that names it", field, err)
		}
	}
}
