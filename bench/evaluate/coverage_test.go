package evaluate

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
)

var coverageSeed = flag.Uint64("coverage-seed", 0, "added to the seeds of the simulation of bands")

// TestBandCoverage: 90 % bands hold the truth 88 to 92 times of 100, those of
// skills and those of percentiles, in a closed loop with skills that drift as the
// filter supposes.
// LEERSTROOM_PLOTS names a directory that gets the picture.
func TestBandCoverage(t *testing.T) {
	t.Parallel()
	names := [filter.Layers]string{"overall", "subject", "goal"}
	var hold, skill, bands [filter.Layers]float64
	for _, c := range []CoverageConfig{ // -coverage-seed takes others than these were chosen with
		{Learners: 1500, PerDay: 1, RandomDay: 0.5, Seed: 1},
		{Learners: 1500, PerDay: 2, RandomDay: 0.5, Seed: 2},
		{Learners: 1500, PerDay: 4, RandomDay: 0.5, Seed: 3},
	} {
		c.Seed += *coverageSeed
		r, err := SimulateCoverage(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%.0f answers per learner", r.Answers)
		for kind, l := range r.Layers {
			t.Logf("  %-8s percentile %.3f (width %.0f), skill %.3f (without covariances %.3f), group %.3f, growth %.3f, RMSE %.3f, SE %.3f",
				names[kind], l.Percentile, l.Width, l.Skill, l.Diagonal, l.Groups, l.Growth, l.RMSE, l.SE)
			hold[kind] += l.Percentile * float64(l.Bands)
			skill[kind] += l.Skill * float64(l.Bands)
			bands[kind] += float64(l.Bands)
		}
		if directory := os.Getenv("LEERSTROOM_PLOTS"); directory != "" && c.PerDay == 2 {
			if err := os.WriteFile(filepath.Join(directory, "percentile-bands.svg"), []byte(bandsPlot(r.Learner)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for kind := range hold {
		if share := skill[kind] / bands[kind]; share < 0.88 || share > 0.92 {
			t.Errorf("%s: bands hold the true skill %.3f of the time, want .88 to .92", names[kind], share)
		}
		if share := hold[kind] / bands[kind]; share < 0.88 || share > 0.92 {
			t.Errorf("%s: bands hold the true percentile %.3f of the time, want .88 to .92", names[kind], share)
		}
	}
}
