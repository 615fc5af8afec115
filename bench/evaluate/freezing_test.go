package evaluate

import (
	"context"
	"path/filepath"
	"testing"
)

// TestFreezingCostsLittle measures, on the path of production, what it costs that
// difficulties stand still between versions.
func TestFreezingCostsLittle(t *testing.T) {
	t.Parallel()
	a, err := Load(context.Background(), "", filepath.Join(datasets(t), "algebra05", "answers.csv.gz"), "")
	if err != nil {
		t.Fatal(err)
	}
	a.sortByTime()
	auc := func(epoch int) float64 {
		p, nanoseconds, err := replay(t.Context(), a, newServed(a, epoch, false), func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		q := measure(p, a.Score)
		t.Logf("versions of %d first answers: AUC %.5f, log-loss %.5f, %.0f ns/answer", epoch, q.AUC, q.LogLoss, nanoseconds)
		return q.AUC
	}
	atOnce := auc(1)
	for _, c := range []struct {
		epoch   int
		largest float64 // cost in AUC
	}{{100, 0.001}, {500, 0.002}, {1000, 0.002}} {
		if got := auc(c.epoch); got < atOnce-c.largest {
			t.Errorf("versions of %d first answers: AUC %.5f, at once %.5f, want at most %v less", c.epoch, got, atOnce, c.largest)
		}
	}
}
