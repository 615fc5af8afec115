package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// YearConfig describes a school whose learners are given every exercise by the
// engine, over several subjects and goals.
type YearConfig struct {
	Learners  int
	Subjects  int
	Goals     int // of a subject
	Exercises int // of a goal
	Days      int // school days
	PerDay    int // answers of a learner on a school day
	Target    float64
	Seed      uint64
}

// Validate names the field that is out of range.
func (c *YearConfig) Validate() error {
	switch {
	case c.Learners < 10 || c.Subjects < 1 || c.Goals < 1 || c.Exercises < 20 || c.Days < 1 || c.PerDay < 1:
		return errors.New("simulated year: want at least 10 learners, 1 subject, 1 goal, 20 exercises, 1 day and 1 answer a day")
	case !(c.Target > 0.5 && c.Target < 1):
		return errors.New("simulated year target: want between .5 and 1")
	}
	return nil
}

// Year is what came of a simulated year.
type Year struct {
	Answers int
	Success float64 // mean score after the first tenth of the year
	Spread  float64 // standard deviation between learners of their mean score then
	Used    float64 // share of the exercises that were given at all
	Most    float64 // largest use of an exercise, in shares of its goal
	Random  float64 // share of exercises drawn at random
	Quota   float64 // largest difference between a learner's share of a goal and what was asked
	Repeats int     // exercises that were among the last ones of the learner, not marked as repeats
}

// wholeYear is the truth of a simulated year, and the path of production.
type wholeYear struct {
	config     YearConfig
	random     *rand.Rand
	engine     *served
	goals      []yearGoal
	quotas     []query.Quota
	learners   []yearLearner
	exercises  map[string]*yearExercise
	day        time.Time
	raw        int64
	out        Year
	score      []float64 // per learner, after the beginning
	asked      []float64
	randomMany int
}

type yearGoal struct {
	name, subject string
	exercises     []*yearExercise
	share         float64
	given         int
}

type yearExercise struct {
	difficulty float64
	given      int
}

type yearLearner struct {
	skill  []float64 // per goal: the sum of all layers
	given  []int     // per goal
	recent []string
}

// yearGrowth is by how much every skill grows in a simulated year, in logits.
const yearGrowth = 0.5

// SimulateYear lets the learners of a school practise for a school year what the
// read model chooses, on the path of production: partition, versions of the
// difficulties, read model. Skills are those of the simulated schools (sd .8
// overall, .4 per subject and goal) and grow by half a logit in the year. The
// exercises suit the target on average (sd .5 per goal, .9 per exercise): what a bank
// does not hold, no choice can give without giving some of it too often.
func SimulateYear(ctx context.Context, c YearConfig) (*Year, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	w := newWholeYear(c)
	order := make([]int, c.Learners)
	for u := range order {
		order[u] = u
	}
	for day := range c.Days {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for n := range c.PerDay {
			w.engine.now = w.day.AddDate(0, 0, day+day/5*2).Add(time.Duration(n) * time.Minute)
			w.random.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
			for _, u := range order {
				if err := w.step(u, day); err != nil {
					return nil, err
				}
			}
		}
		w.engine.publish(false)
	}
	return w.judge(), nil
}

func newWholeYear(c YearConfig) *wholeYear {
	w := &wholeYear{config: c, random: rand.New(rand.NewPCG(c.Seed, 0x7ea)), exercises: map[string]*yearExercise{},
		day: time.Date(2026, time.August, 31, 9, 0, 0, 0, time.UTC), score: make([]float64, c.Learners), asked: make([]float64, c.Learners)}
	w.engine = newServed(&Answers{Learners: make([]string, c.Learners)}, servedEpoch, false)
	catalogue := &transform.SnapshotRows{Version: 1}
	total := 0.0
	for g := range c.Subjects * c.Goals {
		goal := yearGoal{name: fmt.Sprintf("goal-%d", g), subject: fmt.Sprintf("subject-%d", g/c.Goals), share: float64(1 + g%4)}
		mean := yearGrowth/2 - filter.Logit(c.Target) + w.random.NormFloat64()*0.5
		for i := range c.Exercises {
			name := fmt.Sprintf("%d-%d", g, i)
			exercise := &yearExercise{difficulty: mean + w.random.NormFloat64()*0.9}
			goal.exercises, w.exercises["file:"+name] = append(goal.exercises, exercise), exercise
			appendUnknown(catalogue, "file:"+name, &goal)
		}
		total += goal.share
		w.goals = append(w.goals, goal)
	}
	for g := range w.goals {
		w.goals[g].share /= total
		w.quotas = append(w.quotas, query.Quota{Goal: w.goals[g].name, Share: w.goals[g].share})
	}
	w.engine.version = 1
	w.engine.estimates.Accept(catalogue)
	w.engine.snapshot = w.engine.snapshot.With(w.engine.catalog, catalogue)
	w.engine.model.ApplySnapshot(1, catalogue)
	for range c.Learners {
		l := yearLearner{given: make([]int, len(w.goals))}
		overall, subject := w.random.NormFloat64()*0.8, 0.0
		for g := range w.goals {
			if g%c.Goals == 0 {
				subject = w.random.NormFloat64() * 0.4
			}
			l.skill = append(l.skill, overall+subject+w.random.NormFloat64()*0.4)
		}
		w.learners = append(w.learners, l)
	}
	return w
}

// appendUnknown appends an exercise that nobody has answered yet.
func appendUnknown(rows *transform.SnapshotRows, key string, goal *yearGoal) {
	rows.Component = append(rows.Component, transform.ComponentItem)
	rows.Key, rows.Goal, rows.Subject = append(rows.Key, key), append(rows.Goal, goal.name), append(rows.Subject, goal.subject)
	rows.Mean, rows.Variance = append(rows.Mean, 0), append(rows.Variance, 1)
	rows.Gradient, rows.Information = append(rows.Gradient, 0), append(rows.Information, 0)
	rows.Answers, rows.ScoreSum = append(rows.Answers, 0), append(rows.ScoreSum, 0)
}

// step gives a learner an exercise and lets it be answered.
func (w *wholeYear) step(u, day int) error {
	l := &w.learners[u]
	selected, err := w.engine.model.Next(&query.Request{Learner: w.engine.tokens[u], Quotas: w.quotas, Target: w.config.Target, YearGroup: 5})
	if err != nil {
		return fmt.Errorf("next exercise: %w", err)
	}
	goal := 0
	for w.goals[goal].name != selected.Goal {
		goal++
	}
	exercise := w.exercises[selected.Exercise]
	exercise.given++
	w.goals[goal].given++
	l.given[goal]++
	if selected.Random {
		w.randomMany++
	}
	for _, key := range l.recent {
		if key == selected.Exercise && selected.Reason != query.ReasonRepeat {
			w.out.Repeats++
		}
	}
	l.recent = append(l.recent, selected.Exercise)
	l.recent = l.recent[max(0, len(l.recent)-transform.MaxRecent):]
	grown := yearGrowth * float64(day) / float64(w.config.Days)
	score := 0.0
	if w.random.Float64() < filter.Sigmoid(l.skill[goal]+grown-exercise.difficulty) {
		score = 1
	}
	w.out.Answers++
	if day >= w.config.Days/10 {
		w.score[u] += score
		w.asked[u]++
	}
	w.engine.take(w.engine.tokens[u], selected.Exercise, &w.goals[goal], score, w.raw)
	w.raw++
	return nil
}

// take applies one answer as it comes from the log.
func (s *served) take(token answer.Token, exercise string, goal *yearGoal, score float64, raw int64) {
	c := &s.columns
	c.Learner.Values[0], c.Exercise.Values[0] = token, exercise[len("file:"):]
	c.Goal.Values[0], c.Subject.Values[0] = goal.name, goal.subject
	c.Score[0], c.AnsweredAt[0], c.RawOffset, c.YearGroup[0] = score, s.now.UnixMilli(), raw, 5
	s.firsts += s.partition.Apply(c, nil, s.snapshot).First
	s.skills.Reset()
	s.partition.Changes(&s.skills)
	s.model.ApplySkills(&s.skills)
	if s.firsts >= s.epoch {
		s.publish(false)
	}
}

func (w *wholeYear) judge() *Year {
	out := &w.out
	var mean, square float64
	for u, n := range w.asked {
		x := w.score[u] / n
		mean += x / float64(len(w.asked))
		square += x * x / float64(len(w.asked))
	}
	out.Success, out.Spread = mean, math.Sqrt(max(0, square-mean*mean))
	out.Random = float64(w.randomMany) / float64(out.Answers)
	used := 0
	for g := range w.goals {
		goal := &w.goals[g]
		share := float64(goal.given) / float64(len(goal.exercises))
		for _, e := range goal.exercises {
			if e.given > 0 {
				used++
			}
			out.Most = max(out.Most, float64(e.given)/share)
		}
		for u := range w.learners {
			all := float64(w.config.Days * w.config.PerDay)
			out.Quota = max(out.Quota, math.Abs(float64(w.learners[u].given[g])/all-goal.share))
		}
	}
	out.Used = float64(used) / float64(len(w.exercises))
	return out
}
