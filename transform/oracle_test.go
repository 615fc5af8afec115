package transform_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// oracle computes what a partition must become, slowly and plainly: maps, whole
// history in memory, one row after the other.
type oracle struct {
	parameters filter.Parameters
	learners   map[answer.Token]*oracleLearner
	seen       map[answerKey]answer.Position // earliest delivery
	archive    map[answer.Position]*oracleAnswer
	sums       map[componentName]*oracleSum
	changed    map[layerName]bool // by the last message
	gone       map[layerName]bool // by the last message: layers that are no more
	corrected  int
	relearnt   map[answer.Token]answer.Position // last learnt anew as a whole
	versions   map[int64]difficulties           // that messages were applied with, by raw offset
}

// oracleAnswer is an answer as it is now. It stands at its position in the
// archive.
type oracleAnswer struct {
	row
	epoch                 uint32
	gradient, information int64 // what it said, 0 = nothing
}

type answerKey struct {
	school  string
	learner answer.Token
	at      int64
	id      answer.EventID
}

type layerName struct {
	learner answer.Token
	layer   transform.Layer
	key     string
}

type componentName struct {
	component transform.Component
	key       string
}

type oracleLearner struct {
	newest    int64
	any       bool
	group     string
	yearGroup uint8
	recent    []string
	layers    map[layerName]*skillRow
	subjectOf map[string]string
}

// skillRow is one row of transform.SkillRows, comparable but for recent.
type skillRow struct {
	school, group    string
	yearGroup        uint8
	keyEpoch         uint32
	subject          string
	mean, variance   uint64 // bits
	answers          uint32
	lastAt           int64
	fast, slow, last uint64 // bits
	position         answer.Position
	recent           string
}

type oracleSum struct {
	goal, subject                            string
	gradient, information, answers, scoreSum int64
	position                                 answer.Position
}

func newOracle() *oracle {
	return &oracle{parameters: filter.DefaultParameters(), learners: make(map[answer.Token]*oracleLearner),
		seen: make(map[answerKey]answer.Position), archive: make(map[answer.Position]*oracleAnswer), sums: make(map[componentName]*oracleSum),
		relearnt: make(map[answer.Token]answer.Position), versions: make(map[int64]difficulties)}
}

// difficulties are the values of a snapshot version.
type difficulties map[componentName]filter.Gaussian

func (d difficulties) of(component transform.Component, key string, prior float64) filter.Gaussian {
	if g, ok := d[componentName{component, key}]; ok {
		return g
	}
	return filter.Gaussian{Variance: prior}
}

// apply gives the oracle a message.
func (o *oracle) apply(c *answer.Columns, d difficulties) {
	o.changed, o.gone = make(map[layerName]bool), make(map[layerName]bool)
	corrections := o.corrections(c)
	for i := range c.Rows {
		if !corrections.covers(c, i) {
			o.row(c, i, d, corrections.affected)
		}
	}
	corrections.carryOut(d)
}

func rowAt(c *answer.Columns, i int) row {
	return row{id: c.EventID[i], learner: c.Learner.At(i), publisher: c.Publisher.At(i), school: c.School.At(i), group: c.Group.At(i),
		exercise: c.Exercise.At(i), goal: c.Goal.At(i), subject: c.Subject.At(i), yearGroup: c.YearGroup[i], score: c.Score[i],
		attempt: c.Attempt[i], at: c.AnsweredAt[i], revision: c.Revision[i]}
}

func (r *row) key() answerKey { return answerKey{r.school, r.learner, r.at, r.id} }
func (r *row) valid() bool    { return r.score >= 0 && r.score <= 1 }

// row gives the oracle a row that corrects nothing. Learners in affected are
// learnt anew later.
func (o *oracle) row(c *answer.Columns, i int, d difficulties, affected map[answer.Token]bool) {
	a, position := &oracleAnswer{row: rowAt(c, i), epoch: c.KeyEpoch}, c.Position(i)
	earlier, known := o.seen[a.key()]
	if !known {
		o.seen[a.key()] = position
	}
	l := o.learners[a.learner]
	late := a.revision > 0 || l != nil && l.any && a.at <= l.newest
	if !a.valid() {
		if !known {
			o.archive[position] = a
		}
		return
	}
	if late && known && earlier < position {
		return
	}
	o.archive[position] = a
	if l == nil {
		l = newOracleLearner()
		o.learners[a.learner] = l
	}
	l.newest, l.any = max(a.at, l.newest), true
	if affected[a.learner] {
		return
	}
	o.answer(l, a, position, d)
	o.count(a, 1, position)
}

func newOracleLearner() *oracleLearner {
	return &oracleLearner{newest: math.MinInt64, layers: make(map[layerName]*skillRow), subjectOf: make(map[string]string)}
}

// answer moves a learner by a valid answer and notes what that says.
func (o *oracle) answer(l *oracleLearner, a *oracleAnswer, position answer.Position, d difficulties) {
	if a.group != "" {
		l.group = a.group
	}
	if a.yearGroup != 0 {
		l.yearGroup = a.yearGroup
	}
	item, goal, subject := answer.ItemKey(a.publisher, a.exercise), a.goal, a.subject
	first := l.remember(item) && a.attempt <= 1

	names := [3]layerName{{a.learner, transform.LayerOverall, ""}, {a.learner, transform.LayerSubject, subject}, {a.learner, transform.LayerGoal, goal}}
	if goal != "" {
		if subject != "" {
			l.subjectOf[goal] = subject
		}
		names[1].key = l.subjectOf[goal]
	}
	var skill filter.Learner
	for n, name := range names {
		if n > 0 && name.key == "" {
			continue
		}
		skill[n] = o.parameters.Prior(n)
		if old := l.layers[name]; old != nil {
			skill[n] = o.parameters.Drift(n, filter.Gaussian{Mean: math.Float64frombits(old.mean), Variance: math.Float64frombits(old.variance)}, a.at-old.lastAt)
		}
	}
	shared := filter.Shared{d.of(transform.ComponentItem, item, 1), {}, d.of(transform.ComponentGlobal, "", 4)}
	if goal != "" {
		shared[1] = d.of(transform.ComponentGoal, goal, 0.6)
	}
	shared[2].Mean = -shared[2].Mean
	prediction := filter.Predict(&skill, &shared, filter.Question{})
	a.gradient, a.information = 0, 0
	if first {
		a.say(&skill, &shared, prediction)
	}
	skill.Update(&prediction, a.score)
	for n, name := range names {
		if n > 0 && name.key == "" {
			continue
		}
		o.store(l, name, skill[n], a, position)
	}
}

// say notes what the answer says of its exercise.
func (a *oracleAnswer) say(skill *filter.Learner, shared *filter.Shared, p filter.Prediction) {
	p.V = skill.Skill().Variance + shared[0].Variance
	said := shared.Contribute(&p, a.score)[0]
	gradient := said.Gradient + int64(math.RoundToEven(float64(said.Information)*shared.Difficulty().Mean))
	// What the archive holds: multiples of 2^-16, and never nothing.
	a.gradient = int64(math.RoundToEven(float64(gradient)/65536)) * 65536
	a.information = int64(max(1, math.RoundToEven(float64(said.Information)/65536))) * 65536
}

// remember tells whether the item is new among the learner's recent ones.
func (l *oracleLearner) remember(item string) bool {
	fresh := true
	var rest []string
	for _, r := range l.recent {
		if r == item {
			fresh = false
		} else {
			rest = append(rest, r)
		}
	}
	rest = append(rest, item)
	l.recent = rest[max(0, len(rest)-transform.MaxRecent):]
	return fresh
}

// count adds what an answer says to the sums, or takes it back (times -1).
func (o *oracle) count(a *oracleAnswer, times int64, position answer.Position) {
	if a.information == 0 {
		return
	}
	add := func(name componentName, goal, subject string) {
		s := o.sums[name]
		if s == nil {
			s = &oracleSum{}
			o.sums[name] = s
		}
		if s.goal == "" {
			s.goal = goal
		}
		if s.subject == "" {
			s.subject = subject
		}
		s.gradient += times * a.gradient
		s.information += times * a.information
		s.answers += times
		s.scoreSum += times * int64(math.RoundToEven(a.score*(1<<32)))
		s.position = position
	}
	add(componentName{transform.ComponentItem, answer.ItemKey(a.publisher, a.exercise)}, a.goal, a.subject)
	if a.goal != "" {
		add(componentName{transform.ComponentGoal, a.goal}, "", a.subject)
	}
	add(componentName{transform.ComponentGlobal, ""}, "", "")
}

func (o *oracle) store(l *oracleLearner, name layerName, g filter.Gaussian, a *oracleAnswer, position answer.Position) {
	o.changed[name] = true
	score := a.score
	fast, slow := .24+.6*score, .42+.3*score
	old, at := l.layers[name], a.at
	answers := uint32(1)
	if old != nil {
		f, s := math.Float64frombits(old.fast), math.Float64frombits(old.slow)
		fast, slow = f+float64(.4*(score-f)), s+float64(.15*(score-s))
		at, answers = max(at, old.lastAt), old.answers+1
	}
	row := &skillRow{school: a.school, group: l.group, yearGroup: l.yearGroup, keyEpoch: a.epoch,
		mean: math.Float64bits(g.Mean), variance: math.Float64bits(g.Variance), answers: answers, lastAt: at,
		fast: math.Float64bits(fast), slow: math.Float64bits(slow), last: math.Float64bits(score), position: position}
	switch name.layer {
	case transform.LayerOverall:
		var ring []uint64
		for _, r := range l.recent {
			ring = append(ring, xxhash.Sum64String(r))
		}
		row.recent = fmt.Sprint(ring)
	case transform.LayerSubject:
		row.subject = name.key
	case transform.LayerGoal:
		row.subject = l.subjectOf[name.key]
	}
	l.layers[name] = row
}

// rows returns all layers.
func (o *oracle) rows() map[layerName]skillRow {
	all := make(map[layerName]skillRow)
	for _, l := range o.learners {
		for name, row := range l.layers {
			all[name] = *row
		}
	}
	return all
}

// norms counts the histograms from the rows.
func (o *oracle) norms() map[normName]map[uint16]int64 {
	counts := make(map[normName]map[uint16]int64)
	for token, l := range o.learners {
		for name, row := range l.layers {
			skill := filter.Learner{0: gaussianOf(l.layers[layerName{token, transform.LayerOverall, ""}])}
			switch name.layer {
			case transform.LayerOverall:
			case transform.LayerSubject:
				skill[1] = gaussianOf(row)
			case transform.LayerGoal:
				skill[2] = gaussianOf(row)
				if row.subject != "" {
					skill[1] = gaussianOf(l.layers[layerName{token, transform.LayerSubject, row.subject}])
				}
			}
			group := normName{name.layer, name.key, l.yearGroup}
			if counts[group] == nil {
				counts[group] = make(map[uint16]int64)
			}
			counts[group][transform.Bin(skill.Skill().Mean)]++
		}
	}
	return counts
}

func gaussianOf(r *skillRow) filter.Gaussian {
	return filter.Gaussian{Mean: math.Float64frombits(r.mean), Variance: math.Float64frombits(r.variance)}
}

type normName struct {
	layer     transform.Layer
	key       string
	yearGroup uint8
}

// skillRowsOf turns columns into comparable rows.
func skillRowsOf(t testing.TB, r *transform.SkillRows) map[layerName]skillRow {
	t.Helper()
	all := make(map[layerName]skillRow, r.Len())
	done := make(map[answer.Token]bool)
	for i := range r.Len() {
		name := layerName{r.Learner[i], r.Layer[i], r.Key[i]}
		if _, twice := all[name]; twice {
			t.Fatalf("row %d: layer %v %q twice for a learner", i, name.layer, name.key)
		}
		if i > 0 && r.Learner[i] != r.Learner[i-1] {
			done[r.Learner[i-1]] = true
		}
		if done[r.Learner[i]] {
			t.Fatalf("row %d: rows of a learner do not stand together", i)
		}
		all[name] = rowOf(r, i)
	}
	return all
}

func rowOf(r *transform.SkillRows, i int) skillRow {
	row := skillRow{school: r.School[i], group: r.Group[i], yearGroup: r.YearGroup[i], keyEpoch: r.KeyEpoch[i], subject: r.Subject[i],
		mean: math.Float64bits(r.Mean[i]), variance: math.Float64bits(r.Variance[i]), answers: r.Answers[i], lastAt: r.LastAt[i],
		fast: math.Float64bits(r.FastMean[i]), slow: math.Float64bits(r.SlowMean[i]), last: math.Float64bits(r.LastScore[i]), position: r.Position[i]}
	if r.Layer[i] == transform.LayerOverall {
		row.recent = fmt.Sprint(r.Recent[i])
	}
	return row
}

// sameMaps fails when two maps differ, naming what differs by kind only.
func sameMaps[K comparable, V comparable](t testing.TB, what string, got, want map[K]V) {
	t.Helper()
	differing := 0
	for k, w := range want {
		if g, ok := got[k]; !ok || g != w {
			if differing++; differing <= 3 {
				t.Errorf("%s: %v: got %+v (there: %v), want %+v", what, k, g, ok, w)
			}
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			if differing++; differing <= 3 {
				t.Errorf("%s: %v: got %+v, want none", what, k, g)
			}
		}
	}
	if differing > 0 {
		t.Errorf("%s: %d differ of %d", what, differing, len(want))
	}
}
