package evaluate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// Agreement is how a system's skills agree with plausible values of achievement.
type Agreement struct {
	Name          string
	MeanR         float64 // correlation with the mean of the plausible values
	FirstR        float64 // correlation with the first
	PercentileMAE float64 // mean absolute difference of percentiles, points
}

// skillSeed fixes the order in which the one-pass systems see the answers.
const skillSeed = 1

// measureSkill compares skills with the plausible values of a persons file.
func (r *Report) measureSkill(ctx context.Context, a *Answers, c *Config) error {
	c.Progress("skill", 0, 1)
	mean, first, known, err := readPlausible(a, c.Persons)
	if err != nil {
		return err
	}
	skills, err := allSkills(ctx, a)
	if err != nil {
		return err
	}
	for _, s := range skills {
		values := pick(s.values, known)
		agreement := Agreement{
			Name: s.name, MeanR: correlation(values, mean), FirstR: correlation(values, first),
			PercentileMAE: percentileError(values, mean),
		}
		r.Skill = append(r.Skill, agreement)
		for i := range r.Systems {
			if r.Systems[i].Key == s.key {
				r.Systems[i].SkillR = &agreement.MeanR
				r.Systems[i].PercentileMAE = &agreement.PercentileMAE
			}
		}
	}
	c.Progress("skill", 1, 1)
	return nil
}

// skillColumn holds the skills of all learners according to one method.
type skillColumn struct {
	key    string // of a system of the report, or ""
	name   string
	values []float64
}

// allSkills estimates the skill of every learner with every method: the refits on
// all answers, the others in one pass in random order.
func allSkills(ctx context.Context, a *Answers) ([]skillColumn, error) {
	log := responses(a)
	rasch, err := filter.Refit(log, len(a.Learners), len(a.Items), filter.RefitConfig{})
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	slopes, err := filter.Refit(log, len(a.Learners), len(a.Items), filter.RefitConfig{Slopes: true})
	if err != nil {
		return nil, err
	}
	fast, fixed, tree := newElo(a, 1, 0.05), newElo(a, 0.4, 0), newEloTree(a)
	plain := newPlainFilter(a, rasch.Learners.Variance, itemPrior)
	right, count := make([]float64, len(a.Learners)), make([]float64, len(a.Learners))
	for _, i := range rand.New(rand.NewPCG(skillSeed, 0)).Perm(a.Len()) {
		for _, s := range []system{fast, fixed, tree, plain} {
			s.predict(a, i)
			s.learn(a, i)
		}
		right[a.Learner[i]] += a.Score[i]
		count[a.Learner[i]]++
	}
	for u := range right {
		right[u] /= count[u]
	}
	return []skillColumn{
		{keyLeerstroom, "refit with slopes", means(slopes.Skill)},
		{"", "refit, one slope", means(rasch.Skill)},
		{"", "filter, one pass", means(plain.skills)},
		{"", "percent right", right},
		{keyElo, "Elo 1/.05", fast.skill},
		{keyEloFixed, "Elo .4", fixed.skill},
		{keyEloTree, "Elo tree, overall", tree.overall},
	}, nil
}

func means(g []filter.Gaussian) []float64 {
	m := make([]float64, len(g))
	for i := range g {
		m[i] = g[i].Mean
	}
	return m
}

// readPlausible returns the mean and the first of the plausible values of the
// learners that the file knows, and the numbers of those learners.
func readPlausible(a *Answers, path string) (mean, first []float64, known []int, err error) {
	t, err := openTable(path)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	learner := t.column("learner")
	var columns []int
	for i, h := range t.header {
		if strings.HasPrefix(strings.ToLower(h), "pv") {
			columns = append(columns, i)
		}
	}
	if learner < 0 || len(columns) == 0 {
		return nil, nil, nil, errors.New("find columns of persons: want person and pv1, pv2, …")
	}
	number := make(map[string]int, len(a.Learners))
	for i, name := range a.Learners {
		number[name] = i
	}
	for {
		fields, err := t.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, nil, err
		}
		u, ok := number[fields[learner]]
		if !ok {
			continue // answered nothing
		}
		var sum float64
		for k, c := range columns {
			v, err := strconv.ParseFloat(fields[c], 64)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("read line %d: plausible value %d: want a number", t.line, k+1)
			}
			if k == 0 {
				first = append(first, v)
			}
			sum += v
		}
		mean = append(mean, sum/float64(len(columns)))
		known = append(known, u)
	}
	if len(known) < 2 {
		return nil, nil, nil, errors.New("match persons: fewer than two learners are in both files")
	}
	return mean, first, known, nil
}

// correlation returns Pearson's correlation, 0 when one side does not vary.
func correlation(x, y []float64) float64 {
	if deviation(x)*deviation(y) == 0 {
		return 0
	}
	mx, my := average(x), average(y)
	var sum float64
	for i := range x {
		sum += (x[i] - mx) * (y[i] - my)
	}
	return sum / float64(len(x)) / (deviation(x) * deviation(y))
}

// percentiles returns 100 × rank/(n-1), ranks from 0, ties in order of appearance.
func percentiles(x []float64) []float64 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return x[order[a]] < x[order[b]] })
	out := make([]float64, len(x))
	for rank, i := range order {
		out[i] = 100 * float64(rank) / float64(len(x)-1)
	}
	return out
}

// percentileError returns the mean absolute difference of percentiles.
func percentileError(x, y []float64) float64 {
	px, py := percentiles(x), percentiles(y)
	var sum float64
	for i := range px {
		sum += math.Abs(px[i] - py[i])
	}
	return sum / float64(len(px))
}
