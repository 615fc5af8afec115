package answer_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/column"
	"pgregory.net/rapid"
)

func dictionary(t *rapid.T, label string, rows int) answer.Strings {
	values := rapid.SliceOfN(rapid.StringN(0, 12, 40), 1, 9).Draw(t, label)
	return answer.Strings{Values: values, Codes: codes(t, label, rows, len(values))}
}

func codes(t *rapid.T, label string, rows, values int) []int32 {
	return rapid.SliceOfN(rapid.Int32Range(0, int32(values)-1), rows, rows).Draw(t, label+" codes")
}

func rowsOf[T any](t *rapid.T, label string, g *rapid.Generator[T], rows int) []T {
	return rapid.SliceOfN(g, rows, rows).Draw(t, label)
}

func drawAnswers(t *rapid.T) *answer.Columns {
	rows := rapid.IntRange(0, 40).Draw(t, "rows")
	c := &answer.Columns{}
	c.Rows = rows
	c.Publisher, c.School, c.Group = dictionary(t, "publisher", rows), dictionary(t, "school", rows), dictionary(t, "group", rows)
	c.Exercise, c.Goal, c.Subject = dictionary(t, "exercise", rows), dictionary(t, "goal", rows), dictionary(t, "subject", rows)
	c.YearGroup = rowsOf(t, "year_group", rapid.Uint8Range(0, 8), rows)
	c.Kind = rowsOf(t, "kind", rapid.Uint8Range(1, 3), rows)
	c.Score = rowsOf(t, "score", rapid.Float64Range(0, 1), rows)
	c.Attempt = rowsOf(t, "attempt", rapid.Uint16(), rows)
	c.ResponseTime = rowsOf(t, "response_time", rapid.Int32Min(-1), rows)
	c.AnsweredAt = rowsOf(t, "answered_at", rapid.Int64(), rows)
	c.Revision = rowsOf(t, "revision", rapid.Uint32(), rows)
	for range rows {
		c.EventID = append(c.EventID, answer.EventID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")))
	}
	for range rapid.IntRange(1, 5).Draw(t, "learners") {
		c.Learner.Values = append(c.Learner.Values, answer.MintToken([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "token"))))
	}
	c.Learner.Codes = codes(t, "learner", rows, len(c.Learner.Values))
	return c
}

// text prints what a reader of the columns sees, row by row.
func text(c *answer.Columns) []string {
	var out []string
	for i := range c.Rows {
		out = append(out, fmt.Sprint(c.EventID[i], c.Learner.At(i), c.Publisher.At(i), c.School.At(i), c.Group.At(i), c.Exercise.At(i), c.Goal.At(i), c.Subject.At(i),
			c.YearGroup[i], c.Kind[i], math.Float64bits(c.Score[i]), c.Attempt[i], c.ResponseTime[i], c.AnsweredAt[i], c.Revision[i]))
	}
	return out
}

func TestAnswersSurviveTheCodec(t *testing.T) {
	t.Parallel()
	var encoder answer.Encoder
	var decoder answer.Decoder
	got := new(answer.Columns)
	rapid.Check(t, func(t *rapid.T) {
		want := drawAnswers(t)
		message, err := encoder.AppendAnswers(nil, want)
		if err != nil {
			t.Fatalf("AppendAnswers: %v", err)
		}
		if err := decoder.Answers(message, got); err != nil {
			t.Fatalf("Answers: %v", err)
		}
		if !reflect.DeepEqual(text(got), text(want)) {
			t.Fatalf("decoded = %v, want %v", text(got), text(want))
		}
	})
}

func TestTestResultsSurviveTheCodec(t *testing.T) {
	t.Parallel()
	one := func(v string) answer.Strings { return answer.Strings{Codes: []int32{0, 0}, Values: []string{v}} }
	want := &answer.TestResults{TestFacts: answer.TestFacts{Rows: 2, Publisher: one("baps"), School: one("12AB00"), Group: one("5A"),
		Test: one("pp4"), TestName: one("Pluspunt"), Subject: one("rekenen"), Part: one("bewerkingen"), Path: [][]string{{"blok 3", "bewerkingen"}, nil},
		YearGroup: []uint8{5, 0}, TakenOn: []int32{20000, 20001}, Score: []float64{17, 0}, MaxScore: []float64{20, 20}, Made: []int32{20, -1},
		Right: []int32{17, -1}, Wrong: []int32{3, -1}, DurationS: []int32{1500, -1}, NormKinds: [][]string{{"vaardigheidsscore"}, nil},
		NormValues: [][]float64{{83}, {}}, Revision: []uint32{0, 1}},
		EventID: []answer.EventID{{1}, {2}}, Learner: answer.Tokens{Codes: []int32{0, 1}, Values: []answer.Token{answer.MintToken([16]byte{7}), answer.MintToken([16]byte{8})}}}
	var encoder answer.Encoder
	message, err := encoder.AppendTestResults(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	var decoder answer.Decoder
	var got answer.TestResults
	if err := decoder.TestResults(message, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("decoded = %+v, want %+v", got, want)
	}
}

func TestEncodeRefusesACodeOutsideItsDictionary(t *testing.T) {
	t.Parallel()
	for _, code := range []int32{-1, 1} {
		c := &answer.Columns{EventID: []answer.EventID{{1}}, Learner: answer.Tokens{Codes: []int32{code}, Values: make([]answer.Token, 1)}}
		c.Rows = 1
		var encoder answer.Encoder
		if _, err := encoder.AppendAnswers(nil, c); err == nil {
			t.Errorf("AppendAnswers(code %d) = nil, want an error", code)
		}
	}
}

func TestDecodeRefusesAnotherSchema(t *testing.T) {
	t.Parallel()
	var encoder answer.Encoder
	message, err := encoder.AppendAnswers(nil, &answer.Columns{})
	if err != nil {
		t.Fatal(err)
	}
	var decoder answer.Decoder
	var results answer.TestResults
	if err := decoder.TestResults(message, &results); !errors.Is(err, column.ErrMalformed) {
		t.Errorf("TestResults(answers message) = %v, want ErrMalformed", err)
	}
}

func TestPositionsOrderRows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		offset, row := rapid.Int64Range(0, 1<<43).Draw(t, "offset"), rapid.IntRange(0, answer.MaxRows-1).Draw(t, "row")
		p := answer.At(offset, row)
		if p.RawOffset() != offset || p.Row() != row {
			t.Fatalf("At(%d, %d) = (%d, %d)", offset, row, p.RawOffset(), p.Row())
		}
		if answer.At(offset+1, 0) <= p {
			t.Fatalf("At(%d, 0) does not follow At(%d, %d)", offset+1, offset, row)
		}
	})
}

func TestPartitionOfIsStable(t *testing.T) {
	t.Parallel()
	// A change of this function would split a school over two partitions.
	for school, want := range map[string]int{"12AB00": 17, "99XX01": 4, "00AA00": 23} {
		if got := answer.PartitionOf(school, 64); got != want {
			t.Errorf("PartitionOf(%q, 64) = %d, want %d", school, got, want)
		}
	}
}

func benchmarkColumns(rows int) *answer.Columns {
	c := &answer.Columns{}
	c.Rows = rows
	fill := func(s *answer.Strings, n int, format string) {
		n = min(n, rows)
		for i := range n {
			s.Values = append(s.Values, fmt.Sprintf(format, i))
		}
		for i := range rows {
			s.Codes = append(s.Codes, int32(i*7919%n))
		}
	}
	fill(&c.Publisher, 1, "publisher-%d")
	fill(&c.School, 2, "12AB%02d")
	fill(&c.Group, 16, "group-%d")
	fill(&c.Exercise, 1000, "exercise-wig5-b3-l2-o%d")
	fill(&c.Goal, 20, "goal-%d")
	fill(&c.Subject, 3, "subject-%d")
	learners := min(400, rows)
	for i := range learners {
		c.Learner.Values = append(c.Learner.Values, answer.MintToken([16]byte{byte(i), byte(i >> 8), 9}))
	}
	for i := range rows {
		c.Learner.Codes = append(c.Learner.Codes, int32(i*31%learners))
		c.EventID = append(c.EventID, answer.EventID{byte(i), byte(i >> 8), byte(i * 7), byte(i * 13), byte(i * 31), byte(i * 91), 3, 4})
		c.YearGroup = append(c.YearGroup, uint8(i%8+1))
		c.Kind = append(c.Kind, 1)
		c.Score = append(c.Score, float64(i*2654435761>>7&1))
		c.Attempt = append(c.Attempt, 1)
		c.ResponseTime = append(c.ResponseTime, int32(i*2654435761>>9&0x3fff))
		c.AnsweredAt = append(c.AnsweredAt, 1790000000000+int64(i*137))
		c.Revision = append(c.Revision, 0)
	}
	return c
}

func BenchmarkEncode(b *testing.B) {
	for _, rows := range []int{10, 8192, 20000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			c := benchmarkColumns(rows)
			var encoder answer.Encoder
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = encoder.AppendAnswers(dst[:0], c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(dst))/float64(rows), "B/row")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, rows := range []int{10, 8192, 20000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			var encoder answer.Encoder
			message, err := encoder.AppendAnswers(nil, benchmarkColumns(rows))
			if err != nil {
				b.Fatal(err)
			}
			var decoder answer.Decoder
			var c answer.Columns
			b.ReportAllocs()
			for b.Loop() {
				if err := decoder.Answers(message, &c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
		})
	}
}
