package evaluate

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sort"

	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// CoverageConfig describes half a school year of learners whose skills move while
// they practise what the filter's own values choose for them.
type CoverageConfig struct {
	Learners  int
	PerDay    float64 // answers of a learner on a school day, in the median
	RandomDay float64 // variance of its logarithm between learners
	Seed      uint64
}

// Validate names the field that is out of range.
func (c *CoverageConfig) Validate() error {
	if c.Learners < 100 || !(c.PerDay > 0 && c.PerDay <= 100) || !(c.RandomDay >= 0 && c.RandomDay <= 2) {
		return errors.New("coverage: want at least 100 learners, above 0 to 100 answers a day, variance 0 to 2")
	}
	return nil
}

// Coverage tells how often 90 % bands hold the truth.
type Coverage struct {
	Answers float64 // per learner
	Layers  [filter.Layers]LayerCoverage
	Learner []BandExample // some learners at one goal, by percentile
}

// LayerCoverage is the coverage of the skills of one width.
type LayerCoverage struct {
	Bands      int
	Percentile float64 // share of percentile bands that hold the true percentile
	Skill      float64 // share of skill bands that hold the true skill
	Diagonal   float64 // the same with the sum of the layers' variances, without covariances
	Groups     float64 // share of bands of groups of 25 that hold their true mean percentile
	Growth     float64 // share of growth bands that hold the true growth since the middle
	Width      float64 // mean width of a percentile band, points
	RMSE       float64 // of the skill, logits
	SE         float64 // reported, root mean square
}

// BandExample is a percentile with its band and the truth.
type BandExample struct{ Percentile, Low, High, Truth float64 }

// The school of a simulation of coverage: goals are practised one after the other
// in blocks of a month, earlier ones come back.
const (
	coverageSubjects = 2
	coverageGoals    = 5 // of a subject
	coverageLayers   = 1 + coverageSubjects*(1+coverageGoals)
	coverageItems    = 60
	coverageDays     = 150
	coverageMiddle   = 90
	coverageBlock    = 30
	coverageRevisit  = 0.3
	coverageRandom   = 0.1
	coverageTarget   = 0.75
	coverageGroup    = 25
	coverageBand     = 1.6448536269514722
)

// trueLayer is a layer of a simulated learner: what is true of it, and the
// filter's belief.
type trueLayer struct {
	filter.Gaussian
	truth   float64
	answers uint32
	last    int64 // ms
}

// trueLearner holds overall, then subjects, then goals.
type trueLearner struct {
	layers [coverageLayers]trueLayer
	perDay float64
}

func kindOf(layer int) int {
	switch {
	case layer == 0:
		return filter.LayerOverall
	case layer <= coverageSubjects:
		return filter.LayerSubject
	}
	return filter.LayerGoal
}

func subjectOf(goal int) int { return 1 + (goal-1-coverageSubjects)/coverageGoals }

// schoolYear is the truth of a simulation, and the filter's belief.
type schoolYear struct {
	config     CoverageConfig
	random     *rand.Rand
	parameters filter.Parameters
	learners   []trueLearner
	difficulty [][]float64 // of items by goal, true
	items      [][]filter.Gaussian
	goals      []filter.Gaussian
	global     filter.Gaussian
	answers    int
}

// SimulateCoverage lets learners practise, with skills that move as the filter
// supposes, and holds the bands at the end against the truth.
func SimulateCoverage(ctx context.Context, c CoverageConfig) (*Coverage, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := newSchoolYear(c)
	var middle []trueLearner
	for day := range coverageDays {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if day == coverageMiddle {
			middle = append(middle, s.learners...)
		}
		for u := range s.learners {
			s.day(&s.learners[u], day)
		}
	}
	return s.judge(middle)
}

func newSchoolYear(c CoverageConfig) *schoolYear {
	s := &schoolYear{config: c, random: rand.New(rand.NewPCG(c.Seed, 0xc0)), parameters: filter.DefaultParameters(),
		learners: make([]trueLearner, c.Learners)}
	s.global = s.parameters.Shared[filter.ComponentGlobal]
	for range coverageSubjects * coverageGoals {
		mean := s.random.NormFloat64() * math.Sqrt(s.parameters.Shared[filter.ComponentGoal].Variance)
		s.goals = append(s.goals, s.parameters.Shared[filter.ComponentGoal])
		difficulty, items := make([]float64, coverageItems), make([]filter.Gaussian, coverageItems)
		for i := range items {
			difficulty[i] = mean + s.random.NormFloat64()
			items[i] = s.parameters.Shared[filter.ComponentItem]
		}
		s.difficulty, s.items = append(s.difficulty, difficulty), append(s.items, items)
	}
	for u := range s.learners {
		l := &s.learners[u]
		l.perDay = c.PerDay * math.Exp(s.random.NormFloat64()*math.Sqrt(c.RandomDay))
		for i := range l.layers {
			l.layers[i].Gaussian = s.parameters.Prior(kindOf(i))
			l.layers[i].truth = s.random.NormFloat64() * math.Sqrt(l.layers[i].Variance)
		}
	}
	return s
}

// wander moves a true skill by a variance. It is drawn back as much, so that the
// population stays as wide as it was.
func (s *schoolYear) wander(l *trueLayer, kind int, variance float64) {
	prior := s.parameters.Learner[kind].Variance
	l.truth = l.truth*math.Sqrt(1-variance/prior) + s.random.NormFloat64()*math.Sqrt(variance)
}

// day lets time pass and a learner practise.
func (s *schoolYear) day(l *trueLearner, day int) {
	for i := range l.layers {
		s.wander(&l.layers[i], kindOf(i), s.parameters.Learner[kindOf(i)].DriftPerDay)
	}
	if day%7 > 4 {
		return
	}
	for k := range int(l.perDay + s.random.Float64()) {
		block := min(day/coverageBlock, coverageGoals-1)
		if s.random.Float64() < coverageRevisit {
			block = s.random.IntN(block + 1)
		}
		subject := (day + k) % coverageSubjects
		s.answer(l, subject*coverageGoals+block, int64(day)*filter.MillisecondsPerDay+int64(k)*60_000)
	}
}

// answer lets a learner answer one item of a goal, and the filter learn from it.
func (s *schoolYear) answer(l *trueLearner, goal int, at int64) {
	place := 1 + coverageSubjects + goal
	chosen := [filter.Layers]*trueLayer{&l.layers[0], &l.layers[subjectOf(place)], &l.layers[place]}
	var skill filter.Learner
	truth := 0.0
	for kind, layer := range chosen {
		skill[kind] = layer.Gaussian
		if layer.answers > 0 {
			skill[kind] = s.parameters.Drift(kind, layer.Gaussian, at-layer.last)
			s.wander(layer, kind, s.parameters.Learner[kind].DriftPerAnswer)
		}
		truth += layer.truth
	}
	item := s.choose(goal, skill.Skill().Mean-filter.Logit(coverageTarget))
	shared := filter.Shared{s.items[goal][item], s.goals[goal], s.global}
	prediction := filter.Predict(&skill, &shared, filter.Question{})
	score := 0.0
	if s.random.Float64() < filter.Sigmoid(truth-s.difficulty[goal][item]) {
		score = 1
	}
	shared.Update(&prediction, score)
	skill.Update(&prediction, score)
	s.items[goal][item], s.goals[goal], s.global = shared[0], shared[1], shared[2]
	for kind, layer := range chosen {
		layer.Gaussian, layer.last = skill[kind], at
		layer.answers++
	}
	s.answers++
}

// choose picks an item whose difficulty is near the wanted one, or a random one.
func (s *schoolYear) choose(goal int, want float64) int {
	best := s.random.IntN(coverageItems)
	if s.random.Float64() < coverageRandom {
		return best
	}
	want -= s.goals[goal].Mean - s.global.Mean
	distance := math.Abs(s.items[goal][best].Mean - want)
	for range candidates - 1 {
		i := s.random.IntN(coverageItems)
		if d := math.Abs(s.items[goal][i].Mean - want); d < distance {
			best, distance = i, d
		}
	}
	return best
}

// known is one skill of one learner: estimate and truth.
type known struct {
	learner  int
	estimate filter.Gaussian
	diagonal float64 // variance without covariances
	spread   float64 // see filter.Estimate
	truth    float64
	answers  [filter.Layers]uint32
}

// skills returns what is known of every skill that a learner has practised, at a
// moment; nil where it has not.
func (s *schoolYear) skills(u int, l *trueLearner, at int64) (out [coverageLayers]*known) {
	var estimates []filter.Estimate
	var places []int
	number := map[int]int{}
	for i := range l.layers {
		layer := &l.layers[i]
		if layer.answers == 0 {
			continue
		}
		g := s.parameters.Drift(kindOf(i), layer.Gaussian, at-layer.last)
		e := filter.Estimate{Layer: kindOf(i), Subject: -1, Variance: g.Variance, Answers: layer.answers, AgeMs: at - layer.last}
		k := &known{learner: u, estimate: layer.Gaussian, diagonal: g.Variance, truth: layer.truth}
		k.answers[e.Layer] = layer.answers
		switch e.Layer {
		case filter.LayerSubject:
			k.add(out[0], filter.LayerOverall)
		case filter.LayerGoal:
			e.Subject = number[subjectOf(i)]
			k.add(out[subjectOf(i)], filter.LayerSubject)
			k.answers[filter.LayerOverall] = out[0].answers[filter.LayerOverall]
		}
		number[i] = len(estimates)
		estimates, places = append(estimates, e), append(places, i)
		out[i] = k
	}
	s.parameters.SkillVariances(estimates)
	for n, i := range places {
		out[i].estimate.Variance, out[i].spread = estimates[n].Skill, estimates[n].Spread
	}
	return out
}

// add puts a wider skill below a narrower layer.
func (k *known) add(wider *known, kind int) {
	k.estimate.Mean += wider.estimate.Mean
	k.diagonal += wider.diagonal
	k.truth += wider.truth
	k.answers[kind] = wider.answers[kind]
}

// judge holds everything that is told at the end against the truth.
func (s *schoolYear) judge(middle []trueLearner) (*Coverage, error) {
	out := &Coverage{Answers: float64(s.answers) / float64(len(s.learners))}
	var now, then [coverageLayers][]*known
	for u := range s.learners {
		after := s.skills(u, &s.learners[u], coverageDays*filter.MillisecondsPerDay)
		before := s.skills(u, &middle[u], coverageMiddle*filter.MillisecondsPerDay)
		for i, k := range after {
			if k != nil {
				now[i], then[i] = append(now[i], k), append(then[i], before[i])
			}
		}
	}
	var tallies [filter.Layers]coverageTally
	for i := range now {
		t := &tallies[kindOf(i)]
		examples, err := t.percentiles(now[i])
		if err != nil {
			return nil, err
		}
		if i == len(now)-1 {
			out.Learner = examples
		}
		t.skills(now[i])
		t.growth(&s.parameters, kindOf(i), now[i], then[i])
	}
	for kind := range tallies {
		out.Layers[kind] = tallies[kind].coverage()
	}
	return out, nil
}

// sortedTruths returns the true skills in order.
func sortedTruths(of []*known) []float64 {
	truths := make([]float64, len(of))
	for i, k := range of {
		truths[i] = k.truth
	}
	sort.Float64s(truths)
	return truths
}

// normOf makes the norm of a group as a freeze makes it.
func normOf(of []*known) (*transform.Norm, error) {
	var h transform.Histogram
	for _, k := range of {
		h.AddUncertain(transform.Bin(k.estimate.Mean), transform.VarianceClass(k.spread), 1)
	}
	group := &transform.NormGroup{}
	group.Bins, group.Counts = h.AppendSparse(nil, nil)
	group.Variances = h.AppendVariances(nil)
	return transform.NewNorm(group)
}
