package transform_test

import (
	"fmt"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// snapshotOf makes version 1 with a difficulty for every second item and goal.
func snapshotOf(catalog *transform.Catalog, w *workload) (*transform.Snapshot, difficulties) {
	rows := transform.SnapshotRows{Version: 1}
	values := make(difficulties)
	add := func(component transform.Component, key string, g filter.Gaussian) {
		rows.Component = append(rows.Component, component)
		rows.Key = append(rows.Key, key)
		rows.Mean = append(rows.Mean, g.Mean)
		rows.Variance = append(rows.Variance, g.Variance)
		values[componentName{component, key}] = g
	}
	for item := 0; item < w.items; item += 2 {
		key := answer.ItemKey([2]string{"bingel", "gynzy"}[item%2], w.exercise(item))
		add(transform.ComponentItem, key, filter.Gaussian{Mean: w.difficulty(item), Variance: 0.1})
	}
	for goal := 0; goal < 11; goal += 2 {
		add(transform.ComponentGoal, fmt.Sprintf("doel-%d", goal), filter.Gaussian{Mean: 0.1 * float64(goal), Variance: 0.05})
	}
	add(transform.ComponentGlobal, "", filter.Gaussian{Mean: -0.7, Variance: 0.01})
	empty := transform.EmptySnapshot(new(filter.DefaultParameters()))
	return empty.With(catalog, &rows), values
}

func TestApplyEqualsOracle(t *testing.T) {
	t.Parallel()
	w := newWorkload(newRandom(t), 60, 300)
	w.plain = true // corrections are for the stage
	catalog := transform.NewCatalog()
	p, want := transform.NewPartition(filter.DefaultParameters(), catalog), newOracle()
	second, values := snapshotOf(catalog, w)
	snapshots := []*transform.Snapshot{transform.EmptySnapshot(new(filter.DefaultParameters())), second}
	read := []difficulties{{}, values}
	var changes transform.SkillRows
	for rawOffset := range int64(80) {
		c := w.message(rawOffset, 1+w.random.IntN(150))
		repeat := make([]bool, c.Rows)
		for _, row := range p.Scan(c, nil) {
			repeat[row] = c.Revision[row] > 0 || wasSeen(want, c, int(row))
		}
		p.Apply(c, repeat, snapshots[rawOffset/40])
		want.apply(c, read[rawOffset/40])
		changes.Reset()
		p.Changes(&changes)
		all, expected := want.rows(), make(map[layerName]skillRow)
		for name := range want.changed {
			expected[name] = all[name]
		}
		sameMaps(t, fmt.Sprintf("changes of message %d", rawOffset), skillRowsOf(t, &changes), expected)
		if t.Failed() {
			return
		}
	}
	var checkpoint transform.Checkpoint
	p.Checkpoint(&checkpoint)
	sameMaps(t, "skills", skillRowsOf(t, &checkpoint.Skills), want.rows())
	sameMaps(t, "sums", sumRowsOf(&checkpoint.Sums), sumsOf(want))
	checkNorms(t, p, want)
}

// wasSeen tells whether an earlier row, in an earlier message or this one, is the
// same answer.
func wasSeen(o *oracle, c *answer.Columns, row int) bool {
	key := answerKey{c.School.At(row), c.Learner.At(row), c.AnsweredAt[row], c.EventID[row]}
	if _, ok := o.seen[key]; ok {
		return true
	}
	for i := range row {
		if key == (answerKey{c.School.At(i), c.Learner.At(i), c.AnsweredAt[i], c.EventID[i]}) {
			return true
		}
	}
	return false
}

func sumRowsOf(r *transform.ItemSumRows) map[componentName]oracleSum {
	all := make(map[componentName]oracleSum)
	for i := range r.Len() {
		all[componentName{r.Component[i], r.Key[i]}] = oracleSum{r.Goal[i], r.Subject[i], r.Gradient[i], r.Information[i],
			r.Answers[i], r.ScoreSum[i], r.Position[i]}
	}
	return all
}

func sumsOf(o *oracle) map[componentName]oracleSum {
	all := make(map[componentName]oracleSum)
	for name, s := range o.sums {
		all[name] = *s
	}
	return all
}

func checkNorms(t *testing.T, p *transform.Partition, want *oracle) {
	t.Helper()
	var rows transform.NormRows
	p.TakeNorms(&rows)
	got := make(map[string]int64)
	for i := range rows.Len() {
		for n, bin := range rows.Bins[i] {
			got[fmt.Sprint(rows.Layer[i], rows.Key[i], rows.YearGroup[i], bin)] += rows.Counts[i][n]
		}
	}
	expected := make(map[string]int64)
	for name, bins := range want.norms() {
		for bin, n := range bins {
			expected[fmt.Sprint(name.layer, name.key, name.yearGroup, bin)] = n
		}
	}
	sameMaps(t, "norms", got, expected)
	rows.Reset()
	if p.TakeNorms(&rows); rows.Len() != 0 {
		t.Errorf("norms taken twice: %d rows changed, want none", rows.Len())
	}
}

// TestRestoreContinues restores at a random message from checkpoints made at
// random, and replays the log from a random message before that.
func TestRestoreContinues(t *testing.T) {
	t.Parallel()
	random := newRandom(t)
	w := newWorkload(random, 40, 100)
	w.calm = true // repeats are for the stage
	var messages []*answer.Columns
	for rawOffset := range int64(60) {
		messages = append(messages, w.message(rawOffset, 1+random.IntN(60)))
	}
	want := newOracle()
	for _, c := range messages {
		want.apply(c, difficulties{})
	}
	empty := transform.EmptySnapshot(new(filter.DefaultParameters()))
	for range 20 {
		p := transform.NewPartition(filter.DefaultParameters(), transform.NewCatalog())
		var durable transform.Restored
		crash, from := random.IntN(len(messages)), 0
		for i, c := range messages[:crash] {
			p.Apply(c, nil, empty)
			if random.IntN(5) == 0 {
				from = i + 1
			}
			if i+1 == crash || random.IntN(4) == 0 {
				absorb(p, &durable)
			}
		}
		p = transform.NewPartition(filter.DefaultParameters(), transform.NewCatalog())
		if err := p.Restore(&durable); err != nil {
			t.Fatal(err)
		}
		for _, c := range messages[min(from, crash):] {
			p.Apply(c, nil, empty)
		}
		var rest transform.Checkpoint
		p.Checkpoint(&rest)
		merge(&durable, &rest)
		sameMaps(t, "skills", skillRowsOf(t, &durable.Skills), want.rows())
		sameMaps(t, "sums", sumRowsOf(&durable.Sums), sumsOf(want))
		checkNorms(t, p, want)
		if t.Failed() {
			t.Fatalf("crash before message %d, replay from %d", crash, from)
		}
	}
}

func absorb(p *transform.Partition, durable *transform.Restored) {
	var c transform.Checkpoint
	p.Checkpoint(&c)
	merge(durable, &c)
}

// merge keeps the row with the highest position of each key, as the store does.
func merge(durable *transform.Restored, c *transform.Checkpoint) {
	skills, sums := durable.Skills, durable.Sums
	durable.Skills, durable.Sums = transform.SkillRows{}, transform.ItemSumRows{}
	fresh := make(map[layerName]bool)
	touched := make(map[answer.Token]bool)
	for i := range c.Skills.Len() {
		fresh[layerName{c.Skills.Learner[i], c.Skills.Layer[i], c.Skills.Key[i]}] = true
		touched[c.Skills.Learner[i]] = true
	}
	// Old rows of a learner go beside the new ones: they must stand together.
	for i := range skills.Len() {
		if !touched[skills.Learner[i]] {
			durable.Skills.Append(&skills, i)
		}
	}
	for i := range c.Skills.Len() {
		durable.Skills.Append(&c.Skills, i)
		if i+1 < c.Skills.Len() && c.Skills.Learner[i+1] == c.Skills.Learner[i] {
			continue
		}
		for j := range skills.Len() {
			name := layerName{skills.Learner[j], skills.Layer[j], skills.Key[j]}
			if name.learner == c.Skills.Learner[i] && !fresh[name] {
				durable.Skills.Append(&skills, j)
			}
		}
	}
	newSums := make(map[componentName]bool)
	for i := range c.Sums.Len() {
		newSums[componentName{c.Sums.Component[i], c.Sums.Key[i]}] = true
		durable.Sums.Append(&c.Sums, i)
	}
	for i := range sums.Len() {
		if !newSums[componentName{sums.Component[i], sums.Key[i]}] {
			durable.Sums.Append(&sums, i)
		}
	}
	durable.Position = max(durable.Position, c.Position)
}
