package forecast_test

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
	"github.com/leerstroom/leerstroom/transform/filter/forecast"
)

func newModel(t testing.TB, c forecast.Config) *forecast.Model {
	t.Helper()
	m, err := forecast.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// events returns n simulated answers of learners with skills to items with
// difficulties, from a seed.
func events(seed uint64, n int) ([]forecast.Event, []float64) {
	random := rand.New(rand.NewPCG(seed, seed))
	skill, difficulty := make([]float64, 40), make([]float64, 60)
	for i := range skill {
		skill[i] = random.NormFloat64()
	}
	for i := range difficulty {
		difficulty[i] = random.NormFloat64()
	}
	event, score := make([]forecast.Event, n), make([]float64, n)
	for i := range event {
		u, q := random.IntN(len(skill)), random.IntN(len(difficulty))
		event[i] = forecast.Event{
			Learner: uint64(u + 1), Item: uint64(q + 1), Goal: uint64(q % 7), // goal 0 = unknown
			AtMs: int64(i+1) * 5000, Tags: []uint64{uint64(q % 3)},
		}
		if random.Float64() < filter.Sigmoid(skill[u]-difficulty[q]) {
			score[i] = 1
		}
	}
	return event, score
}

// digest returns a hash of the bits of all forecasts.
func digest(t testing.TB, m *forecast.Model, event []forecast.Event, score []float64) uint64 {
	t.Helper()
	h := fnv.New64a()
	for i, e := range event {
		f := m.Predict(e)
		for _, p := range []float64{f.P, f.Filter, f.Quick, f.Head, f.Full} {
			if !(p > 0 && p < 1) {
				t.Fatalf("answer %d: forecast %+v, want within (0, 1)", i, f)
			}
			_ = binary.Write(h, binary.LittleEndian, math.Float64bits(p)) // a hash never fails
		}
		m.LearnTimed(score[i], float64(i%11)) // every eleventh is unknown
	}
	return h.Sum64()
}

// TestForecastsAreTheSameBitsEverywhere holds the hash of all forecasts of a
// simulated log: another machine, compiler or order of tables must not change it.
func TestForecastsAreTheSameBitsEverywhere(t *testing.T) {
	t.Parallel()
	event, score := events(1, 20_000)
	const want = uint64(0xbe89135b0b47d3ee)
	if got := digest(t, newModel(t, forecast.Config{}), event, score); got != want {
		t.Errorf("digest of the forecasts = %#x, want %#x", got, want)
	}
}

func TestModelRecoversSkillAndItsExpertsAgreeWithTheTruth(t *testing.T) {
	t.Parallel()
	event, score := events(2, 40_000)
	m := newModel(t, forecast.Config{})
	var loss, filterLoss float64
	for i, e := range event {
		f := m.Predict(e)
		if i > len(event)/2 {
			loss -= score[i]*math.Log(f.P) + (1-score[i])*math.Log(1-f.P)
			filterLoss -= score[i]*math.Log(f.Filter) + (1-score[i])*math.Log(1-f.Filter)
		}
		m.Learn(score[i])
	}
	// The data hold nothing but skill and difficulty: the mixture must not lose
	// what the plain filter has by believing in chance patterns.
	if loss > filterLoss+0.002*float64(len(event)/2) {
		t.Errorf("log-loss of the mixture %.1f, of the filter %.1f (seed 2)", loss, filterLoss)
	}
	if _, known := m.Skill(1, 0); !known {
		t.Error("learner 1 has no skill")
	}
	if _, known := m.Skill(999, 0); known {
		t.Error("an unknown learner has a skill")
	}
}

func TestContextIsLearned(t *testing.T) {
	t.Parallel()
	// Every second answer is right, whatever the learner and item: only what came
	// before tells which.
	m := newModel(t, forecast.Config{})
	var late float64
	const n = 4000
	for i := range n {
		f := m.Predict(forecast.Event{Learner: uint64(i/20 + 1), Item: uint64(i%7 + 1)})
		score := float64(i & 1)
		if i >= n-200 {
			late += math.Abs(f.P - score)
		}
		m.Learn(score)
	}
	if late/200 > 0.1 {
		t.Errorf("mean error of the last 200 forecasts %.3f, want at most .1", late/200)
	}
}

func TestFullTablesForgetAndGoOn(t *testing.T) {
	t.Parallel()
	event, score := events(3, 5000)
	m := newModel(t, forecast.Config{Limit: 10})
	digest(t, m, event, score)
}

func TestConfigNamesTheField(t *testing.T) {
	t.Parallel()
	if _, err := forecast.New(forecast.Config{Limit: -1}); err == nil {
		t.Error("a negative limit is accepted")
	}
	bad := filter.DefaultParameters()
	bad.MaxStep = 0
	if _, err := forecast.New(forecast.Config{Parameters: &bad}); err == nil {
		t.Error("a largest step of 0 is accepted")
	}
}

func BenchmarkForecast(b *testing.B) {
	b.ReportAllocs()
	event, score := events(4, 100_000)
	m := newModel(b, forecast.Config{})
	for i := 0; b.Loop(); i++ {
		j := i % len(event)
		m.Predict(event[j])
		m.Learn(score[j])
	}
}
