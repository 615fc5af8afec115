package evaluate

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestMeasureKnownAnswers(t *testing.T) {
	t.Parallel()
	// Four predictions of which two tie: of the 2×2 pairs of a right and a wrong
	// answer, (.8,.4) and (.8,.6) win, (.6,.4) wins, (.6,.6) ties: 3.5 of 4.
	q := measure([]float64{0.8, 0.6, 0.6, 0.4}, []float64{1, 1, 0, 0})
	want := Quality{
		AUC:     3.5 / 4,
		LogLoss: -(math.Log(0.8) + math.Log(0.6) + math.Log(0.4) + math.Log(0.6)) / 4,
		RMSE:    math.Sqrt((0.04 + 0.16 + 0.36 + 0.16) / 4),
		ECE:     (0.2 + 2*0.1 + 0.4) / 4,
	}
	for name, pair := range map[string][2]float64{
		"AUC": {q.AUC, want.AUC}, "log-loss": {q.LogLoss, want.LogLoss}, "RMSE": {q.RMSE, want.RMSE}, "ECE": {q.ECE, want.ECE},
	} {
		if math.Abs(pair[0]-pair[1]) > 1e-12 {
			t.Errorf("%s = %v, want %v", name, pair[0], pair[1])
		}
	}
}

func TestAUCAgainstAllPairs(t *testing.T) {
	t.Parallel()
	const seed = 11
	random := rand.New(rand.NewPCG(seed, 0))
	p, y := make([]float64, 300), make([]float64, 300)
	for i := range p {
		p[i] = float64(random.IntN(20)) / 20
		y[i] = float64(random.IntN(2))
	}
	var won, pairs float64
	for i := range p {
		for j := range p {
			if y[i] == 1 && y[j] == 0 {
				pairs++
				switch {
				case p[i] > p[j]:
					won++
				case p[i] == p[j]:
					won += 0.5
				}
			}
		}
	}
	if got := auc(p, y); math.Abs(got-won/pairs) > 1e-12 {
		t.Errorf("auc = %v, want %v (seed %d)", got, won/pairs, seed)
	}
}

func TestPercentilesAndCorrelation(t *testing.T) {
	t.Parallel()
	got := percentiles([]float64{3, 1, 2, 5, 4})
	for i, want := range []float64{50, 0, 25, 100, 75} {
		if got[i] != want {
			t.Errorf("percentile %d = %v, want %v", i, got[i], want)
		}
	}
	if r := correlation([]float64{1, 2, 3}, []float64{1, 3, 2}); math.Abs(r-0.5) > 1e-12 {
		t.Errorf("correlation = %v, want .5", r)
	}
	if e := percentileError([]float64{1, 2, 3}, []float64{1, 3, 2}); math.Abs(e-100.0/3) > 1e-12 {
		t.Errorf("percentile error = %v, want 33.3", e)
	}
}

func TestHalfDifference(t *testing.T) {
	t.Parallel()
	// Differences ±1 after centring, a common spread: standard error 1/√2.
	e := [2][]float64{{1, -1, 1, -1}, {2, 0, 4, 2}}
	spread := (deviation(e[0]) + deviation(e[1])) / 2
	if got := halfDifference(e, spread); math.Abs(got-math.Sqrt(0.5)) > 1e-12 {
		t.Errorf("half difference = %v, want √½", got)
	}
}
