package filter

import (
	"errors"
	"fmt"
	"math"
)

// Response is one answer of the log that a scale is fitted to. Learners and items
// are numbered from 0. For unbiased difficulties it should be a learner's first
// answer to the item.
type Response struct {
	Learner int32
	Item    int32
	Score   float64 // 0 to 1
}

// RefitConfig says how a scale is fitted. The zero value is a Rasch scale.
type RefitConfig struct {
	// Slopes lets items differ in discrimination (2PL). Their spread is estimated
	// too, so that it vanishes where the data do not show it.
	Slopes bool
	// MaxRounds bounds the rounds, default 200.
	MaxRounds int
	// Tolerance ends the rounds when no difficulty moves more, default 1e-4 logits.
	Tolerance float64
}

// Scale is a new version of all difficulties and skills at once, fitted to a log
// by marginal maximum likelihood: skills are integrated out over a normal
// population, so that learners with few answers do not bias the difficulties.
// The mean of the population is 0; difficulties are drawn to a normal population
// of their own.
//
// It is another scale than that of the filter: publish it as a new version, with
// the Link that carries the old scale over, and never mix the two.
type Scale struct {
	Difficulty []Gaussian // per item; an item without answers has the items' prior
	Relative   []float64  // per item: variance of its difficulty minus the mean of all
	Slope      []float64  // per item; 1 on a Rasch scale
	Skill      []Gaussian // per learner, given his answers
	Learners   Gaussian   // the population of skills, mean 0
	Items      Gaussian   // the population of difficulties
	Slopes     float64    // variance of log slope, 0 on a Rasch scale
	Rounds     int        // until no difficulty moved
	Converged  bool
}

// The quadrature of skill: points at equal distance from -reach to reach, in
// logits, so close that the posterior of the best known learner covers a few.
const (
	quadratureReach = 6.0
	minPoints       = 41
	maxPoints       = 241
	pointsPerError  = 1.5 // points per standard error of a skill
	minWeight       = 1e-12
)

// newtonSteps per item and round: more would only follow expectations that the
// next round changes.
const newtonSteps = 3

// Bounds on variances that are estimated, so that no population degenerates.
const (
	minPopulationVariance = 0.01
	maxPopulationVariance = 4
	minSlopeVariance      = 1e-4
	maxSlopeVariance      = 0.5
)

// Refit fits a scale to a log. The same log in the same order gives the same
// bits.
func Refit(log []Response, learners, items int, c RefitConfig) (*Scale, error) {
	if c.MaxRounds == 0 {
		c.MaxRounds = 200
	}
	if c.Tolerance == 0 {
		c.Tolerance = 1e-4
	}
	if len(log) == 0 || learners <= 0 || items <= 0 {
		return nil, errors.New("refit scale: want answers, learners and items")
	}
	for i, r := range log {
		if r.Learner < 0 || int(r.Learner) >= learners || r.Item < 0 || int(r.Item) >= items || !(r.Score >= 0 && r.Score <= 1) {
			return nil, fmt.Errorf("refit scale: answer %d: learner, item or score out of range", i)
		}
	}
	f := newRefit(log, learners, items, c)
	for f.scale.Rounds < c.MaxRounds && !f.scale.Converged {
		f.expect()
		f.scale.Converged = f.maximize() < c.Tolerance
		f.scale.Rounds++
	}
	f.expect()
	f.errors()
	return f.scale, nil
}

// refit is the working state of Refit: expectation-maximization.
type refit struct {
	config RefitConfig
	scale  *Scale
	first  []int32 // answers of learner u: log[first[u]:first[u+1]]
	log    []Response
	node   []float64
	prior  []float64 // log weight of a node in the population
	weight []float64 // of the nodes, for the learner at hand
	before []float64 // difficulties of the round before
	// Per item, node by node: log P(wrong), the expected number of answers, and of
	// right ones.
	wrong, count, right []float64
}

func newRefit(log []Response, learners, items int, c RefitConfig) *refit {
	f := &refit{
		config: c, first: make([]int32, learners+1), log: make([]Response, len(log)), before: make([]float64, items),
		scale: &Scale{
			Difficulty: make([]Gaussian, items), Relative: make([]float64, items), Slope: make([]float64, items),
			Skill: make([]Gaussian, learners), Learners: Gaussian{Variance: 1}, Items: Gaussian{Variance: 1},
		},
	}
	if c.Slopes {
		f.scale.Slopes = 0.1
	}
	// Counting sort by learner keeps the order of the log.
	for _, r := range log {
		f.first[r.Learner+1]++
	}
	var most int32
	for u := range learners {
		most = max(most, f.first[u+1])
		f.first[u+1] += f.first[u]
	}
	next := append([]int32(nil), f.first...)
	for _, r := range log {
		f.log[next[r.Learner]] = r
		next[r.Learner]++
	}
	f.place(int(most), items)
	f.begin()
	return f
}

// place chooses the nodes. An answer tells at most 1/4 about a skill.
func (f *refit) place(mostAnswers, items int) {
	points := int(2 * quadratureReach * pointsPerError * math.Sqrt(float64(mostAnswers)/4))
	points = max(minPoints, min(points, maxPoints)) | 1
	f.node, f.prior, f.weight = make([]float64, points), make([]float64, points), make([]float64, points)
	for q := range f.node {
		f.node[q] = quadratureReach * (2*float64(q)/float64(points-1) - 1)
	}
	f.wrong, f.count, f.right = make([]float64, points*items), make([]float64, points*items), make([]float64, points*items)
}

// of returns the nodes of item i in a column.
func (f *refit) of(column []float64, i int) []float64 {
	n := len(f.node)
	return column[i*n : (i+1)*n : (i+1)*n]
}

// begin starts the difficulties at the logit of the share of wrong answers.
func (f *refit) begin() {
	s := f.scale
	wrong, count := make([]float64, len(s.Slope)), make([]float64, len(s.Slope))
	for _, r := range f.log {
		wrong[r.Item] += 1 - r.Score
		count[r.Item]++
	}
	for i := range s.Slope {
		s.Slope[i] = 1
		s.Difficulty[i] = Gaussian{Mean: Log((wrong[i] + 0.5) / (count[i] - wrong[i] + 0.5)), Variance: 1}
	}
}

// expect computes, at the current difficulties, the posterior of every skill and
// the expected counts per item and node.
func (f *refit) expect() {
	s := f.scale
	for q, x := range f.node {
		f.prior[q] = -0.5 * x * x / s.Learners.Variance
	}
	for i := range s.Slope {
		wrong := f.of(f.wrong, i)
		for q, x := range f.node {
			wrong[q] = -softplus(float64(s.Slope[i] * (x - s.Difficulty[i].Mean)))
		}
	}
	clear(f.count)
	clear(f.right)
	for u := range s.Skill {
		answers := f.log[f.first[u]:f.first[u+1]]
		first, last := f.posterior(answers)
		var mean, square float64
		for q := first; q < last; q++ {
			w := f.weight[q]
			mean += float64(w * f.node[q])
			square += float64(w * f.node[q] * f.node[q])
		}
		s.Skill[u] = Gaussian{Mean: mean, Variance: max(square-float64(mean*mean), 1e-9)}
		weight := f.weight[first:last]
		for _, r := range answers {
			count, right := f.of(f.count, int(r.Item))[first:last], f.of(f.right, int(r.Item))[first:last]
			for q, w := range weight {
				count[q] += w
				right[q] += float64(w * r.Score)
			}
		}
	}
}

// posterior sets the weights of the nodes, given a learner's answers, and returns
// the range of nodes outside which there is no weight.
func (f *refit) posterior(answers []Response) (first, last int) {
	l := f.weight
	copy(l, f.prior)
	var slope, offset float64
	for _, r := range answers {
		// score·log P(right) + (1-score)·log P(wrong), as their logit is a(x-b).
		a := float64(r.Score * f.scale.Slope[r.Item])
		slope += a
		offset -= float64(a * f.scale.Difficulty[r.Item].Mean)
		for q, x := range f.of(f.wrong, int(r.Item)) {
			l[q] += x
		}
	}
	top := math.Inf(-1)
	for q, x := range f.node {
		l[q] += offset + float64(slope*x)
		top = max(top, l[q])
	}
	var sum float64
	for q, x := range l {
		l[q] = Exp(x - top)
		sum += l[q]
	}
	first, last = len(l), 0
	for q := range l {
		l[q] = float64(l[q] / sum)
		if l[q] > minWeight {
			first = min(first, q)
			last = q + 1
		} else {
			l[q] = 0
		}
	}
	return first, last
}

// maximize moves the difficulties, slopes and populations to where the expected
// log-likelihood is highest, and returns the largest move of a difficulty.
func (f *refit) maximize() float64 {
	s := f.scale
	for i := range s.Difficulty {
		f.before[i] = s.Difficulty[i].Mean
		f.maximizeItem(i)
	}
	f.rescale()
	s.Learners.Variance = bound(f.recentre(), minPopulationVariance, maxPopulationVariance)
	var mean float64
	for _, g := range s.Difficulty {
		mean += g.Mean
	}
	s.Items.Mean = mean / float64(len(s.Difficulty))
	var largest, spread, slope float64
	for i, g := range s.Difficulty {
		largest = max(largest, math.Abs(g.Mean-f.before[i]))
		d := g.Mean - s.Items.Mean
		spread += float64(d*d) + g.Variance
		l := Log(s.Slope[i])
		slope += float64(l*l) + f.slopeVariance(i)
	}
	n := float64(len(s.Difficulty))
	s.Items.Variance = bound(spread/n, minPopulationVariance, maxPopulationVariance)
	if f.config.Slopes {
		s.Slopes = bound(slope/n, minSlopeVariance, maxSlopeVariance)
	}
	return largest
}

// rescale puts the mean of the log slopes back at 0 by stretching the scale, for
// the same reason as recentre.
func (f *refit) rescale() {
	s := f.scale
	if !f.config.Slopes {
		return
	}
	var mean float64
	for _, a := range s.Slope {
		mean += Log(a)
	}
	stretch := Exp(mean / float64(len(s.Slope)))
	for i := range s.Slope {
		s.Slope[i] = float64(s.Slope[i] / stretch)
		s.Difficulty[i].Mean = float64(s.Difficulty[i].Mean * stretch)
		s.Difficulty[i].Variance = float64(s.Difficulty[i].Variance * stretch * stretch)
	}
	for u := range s.Skill {
		s.Skill[u].Mean = float64(s.Skill[u].Mean * stretch)
		s.Skill[u].Variance = float64(s.Skill[u].Variance * stretch * stretch)
	}
}

// recentre lets the mean of the population move for this round, and then puts it
// back at 0 by shifting all difficulties: without it, a shift that skills and
// difficulties have in common takes hundreds of rounds. It returns the variance
// of the skills.
func (f *refit) recentre() float64 {
	s := f.scale
	var mean, square float64
	for _, g := range s.Skill {
		mean += g.Mean
		square += float64(g.Mean*g.Mean) + g.Variance
	}
	n := float64(len(s.Skill))
	mean /= n
	for i := range s.Difficulty {
		s.Difficulty[i].Mean -= mean
	}
	return square/n - float64(mean*mean)
}

// maximizeItem takes Newton steps for the difficulty and the log slope of item i
// at the expected counts.
func (f *refit) maximizeItem(i int) {
	s := f.scale
	b, l := s.Difficulty[i].Mean, Log(s.Slope[i])
	count, right := f.of(f.count, i), f.of(f.right, i)
	for range newtonSteps {
		a := Exp(l)
		gb := -(b - s.Items.Mean) / s.Items.Variance
		hb := 1 / s.Items.Variance
		var gl, hl, hbl float64
		for q, x := range f.node {
			if count[q] == 0 {
				continue
			}
			d := float64(a * (x - b)) // of the logit with the log slope; with b it is -a
			p := Sigmoid(d)
			e := right[q] - float64(count[q]*p)
			h := float64(count[q] * p * (1 - p))
			gb -= float64(a * e)
			hb += float64(a * a * h)
			gl += float64(d * e)
			hl += float64(d * d * h)
			hbl -= float64(a * d * h)
		}
		var db, dl float64
		if f.config.Slopes {
			gl -= float64(l / s.Slopes)
			hl += 1 / s.Slopes
			determinant := float64(hb*hl) - float64(hbl*hbl)
			db = (float64(hl*gb) - float64(hbl*gl)) / determinant
			dl = (float64(hb*gl) - float64(hbl*gb)) / determinant
		} else {
			db = gb / hb
		}
		scale := min(1, 1/max(math.Abs(db), 2*math.Abs(dl), 1e-300))
		b += float64(scale * db)
		l = bound(l+float64(scale*dl), -2, 2)
		s.Difficulty[i].Variance = 1 / hb
		if math.Abs(db)+math.Abs(dl) < 1e-6 {
			break
		}
	}
	s.Difficulty[i].Mean = b
	s.Slope[i] = Exp(l)
}

// slopeVariance returns the variance of the log slope of item i.
func (f *refit) slopeVariance(i int) float64 {
	s := f.scale
	if !f.config.Slopes {
		return 0
	}
	h := 1 / s.Slopes
	for q, n := range f.of(f.count, i) {
		if n > 0 {
			d := float64(s.Slope[i] * (f.node[q] - s.Difficulty[i].Mean))
			p := Sigmoid(d)
			h += float64(d * d * n * p * (1 - p))
		}
	}
	return 1 / h
}

// softplus returns log(1+e^x).
func softplus(x float64) float64 {
	if x > 0 {
		return x + Log1p(Exp(-x))
	}
	return Log1p(Exp(x))
}

func bound(x, low, high float64) float64 { return max(low, min(high, x)) }
