package evaluate

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// SimulationConfig describes a closed loop: items are chosen by the values that
// the answers to earlier choices gave. Skills and difficulties are drawn from
// N(0, 1) and do not change.
type SimulationConfig struct {
	Learners    int
	Items       int
	Rounds      int     // answers of each learner
	RandomShare float64 // of items chosen at random; 1 = no adaptivity
	Target      float64 // success probability that the other choices aim at
	Seed        uint64
}

// Validate names the field that is out of range.
func (c *SimulationConfig) Validate() error {
	switch {
	case c.Learners < 2 || c.Items < 2 || c.Rounds < 1:
		return errors.New("simulation: want at least 2 learners, 2 items and 1 round")
	case !(c.RandomShare >= 0 && c.RandomShare <= 1):
		return errors.New("simulation random share: want 0 to 1")
	case !(c.Target > 0 && c.Target < 1):
		return errors.New("simulation target: want between 0 and 1")
	}
	return nil
}

// Recovery is how well difficulties, or skills, were recovered.
type Recovery struct {
	RMSE          float64 // after matching means, logits
	Efficiency    float64 // bound² / RMSE²
	VarianceRatio float64 // of the estimates to the truth
	Reported      float64 // standard error that the method reports, root mean square
}

// Simulation is the outcome of a closed loop.
type Simulation struct {
	Bound         float64 // information bound on the standard error of difficulties, at the truth
	Online        Recovery
	Refit         Recovery
	SkillVariance float64 // of the population of skills according to the refit, to the truth
	Success       float64 // mean score of the answers
}

// candidates is how many random items the choice is made from.
const candidates = 20

// world is the truth of a simulation, and the filter's belief.
type world struct {
	config            SimulationConfig
	random            *rand.Rand
	skill, difficulty []float64
	filter            *plainFilter
	answers           *Answers
}

// Simulate runs a closed loop: the filter online, then the refit on its log.
func Simulate(ctx context.Context, c SimulationConfig) (*Simulation, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	w := newWorld(c)
	order := make([]int, c.Learners)
	for u := range order {
		order[u] = u
	}
	for range c.Rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w.random.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
		for _, u := range order {
			w.answer(u)
		}
	}
	scale, err := filter.Refit(responses(w.answers), c.Learners, c.Items, filter.RefitConfig{})
	if err != nil {
		return nil, err
	}
	bound := w.bound()
	online := make([]float64, c.Items)
	for i, g := range w.filter.items {
		online[i] = g.Variance
	}
	s := &Simulation{
		Bound:         bound,
		Online:        recovery(means(w.filter.items), online, w.difficulty, bound),
		Refit:         recovery(means(scale.Difficulty), scale.Relative, w.difficulty, bound),
		SkillVariance: scale.Learners.Variance / math.Pow(deviation(w.skill), 2),
		Success:       average(w.answers.Score),
	}
	return s, nil
}

func newWorld(c SimulationConfig) *world {
	w := &world{
		config: c, random: rand.New(rand.NewPCG(c.Seed, 0x51)),
		skill: make([]float64, c.Learners), difficulty: make([]float64, c.Items),
		answers: &Answers{Learners: make([]string, c.Learners), Items: make([]string, c.Items)},
	}
	for u := range w.skill {
		w.skill[u] = w.random.NormFloat64()
	}
	for i := range w.difficulty {
		w.difficulty[i] = w.random.NormFloat64()
	}
	w.filter = newPlainFilter(w.answers, 1, 1)
	return w
}

// answer lets a learner answer one item, and the filter learn from it.
func (w *world) answer(u int) {
	i := w.choose(u)
	score := 0.0
	if w.random.Float64() < filter.Sigmoid(w.skill[u]-w.difficulty[i]) {
		score = 1
	}
	a := w.answers
	a.Learner = append(a.Learner, int32(u))
	a.Item = append(a.Item, int32(i))
	a.Score = append(a.Score, score)
	w.filter.predict(a, a.Len()-1)
	w.filter.learn(a, a.Len()-1)
}

// choose picks an item for a learner: at random, or of some random ones the one
// whose expected success is nearest the target.
func (w *world) choose(u int) int {
	best := w.random.IntN(w.config.Items)
	if w.random.Float64() < w.config.RandomShare {
		return best
	}
	want := w.filter.skills[u].Mean - filter.Logit(w.config.Target)
	distance := math.Abs(w.filter.items[best].Mean - want)
	for range candidates - 1 {
		i := w.random.IntN(w.config.Items)
		if d := math.Abs(w.filter.items[i].Mean - want); d < distance {
			best, distance = i, d
		}
	}
	return best
}

// bound returns the root of the mean variance of difficulties that no unbiased
// method can be below, for the answers that were given, at the true values and
// with the populations known: the inverse of the joint information, by
// elimination of the skills.
func (w *world) bound() float64 {
	n := len(w.difficulty)
	m := make([]float64, n*n)
	byLearner := make([][]int32, len(w.skill))
	for j, u := range w.answers.Learner {
		byLearner[u] = append(byLearner[u], w.answers.Item[j])
	}
	for u, items := range byLearner {
		information, total := make([]float64, len(items)), 1.0
		for k, i := range items {
			p := filter.Sigmoid(w.skill[u] - w.difficulty[i])
			information[k] = p * (1 - p)
			total += information[k]
		}
		for k, i := range items {
			m[int(i)*n+int(i)] += information[k]
			for l, j := range items {
				m[int(i)*n+int(j)] -= information[k] * information[l] / total
			}
		}
	}
	for i := range n {
		m[i*n+i]++ // prior of difficulties
	}
	return math.Sqrt(traceOfInverse(m, n) / float64(n))
}

// traceOfInverse returns the trace of the inverse of a symmetric positive
// definite matrix of n rows, which it overwrites.
func traceOfInverse(m []float64, n int) float64 {
	// Cholesky factor L in the lower half; trace(M⁻¹) = Σ (L⁻¹)ij².
	for j := range n {
		for i := j; i < n; i++ {
			sum := m[i*n+j]
			for k := range j {
				sum -= m[i*n+k] * m[j*n+k]
			}
			if i == j {
				m[j*n+j] = math.Sqrt(sum)
			} else {
				m[i*n+j] = sum / m[j*n+j]
			}
		}
	}
	var trace float64
	column := make([]float64, n)
	for j := range n {
		for i := j; i < n; i++ {
			sum := 0.0
			if i == j {
				sum = 1
			}
			for k := j; k < i; k++ {
				sum -= m[i*n+k] * column[k]
			}
			column[i] = sum / m[i*n+i]
			trace += column[i] * column[i]
		}
	}
	return trace
}

// recovery compares estimates with the truth.
func recovery(estimate, variance, truth []float64, bound float64) Recovery {
	me, mt := average(estimate), average(truth)
	var sum float64
	for i := range truth {
		d := (estimate[i] - me) - (truth[i] - mt)
		sum += d * d
	}
	r := Recovery{
		RMSE:          math.Sqrt(sum / float64(len(truth))),
		VarianceRatio: math.Pow(deviation(estimate)/deviation(truth), 2),
		Reported:      math.Sqrt(average(variance)),
	}
	r.Efficiency = math.Pow(bound/r.RMSE, 2)
	return r
}
