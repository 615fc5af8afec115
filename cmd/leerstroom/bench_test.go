package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBenchKillsAndRecovers runs the one benchmark that starts the system as a
// process and kills it: it comes back with all learners.
func TestBenchKillsAndRecovers(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 1, 10))
	report := filepath.Join(s.directory, "report.md")
	s.must("bench", "--only", "recovery", "--recovery-learners", "400", "--data", s.directory, "--report", report,
		"--json", filepath.Join(s.directory, "figures.json"))
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, figure := range []string{"recovery_learners", "recovery_listening_seconds", "recovery_partitions_restored_seconds", "recovery_skills_served_seconds",
		"recovery_reading_alone_seconds", "recovery_transform_killed_seconds", "recovery_serve_killed_seconds", "recovery_states_alone_seconds", "recovery_read_model_alone_seconds"} {
		if !strings.Contains(string(text), "`"+figure+"`") {
			t.Errorf("no figure %s in\n%s", figure, text)
		}
	}
	left, err := filepath.Glob(filepath.Join(s.directory, "leerstroom-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
