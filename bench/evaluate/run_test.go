package evaluate_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/bench/evaluate"
)

// write puts text in a file of the test's directory, gzipped if asked.
func write(t *testing.T, name, text string, zipped bool) string {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(text)
	if zipped {
		b.Reset()
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// school returns answers of simulated learners to simulated items, and a persons
// file whose plausible values are the true skills with some noise.
func school(seed uint64, learners, items, each int) (answers, persons string) {
	random := rand.New(rand.NewPCG(seed, seed))
	difficulty := make([]float64, items)
	for i := range difficulty {
		difficulty[i] = random.NormFloat64()
	}
	var a, p strings.Builder
	a.WriteString("person,item,correct\n")
	p.WriteString("person,school,pv1,pv2\n")
	for u := range learners {
		skill := random.NormFloat64()
		fmt.Fprintf(&p, "%d,1,%.4f,%.4f\n", u, 500+70*(skill+0.3*random.NormFloat64()), 500+70*(skill+0.3*random.NormFloat64()))
		for _, i := range random.Perm(items)[:each] {
			y := 0
			if random.Float64() < 1/(1+math.Exp(difficulty[i]-skill)) {
				y = 1
			}
			fmt.Fprintf(&a, "%d,i%d,%d\n", u, i, y)
		}
	}
	return a.String(), p.String()
}

func TestReportHasTheAgreedKeys(t *testing.T) {
	t.Parallel()
	answers, persons := school(5, 300, 20, 15)
	var out bytes.Buffer
	plots := filepath.Join(t.TempDir(), "plots")
	err := evaluate.Run(t.Context(), evaluate.Config{
		Answers: write(t, "answers.csv.gz", answers, true), Persons: write(t, "persons.csv", persons, false),
		JSON: true, Plots: plots, Splits: 2,
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	var report map[string]map[string]any
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("decode report: %v", err)
	}
	if len(report) != 6 {
		t.Errorf("report has %d systems, want 6", len(report))
	}
	for _, key := range []string{"leerstroom", "elo_1_05", "elo_04", "elo_tree", "item_mean", "leerstroom_served"} {
		for _, field := range []string{"auc", "logloss", "rmse", "ece"} {
			if v, ok := report[key][field].(float64); !ok || !(v > 0 && v < 1) {
				t.Errorf("%s.%s = %v, want a number between 0 and 1", key, field, report[key][field])
			}
		}
	}
	for _, field := range []string{"difficulty_se", "difficulty_bound", "difficulty_reported_se", "skill_r", "percentile_mae"} {
		if v, ok := report["leerstroom"][field].(float64); !ok || v <= 0 {
			t.Errorf("leerstroom.%s = %v, want a number above 0", field, report["leerstroom"][field])
		}
	}
	if r := report["leerstroom"]["skill_r"].(float64); r < 0.8 {
		t.Errorf("skill_r = %.3f, want at least .8", r)
	}
	for _, name := range []string{"reliability.svg", "logloss.svg"} {
		if text, err := os.ReadFile(filepath.Join(plots, name)); err != nil || !strings.HasSuffix(string(text), "</svg>\n") {
			t.Errorf("figure %s: %v, %d bytes", name, err, len(text))
		}
	}
}

func TestFormatsOfTheSameAnswersGiveTheSameReport(t *testing.T) {
	t.Parallel()
	comma := "learner,item,timestamp,correct,skillset\na,x,1,1,s\nb,x,2,0,s\na,y,3,1,t\nb,y,4,1,t\n"
	renamed := strings.Replace(strings.ReplaceAll(comma, ",", "\t"), "learner\titem\ttimestamp\tcorrect\tskillset", "user_id\titem_id\ttimestamp\tcorrect\tskill_id", 1)
	want := ""
	for i, path := range []string{write(t, "a.csv", comma, false), write(t, "b.csv.gz", comma, true), write(t, "c.tsv", renamed, false),
		write(t, "d.csv", strings.ReplaceAll(comma, "\n", "\r\n"), false)} {
		r, err := evaluate.Evaluate(t.Context(), evaluate.Config{Answers: path})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%d %d %d %d %.6f", r.Answers, r.Learners, r.Items, r.Skills, r.Systems[0].LogLoss)
		if i == 0 {
			want = got
		}
		if got != want {
			t.Errorf("format %d: %s, want %s", i, got, want)
		}
	}
}

func TestTrainOnlyTeaches(t *testing.T) {
	t.Parallel()
	train, _ := school(1, 50, 10, 10)
	answers, _ := school(1, 20, 10, 10)
	r, err := evaluate.Evaluate(t.Context(), evaluate.Config{
		Answers: write(t, "a.csv", answers, false), Train: write(t, "t.csv", train, false),
		Skills: write(t, "s.csv", "item,skill\ni0,a\ni1,b\ni1,a\n", false),
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Answers != 200 || r.Taught != 500 || r.Items != 10 || r.Skills != 2 {
		t.Errorf("scored %d, taught %d, items %d, skills %d; want 200, 500, 10, 2", r.Answers, r.Taught, r.Items, r.Skills)
	}
}

func TestBadFilesAreRefusedWithoutTheirContent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"empty":         {"", "read header"},
		"no answers":    {"learner,item,correct\n", "the file holds none"},
		"no score":      {"learner,item\nsecret,x\n", "find columns"},
		"score above 1": {"learner,item,correct\nsecret,x,2\n", "line 2: score"},
		"short line":    {"learner,item,correct\nsecret,x\n", "line 2: want 3 fields"},
		"bad time":      {"learner,item,correct,timestamp\nsecret,x,1,noon\n", "line 2: timestamp"},
		"bad quotes":    {"learner,item,correct\n\"secret,x,1\n", "line 2"},
	} {
		err := evaluate.Run(t.Context(), evaluate.Config{Answers: write(t, "a.csv", c.text, false)}, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v, want one with %q and without the line", name, err, c.want)
		}
	}
}

// TestDegenerateDataGiveAReport: data that leave something undefined still give a
// table and JSON, with what is undefined left out.
func TestDegenerateDataGiveAReport(t *testing.T) {
	t.Parallel()
	lines := func(n int, line func(i int) string) string {
		var b strings.Builder
		b.WriteString("learner,item,correct\n")
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"one answer":  lines(1, func(int) string { return "a,x,1\n" }),
		"one learner": lines(200, func(i int) string { return fmt.Sprintf("a,x%d,%d\n", i%20, i/3%2) }),
		"one item":    lines(200, func(i int) string { return fmt.Sprintf("a%d,x,%d\n", i, i/3%2) }),
		"one of both": lines(200, func(i int) string { return fmt.Sprintf("a,x,%d\n", i/3%2) }),
		"all right":   lines(400, func(i int) string { return fmt.Sprintf("a%d,x%d,1\n", i/20, i%20) }),
		"all wrong":   lines(400, func(i int) string { return fmt.Sprintf("a%d,x%d,0\n", i/20, i%20) }),
		"halves":      lines(400, func(i int) string { return fmt.Sprintf("a%d,x%d,0.5\n", i/20, i%20) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := write(t, "a.csv", text, false)
			for _, asJSON := range []bool{true, false} {
				var out bytes.Buffer
				if err := evaluate.Run(t.Context(), evaluate.Config{Answers: path, JSON: asJSON, Splits: 2}, &out); err != nil {
					t.Fatal(err)
				}
				if !asJSON {
					continue
				}
				var report map[string]map[string]any
				if err := json.Unmarshal(out.Bytes(), &report); err != nil {
					t.Fatalf("decode %s: %v", out.String(), err)
				}
				if loss, ok := report["leerstroom"]["logloss"].(float64); !ok || !(loss >= 0 && loss < 1) {
					t.Errorf("log-loss = %v, want a number from 0 to 1", report["leerstroom"]["logloss"])
				}
			}
		})
	}
}

func TestConfigNamesTheField(t *testing.T) {
	t.Parallel()
	for _, c := range []evaluate.Config{{}, {Answers: "x", Order: "random"}, {Answers: "x", Splits: -1}} {
		if err := c.Validate(); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestCancelledRunEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	answers, _ := school(5, 20, 10, 5)
	if err := evaluate.Run(ctx, evaluate.Config{Answers: write(t, "a.csv", answers, false)}, &bytes.Buffer{}); err == nil {
		t.Error("a cancelled evaluation gives a report")
	}
}

// TestClosedLoop holds the figures that adaptive choice must reach.
func TestClosedLoop(t *testing.T) {
	t.Parallel()
	const seeds = 4
	var efficiency, ratio, online, rmse, reported float64
	for seed := range uint64(seeds) {
		s, err := evaluate.Simulate(t.Context(), evaluate.SimulationConfig{
			Learners: 1000, Items: 200, Rounds: 50, RandomShare: 0.1, Target: 0.75, Seed: seed + 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		efficiency += s.Refit.Efficiency / seeds
		online += s.Online.Efficiency / seeds
		ratio += s.Refit.VarianceRatio / seeds
		rmse += s.Refit.RMSE / seeds
		reported += s.Refit.Reported / seeds
		if s.SkillVariance < 0.9 || s.SkillVariance > 1.1 {
			t.Errorf("seed %d: variance of skills %.3f of the truth, want .9 to 1.1", seed+1, s.SkillVariance)
		}
	}
	t.Logf("efficiency online %.3f, refit %.3f; variance ratio %.3f; RMSE %.3f, reported %.3f", online, efficiency, ratio, rmse, reported)
	if efficiency < 0.9 {
		t.Errorf("efficiency of the refit = %.3f of the bound, want at least .9 (seeds 1 to %d)", efficiency, seeds)
	}
	if ratio < 0.9 || ratio > 1.1 {
		t.Errorf("variance ratio of the refit = %.3f, want .9 to 1.1 (seeds 1 to %d)", ratio, seeds)
	}
	if reported < 0.9*rmse || reported > 1.1*rmse {
		t.Errorf("reported standard error %.3f, root mean square error %.3f, want within 10 %%", reported, rmse)
	}
}

func TestSimulationNamesTheField(t *testing.T) {
	t.Parallel()
	for _, c := range []evaluate.SimulationConfig{
		{}, {Learners: 5, Items: 5, Rounds: 1, RandomShare: 2, Target: 0.5}, {Learners: 5, Items: 5, Rounds: 1, Target: 1},
	} {
		if _, err := evaluate.Simulate(t.Context(), c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
