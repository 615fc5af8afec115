package evaluate

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// shape is a kind of data set that the engine was not made for.
type shape struct {
	name            string
	learners, items int
	answers         int
	goals           int     // 0: none in the file
	skillsPerItem   int     // lines per item in a skills file; 0: no such file
	guess           float64 // chance to be right without knowing
	drift           float64 // standard deviation of a learner's step per answer
	growth          float64 // logits that practice adds per answer
	spread          float64 // standard deviation of difficulties; 0: 1
	easy            float64 // logits that everything is easier
	time            bool
}

var shapes = []shape{
	{name: "few learners, many items", learners: 40, items: 8000, answers: 20_000, goals: 80},
	{name: "many learners, few items", learners: 5000, items: 12, answers: 20_000},
	{name: "several skills per item", learners: 300, items: 200, answers: 20_000, goals: 30, skillsPerItem: 3, time: true},
	{name: "strong guessing", learners: 400, items: 150, answers: 20_000, goals: 5, guess: 0.5},
	{name: "drift", learners: 100, items: 150, answers: 20_000, goals: 5, drift: 0.15, time: true},
	{name: "growth", learners: 200, items: 100, answers: 20_000, goals: 10, growth: 0.02, time: true},
	{name: "nearly all right", learners: 400, items: 150, answers: 20_000, goals: 5, easy: 3},
	{name: "items alike", learners: 400, items: 150, answers: 20_000, goals: 5, spread: 0.05},
	{name: "few answers", learners: 60, items: 60, answers: 400, goals: 3, time: true},
}

// files writes a simulated data set of the shape and returns its paths.
func (s *shape) files(t *testing.T, seed uint64) (answers, skills string) {
	random := rand.New(rand.NewPCG(seed, 99))
	spread := s.spread
	if spread == 0 {
		spread = 1
	}
	skill, difficulty := make([]float64, s.learners), make([]float64, s.items)
	for u := range skill {
		skill[u] = random.NormFloat64() + s.easy
	}
	for i := range difficulty {
		difficulty[i] = random.NormFloat64() * spread
	}
	var a, k strings.Builder
	a.WriteString("user_id\titem_id\ttimestamp\tcorrect\tskill_id\n")
	for n := range s.answers {
		u, i := random.IntN(s.learners), random.IntN(s.items)
		p := s.guess + (1-s.guess)*filter.Sigmoid(skill[u]-difficulty[i])
		right, at, goal := 0, 0, ""
		if random.Float64() < p {
			right = 1
		}
		if s.time {
			at = 1_700_000_000 + 40*n
		}
		if s.goals > 0 {
			goal = strconv.Itoa(i % s.goals)
		}
		fmt.Fprintf(&a, "%d\t%d\t%d\t%d\t%s\n", u, i, at, right, goal)
		skill[u] += s.growth + s.drift*random.NormFloat64()
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if s.skillsPerItem > 0 {
		k.WriteString("item_id\tskill_id\n")
		for i := range s.items {
			for j := range s.skillsPerItem {
				fmt.Fprintf(&k, "%d\t%d\n", i, (i*7+j*13)%40)
			}
		}
		skills = write("q.tsv", k.String())
	}
	return write("answers.tsv", a.String()), skills
}

// TestOtherShapesAreNoWorse: on data sets of other shapes the forecast falls
// behind no baseline by more than chance, and neither does what is served.
func TestOtherShapesAreNoWorse(t *testing.T) {
	t.Parallel()
	const seed = 1
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			answers, skills := s.files(t, seed)
			c := Config{Answers: answers, Skills: skills, Progress: func(string, int, int) {}}
			a, err := Load(context.Background(), "", c.Answers, c.Skills)
			if err != nil {
				t.Fatal(err)
			}
			a.sortByTime()
			r := &Report{}
			if err := r.predict(t.Context(), a, &c); err != nil {
				t.Fatal(err)
			}
			own := r.Systems[0]
			for _, other := range append(r.Systems, r.Experts...) {
				t.Logf("%-22s AUC %.4f, log-loss %.4f, ECE %.4f", other.Name, other.AUC, other.LogLoss, other.ECE)
				if other.LogLoss < own.LogLoss-s.tolerance() {
					t.Errorf("%s: log-loss %.4f, that of Leerstroom %.4f (seed %d)", other.Name, other.LogLoss, own.LogLoss, seed)
				}
			}
			// Ten buckets of a tenth of the answers each, and one standard error.
			if limit := 0.01 + 0.5/math.Sqrt(float64(s.answers)/10); own.ECE > limit {
				t.Errorf("ECE %.4f, want at most %.3f (seed %d)", own.ECE, limit, seed)
			}
		})
	}
}

// tolerance is about two standard errors of the difference between the log-losses
// of two systems, which is some .15 nats for one answer.
func (s *shape) tolerance() float64 { return 0.3 / math.Sqrt(float64(s.answers)) }

// TestResponseTimeHelps: learners have spells of haste, in which they answer fast
// and badly. Their times tell of it before their scores do.
func TestResponseTimeHelps(t *testing.T) {
	t.Parallel()
	const learners, items, answers, seed = 200, 100, 20_000, 1
	random := rand.New(rand.NewPCG(seed, 77))
	skill, hasty, difficulty := make([]float64, learners), make([]bool, learners), make([]float64, items)
	for u := range skill {
		skill[u] = random.NormFloat64() + 1
	}
	for i := range difficulty {
		difficulty[i] = random.NormFloat64()
	}
	timed := &strings.Builder{}
	timed.WriteString("learner,item,correct,response_time_ms\n")
	for range answers {
		u, i := random.IntN(learners), random.IntN(items)
		if random.Float64() < 0.1 {
			hasty[u] = !hasty[u]
		}
		logit, pace := skill[u]-difficulty[i], 0.0
		if hasty[u] {
			logit, pace = logit-1.5, -1
		}
		right := 0
		if random.Float64() < filter.Sigmoid(logit) {
			right = 1
		}
		fmt.Fprintf(timed, "%d,%d,%d,%.0f\n", u, i, right, 9000*math.Exp(0.3*random.NormFloat64()+pace+0.3*difficulty[i]))
	}
	path := filepath.Join(t.TempDir(), "answers.csv")
	if err := os.WriteFile(path, []byte(timed.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Load(t.Context(), "", path, "")
	if err != nil {
		t.Fatal(err)
	}
	loss := func() float64 {
		own, err := newEngine()
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := replay(t.Context(), a, own, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		return measure(p, a.Score).LogLoss
	}
	with := loss()
	a.Took = nil
	without := loss()
	t.Logf("log-loss %.4f with response times, %.4f without", with, without)
	if with > without-0.005 {
		t.Errorf("log-loss %.4f with response times, %.4f without: want at least .005 less (seed %d)", with, without, seed)
	}
}
