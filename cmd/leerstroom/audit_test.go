package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/internal/audit"
)

func TestAuditCommand(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	log, err := audit.Open(layout{data}.audit(), audit.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, school := range []string{"12AB00", "34CD01", "12AB00"} {
		if err := log.Append(audit.Record{Action: audit.ActionNames, Outcome: audit.OutcomeServed, Key: "key-1", Role: "school", School: school, Group: "5A", Asked: 28, Given: 28}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	audited := func(args ...string) (lines []string, errs string, code int) {
		var out, problems bytes.Buffer
		code = run(t.Context(), append([]string{"audit", "--data", data}, args...), &out, &problems)
		return strings.Split(strings.TrimSpace(out.String()), "\n"), problems.String(), code
	}
	lines, errs, code := audited("--school", "12AB00", "--from", "2026-01-01")
	if code != 0 || len(lines) != 2 {
		t.Fatalf("audit = %d, %q, %s, want two lines", code, lines, errs)
	}
	for _, line := range lines {
		var r audit.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.School != "12AB00" || r.Given != 28 {
			t.Errorf("line = %s (%v), want a record of the school", line, err)
		}
	}
	if lines, errs, code := audited("--until", "2026-01-01"); code != 0 || lines[0] != "" {
		t.Errorf("audit before everything = %d, %q, %s, want nothing", code, lines, errs)
	}
	for _, wrong := range [][]string{{"--school", "x"}, {"--from", "yesterday"}, {"--until", "2026"}} {
		if _, errs, code := audited(wrong...); code == 0 || !strings.Contains(errs, wrong[0]) {
			t.Errorf("audit %v = %d, %s, want an error about it", wrong, code, errs)
		}
	}
	if err := os.WriteFile(filepath.Join(layout{data}.audit(), "20260101T000000Z.jsonl"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if lines, errs, code := audited(); code == 0 || len(lines) != 3 || !strings.Contains(errs, "1 lines") {
		t.Errorf("audit with a damaged line = %d, %q, %s, want an error after all records", code, lines, errs)
	}
}
