package store_test

import (
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// TestEventsOfTwoWhoAreOneCountOnce: a publisher delivered the same answers and test
// results for two learners, who then become one, or a correction brings one to
// where the other stands. Each stands once, where it was delivered first, and fsck finds that everything is accounted for.
func TestEventsOfTwoWhoAreOneCountOnce(t *testing.T) {
	t.Parallel()
	const partition, rows = 1, 12
	p := startPipeline(t)
	first := p.work.message(partition, rows)
	of := [2]int32{0, 1} // learners of the first school of the partition
	again := p.work.message(partition, rows)
	for row := range rows {
		first.School.Codes[row], first.Learner.Codes[row] = 0, of[0]
		again.School.Codes[row], again.Learner.Codes[row] = 0, of[1]
		again.EventID[row], again.AnsweredAt[row] = first.EventID[row], first.AnsweredAt[row]
	}
	p.deliver(t, partition, first)
	p.deliver(t, partition, again)
	tests := p.work.testResults(partition, 0, 0, 1, 2)
	same := p.work.testResults(partition, 0, 0, 1, 2)
	for row := range tests.Rows {
		tests.Learner.Codes[row], same.Learner.Codes[row] = of[0], of[1]
	}
	p.deliverTests(t, partition, tests)
	p.deliverTests(t, partition, same)
	checked := func(what string, answers, testResults int64) {
		t.Helper()
		if lines, err := p.check(t, 30*time.Second); err != nil {
			t.Fatalf("Check after %s = %v%s", what, err, describe(lines))
		}
		p.store.want(t, "answers", "SELECT count() FROM {t} FINAL", answers)
		p.store.want(t, "test_results", "SELECT count() FROM {t} FINAL", testResults)
	}
	checked("deliveries for two", 2*rows, 6)
	// One correction stays with the first learner; the other brings an answer to
	// where the second one has it.
	corrected := p.work.message(partition, 2)
	for row, learner := range of {
		corrected.School.Codes[row], corrected.Learner.Codes[row] = 0, learner
		corrected.EventID[row], corrected.AnsweredAt[row], corrected.Revision[row] = first.EventID[row], first.AnsweredAt[row], 1
	}
	p.deliver(t, partition, corrected)
	checked("a correction", 2*rows-1, 6)

	order := answer.Commands{Rows: 1, RawOffset: p.work.offset[partition], KeyEpoch: 1, Kind: []answer.CommandKind{answer.CommandMove}}
	p.work.offset[partition]++
	order.School = answer.Strings{Codes: []int32{0}, Values: first.School.Values[:1]}
	order.Learner = answer.Tokens{Codes: []int32{0}, Values: first.Learner.Values[of[0]:]}
	order.Into = answer.Tokens{Codes: []int32{0}, Values: first.Learner.Values[of[1]:]}
	p.deliverCommands(t, partition, &order)
	checked("a merge", rows, 3)
	p.store.want(t, "answers", "SELECT countIf(source_offset = 0) FROM {t} FINAL", rows)
	p.store.want(t, "answers", "SELECT countIf(revision = 1) FROM {t} FINAL", 2)
	p.store.want(t, "erased", "SELECT sum(rows) FROM {t} FINAL WHERE reason = 'double'", rows+3)
	again.RawOffset = p.work.offset[partition]
	p.work.offset[partition]++
	p.deliver(t, partition, again)
	checked("the same once more", rows, 3)
}
