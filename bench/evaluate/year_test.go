package evaluate

import (
	"math"
	"testing"
)

// TestSimulatedYear: over a school year of several subjects and goals learners have
// as many right answers as asked for, nearly all exercises are used, none much more
// than its share, goals get what was asked for them, and nothing comes back at once.
func TestSimulatedYear(t *testing.T) {
	t.Parallel()
	for _, target := range []float64{0.65, 0.75, 0.85} {
		y, err := SimulateYear(t.Context(), YearConfig{Learners: 150, Subjects: 2, Goals: 4, Exercises: 60, Days: 100, PerDay: 5, Target: target, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("target %.2f: %d answers, success %.3f (sd between learners %.3f), used %.3f, most used %.2f × share, random %.3f, quotas off by %.4f at most",
			target, y.Answers, y.Success, y.Spread, y.Used, y.Most, y.Random, y.Quota)
		if math.Abs(y.Success-target) > 0.03 {
			t.Errorf("target %.2f: average success %.3f, want within .03", target, y.Success)
		}
		if y.Used < 0.9 || y.Most > 2 {
			t.Errorf("target %.2f: %.3f of the exercises used, the most used %.2f times its share, want .9 or more, 2 or less", target, y.Used, y.Most)
		}
		if y.Random < 0.05 || y.Random > 0.11 {
			t.Errorf("target %.2f: share of random exercises %.3f, want .05 to .1", target, y.Random)
		}
		if y.Quota > 0.01 || y.Repeats > 0 {
			t.Errorf("target %.2f: a learner's share of a goal is off by %.4f, %d exercises came back too soon, want at most .01 and none", target, y.Quota, y.Repeats)
		}
	}
}
