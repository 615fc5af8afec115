package evaluate

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// datasetsVariable names the environment variable with the directory of the real
// data sets. They are not part of the repository.
const datasetsVariable = "LEERSTROOM_DATASETS"

// datasets returns the directory of the real data sets, or skips.
func datasets(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(datasetsVariable)
	if _, err := os.Stat(dir); dir == "" || err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s names no directory with the data sets", datasetsVariable)
		}
		t.Skipf("%s names no directory with the data sets: accuracy on real answers not checked", datasetsVariable)
	}
	return dir
}

// anchor holds AUC, RMSE and log-loss that a baseline is known to have.
type anchor struct {
	key                string
	auc, rmse, logLoss float64
}

// checkAnchors compares with published figures, to the digits in which they are
// published.
func checkAnchors(t *testing.T, r *Report, anchors []anchor) {
	t.Helper()
	for _, want := range anchors {
		for _, s := range r.Systems {
			if s.Key != want.key {
				continue
			}
			const digit = 0.00005001
			if math.Abs(s.AUC-want.auc) > digit || math.Abs(s.RMSE-want.rmse) > digit || math.Abs(s.LogLoss-want.logLoss) > digit {
				t.Errorf("%s: AUC %.4f, RMSE %.4f, log-loss %.4f, want %.4f, %.4f, %.4f",
					s.Key, s.AUC, s.RMSE, s.LogLoss, want.auc, want.rmse, want.logLoss)
			}
		}
	}
}

// checkOwn compares our engine with its targets.
func checkOwn(t *testing.T, r *Report, auc, logLoss float64) {
	t.Helper()
	own := r.Systems[0]
	t.Logf("AUC %.4f, log-loss %.4f, RMSE %.4f, ECE %.4f", own.AUC, own.LogLoss, own.RMSE, own.ECE)
	if own.Key != keyLeerstroom || own.AUC < auc || own.LogLoss > logLoss || own.ECE > 0.01 {
		t.Errorf("%s: AUC %.4f, log-loss %.4f, ECE %.4f, want at least %.3f, at most %.3f and .01",
			own.Key, own.AUC, own.LogLoss, own.ECE, auc, logLoss)
	}
}

// checkServed holds what the path of production must reach.
func checkServed(t *testing.T, r *Report, auc, logLoss float64) {
	t.Helper()
	served := r.Systems[len(r.Systems)-1]
	t.Logf("as served: AUC %.4f, log-loss %.4f, RMSE %.4f, ECE %.4f, %.0f ns/answer", served.AUC, served.LogLoss, served.RMSE, served.ECE, served.Nanoseconds)
	if served.Key != keyServed || served.AUC < auc || served.LogLoss > logLoss || served.ECE > 0.01 {
		t.Errorf("%s: AUC %.4f, log-loss %.4f, ECE %.4f, want at least %.3f, at most %.3f and .01", served.Key, served.AUC, served.LogLoss, served.ECE, auc, logLoss)
	}
}

// predictions evaluates the predictions alone.
func predictions(t *testing.T, c Config) *Report {
	t.Helper()
	c.Progress = func(string, int, int) {}
	a, err := Load(context.Background(), c.Train, c.Answers, c.Skills)
	if err != nil {
		t.Fatal(err)
	}
	if c.Order != OrderFile {
		a.sortByTime()
	}
	r := &Report{Answers: a.Len() - a.Scored}
	if err := r.predict(context.Background(), a, &c); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStatics(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(datasets(t), "statics")
	r := predictions(t, Config{
		Train: filepath.Join(dir, "train.csv.gz"), Answers: filepath.Join(dir, "test.csv.gz"), Skills: filepath.Join(dir, "q.csv.gz"),
	})
	checkAnchors(t, r, []anchor{
		{keyItemMean, .7954, .3716, .4290}, {keyElo, .8185, .3649, .4143},
		{keyEloFixed, .8122, .3697, .4239}, {keyEloTree, .8058, .3706, .4372},
	})
	checkOwn(t, r, .838, .394)
	checkServed(t, r, .826, .407)
}

func TestAlgebraInOrderOfTime(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(datasets(t), "algebra05")
	r := predictions(t, Config{Answers: filepath.Join(dir, "answers.csv.gz"), Skills: filepath.Join(dir, "q.csv.gz")})
	checkAnchors(t, r, []anchor{
		{keyItemMean, .7198, .4008, .4957}, {keyElo, .7545, .3909, .4744},
		{keyEloFixed, .7435, .3959, .4838}, {keyEloTree, .7851, .3934, .4832},
	})
	checkOwn(t, r, .832, .410)
	checkServed(t, r, .818, .425)
}

func TestAlgebraInOrderOfFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(datasets(t), "algebra05")
	r := predictions(t, Config{Answers: filepath.Join(dir, "answers.csv.gz"), Order: OrderFile})
	checkAnchors(t, r, []anchor{
		{keyItemMean, .7143, .4008, .4954}, {keyElo, .7551, .3909, .4739},
		{keyEloFixed, .7443, .3958, .4834}, {keyEloTree, .7827, .3949, .4877},
	})
	checkOwn(t, r, .832, .410)
}

func TestTIMSS(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(datasets(t), "timss2011_g4")
	r, err := Evaluate(t.Context(), Config{
		Answers: filepath.Join(dir, "answers.csv.gz"), Persons: filepath.Join(dir, "persons.csv.gz"), Skills: filepath.Join(dir, "qmatrix.csv"),
	})
	if err != nil {
		t.Fatal(err)
	}
	own := r.Systems[0]
	t.Logf("r %.4f, percentile error %.2f; difficulty %.4f, bound %.4f, reported %.4f",
		*own.SkillR, *own.PercentileMAE, *own.DifficultySE, *own.DifficultyBound, *own.DifficultyReported)
	if *own.SkillR < .919 || *own.PercentileMAE > 8.5 {
		t.Errorf("r %.4f, percentile error %.2f, want at least .919, at most 8.5", *own.SkillR, *own.PercentileMAE)
	}
	for _, p := range []*Precision{r.Dense, r.Sparse} {
		se := p.Measured[keyLeerstroom]
		if se > p.Bound {
			t.Errorf("difficulty at %.0f answers: standard error %.4f, want at most the bound %.4f", p.PerItem, se, p.Bound)
		}
		if math.Abs(p.Reported/se-1) > 0.1 {
			t.Errorf("difficulty at %.0f answers: reported %.4f, empirical %.4f, want within 10 %%", p.PerItem, p.Reported, se)
		}
	}
	checkOwn(t, r, .793, .547)
	checkServed(t, r, .788, .553)
}
