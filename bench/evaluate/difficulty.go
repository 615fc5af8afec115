package evaluate

import (
	"context"
	"math"
	"math/rand/v2"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// Conditions under which the precision of difficulties is measured.
const (
	minPerHalf  = 20  // answers of an item in each half
	minItems    = 10  // items that meet it
	sparseShare = 0.2 // share of the learners that the second, sparser run keeps
	// Answers to items with fewer in a half are left out: they say hardly anything
	// about the other items, and in some data sets most items are like that.
	minForRefit = 5
	// Large files get fewer splits, down to two, for the time that they take.
	maxSplitAnswers = 5_000_000
)

// Precision is the standard error of difficulties, in logits of the refit, from
// the difference between two random halves of the learners.
type Precision struct {
	PerItem  float64            // mean number of answers per item and half
	Bound    float64            // no unbiased method can be below: root mean (S⁻¹)ii
	Reported float64            // what the refit says of itself, common shift left out
	Measured map[string]float64 // per system key; keyOnline is the filter before the refit
}

// keyOnline is the online filter in Precision.Measured.
const keyOnline = "filter_online"

// half is one half of the learners: first answers only, in random order.
type half struct {
	answers *Answers
	count   []float64
}

// measureDifficulty measures the precision with all learners and with few.
func (r *Report) measureDifficulty(ctx context.Context, a *Answers, c *Config) error {
	first := firstAnswers(a)
	splits := max(min(c.Splits, maxSplitAnswers/len(first)), min(c.Splits, 2))
	for k, share := range []float64{1, sparseShare} {
		precision, err := splitHalves(ctx, a, first, share, splits, func(done int) {
			c.Progress("difficulty", k*splits+done, 2*splits)
		})
		if err != nil {
			return err
		}
		if precision == nil {
			continue // too few items with enough answers
		}
		if share < 1 {
			r.Sparse = precision
			continue
		}
		r.Dense = precision
		for i := range r.Systems {
			s := &r.Systems[i]
			if s.Key == keyEloTree || s.Key == keyServed {
				continue // the difficulty of the plain Elo, and of the filter online
			}
			se := precision.Measured[s.Key]
			s.DifficultySE, s.DifficultyBound = &se, &precision.Bound
			if s.Key == keyLeerstroom {
				s.DifficultyReported = &precision.Reported
			}
		}
	}
	return nil
}

// firstAnswers returns the rows that are a learner's first answer to an item.
func firstAnswers(a *Answers) []int {
	seen := make(map[int64]struct{}, a.Len())
	rows := make([]int, 0, a.Len())
	for i := range a.Len() {
		key := pair(a.Learner[i], a.Item[i])
		if _, ok := seen[key]; !ok {
			seen[key] = struct{}{}
			rows = append(rows, i)
		}
	}
	return rows
}

// splitHalves returns the precision, as a mean over random splits; nil when too
// few items have enough answers.
func splitHalves(ctx context.Context, a *Answers, rows []int, share float64, splits int, progress func(int)) (*Precision, error) {
	total := &Precision{Measured: make(map[string]float64)}
	var used float64
	for seed := range splits {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		random := rand.New(rand.NewPCG(uint64(seed), 0x5eed))
		halves := split(a, rows, share, random)
		items := common(halves)
		if len(items) < minItems {
			continue
		}
		p, err := compare(halves, items)
		if err != nil {
			return nil, err
		}
		used++
		total.PerItem += p.PerItem
		total.Bound += p.Bound
		total.Reported += p.Reported
		for key, se := range p.Measured {
			total.Measured[key] += se
		}
		progress(seed + 1)
	}
	if used == 0 {
		return nil, nil
	}
	total.PerItem /= used
	total.Bound /= used
	total.Reported /= used
	for key := range total.Measured {
		total.Measured[key] /= used
	}
	return total, nil
}

// split halves a random share of the learners.
func split(a *Answers, rows []int, share float64, random *rand.Rand) [2]half {
	side := make([]int, len(a.Learners))
	number := make([]int32, len(a.Learners))
	var learners [2]int32
	for u := range side {
		side[u] = random.IntN(2)
		if random.Float64() >= share {
			side[u] = -1
			continue
		}
		number[u] = learners[side[u]]
		learners[side[u]]++
	}
	var halves [2]half
	for h := range halves {
		halves[h] = half{
			answers: &Answers{Items: a.Items, Learners: make([]string, learners[h])},
			count:   make([]float64, len(a.Items)),
		}
	}
	for _, j := range random.Perm(len(rows)) {
		i := rows[j]
		h := side[a.Learner[i]]
		if h < 0 {
			continue
		}
		b := halves[h].answers
		b.Learner = append(b.Learner, number[a.Learner[i]])
		b.Item = append(b.Item, a.Item[i])
		b.Skill = append(b.Skill, none)
		b.Time = append(b.Time, 0)
		b.Score = append(b.Score, a.Score[i])
		halves[h].count[a.Item[i]]++
	}
	return halves
}

// common returns the items with enough answers in both halves.
func common(halves [2]half) []int {
	var items []int
	for i := range halves[0].count {
		if halves[0].count[i] >= minPerHalf && halves[1].count[i] >= minPerHalf {
			items = append(items, i)
		}
	}
	return items
}

// compare estimates the difficulties on both halves with every method, centres
// them over the common items and gives them the spread of the refit's.
func compare(halves [2]half, items []int) (*Precision, error) {
	p := &Precision{Measured: make(map[string]float64)}
	estimates := make(map[string][2][]float64)
	var spread float64
	for h := range halves {
		scale, err := fitHalf(halves[h])
		if err != nil {
			return nil, err
		}
		own := make([]float64, len(items))
		for k, i := range items {
			own[k] = scale.Difficulty[i].Mean
			p.Bound += scale.Difficulty[i].Variance
			p.Reported += scale.Relative[i]
			p.PerItem += halves[h].count[i]
		}
		spread += deviation(own) / 2
		for key, all := range online(halves[h], scale.Learners.Variance) {
			picked := make([]float64, len(items))
			for k, i := range items {
				picked[k] = all[i]
			}
			pairOf := estimates[key]
			pairOf[h] = picked
			estimates[key] = pairOf
		}
		pairOf := estimates[keyLeerstroom]
		pairOf[h] = own
		estimates[keyLeerstroom] = pairOf
	}
	n := float64(2 * len(items))
	p.Bound, p.Reported, p.PerItem = math.Sqrt(p.Bound/n), math.Sqrt(p.Reported/n), p.PerItem/n
	for key, e := range estimates {
		p.Measured[key] = halfDifference(e, spread)
	}
	return p, nil
}

// fitHalf refits the difficulties of one half. Items with too few answers get
// the prior.
func fitHalf(h half) (*filter.Scale, error) {
	number, items := make([]int32, len(h.count)), 0
	for i, n := range h.count {
		number[i] = none
		if n >= minForRefit {
			number[i] = int32(items)
			items++
		}
	}
	log := make([]filter.Response, 0, h.answers.Len())
	for _, r := range responses(h.answers) {
		if r.Item = number[r.Item]; r.Item != none {
			log = append(log, r)
		}
	}
	scale, err := filter.Refit(log, len(h.answers.Learners), items, filter.RefitConfig{})
	if err != nil {
		return nil, err
	}
	difficulty, relative := make([]filter.Gaussian, len(number)), make([]float64, len(number))
	for i, k := range number {
		difficulty[i], relative[i] = scale.Items, scale.Items.Variance
		if k != none {
			difficulty[i], relative[i] = scale.Difficulty[k], scale.Relative[k]
		}
	}
	scale.Difficulty, scale.Relative = difficulty, relative
	return scale, nil
}

func responses(a *Answers) []filter.Response {
	log := make([]filter.Response, a.Len())
	for i := range log {
		log[i] = filter.Response{Learner: a.Learner[i], Item: a.Item[i], Score: a.Score[i]}
	}
	return log
}

// itemPrior is the prior variance of difficulties of the online filter here,
// where no goal shares in them.
const itemPrior = 1.5

// online returns the difficulties that the online systems end with.
func online(h half, skillVariance float64) map[string][]float64 {
	a := h.answers
	fast, fixed, mean := newElo(a, 1, 0.05), newElo(a, 0.4, 0), newItemMean(a)
	plain := newPlainFilter(a, skillVariance, itemPrior)
	for i := range a.Len() {
		for _, s := range []system{fast, fixed, mean, plain} {
			s.predict(a, i)
			s.learn(a, i)
		}
	}
	ownItems, logits := make([]float64, len(a.Items)), make([]float64, len(a.Items))
	for i := range ownItems {
		ownItems[i] = plain.items[i].Mean
		logits[i] = math.Log((mean.count[i] - mean.right[i] + 0.5) / (mean.right[i] + 0.5))
	}
	return map[string][]float64{
		keyElo: fast.difficulty, keyEloFixed: fixed.difficulty, keyItemMean: logits, keyOnline: ownItems,
	}
}

// plainFilter is the filter with one learner layer and one item component, for
// data in which skill does not change.
type plainFilter struct {
	skills, items []filter.Gaussian
	learner       filter.Learner
	shared        filter.Shared
	prediction    filter.Prediction
}

func newPlainFilter(a *Answers, skillVariance, itemVariance float64) *plainFilter {
	f := &plainFilter{skills: make([]filter.Gaussian, len(a.Learners)), items: make([]filter.Gaussian, len(a.Items))}
	for u := range f.skills {
		f.skills[u].Variance = skillVariance
	}
	for i := range f.items {
		f.items[i].Variance = itemVariance
	}
	return f
}

func (f *plainFilter) predict(a *Answers, i int) float64 {
	f.learner[filter.LayerOverall] = f.skills[a.Learner[i]]
	f.shared[filter.ComponentItem] = f.items[a.Item[i]]
	f.prediction = filter.Predict(&f.learner, &f.shared, filter.Question{})
	return f.prediction.P
}

func (f *plainFilter) learn(a *Answers, i int) {
	f.learner.Update(&f.prediction, a.Score[i])
	f.shared.Update(&f.prediction, a.Score[i])
	f.skills[a.Learner[i]] = f.learner[filter.LayerOverall]
	f.items[a.Item[i]] = f.shared[filter.ComponentItem]
}

// halfDifference returns the root mean square of half the difference between two
// estimates, after centring and scaling both to a spread, times √2: the standard
// error of one of them.
func halfDifference(e [2][]float64, spread float64) float64 {
	var sum float64
	m0, m1 := average(e[0]), average(e[1])
	scale := spread / ((deviation(e[0]) + deviation(e[1])) / 2)
	for k := range e[0] {
		d := ((e[0][k] - m0) - (e[1][k] - m1)) * scale
		sum += d * d / 2
	}
	return math.Sqrt(sum / float64(len(e[0])))
}

func average(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

func deviation(x []float64) float64 {
	m := average(x)
	var sum float64
	for _, v := range x {
		sum += (v - m) * (v - m)
	}
	return math.Sqrt(sum / float64(len(x)))
}
