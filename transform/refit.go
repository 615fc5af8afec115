package transform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// RefitConfig says what a refit begins from.
type RefitConfig struct {
	Parameters filter.Parameters // zero value: the defaults
	// Current is the newest snapshot, with the scale that is in use.
	Current *SnapshotRows
	// Sums are those of every partition, up to and including the last answer that
	// the refit is given of it: what came later is left to the versions after it.
	Sums []ItemSumRows
	// HeadShare is the share of learners that the head is trained on, above 0 and
	// at most 1.
	HeadShare float64
	// MaxRows bounds the rows of one message; 0 means 20,000.
	MaxRows int
}

// Bounds of a refit.
const (
	minRefitAnswers   = 200 // first answers of a goal below which its estimates stay
	minRefitExercises = 3
	halfYearMs        = 182 * filter.MillisecondsPerDay
)

// Refit makes a new scale of an archive: the difficulties of the exercises of
// every goal, by marginal maximum likelihood over first answers, with the skills
// of learners integrated out; and the weights of the head, by one pass over all
// answers. A learner counts as another one every half year, because a refit knows
// no growth.
//
// Give it the archived answers learner by learner, each learner's in order, then
// call Fit. The same answers in the same order give the same bits.
type Refit struct {
	config   RefitConfig
	values   map[componentKey]filter.Gaussian
	consumed map[string]evidenceSum // by exercise, as is the next
	goalOf   map[string]string
	goals    map[string]*goalLog
	learner  uint64
	begun    bool
	heads    bool // whether the head is trained on the learner at hand
	seen     map[*refitExercise]bool
	pupil    []headAnswer // answers for the head, learner by learner
	scales   []*SnapshotRows
	trainer  filter.Trainer
}

// goalLog are the first answers of a goal.
type goalLog struct {
	name, subject string
	exercises     map[string]*refitExercise
	list          []*refitExercise
	log           []filter.Response
	persons       int32
	learner       uint64
	halfYear      int64
}

type refitExercise struct {
	key    string
	number int32
	goal   *goalLog
	value  filter.Gaussian // item component, after the refit
	refit  bool
}

type headAnswer struct {
	learner  uint64
	exercise *refitExercise
	score    float64
	atMs     int64
}

// ArchivedAnswer is one answer of the archive, as a refit needs it.
type ArchivedAnswer struct {
	Learner             uint64 // a number that is the learner's own; such numbers lie evenly in their range
	Item, Goal, Subject string // publisher:exercise
	Score               float64
	Attempt             uint16
	AnsweredAtMs        int64
}

// NewRefit returns a refit that has seen no answer.
func NewRefit(config RefitConfig) (*Refit, error) {
	if config.Current == nil || !(config.HeadShare > 0 && config.HeadShare <= 1) || config.MaxRows < 0 {
		return nil, errors.New("refit: want the current snapshot, a head share above 0 up to 1, and no bound below 0")
	}
	if config.Parameters == (filter.Parameters{}) {
		config.Parameters = filter.DefaultParameters()
	}
	config.MaxRows = orDefault(config.MaxRows, 20_000)
	r := &Refit{config: config, values: make(map[componentKey]filter.Gaussian), consumed: make(map[string]evidenceSum), goalOf: make(map[string]string),
		goals: make(map[string]*goalLog), seen: make(map[*refitExercise]bool), trainer: filter.NewTrainer()}
	c := config.Current
	for i := range c.Len() {
		r.values[componentKey{c.Component[i], c.Key[i]}] = filter.Gaussian{Mean: c.Mean[i], Variance: c.Variance[i]}
		if c.Component[i] == ComponentItem {
			r.goalOf[c.Key[i]] = c.Goal[i]
		}
	}
	for _, s := range config.Sums {
		for i := range s.Len() {
			if s.Component[i] == ComponentItem {
				r.consumed[s.Key[i]] = r.consumed[s.Key[i]].plus(evidenceSum{s.Gradient[i], s.Information[i], s.Answers[i], s.ScoreSum[i]})
			}
		}
	}
	return r, nil
}

// Add takes an answer in. Texts are kept.
func (r *Refit) Add(a *ArchivedAnswer) {
	if !r.begun || a.Learner != r.learner {
		r.begun, r.learner = true, a.Learner
		clear(r.seen)
		r.heads = float64(a.Learner>>11)/(1<<53) < r.config.HeadShare
	}
	if !(a.Score >= 0 && a.Score <= 1) {
		return
	}
	exercise := r.exercise(a)
	if r.heads {
		r.pupil = append(r.pupil, headAnswer{a.Learner, exercise, a.Score, a.AnsweredAtMs})
	}
	if r.seen[exercise] || a.Attempt > 1 {
		r.seen[exercise] = true
		return
	}
	r.seen[exercise] = true
	goal := exercise.goal
	if halfYear := a.AnsweredAtMs / halfYearMs; goal.persons == 0 || goal.learner != a.Learner || goal.halfYear != halfYear {
		goal.learner, goal.halfYear = a.Learner, halfYear
		goal.persons++
	}
	goal.log = append(goal.log, filter.Response{Learner: goal.persons - 1, Item: exercise.number, Score: a.Score})
}

// exercise returns the exercise of an answer. It belongs to the goal that the
// snapshot has it under, or else to that of the answer.
func (r *Refit) exercise(a *ArchivedAnswer) *refitExercise {
	name, known := r.goalOf[a.Item]
	if !known {
		name = a.Goal
	}
	goal := r.goals[name]
	if goal == nil {
		goal = &goalLog{name: name, subject: a.Subject, exercises: make(map[string]*refitExercise)}
		r.goals[name] = goal
	}
	e := goal.exercises[a.Item]
	if e == nil {
		e = &refitExercise{key: a.Item, number: int32(len(goal.list)), goal: goal, value: r.value(ComponentItem, a.Item)}
		goal.exercises[a.Item] = e
		goal.list = append(goal.list, e)
	}
	return e
}

// value returns a component as it is before the refit, as a difficulty.
func (r *Refit) value(component Component, key string) filter.Gaussian {
	if g, ok := r.values[componentKey{component, key}]; ok {
		return g
	}
	prior := r.config.Parameters.Shared[component]
	if component == ComponentGlobal {
		prior.Mean = -prior.Mean
	}
	return prior
}

// Fit returns the new scales, each as the rows of one version, ready to be
// published in their order. There is none when no goal has enough answers.
func (r *Refit) Fit(ctx context.Context, progress func(done, goals int)) ([]*SnapshotRows, error) {
	names := make([]string, 0, len(r.goals))
	for name := range r.goals {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := r.fitGoal(r.goals[name]); err != nil {
			return nil, fmt.Errorf("refit goal %d of %d: %w", i+1, len(names), err)
		}
		progress(i+1, len(names))
	}
	r.trainHead()
	number := uint64(1)
	if r.config.Current.Scale != nil {
		number = r.config.Current.Scale.Number + 1
	}
	for _, rows := range r.scales {
		rows.Scale.Number, rows.Scale.Head = number, r.trainer.Head
		number++
	}
	return r.scales, nil
}

// fitGoal refits the exercises of one goal and links them to their estimates.
func (r *Refit) fitGoal(goal *goalLog) error {
	known := 0
	for _, e := range goal.list {
		if r.consumed[e.key].answers > 0 {
			known++
		}
	}
	if len(goal.log) < minRefitAnswers || known < minRefitExercises {
		return nil
	}
	fitted, err := filter.Refit(goal.log, int(goal.persons), len(goal.list), filter.RefitConfig{})
	if err != nil {
		return err
	}
	common := r.value(ComponentGlobal, "").Mean
	if goal.name != "" {
		common += r.value(ComponentGoal, goal.name).Mean
	}
	var from, to []filter.Gaussian
	for i, e := range goal.list {
		if r.consumed[e.key].answers > 0 {
			from = append(from, filter.Gaussian{Mean: fitted.Difficulty[i].Mean, Variance: fitted.Relative[i]})
			to = append(to, filter.Gaussian{Mean: e.value.Mean + common, Variance: e.value.Variance})
		}
	}
	link, err := filter.LinkScales(from, to, true)
	if err != nil {
		return err
	}
	spread, err := filter.LinkScales(from, to, false)
	if err != nil {
		return err
	}
	for i, e := range goal.list {
		if r.consumed[e.key].answers > 0 {
			value := link.Apply(filter.Gaussian{Mean: fitted.Difficulty[i].Mean, Variance: fitted.Relative[i]})
			e.value, e.refit = filter.Gaussian{Mean: value.Mean - common, Variance: value.Variance}, true
		}
	}
	r.collect(goal, GoalLink{Goal: goal.name, Answers: int64(len(goal.log)), Exercises: link.Items, Slope: spread.Slope, Shift: link.Shift, ShiftError: link.Error})
	return nil
}

// collect appends the refit exercises of a goal to the rows of the last scale, or
// of another when it is full.
func (r *Refit) collect(goal *goalLog, link GoalLink) {
	list := slices.Clone(goal.list)
	slices.SortFunc(list, func(a, b *refitExercise) int { return cmp.Compare(a.key, b.key) })
	if n := len(r.scales); n == 0 || r.scales[n-1].Len()+len(list) > r.config.MaxRows {
		r.scales = append(r.scales, &SnapshotRows{Scale: &Scale{}})
	}
	rows := r.scales[len(r.scales)-1]
	rows.Scale.Links = append(rows.Scale.Links, link)
	for _, e := range list {
		if !e.refit {
			continue
		}
		used := r.consumed[e.key]
		rows.Component = append(rows.Component, ComponentItem)
		rows.Key = append(rows.Key, e.key)
		rows.Goal = append(rows.Goal, goal.name)
		rows.Subject = append(rows.Subject, goal.subject)
		rows.Mean = append(rows.Mean, e.value.Mean)
		rows.Variance = append(rows.Variance, e.value.Variance)
		rows.Gradient = append(rows.Gradient, used.gradient)
		rows.Information = append(rows.Information, used.information)
		rows.Answers = append(rows.Answers, used.answers)
		rows.ScoreSum = append(rows.ScoreSum, used.scores)
	}
}

// trainHead trains the head on the answers of some learners, as they are told
// apart by the refit difficulties, in one pass.
func (r *Refit) trainHead() {
	p := &r.config.Parameters
	global := r.value(ComponentGlobal, "")
	var skill pupilSkill
	var features filter.Features
	for i := range r.pupil {
		a := &r.pupil[i]
		if i == 0 || a.learner != r.pupil[i-1].learner {
			skill = newPupilSkill()
		}
		goal := a.exercise.goal
		layers := skill.at(p, goal, a.atMs)
		shared := filter.Shared{filter.ComponentItem: a.exercise.value, filter.ComponentGlobal: {Mean: -global.Mean, Variance: global.Variance}}
		if goal.name != "" {
			shared[filter.ComponentGoal] = r.value(ComponentGoal, goal.name)
		}
		prediction := filter.Predict(&layers, &shared, filter.Question{})
		overall, own := skill.layer(LayerOverall, ""), skill.layer(LayerGoal, goal.name)
		features.Fill(&prediction, &overall.Counters, &own.Counters, &filter.Repeats{}, a.atMs)
		r.trainer.Learn(&features, r.trainer.Head.Probability(&features), a.score)
		layers.Update(&prediction, a.score)
		skill.take(goal, &layers, a.score, a.atMs)
	}
}

// pupilSkill is the skill of one learner while the head is trained.
type pupilSkill map[pupilKey]*pupilLayer

type pupilKey struct {
	layer Layer
	key   string
}

type pupilLayer struct {
	filter.Gaussian
	filter.Counters
}

func newPupilSkill() pupilSkill { return make(pupilSkill) }

func (s pupilSkill) layer(layer Layer, key string) *pupilLayer {
	l := s[pupilKey{layer, key}]
	if l == nil {
		l = &pupilLayer{}
		s[pupilKey{layer, key}] = l
	}
	return l
}

// of returns the layers of an answer to an exercise of a goal, nil where there is
// none.
func (s pupilSkill) of(goal *goalLog) [filter.Layers]*pupilLayer {
	out := [filter.Layers]*pupilLayer{LayerOverall: s.layer(LayerOverall, "")}
	if goal.subject != "" {
		out[LayerSubject] = s.layer(LayerSubject, goal.subject)
	}
	if goal.name != "" {
		out[LayerGoal] = s.layer(LayerGoal, goal.name)
	}
	return out
}

func (s pupilSkill) at(p *filter.Parameters, goal *goalLog, atMs int64) (out filter.Learner) {
	for kind, l := range s.of(goal) {
		switch {
		case l == nil:
		case l.Answers == 0:
			out[kind] = p.Prior(kind)
		default:
			out[kind] = p.Drift(kind, l.Gaussian, atMs-l.LastAtMs)
		}
	}
	return out
}

func (s pupilSkill) take(goal *goalLog, skill *filter.Learner, score float64, atMs int64) {
	for kind, l := range s.of(goal) {
		if l != nil {
			l.Gaussian = skill[kind]
			l.Add(score, atMs)
		}
	}
}

// PublishScale hands a refit to the reducer, which makes a version of it.
func PublishScale(ctx context.Context, client *stream.Client, topics stream.Topics, rows *SnapshotRows) error {
	message, err := NewEncoder().snapshotMessage(nil, SchemaScale, rows)
	if err != nil {
		return fmt.Errorf("publish scale %d: %w", rows.Scale.Number, err)
	}
	if _, err := client.Produce(ctx, topics.ItemSums, 0, message); err != nil {
		return fmt.Errorf("publish scale %d: %w", rows.Scale.Number, err)
	}
	return nil
}
