package query_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// loop is a school year in which every exercise is the one that the read model
// selects and every answer moves learner and exercise by transform/filter.
type loop struct {
	model      *query.ReadModel
	random     *rand.Rand
	parameters filter.Parameters
	truth      []float64 // skills
	difficulty map[string]float64
	items      map[string]*filter.Gaussian
	counts     map[string]int64
	global     filter.Gaussian
	learners   []filter.Learner
	answers    []uint32
	recent     [][]string
	given      map[string]int
	changed    map[string]bool
	version    uint64
	offset     int64
}

func newLoop(t *testing.T, learners, items int, target float64) *loop {
	l := &loop{model: model(t), random: seeded(t), parameters: filter.DefaultParameters(), difficulty: map[string]float64{},
		items: map[string]*filter.Gaussian{}, counts: map[string]int64{}, given: map[string]int{}, changed: map[string]bool{}}
	l.global = l.parameters.Shared[filter.ComponentGlobal]
	for range learners {
		l.truth = append(l.truth, l.random.NormFloat64())
		var prior filter.Learner
		for layer := range prior {
			prior[layer] = l.parameters.Prior(layer)
		}
		l.learners = append(l.learners, prior)
	}
	l.answers, l.recent = make([]uint32, learners), make([][]string, learners)
	for i := range items {
		key := fmt.Sprintf("x:%03d", i)
		l.difficulty[key] = l.random.NormFloat64() - filter.Logit(target) // made for these pupils
		g := l.parameters.Shared[filter.ComponentItem]
		l.items[key] = &g
		l.changed[key] = true
	}
	l.publish()
	return l
}

// publish makes an item snapshot of what changed.
func (l *loop) publish() {
	rows := &transform.SnapshotRows{}
	appendGlobal(rows, -l.global.Mean) // snapshots count it as difficulty
	rows.Variance[0] = l.global.Variance
	for key := range l.changed {
		appendItem(rows, key, "optellen", l.items[key].Mean, l.items[key].Variance, l.counts[key], 0.7)
	}
	clear(l.changed)
	l.version++
	l.model.ApplySnapshot(l.version, rows)
}

// step lets a learner do the selected exercise.
func (l *loop) step(t *testing.T, n int, target float64) (selected query.Selection, right float64) {
	selected, err := l.model.Next(&query.Request{Learner: token(n), Goal: "optellen", Target: target})
	if err != nil {
		t.Fatal(err)
	}
	l.given[selected.Exercise]++
	if l.random.Float64() < filter.Sigmoid(l.truth[n]-l.difficulty[selected.Exercise]) {
		right = 1
	}
	learner, item := &l.learners[n], l.items[selected.Exercise]
	if l.answers[n] > 0 {
		for layer := range learner {
			learner[layer] = l.parameters.Drift(layer, learner[layer], 0)
		}
	}
	shared := filter.Shared{filter.ComponentItem: *item, filter.ComponentGlobal: l.global}
	p := filter.Predict(learner, &shared, filter.Question{})
	learner.Update(&p, right)
	shared.Update(&p, right)
	*item, l.global = shared[filter.ComponentItem], shared[filter.ComponentGlobal]
	l.changed[selected.Exercise] = true
	l.counts[selected.Exercise]++
	l.answers[n]++
	l.offset++
	l.recent[n] = append(l.recent[n], selected.Exercise)
	l.recent[n] = l.recent[n][max(0, len(l.recent[n])-transform.MaxRecent):]
	l.apply(n)
	return selected, right
}

func (l *loop) apply(n int) {
	p := pupil{n: n, school: schoolA, group: "5A", yearGroup: 5, at: monday.UnixMilli(), position: answer.At(l.offset, 0), recent: l.recent[n]}
	rows := &transform.SkillRows{}
	for layer, key := range []string{"", "rekenen", "optellen"} {
		g := l.learners[n][layer]
		appendRow(rows, &p, row{layer: transform.Layer(layer), key: key, subject: map[bool]string{true: "rekenen"}[layer > 0], mean: g.Mean, variance: g.Variance, answers: l.answers[n]})
	}
	l.model.ApplySkills(rows)
}

// A year of a school: on average as many right answers as asked for, nearly
// every exercise used, none much more than its share, the promised share of
// random ones, none that was answered just before.
func TestYearOfASchool(t *testing.T) {
	t.Parallel()
	const learners, items = 200, 300
	rounds := 150
	if testing.Short() {
		rounds = 60
	}
	for _, target := range []float64{0.65, 0.75, 0.85} {
		l := newLoop(t, learners, items, target)
		right, chosen, random, warm := 0.0, 0, 0, 0
		for round := range rounds {
			for _, n := range l.random.Perm(learners) {
				before := append([]string(nil), l.recent[n]...)
				selected, score := l.step(t, n, target)
				for _, key := range before {
					if key == selected.Exercise && selected.Reason != query.ReasonRepeat {
						t.Fatalf("exercise %s was given again within %d answers", key, transform.MaxRecent)
					}
				}
				chosen++
				if selected.Random {
					random++
				}
				if round >= rounds/5 {
					right += score
					warm++
				}
			}
			l.publish()
		}
		share := float64(chosen) / items
		most, used := 0, 0
		for _, n := range l.given {
			most = max(most, n)
			used++
		}
		t.Logf("target %.2f: success %.3f, exercises used %d of %d, most used %.2f × share, random %.3f",
			target, right/float64(warm), used, items, float64(most)/share, float64(random)/float64(chosen))
		if got := right / float64(warm); math.Abs(got-target) > 0.03 {
			t.Errorf("target %.2f: average success %.3f, want within .03", target, got)
		}
		if float64(used) < 0.9*items {
			t.Errorf("target %.2f: %d of %d exercises used, want 90 %%", target, used, items)
		}
		if float64(most) > 2*share {
			t.Errorf("target %.2f: one exercise given %d times, its share is %.0f", target, most, share)
		}
		if got := float64(random) / float64(chosen); got < 0.05 || got > 0.12 {
			t.Errorf("target %.2f: share of random exercises %.3f, want .05 to .1", target, got)
		}
	}
}

// Random exercises are drawn evenly, whatever the learner's skill.
func TestRandomExercisesAreUniform(t *testing.T) {
	t.Parallel()
	m := model(t)
	rows := &transform.SnapshotRows{}
	const items, learners = 20, 40_000
	for i := range items {
		appendItem(rows, fmt.Sprintf("x:%02d", i), "optellen", float64(i)/5-2, 0.05, 500, 0.7)
	}
	m.ApplySnapshot(1, rows)
	counts := map[string]int{}
	total := 0
	for n := range learners {
		m.ApplySkills(skillRows(pupil{n: n, school: schoolA, yearGroup: 5, at: monday.UnixMilli(), position: 1}, 0.5, 0, map[string]float64{"optellen": 0}))
		s, err := m.Next(&query.Request{Learner: token(n), Goal: "optellen", Target: 0.75})
		if err != nil {
			t.Fatal(err)
		}
		if s.Random {
			counts[s.Exercise]++
			total++
		}
	}
	chi := 0.0
	for i := range items {
		d := float64(counts[fmt.Sprintf("x:%02d", i)]) - float64(total)/items
		chi += d * d / (float64(total) / items)
	}
	// The 99.99 % point of chi-square with 19 degrees of freedom. The draw is
	// seeded by the configuration, so this can't fail by chance.
	if chi > 50.8 || math.Abs(float64(total)/learners-0.1) > 0.01 {
		t.Errorf("%d random exercises of %d, chi-square %.1f: %v", total, learners, chi, counts)
	}
}

func TestSelectionRepeats(t *testing.T) {
	t.Parallel()
	run := func() (out []string) {
		l := newLoop(t, 1, 1, 0.75)
		rows := &transform.SnapshotRows{}
		for i := range 50 {
			appendItem(rows, fmt.Sprintf("y:%02d", i), "delen", float64(i)/10-3, 0.05, 500, 0.7)
		}
		l.model.ApplySnapshot(9, rows)
		for n := range 300 {
			l.model.ApplySkills(skillRows(pupil{n: n % 100, school: schoolA, yearGroup: 5, at: monday.UnixMilli(), position: answer.Position(n + 1)}, float64(n%20)/10-1, 0, map[string]float64{"delen": 0}))
			s, err := l.model.Next(&query.Request{Learner: token(n % 100), Goal: "delen", Target: 0.75})
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprint(s))
		}
		return out
	}
	first, second := run(), run()
	for i := range first {
		if first[i] != second[i] {
			t.Fatalf("selection %d = %s, then %s", i, first[i], second[i])
		}
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	m := query.NewReadModel(query.Config{RandomShare: -1}) // no random draws
	rows := &transform.SnapshotRows{}
	for i := range 30 {
		appendItem(rows, fmt.Sprintf("x:%02d", i), "optellen", float64(i)/10-2.5, 0.05, 500, 0.7)
		appendItem(rows, fmt.Sprintf("n:%02d", i), "nieuw", float64(i)/10-2.5, 0.9, 3, 0.7)
	}
	appendItem(rows, "m:1", "moeilijk", 4, 0.05, 500, 0.2)
	for i := range 3 {
		appendItem(rows, fmt.Sprintf("w:%d", i), "weinig", -1, 0.05, 500, 0.2)
	}
	m.ApplySnapshot(1, rows)
	m.ApplySkills(skillRows(pupil{n: 1, school: schoolA, yearGroup: 5, position: 1, recent: []string{"w:0", "w:1", "w:2"}}, 0, 0, map[string]float64{"optellen": 0, "weinig": 0}))
	for _, c := range []struct {
		learner int
		goal    string
		reason  query.Reason
	}{
		{1, "optellen", query.ReasonTarget}, {1, "nieuw", query.ReasonNewExercise}, {1, "moeilijk", query.ReasonOffTarget},
		{1, "weinig", query.ReasonRepeat}, {2, "optellen", query.ReasonNewLearner},
	} {
		s, err := m.Next(&query.Request{Learner: token(c.learner), Goal: c.goal, Target: 0.75})
		if err != nil || s.Reason != c.reason || s.Goal != c.goal {
			t.Errorf("Next(%d, %s) = %+v, %v, want reason %s", c.learner, c.goal, s, err, c.reason)
		}
	}
	if _, err := m.Next(&query.Request{Learner: token(1), Goal: "onbekend", Target: 0.75}); !errors.Is(err, query.ErrNoExercise) {
		t.Errorf("unknown goal = %v, want ErrNoExercise", err)
	}
}

// A learner of whom nothing is known is taken for an average one of the year
// group, and the higher year group gets the harder exercise.
func TestNewLearnersStartAtTheirYearGroup(t *testing.T) {
	t.Parallel()
	m := query.NewReadModel(query.Config{RandomShare: -1})
	rows := &transform.SnapshotRows{}
	for i := range 80 {
		appendItem(rows, fmt.Sprintf("x:%02d", i), "optellen", float64(i)/10-5, 0.05, 500, 0.7)
	}
	m.ApplySnapshot(1, rows)
	for n := range 400 {
		yearGroup := uint8(4 + n%2*2)
		m.ApplySkills(skillRows(pupil{n: n, school: schoolA, yearGroup: yearGroup, position: 1}, float64(yearGroup)-5, 0, nil))
	}
	skill := map[uint8]float64{}
	for _, yearGroup := range []uint8{0, 4, 6} {
		s, err := m.Next(&query.Request{Learner: token(1000), Goal: "optellen", Target: 0.75, YearGroup: yearGroup})
		if err != nil {
			t.Fatal(err)
		}
		skill[yearGroup] = s.Skill
		if math.Abs(s.Expected-0.75) > 0.05 {
			t.Errorf("year group %d: expected success %v, want about .75", yearGroup, s.Expected)
		}
	}
	if math.Abs(skill[4]+1) > 0.01 || math.Abs(skill[6]-1) > 0.01 || skill[0] != 0 {
		t.Errorf("skills of new learners = %v, want -1 in year group 4, 1 in 6, 0 without", skill)
	}
}

// Without a goal the one is taken that the learner has practised least of those
// begun; a learner who has begun none gets the one that most have.
func TestGoalsGetTheirQuota(t *testing.T) {
	t.Parallel()
	m := query.NewReadModel(query.Config{RandomShare: -1})
	rows := &transform.SnapshotRows{}
	for _, goal := range []string{"a", "b", "c", "d"} {
		for i := range 30 {
			appendItem(rows, fmt.Sprintf("x:%s%02d", goal, i), goal, float64(i)/10-2, 0.05, 500, 0.7)
		}
	}
	m.ApplySnapshot(1, rows)
	for n := range 30 {
		m.ApplySkills(skillRows(pupil{n: 100 + n, school: schoolA, yearGroup: 5, position: 1}, 0, 0, map[string]float64{"d": 0}))
	}
	counts := map[string]uint32{"a": 4, "b": 1, "c": 9}
	for step := range 60 {
		p := pupil{n: 1, school: schoolA, yearGroup: 5, position: answer.Position(step + 1)}
		states := &transform.SkillRows{}
		appendRow(states, &p, row{layer: transform.LayerOverall, variance: 0.1, answers: uint32(step)})
		for goal, n := range counts {
			appendRow(states, &p, row{layer: transform.LayerGoal, key: goal, subject: "rekenen", variance: 0.1, answers: n})
		}
		m.ApplySkills(states)
		s, err := m.Next(&query.Request{Learner: token(1), Target: 0.75})
		if err != nil {
			t.Fatal(err)
		}
		counts[s.Goal]++
	}
	for goal, n := range counts {
		if n < 24 || n > 25 {
			t.Errorf("goal %s was practised %d times of 74, want 24 or 25 of each begun: %v", goal, n, counts)
		}
	}
	if s, err := m.Next(&query.Request{Learner: token(2), Target: 0.75, YearGroup: 5}); err != nil || s.Goal != "d" {
		t.Errorf("goal of a new learner = %s, %v, want d", s.Goal, err)
	}
}

// Next allocates nothing.
func TestNextAllocatesNothing(t *testing.T) {
	m, requests := large(1000, 2000, 4)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := m.Next(&requests[i%len(requests)]); err != nil {
			t.Error(err)
		}
		i++
	}); n > 0 {
		t.Errorf("Next allocates %v times, want 0", n)
	}
}

// large is a model of learners with a number of goals each, and requests about
// them.
func large(learners, items, goals int) (*query.ReadModel, []query.Request) {
	m := query.NewReadModel(query.Config{Seed: 1})
	random := rand.New(rand.NewPCG(1, 2))
	rows := &transform.SnapshotRows{}
	appendGlobal(rows, -0.5)
	all := max(20, goals)
	for i := range items {
		appendItem(rows, fmt.Sprintf("bingel:opgave-%06d", i), fmt.Sprintf("doel-%02d", i%all), random.NormFloat64()-1, 0.05, 500, 0.7)
	}
	m.ApplySnapshot(1, rows)
	states := &transform.SkillRows{}
	ring := make([]uint64, transform.MaxRecent)
	for i := range ring {
		ring[i] = xxhash.Sum64String(fmt.Sprint(i))
	}
	var requests []query.Request
	for n := range learners {
		p := pupil{n: n, school: fmt.Sprintf("%02dAB00", n/200%90), group: fmt.Sprint(n / 25 % 8), yearGroup: uint8(3 + n%6), at: monday.UnixMilli(), position: answer.At(int64(n+1), 0)}
		appendRow(states, &p, row{layer: transform.LayerOverall, mean: random.NormFloat64(), variance: 0.1, answers: 50})
		states.Recent[states.Len()-1] = ring
		appendRow(states, &p, row{layer: transform.LayerSubject, key: "rekenen", subject: "rekenen", mean: random.NormFloat64() / 3, variance: 0.1, answers: 50})
		for g := range goals {
			goal := fmt.Sprintf("doel-%02d", (n+g)%all)
			appendRow(states, &p, row{layer: transform.LayerGoal, key: goal, subject: "rekenen", mean: random.NormFloat64() / 2, variance: 0.2, answers: 10})
			if g == 0 && len(requests) < 100_000 {
				requests = append(requests, query.Request{Learner: token(n), Goal: goal, Target: 0.75})
			}
		}
		if states.Len() > 10_000 {
			m.ApplySkills(states)
			states.Reset()
		}
	}
	m.ApplySkills(states)
	return m, requests
}

// Goals get the shares that were asked for, whatever they had before.
func TestQuotasAreKept(t *testing.T) {
	t.Parallel()
	m := model(t)
	rows := &transform.SnapshotRows{}
	quotas := []query.Quota{{Goal: "optellen", Share: 5}, {Goal: "delen", Share: 3}, {Goal: "meten", Share: 2}, {Goal: "unknown", Share: 90}}
	for _, q := range quotas[:3] {
		for i := range 40 {
			appendItem(rows, fmt.Sprintf("x:%s-%02d", q.Goal, i), q.Goal, float64(i)/10-2, 0.05, 500, 0.7)
		}
	}
	m.ApplySnapshot(1, rows)
	answers := map[string]uint32{"delen": 20}
	const total = 400
	for n := range total - 20 {
		s, err := m.Next(&query.Request{Learner: token(1), Quotas: quotas, Target: 0.75})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 && s.Goal != "optellen" {
			t.Errorf("the first goal is %s, want that with the largest share", s.Goal)
		}
		answers[s.Goal]++
		p := pupil{n: 1, school: schoolA, yearGroup: 5, at: monday.UnixMilli(), position: answer.At(int64(n), 0)}
		states := &transform.SkillRows{}
		appendRow(states, &p, row{layer: transform.LayerOverall, variance: 0.1, answers: uint32(n + 1)})
		for goal, count := range answers {
			appendRow(states, &p, row{layer: transform.LayerGoal, key: goal, subject: "rekenen", variance: 0.1, answers: count})
		}
		m.ApplySkills(states)
	}
	for _, q := range quotas[:3] {
		if got, want := float64(answers[q.Goal]), q.Share/10*total; math.Abs(got-want) > 1 {
			t.Errorf("goal %s has %.0f answers, its quota is %.0f", q.Goal, got, want)
		}
	}
}

// TestSelectionTellsTheErrorOfTheSkill: the standard error beside an exercise is the
// one beside the percentile; of a goal that was not met it is larger.
func TestSelectionTellsTheErrorOfTheSkill(t *testing.T) {
	t.Parallel()
	m := model(t)
	m.ApplySkills(skillRows(pupil{n: 1, school: schoolA, yearGroup: 5, at: monday.UnixMilli(), position: 1}, 0.3, 0.1, map[string]float64{"tafels": 0.2}))
	items := &transform.SnapshotRows{}
	for n := range 20 {
		appendItem(items, fmt.Sprintf("slim:t%d", n), "tafels", 0, 0.1, 50, 0.7)
		appendItem(items, fmt.Sprintf("slim:b%d", n), "breuken", 0, 0.1, 50, 0.7)
	}
	m.ApplySnapshot(1, items)
	standing, _ := m.Standing(token(1))
	var goal float64
	for _, p := range standing.Percentiles {
		if p.Key == "tafels" {
			goal = p.SE
		}
	}
	met, err := m.Next(&query.Request{Learner: token(1), Goal: "tafels", Target: 0.75})
	if err != nil {
		t.Fatal(err)
	}
	if goal == 0 || met.SE != goal {
		t.Errorf("standard error beside the exercise = %v, beside the percentile %v", met.SE, goal)
	}
	prior := filter.DefaultParameters()
	wider := math.Sqrt(standing.Percentiles[1].SE*standing.Percentiles[1].SE + prior.Learner[filter.LayerGoal].Variance)
	other, err := m.Next(&query.Request{Learner: token(1), Goal: "breuken", Target: 0.75})
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(other.SE-wider) > 1e-12 {
		t.Errorf("standard error at a goal that was not met = %v, want %v", other.SE, wider)
	}
}
