package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/store"
)

// testResults makes the next message of a partition: test results of its schools,
// one for each id, the score telling which message it came with.
func (w *workload) testResults(partition int, revision uint32, ids ...byte) *answer.TestResults {
	facts := w.message(partition, len(ids))
	c := &answer.TestResults{KeyEpoch: 1, RawOffset: facts.RawOffset, Learner: facts.Learner}
	c.Rows, c.School = len(ids), answer.Strings{Codes: make([]int32, len(ids)), Values: facts.School.Values}
	for row, id := range ids {
		c.Learner.Codes[row] = int32(id) % 200 // of the first school
		c.EventID = append(c.EventID, answer.EventID{id})
		c.TakenOn = append(c.TakenOn, 20_500+int32(id%3))
		c.Score = append(c.Score, float64(facts.RawOffset))
		c.MaxScore = append(c.MaxScore, 40)
		c.Revision = append(c.Revision, revision)
		c.YearGroup, c.Path = append(c.YearGroup, 5), append(c.Path, []string{"geheel"})
		for _, n := range []*[]int32{&c.Made, &c.Right, &c.Wrong, &c.DurationS} {
			*n = append(*n, -1)
		}
		c.NormKinds, c.NormValues = append(c.NormKinds, nil), append(c.NormValues, nil)
	}
	one := answer.Strings{Codes: make([]int32, len(ids)), Values: []string{"x"}}
	c.Publisher, c.Group, c.Test, c.TestName, c.Subject, c.Part = one, one, one, one, one, one
	return c
}

func (p *pipeline) deliverTests(t *testing.T, partition int, c *answer.TestResults) {
	t.Helper()
	p.deliverRaw(t, partition, c.RawOffset, c.Rows)
	var encoder answer.Encoder
	value, err := encoder.AppendTestResults(nil, c)
	if err != nil {
		t.Fatal(err)
	}
	p.deliverAnswers(t, partition, c.RawOffset, c.Rows, answer.SchemaTestResults, value)
}

// TestTestResultsStandOnce delivers test results again and corrects them, also to
// another day: the archive has each once, as it was last, and the comparison of
// what came with what is there holds.
func TestTestResultsStandOnce(t *testing.T) {
	t.Parallel()
	p := startPipeline(t)
	first := p.work.testResults(1, 0, 1, 2, 3, 4, 5)
	p.deliverTests(t, 1, first)
	checked := func(what string) map[string]store.Line {
		t.Helper()
		lines, err := p.check(t, 30*time.Second)
		if err != nil {
			t.Fatalf("Check after %s = %v%s", what, err, describe(lines))
		}
		return lines
	}
	checked("a delivery")
	p.deliverTests(t, 1, p.work.testResults(1, 0, 2, 3, 3, 9)) // repeats, of which one in the message, and a new one
	checked("repeats")
	correction := p.work.testResults(1, 2, 3, 4, 8) // also of something that never came
	correction.TakenOn[1] += 30
	p.deliverTests(t, 1, correction)
	lines := checked("corrections")
	if got, want := lines["test results are archived once"].Detail, "7 rows of 3 messages, 2 corrections beside them"; got != want {
		t.Errorf("archived: %s, want %s", got, want)
	}
	p.deliverTests(t, 1, p.work.testResults(1, 0, 3, 4)) // the originals once more
	p.deliverTests(t, 1, p.work.testResults(1, 1, 3, 4)) // and a correction that is older
	checked("old ones again")
	for query, want := range map[string]int64{
		"SELECT count() FROM {t} FINAL":                                                               7,
		"SELECT count() FROM {t} FINAL WHERE score = 0 AND revision = 0":                              3,
		"SELECT count() FROM {t} FINAL WHERE score = 2 AND revision = 2 AND corrected > 0":            2,
		"SELECT count() FROM {t} FINAL WHERE taken_on = addDays(toDate32('1970-01-01'), 20501 + 30)":  1,
		"SELECT count() FROM {t} FINAL WHERE substring(id, 1, 1) = char(4)":                           1,
		"SELECT count() FROM {t} WHERE is_deleted = 1 AND (score IS NOT NULL OR notEmpty(publisher))": 0,
	} {
		p.store.want(t, "test_results", query, want)
	}
	p.stop()
	p.store.execute(t, "ALTER TABLE "+p.store.table("test_results")+" DELETE WHERE substring(id, 1, 1) = char(5)")
	if lines, err := p.check(t, time.Millisecond); !errors.Is(err, store.ErrDifference) || lines["test results are archived once"].OK {
		t.Errorf("Check when a test result is lost = %v%s, want a difference", err, describe(lines))
	}
}
