package bench

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// TestRun runs the benchmark on a small stream: every figure is there, and every
// measure has verified that the rows that went in are stored.
func TestRun(t *testing.T) {
	t.Parallel()
	connection, _ := enginetest.ClickHouse(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	results, err := Run(ctx, RunConfig{
		Environment: &Environment{Brokers: enginetest.Kafka(t), ClickHouse: connection, Dir: t.TempDir(), Prefix: enginetest.UniqueName("bench"), Partitions: 4},
		Command:     "go test", Answers: 20_000, Schools: 20, Learners: 40, Workers: 4, RegistryLearners: 10_000, ModelLearners: 2_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		figureHMAC, figureDriver, figureColumns, figurePseudonym, figureCopy, figureProduce, figureWriter, figureIdem, figureTransform,
		figureEndToEnd, figureUnscored, figureEngine,
		figureTokenCore, figureTokenBare, figureRegistry, figureResolution, figureSeal, figureSealSmall, figureWriteRaw, figureOpen, figureOpenSmall,
		figureRotation, figureRotationToken,
		"pseudonymize_allocations_per_row", "transform_and_store_allocations_per_row", "end_to_end_allocations_per_row", figureKnown,
		"end_to_end_known_allocations_per_message", figureCopied, figureWay, "end_to_end_resident_memory",
	} {
		if v := results.Value(name); !(v > 0) || math.IsInf(v, 0) {
			t.Errorf("figure %s = %v, want a number above 0", name, v)
		}
	}
	for name, to := range map[string]string{figureEndToEnd: figureEngine, figureUnscored: figureDriver, figureKnown: figureWay, figureTokenCore: figureTokenBare, figureSeal: figureWriteRaw} {
		f := results.find(name)
		if want := results.Value(name) / results.Value(to); f.To != to || math.Abs(f.Ratio-want) > 1e-9 {
			t.Errorf("%s is compared with %q, ratio %v; want %q, %v", name, f.To, f.Ratio, to, want)
		}
	}
}

func TestRunRefusesUnknownMeasure(t *testing.T) {
	t.Parallel()
	if _, err := Run(t.Context(), RunConfig{Only: []string{"speed"}}); err == nil {
		t.Error("Run of a measure that there is not = nil error")
	}
}
