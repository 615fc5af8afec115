package fault_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/bench/fault"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

var (
	seedFlag   = flag.Uint64("seed", 1, "seed of the first campaign")
	roundsFlag = flag.Int("rounds", 20, "rounds of a campaign")
	apacheFlag = flag.Bool("apache", os.Getenv(enginetest.KafkaVariable) == "apache", "Apache Kafka instead of the embedded broker")
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// build makes the program.
func build(t *testing.T) string {
	t.Helper()
	if _, err := engine.FindLibrary(""); err != nil {
		enginetest.Missing(t, err)
	}
	path := filepath.Join(t.TempDir(), "leerstroom")
	command := exec.Command("go", "build", "-tags", "fault", "-o", path, "github.com/leerstroom/leerstroom/cmd/leerstroom")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return path
}

// campaign runs rounds on a deployment and reports what was struck.
func campaign(t *testing.T, binary string, seed uint64, rounds int) *fault.Campaign {
	t.Helper()
	config := fault.Config{Binary: binary, Dir: t.TempDir(), Seed: seed, Apache: *apacheFlag, Disk: true}
	c, err := fault.NewCampaign(t.Context(), config)
	if errors.Is(err, fault.ErrNoDisk) {
		t.Logf("without full disks and power loss: %v", err)
		config.Disk, config.Dir = false, t.TempDir()
		c, err = fault.NewCampaign(t.Context(), config)
	}
	if err != nil {
		enginetest.Missing(t, err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	for round := 1; round <= rounds; round++ {
		began := time.Now()
		if err := c.Round(t.Context()); err != nil {
			t.Fatalf("%v\nrepeat with: go test ./bench/fault -run '^TestRounds$' -args -seed=%d -rounds=%d -apache=%v", err, seed, round, *apacheFlag)
		}
		t.Logf("seed %d, round %d: %.1f s", seed, round, time.Since(began).Seconds())
	}
	return c
}

// TestRounds breaks a deployment again and again.
func TestRounds(t *testing.T) {
	c := campaign(t, build(t), *seedFlag, *roundsFlag)
	t.Logf("%d events acknowledged, %d requests repeated, %d processes ended by themselves; struck: %v", c.Events, c.Again, c.Exits, c.Struck)
}
