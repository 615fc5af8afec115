package bench

import (
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// TestRawMessages compares the columns with the rows that the schools deliver.
func TestRawMessages(t *testing.T) {
	t.Parallel()
	const partitions, messageRows = 4, 700
	p := testPopulation(t, PopulationConfig{Seed: 9, Schools: 9, Learners: 60})
	w := testWorkload(t, p, WorkloadConfig{Answers: 12_000, RepeatShare: 0.02})
	want := make([][]Row, partitions)
	for rows := range slots(w) {
		partition := answer.PartitionOf(p.Schools[p.Learners[rows[0].Learner].School].Code, partitions)
		want[partition] = append(want[partition], rows...)
	}
	for partition, a := range w.RawMessages(partitions, messageRows) {
		if a.Rows > messageRows || a.Rows < messageRows && a.Rows != len(want[partition]) {
			t.Fatalf("message of %d rows while %d are left, want %d rows", a.Rows, len(want[partition]), messageRows)
		}
		for i := range a.Rows {
			row := want[partition][i]
			learner, item := &p.Learners[row.Learner], &p.Items[row.Item]
			identity := a.Identity.At(i)
			id := string(appendEventID(nil, learner.School, row.Sequence))
			if string(a.EventID.At(i)) != id || identity.Value != p.Identifier(int(row.Learner), "eckid") ||
				identity.School != p.Schools[learner.School].Code || a.School.At(i) != identity.School ||
				a.Exercise.At(i) != item.Exercise || a.Goal.At(i) != p.Goals[item.Goal].Key ||
				a.Publisher.At(i) != p.Publishers[item.Publisher].ID || a.Group.At(i) != learner.Group ||
				a.Subject.At(i) != p.Subjects[p.Goals[item.Goal].Subject] || a.YearGroup[i] != learner.YearGroup ||
				(a.Score[i] == 1) != row.Right || a.Attempt[i] != row.Attempt || a.AnsweredAt[i] != row.AnsweredAt ||
				a.ResponseTime[i] != row.ResponseTime || a.Kind[i] != uint8(answer.KindPractice) || a.Revision[i] != 0 {
				t.Fatalf("partition %d: row %d of a message differs from the delivered row %+v", partition, i, row)
			}
		}
		want[partition] = want[partition][a.Rows:]
	}
	for partition := range want {
		if len(want[partition]) != 0 {
			t.Errorf("partition %d: %d rows are in no message", partition, len(want[partition]))
		}
	}
}

func BenchmarkRawMessages(b *testing.B) {
	p := testPopulation(b, PopulationConfig{Schools: 100})
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		w := testWorkload(b, p, WorkloadConfig{Answers: 1_000_000})
		for _, a := range w.RawMessages(64, 20_000) {
			n += a.Rows
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}
