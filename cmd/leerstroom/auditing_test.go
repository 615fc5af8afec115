package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/internal/audit"
)

// auditedCommands returns what is on record of commands: action, outcome, subject
// and numbers, in order. Every record must name who it was.
func auditedCommands(t *testing.T, data string) (lines []string) {
	t.Helper()
	damaged, err := audit.Read(layout{data}.audit(), audit.Filter{}, func(r *audit.Record) error {
		if r.Role == roleOperator {
			if r.Operator == "" || r.Key != "" || r.At.IsZero() {
				t.Errorf("record = %+v, want an operator, a time and no key", r)
			}
			lines = append(lines, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s %d/%d", r.Action, r.Outcome, r.Subject, r.School, r.Given, r.Asked)), " "))
		}
		return nil
	})
	if err != nil || damaged > 0 {
		t.Fatalf("%d damaged lines, %v", damaged, err)
	}
	return lines
}

// holdsNoCanary looks into every file of the audit log.
func holdsNoCanary(t *testing.T, data, canary string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(layout{data}.audit(), "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files of the audit log, %v", len(files), err)
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(bytes.ToLower(content), []byte(canary)) {
			t.Errorf("%s holds a value", path)
		}
	}
}

// TestKeysAreMadeOnRecordOnly: who makes keys is on record, and where no record
// can be written no key is made.
func TestKeysAreMadeOnRecordOnly(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	for range 2 { // the second time there is nothing to make
		if code, _, errs := called(t, "", "keys", "create", "--data", data); code != 0 {
			t.Fatal(errs)
		}
	}
	code, out, errs := called(t, "", "keys", "rotate", "--seal", "--data", data)
	if code != 0 {
		t.Fatal(errs)
	}
	id := strings.Fields(strings.TrimPrefix(out, "connectors seal for key "))[0]
	want := []string{"keys_create begun 0/0", "keys_create done 0/0", "keys_rotate begun seal " + id + " 0/0", "keys_rotate done seal " + id + " 0/0"}
	if got := auditedCommands(t, data); !slices.Equal(got, want) {
		t.Errorf("on record are %q, want %q", got, want)
	}
	unwritable := t.TempDir()
	if err := os.WriteFile(layout{unwritable}.audit(), nil, 0o600); err != nil { // a file where the directory belongs
		t.Fatal(err)
	}
	if code, _, errs := called(t, "", "keys", "create", "--data", unwritable); code != 1 || !strings.Contains(errs, "audit log") {
		t.Errorf("keys create without an audit log = %d, %s; want 1 and why", code, errs)
	}
	if fileExists(layout{unwritable}.tokenKeys()) || fileExists(layout{unwritable}.public(sealRaw)) {
		t.Error("keys were made without a record")
	}
}
