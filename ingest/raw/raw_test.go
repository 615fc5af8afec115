package raw_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/column"
	"github.com/leerstroom/leerstroom/internal/seal"
	"pgregory.net/rapid"
)

func newEnds(tb testing.TB) (*raw.Writer, *raw.Reader) {
	tb.Helper()
	key, err := seal.GenerateKey()
	if err != nil {
		tb.Fatal(err)
	}
	sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: key.Public()})
	if err != nil {
		tb.Fatal(err)
	}
	opener, err := seal.NewOpener(key)
	if err != nil {
		tb.Fatal(err)
	}
	return raw.NewWriter(sealer, "raw"), raw.NewReader(opener, "raw")
}

func columnOf[T any](t *rapid.T, label string, g *rapid.Generator[T], rows int) []T {
	return rapid.SliceOfN(g, rows, rows).Draw(t, label)
}

func drawStrings(t *rapid.T, label string, rows int) answer.Strings {
	values := rapid.SliceOfNDistinct(rapid.StringN(0, 12, 40), 1, 9, rapid.ID).Draw(t, label)
	return answer.Strings{Values: values, Codes: columnOf(t, label+" codes", rapid.Int32Range(0, int32(len(values))-1), rows)}
}

func drawIdentified(t *rapid.T, rows int) (raw.Texts, raw.Identities) {
	ids := raw.Texts{Offsets: []int32{0}}
	for range rows {
		ids.Bytes = append(ids.Bytes, rapid.StringN(1, 20, 60).Draw(t, "id")...)
		ids.Offsets = append(ids.Offsets, int32(len(ids.Bytes)))
	}
	var identities raw.Identities
	for range rapid.IntRange(1, 6).Draw(t, "learners") {
		v := raw.Identity{School: rapid.StringMatching(`[0-9]{2}[A-Z]{2}[0-9]{2}`).Draw(t, "school")}
		v.Scheme = raw.Scheme(rapid.IntRange(1, 4).Draw(t, "scheme"))
		v.Value = rapid.StringN(1, 30, 90).Draw(t, "value") // bars and all
		if v.Scheme == raw.SchemePublisher {
			v.Publisher = rapid.StringMatching(`[a-z0-9][a-z0-9._-]{0,9}`).Draw(t, "publisher")
		}
		identities.Values = append(identities.Values, v)
	}
	identities.Codes = columnOf(t, "learner codes", rapid.Int32Range(0, int32(len(identities.Values))-1), rows)
	return ids, identities
}

func drawAnswers(t *rapid.T) *raw.Answers {
	rows := rapid.IntRange(0, 30).Draw(t, "rows")
	a := &raw.Answers{Facts: answer.Facts{Rows: rows,
		Publisher: drawStrings(t, "publisher", rows), School: drawStrings(t, "school", rows), Group: drawStrings(t, "group", rows),
		Exercise: drawStrings(t, "exercise", rows), Goal: drawStrings(t, "goal", rows), Subject: drawStrings(t, "subject", rows),
		YearGroup:    columnOf(t, "year_group", rapid.Uint8Range(0, 8), rows),
		Kind:         columnOf(t, "kind", rapid.Uint8Range(1, 3), rows),
		Score:        columnOf(t, "score", rapid.Float64Range(0, 1), rows),
		Attempt:      columnOf(t, "attempt", rapid.Uint16(), rows),
		ResponseTime: columnOf(t, "response time", rapid.Int32Min(-1), rows),
		AnsweredAt:   columnOf(t, "answered_at", rapid.Int64(), rows),
		Revision:     columnOf(t, "revision", rapid.Uint32(), rows),
	}}
	a.EventID, a.Identity = drawIdentified(t, rows)
	return a
}

func drawResults(t *rapid.T) *raw.TestResults {
	rows := rapid.IntRange(0, 12).Draw(t, "rows")
	count := rapid.Int32Range(-1, 1000)
	r := &raw.TestResults{TestFacts: answer.TestFacts{Rows: rows,
		Publisher: drawStrings(t, "publisher", rows), School: drawStrings(t, "school", rows), Group: drawStrings(t, "group", rows),
		Test: drawStrings(t, "test", rows), TestName: drawStrings(t, "test_name", rows), Subject: drawStrings(t, "subject", rows), Part: drawStrings(t, "part", rows),
		YearGroup: columnOf(t, "year_group", rapid.Uint8Range(0, 8), rows),
		TakenOn:   columnOf(t, "taken_on", rapid.Int32(), rows),
		Score:     columnOf(t, "score", rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN())), rows),
		MaxScore:  columnOf(t, "max_score", rapid.Float64(), rows),
		Made:      columnOf(t, "made", count, rows), Right: columnOf(t, "right", count, rows), Wrong: columnOf(t, "wrong", count, rows),
		DurationS: columnOf(t, "duration_s", count, rows),
		Revision:  columnOf(t, "revision", rapid.Uint32(), rows),
	}}
	for range rows {
		r.Path = append(r.Path, rapid.SliceOfN(rapid.StringN(1, 9, 30), 0, 3).Draw(t, "path"))
		kinds := rapid.SliceOfN(rapid.StringN(1, 9, 30), 0, 3).Draw(t, "norms")
		r.NormKinds = append(r.NormKinds, kinds)
		r.NormValues = append(r.NormValues, columnOf(t, "norm values", rapid.Float64(), len(kinds)))
	}
	r.EventID, r.Identity = drawIdentified(t, rows)
	return r
}

// seen is everything a reader of the columns gets, row by row, and beyond the
// redaction.
func seen(rows int, ids *raw.Texts, identities *raw.Identities, facts ...func(row int) any) []string {
	var out []string
	for i := range rows {
		id := identities.At(i)
		line := fmt.Sprintf("%q %q %q %d %q", ids.At(i), id.School, id.Publisher, id.Scheme, id.Value)
		for _, f := range facts {
			line += fmt.Sprintf(" %q", fmt.Sprint(f(i)))
		}
		out = append(out, line)
	}
	return out
}

func answersSeen(a *raw.Answers) []string {
	return seen(a.Rows, &a.EventID, &a.Identity, func(i int) any {
		return []any{a.Publisher.At(i), a.School.At(i), a.Group.At(i), a.Exercise.At(i), a.Goal.At(i), a.Subject.At(i), a.YearGroup[i], a.Kind[i],
			math.Float64bits(a.Score[i]), a.Attempt[i], a.ResponseTime[i], a.AnsweredAt[i], a.Revision[i]}
	})
}

func resultsSeen(r *raw.TestResults) []string {
	return seen(r.Rows, &r.EventID, &r.Identity, func(i int) any {
		return []any{r.Publisher.At(i), r.School.At(i), r.Group.At(i), r.Test.At(i), r.TestName.At(i), r.Subject.At(i), r.Part.At(i), r.YearGroup[i], r.TakenOn[i],
			math.Float64bits(r.Score[i]), math.Float64bits(r.MaxScore[i]), r.Made[i], r.Right[i], r.Wrong[i], r.DurationS[i], r.Revision[i],
			len(r.Path[i]), r.Path[i], len(r.NormKinds[i]), r.NormKinds[i], r.NormValues[i]}
	})
}

func TestAnswersSurviveSealAndCodec(t *testing.T) {
	t.Parallel()
	writer, reader := newEnds(t)
	got := new(raw.Answers)
	rapid.Check(t, func(t *rapid.T) {
		want := drawAnswers(t)
		partition := rapid.IntRange(0, 63).Draw(t, "partition")
		message, err := writer.AppendAnswers(nil, partition, want)
		if err != nil {
			t.Fatalf("AppendAnswers: %v", err)
		}
		if err := reader.Read(raw.SchemaAnswers, partition, message, got, nil); err != nil {
			t.Fatalf("Read: %v", err)
		}
		if !reflect.DeepEqual(answersSeen(got), answersSeen(want)) {
			t.Fatalf("read = %v, want %v", answersSeen(got), answersSeen(want))
		}
	})
}

func TestTestResultsSurviveSealAndCodec(t *testing.T) {
	t.Parallel()
	writer, reader := newEnds(t)
	got := new(raw.TestResults)
	rapid.Check(t, func(t *rapid.T) {
		want := drawResults(t)
		message, err := writer.AppendTestResults(nil, 3, want)
		if err != nil {
			t.Fatalf("AppendTestResults: %v", err)
		}
		if err := reader.Read(raw.SchemaTestResults, 3, message, nil, got); err != nil {
			t.Fatalf("Read: %v", err)
		}
		if !reflect.DeepEqual(resultsSeen(got), resultsSeen(want)) {
			t.Fatalf("read = %v, want %v", resultsSeen(got), resultsSeen(want))
		}
	})
}

// smallAnswers is one message with a marked learner.
func smallAnswers(value string) *raw.Answers {
	one := func(v string) answer.Strings { return answer.Strings{Codes: []int32{0}, Values: []string{v}} }
	return &raw.Answers{
		Facts: answer.Facts{Rows: 1, Publisher: one("bingel"), School: one("12AB00"), Group: one("5A"), Exercise: one("o7"), Goal: one("optellen"),
			Subject: one("rekenen"), YearGroup: []uint8{5}, Kind: []uint8{1}, Score: []float64{1}, Attempt: []uint16{1}, ResponseTime: []int32{8200},
			AnsweredAt: []int64{1790000000000}, Revision: []uint32{0}},
		EventID:  raw.Texts{Offsets: []int32{0, 6}, Bytes: []byte("b-0001")},
		Identity: raw.Identities{Codes: []int32{0}, Values: []raw.Identity{{School: "12AB00", Identifier: raw.Identifier{Scheme: raw.SchemeLAS, Value: value}}}},
	}
}

func TestSealedMessageHidesTheLearner(t *testing.T) {
	t.Parallel()
	writer, _ := newEnds(t)
	message, err := writer.AppendAnswers(nil, 0, smallAnswers("canary-4711"))
	if err != nil {
		t.Fatal(err)
	}
	for _, marked := range []string{"canary-4711", "b-0001", "12AB00", "rekenen", "learner"} {
		if bytes.Contains(message, []byte(marked)) {
			t.Errorf("the sealed message shows %q", marked)
		}
	}
}

func TestReadRefusesAnotherPlaceOrSchema(t *testing.T) {
	t.Parallel()
	writer, reader := newEnds(t)
	message, err := writer.AppendAnswers(nil, 5, smallAnswers("4711"))
	if err != nil {
		t.Fatal(err)
	}
	var answers raw.Answers
	var results raw.TestResults
	for _, c := range []struct {
		name, schema string
		partition    int
		want         error
	}{
		{"another partition", raw.SchemaAnswers, 6, seal.ErrOpen},
		{"another schema", raw.SchemaTestResults, 5, seal.ErrOpen},
		{"an unknown schema", "raw-answers.v9", 5, raw.ErrSchema},
		{"the schema of a later topic", answer.SchemaAnswers, 5, raw.ErrSchema},
		{"its own place", raw.SchemaAnswers, 5, nil},
	} {
		if err := reader.Read(c.schema, c.partition, message, &answers, &results); !errors.Is(err, c.want) {
			t.Errorf("Read in %s = %v, want %v", c.name, err, c.want)
		}
	}
}

// A writer with the right key but another program's columns must not pass.
func TestReadRefusesForeignColumns(t *testing.T) {
	t.Parallel()
	writer, reader := newEnds(t)
	var answers raw.Answers
	inner := func(packed string) func(e *raw.Encoder, dst []byte) ([]byte, error) {
		return func(e *raw.Encoder, dst []byte) ([]byte, error) {
			a := smallAnswers("x")
			return e.AppendPackedAnswers(dst, &a.Facts, &a.EventID, a.Identity.Codes, []string{packed})
		}
	}
	for _, packed := range []string{"", "3", "3|", "3|12AB00|", "3|12AB00||", "0|12AB00||x", "5|12AB00||x", "3||x", "3|||x", "3|12AB00|bingel|x", "4|12AB00||x", "x12AB00||x"} {
		message, err := writer.Append(nil, raw.SchemaAnswers, 0, inner(packed))
		if err != nil {
			t.Fatal(err)
		}
		if err := reader.Read(raw.SchemaAnswers, 0, message, &answers, nil); !errors.Is(err, column.ErrMalformed) {
			t.Errorf("Read(packed identity %q) = %v, want ErrMalformed", packed, err)
		}
	}
	for name, encode := range map[string]func(e *raw.Encoder, dst []byte) ([]byte, error){
		"nothing": func(_ *raw.Encoder, dst []byte) ([]byte, error) { return dst, nil },
		"text":    func(_ *raw.Encoder, dst []byte) ([]byte, error) { return append(dst, "no arrow"...), nil },
		"results": func(e *raw.Encoder, dst []byte) ([]byte, error) { return e.AppendTestResults(dst, &raw.TestResults{}) },
	} {
		message, err := writer.Append(nil, raw.SchemaAnswers, 0, encode)
		if err != nil {
			t.Fatal(err)
		}
		if err := reader.Read(raw.SchemaAnswers, 0, message, &answers, nil); !errors.Is(err, column.ErrMalformed) {
			t.Errorf("Read(%s) = %v, want ErrMalformed", name, err)
		}
	}
}

// Arrow's reader dies on forged lengths, so nothing forged may reach it: every
// damaged message must end at the seal.
func FuzzRead(f *testing.F) {
	writer, reader := newEnds(f)
	message, err := writer.AppendAnswers(nil, 0, smallAnswers("4711"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message)
	f.Add(message[:len(message)/2])
	f.Add(append(bytes.Clone(message), 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Equal(data, message) {
			return
		}
		var answers raw.Answers
		if err := reader.Read(raw.SchemaAnswers, 0, data, &answers, nil); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("Read(forged) = %v, want ErrOpen", err)
		}
	})
}
