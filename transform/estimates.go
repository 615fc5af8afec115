package transform

import (
	"cmp"
	"slices"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// Estimates are the difficulties of all exercises with the evidence for them:
// the sums of every partition, and how much of their total is in the values.
//
// reduce takes new evidence in. Every exercise gives one observation of its
// whole difficulty d = item + goal + global, of information W and mean G/W. What
// the three levels learn from all observations together is solved exactly for
// independent Gaussians, from the items up and back down, in one pass: moving
// each level by its own evidence would move them three times for the same
// surprise. For a single answer it is what filter.Shared.Update does. As there,
// covariances are not kept from one version to the next.
//
// The origin of the scale is that of the priors: learners and exercises have
// mean 0 before the first answer. No version shifts it; a refit that does is a
// new scale, not a version.
type Estimates struct {
	parameters filter.Parameters
	numbers    map[componentKey]int32
	all        []estimate
	partials   [][]partial // by partition, then by number
	dirty      []int32     // whose totals are not all in the values
}

type componentKey struct {
	component Component
	key       string
}

type estimate struct {
	componentKey
	goal, subject string
	filter.Gaussian
	totals   evidenceSum
	consumed evidenceSum
	dirty    bool
}

// partial is what one partition has said of one component.
type partial struct {
	evidenceSum
	position answer.Position
}

// NewEstimates returns estimates that stand at their priors, for the sums of a
// number of partitions.
func NewEstimates(parameters filter.Parameters, partitions int) *Estimates {
	return &Estimates{parameters: parameters, numbers: make(map[componentKey]int32), partials: make([][]partial, partitions)}
}

// number returns the number of a component, a new one at its prior.
func (e *Estimates) number(component Component, key, goal, subject string) int32 {
	i, ok := e.numbers[componentKey{component, key}]
	if !ok {
		prior := e.parameters.Shared[component]
		if component == ComponentGlobal {
			prior.Mean = -prior.Mean // an easiness in the filter
		}
		i = int32(len(e.all))
		name := componentKey{component, strings.Clone(key)}
		e.all = append(e.all, estimate{componentKey: name, Gaussian: prior})
		e.numbers[name] = i
	}
	if entry := &e.all[i]; entry.goal == "" && goal != "" {
		entry.goal = strings.Clone(goal)
	}
	if entry := &e.all[i]; entry.subject == "" && subject != "" {
		entry.subject = strings.Clone(subject)
	}
	return i
}

// Load takes values of a snapshot over.
func (e *Estimates) Load(rows *SnapshotRows) {
	for n := range rows.Component {
		i := e.number(rows.Component[n], rows.Key[n], rows.Goal[n], rows.Subject[n])
		entry := &e.all[i]
		entry.Gaussian = filter.Gaussian{Mean: rows.Mean[n], Variance: rows.Variance[n]}
		entry.consumed = evidenceSum{rows.Gradient[n], rows.Information[n], rows.Answers[n], rows.ScoreSum[n]}
		e.check(i)
	}
}

// Fold takes sums of a partition in, and returns how many first answers are new.
// What is older than what the partition said before is dropped.
func (e *Estimates) Fold(partition int, rows *ItemSumRows) (answers int64) {
	for n := range rows.Component {
		i := e.number(rows.Component[n], rows.Key[n], rows.Goal[n], rows.Subject[n])
		parts := e.partials[partition]
		if int(i) >= len(parts) {
			parts = append(parts, make([]partial, int(i)+1-len(parts)+len(parts)/4)...)
			e.partials[partition] = parts
		}
		old := &parts[i]
		if (old.answers > 0 || old.position > 0) && rows.Position[n] <= old.position {
			continue
		}
		now := evidenceSum{rows.Gradient[n], rows.Information[n], rows.Answers[n], rows.ScoreSum[n]}
		entry := &e.all[i]
		entry.totals = entry.totals.plus(now.minus(old.evidenceSum))
		if entry.component == ComponentItem {
			answers += now.answers - old.answers
		}
		*old = partial{now, rows.Position[n]}
		e.check(i)
	}
	return answers
}

// check notes whether there is evidence that is not in the values. While
// partitions catch up after a crash there may be less evidence than was used;
// that is not news.
func (e *Estimates) check(i int32) {
	entry := &e.all[i]
	if !entry.dirty && entry.totals.answers > entry.consumed.answers {
		entry.dirty = true
		e.dirty = append(e.dirty, i)
	}
}

// observation is the new evidence of one exercise.
type observation struct {
	item, goal  int32   // numbers; goal is -1 when unknown
	gradient    float64 // at the present difficulty
	information float64
	share       float64 // 1/(1+W·s): what of the observation reaches the levels above
}

// levelAbove gathers what reaches a goal, or the global component.
type levelAbove struct {
	number                int32
	gradient, information float64
	share                 float64
	step, variance        float64 // of everything from here up, after the reduction
}

// News returns the changes since the last version: every component with new
// evidence and every one that moved, ordered by component and key. It changes
// nothing; Accept does.
func (e *Estimates) News() *SnapshotRows {
	global := levelAbove{number: e.number(ComponentGlobal, "", "", "")}
	goals, observations := e.observe(&global)
	moved := make(map[int32]filter.Gaussian, len(observations)+len(goals)+1)
	e.settleGlobal(&global, goals, moved)
	for i := range goals {
		e.settleGoal(&goals[i], &global, moved)
	}
	for i := range observations {
		above := &global
		if o := &observations[i]; o.goal >= 0 {
			above = &goals[o.goal]
		}
		e.settleItem(&observations[i], above, moved)
	}
	return e.rows(moved)
}

// observe turns new evidence into observations, ordered by key, and gathers what
// reaches the levels above.
func (e *Estimates) observe(global *levelAbove) ([]levelAbove, []observation) {
	var observations []observation
	var goals []levelAbove
	index := make(map[int32]int32)
	slices.SortFunc(e.dirty, func(a, b int32) int { return e.compare(a, b) })
	for _, i := range e.dirty {
		entry := &e.all[i]
		fresh := entry.totals.minus(entry.consumed)
		if entry.component != ComponentItem || fresh.answers <= 0 || fresh.information <= 0 {
			continue
		}
		o := observation{item: i, goal: -1, information: float64(float64(fresh.information) * filter.Unit)}
		difficulty := entry.Mean + e.all[global.number].Mean
		above := global
		if entry.goal != "" {
			number := e.number(ComponentGoal, entry.goal, "", entry.subject)
			entry = &e.all[i] // number may have moved them
			place, ok := index[number]
			if !ok {
				place = int32(len(goals))
				index[number] = place
				goals = append(goals, levelAbove{number: number})
			}
			o.goal, above = place, &goals[place]
			difficulty += e.all[number].Mean
		}
		o.gradient = float64(float64(fresh.gradient)*filter.Unit) - float64(o.information*difficulty)
		o.share = 1 / (1 + float64(o.information*entry.Variance))
		above.gradient += float64(o.gradient * o.share)
		above.information += float64(o.information * o.share)
		observations = append(observations, o)
	}
	return goals, observations
}

func (e *Estimates) compare(a, b int32) int {
	x, y := &e.all[a], &e.all[b]
	return cmp.Or(cmp.Compare(x.component, y.component), strings.Compare(x.key, y.key))
}

func (e *Estimates) clip(step float64) float64 {
	return max(-e.parameters.MaxStep, min(e.parameters.MaxStep, step))
}

func (e *Estimates) settleGlobal(global *levelAbove, goals []levelAbove, moved map[int32]filter.Gaussian) {
	for i := range goals {
		g := &goals[i]
		g.share = 1 / (1 + float64(g.information*e.all[g.number].Variance))
		global.gradient += float64(g.gradient * g.share)
		global.information += float64(g.information * g.share)
	}
	if global.information <= 0 {
		return
	}
	old := e.all[global.number].Gaussian
	global.variance = old.Variance / (1 + float64(global.information*old.Variance))
	global.step = e.clip(float64(global.variance * global.gradient))
	moved[global.number] = filter.Gaussian{Mean: old.Mean + global.step, Variance: global.variance}
}

func (e *Estimates) settleGoal(goal, global *levelAbove, moved map[int32]filter.Gaussian) {
	old := e.all[goal.number].Gaussian
	own := old.Variance * goal.share // uncertainty when what is above were known
	step := e.clip(float64(own * (goal.gradient - float64(goal.information*global.step))))
	pull := float64(own * goal.information)
	moved[goal.number] = filter.Gaussian{Mean: old.Mean + step, Variance: own + float64(pull*pull*global.variance)}
	goal.step = global.step + step
	goal.variance = own + float64(goal.share*goal.share*global.variance)
}

func (e *Estimates) settleItem(o *observation, above *levelAbove, moved map[int32]filter.Gaussian) {
	old := e.all[o.item].Gaussian
	own := old.Variance * o.share
	step := e.clip(float64(own * (o.gradient - float64(o.information*above.step))))
	pull := float64(own * o.information)
	moved[o.item] = filter.Gaussian{Mean: old.Mean + step, Variance: own + float64(pull*pull*above.variance)}
}

// rows returns the changed components, ordered.
func (e *Estimates) rows(moved map[int32]filter.Gaussian) *SnapshotRows {
	changed := append([]int32(nil), e.dirty...)
	for i := range moved {
		if !e.all[i].dirty {
			changed = append(changed, i)
		}
	}
	slices.SortFunc(changed, func(a, b int32) int { return e.compare(a, b) })
	rows := &SnapshotRows{}
	for _, i := range changed {
		entry := &e.all[i]
		value, ok := moved[i]
		if !ok {
			value = entry.Gaussian
		}
		rows.Component = append(rows.Component, entry.component)
		rows.Key = append(rows.Key, entry.key)
		rows.Goal = append(rows.Goal, entry.goal)
		rows.Subject = append(rows.Subject, entry.subject)
		rows.Mean = append(rows.Mean, value.Mean)
		rows.Variance = append(rows.Variance, value.Variance)
		rows.Gradient = append(rows.Gradient, entry.totals.gradient)
		rows.Information = append(rows.Information, entry.totals.information)
		rows.Answers = append(rows.Answers, entry.totals.answers)
		rows.ScoreSum = append(rows.ScoreSum, entry.totals.scores)
	}
	return rows
}

// Accept makes rows that News returned the present values.
func (e *Estimates) Accept(rows *SnapshotRows) {
	for _, i := range e.dirty {
		e.all[i].dirty = false
	}
	e.dirty = e.dirty[:0]
	e.Load(rows)
}
