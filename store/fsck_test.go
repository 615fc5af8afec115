package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/store"
)

// TestCheck pushes answers through the real stage; the comparison holds. Then a
// table is damaged, one after the other, and each time the right check fails.
func TestCheck(t *testing.T) {
	t.Parallel()
	p := startPipeline(t)
	for range 3 {
		for partition := range pipelinePartitions {
			p.deliver(t, partition, p.work.message(partition, 500))
		}
	}
	// A repeat of everything, and a message without rows.
	repeated := p.work.message(1, 300)
	p.deliver(t, 1, repeated)
	repeated.RawOffset = p.work.offset[1]
	p.work.offset[1]++
	p.deliver(t, 1, repeated)
	p.deliver(t, 2, &answer.Columns{RawOffset: p.work.offset[2]})
	p.work.offset[2]++
	// One that nobody can read.
	p.deliverRaw(t, 3, p.work.offset[3], 10)
	p.deliverAnswers(t, 3, p.work.offset[3], 10, "unheard.v9", []byte("nonsense"))

	lines, err := p.check(t, 30*time.Second)
	if err != nil {
		t.Fatalf("Check of whole tables = %v%s", err, describe(lines))
	}
	if len(lines) != 9 {
		t.Errorf("%d checks, want 9%s", len(lines), describe(lines))
	}
	if n := p.store.number(t, "SELECT count() FROM "+p.store.table("answers")+" FINAL"); n != 3*4*500+300 {
		t.Errorf("%d answers archived, want %d", n, 3*4*500+300)
	}
	p.stop()

	for _, damage := range damages() {
		p.damage(t, "CREATE TABLE {db}.kept ENGINE = MergeTree ORDER BY tuple() AS SELECT * FROM {db}."+damage.table+";"+damage.statements)
		lines, err := p.check(t, time.Millisecond)
		if !errors.Is(err, store.ErrDifference) {
			t.Errorf("Check when %s = %v, want ErrDifference", damage.what, err)
		}
		if lines[damage.fails].OK {
			t.Errorf("Check when %s: %q holds, want it to fail%s", damage.what, damage.fails, describe(lines))
		}
		p.damage(t, "TRUNCATE TABLE {db}."+damage.table+";INSERT INTO {db}."+damage.table+" SELECT * FROM {db}.kept;DROP TABLE {db}.kept SYNC")
		if lines, err := p.check(t, time.Millisecond); err != nil {
			t.Errorf("Check after repairing that %s = %v%s", damage.what, err, describe(lines))
		}
	}
}

// damage says what is done to a table, and which check must notice.
type damage struct{ table, what, statements, fails string }

func damages() []damage {
	return []damage{
		{"progress", "one partition has lost its progress", "ALTER TABLE {db}.progress DELETE WHERE partition = 0", "acknowledged messages are in the store"},
		{"raw_ledger", "a message is not accounted for", "ALTER TABLE {db}.raw_ledger DELETE WHERE partition = 0 AND raw_offset = 1", "every message is archived once or a dead letter"},
		{"raw_ledger", "a message was taken over in part", "ALTER TABLE {db}.raw_ledger UPDATE rows = rows - 1 WHERE partition = 0 AND raw_offset = 1",
			"every message is archived once or a dead letter"},
		{"dead_letters", "a dead letter is lost", "ALTER TABLE {db}.dead_letters DELETE WHERE partition = 3", "every message is archived once or a dead letter"},
		{"answers", "an answer is lost", "ALTER TABLE {db}.answers DELETE WHERE source_partition = 2 AND position = 1048576 + 3", "answers are archived once"},
		{"answers", "an answer has another id", "INSERT INTO {db}.answers (id, learner, school, publisher, exercise, attempt, answered_at, source_partition, position)" +
			" SELECT 'another id 4567_', learner, school, publisher, exercise, attempt, answered_at, 2, position FROM {db}.answers WHERE source_partition = 2 AND position = 1048576 + 4;" +
			"ALTER TABLE {db}.answers DELETE WHERE source_partition = 2 AND position = 1048576 + 4 AND id != 'another id 4567_'", "answers are archived once"},
		{"answers", "an answer is there twice", "INSERT INTO {db}.answers (id, learner, school, answered_at, source_partition, position)" +
			" SELECT id, learner, '99ZZ99', answered_at, 2, position FROM {db}.answers WHERE source_partition = 2 LIMIT 1", "answers are archived once"},
		{"skills", "an answer has moved a skill twice", "ALTER TABLE {db}.skills UPDATE answers = answers + 1 WHERE partition = 1 AND layer = 'overall'" +
			" AND learner IN (SELECT min(learner) FROM {db}.skills WHERE partition = 1)", "every answer has moved its learner once"},
		{"skills", "a learner is lost", "ALTER TABLE {db}.skills DELETE WHERE partition = 1 AND learner IN (SELECT min(learner) FROM {db}.skills WHERE partition = 1)",
			"every answer has moved its learner once"},
		{"item_sums", "an exercise has answers that nobody gave", "ALTER TABLE {db}.item_sums UPDATE answers = answers + 100 WHERE partition = 1" +
			" AND key IN (SELECT min(key) FROM {db}.item_sums WHERE component = 'item' AND partition = 1)", "sums match the archive"},
		{"item_sums", "an increment is lost on the way", "ALTER TABLE {db}.item_sums UPDATE gradient = gradient + 1 WHERE partition = 1 AND component = 'global'", "sums match the archive"},
		{"norms", "learners are counted twice", "ALTER TABLE {db}.norms UPDATE counts = arrayMap(n -> n + 1, counts) WHERE partition = 3 AND layer = 'overall'",
			"histograms count every learner once"},
		{"test_results", "a token belongs to nobody", "INSERT INTO {db}.test_results (id, learner, school, taken_on, source_partition, position)" +
			" SELECT 'x', 'nobody knows me.', 'a', '2026-01-01', 0, 1", "tokens are those of the registry"},
	}
}
