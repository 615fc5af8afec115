package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// sealingKeys returns the ids of the keys that `keys list` shows, the one that
// connectors seal for first.
func (s *system) sealingKeys(t *testing.T) (ids []string) {
	t.Helper()
	for line := range strings.Lines(s.must("keys", "list", "--data", s.data(), "--config", s.config())) {
		if fields := strings.Fields(line); fields[0] == "seal" {
			ids = append(ids, fields[1])
		}
	}
	return ids
}

// TestSealingKeyIsRetiredByCommand rotates the sealing key of a running system:
// the former one can't be destroyed while a dead letter needs it, and is when
// nothing does. Answers of before and after are stored.
func TestSealingKeyIsRetiredByCommand(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 2, 10))
	s.up()
	school := s.population.Schools[0].Code
	flags := []string{"--data", s.data(), "--config", s.config()}
	must := func(args ...string) string { t.Helper(); return s.must(append(args, flags...)...) }
	s.damage(t, school)
	s.deliverOne(t, school, "b-1")
	enginetest.Eventually(t, time.Minute, "a letter is sealed for the key", func() error {
		if n := s.count(t, "dead_letters FINAL"); n != 1 {
			return fmt.Errorf("%d letters", n)
		}
		return nil
	})
	former := s.sealingKeys(t)[0]
	if out, code := s.fails("keys", "retire", "--seal", former); code != 1 || !strings.Contains(out, "rotate first") {
		t.Errorf("retiring the key that is in use: exit %d, %q", code, out)
	}
	must("keys", "rotate", "--seal")
	keys := s.sealingKeys(t)
	if len(keys) != 2 || keys[0] == former || keys[1] != former {
		t.Fatalf("after a rotation the keys are %q, want a new one and %s", keys, former)
	}
	if out, code := s.fails("keys", "retire", "--seal", "0123456789abcdef"); code != 2 || !strings.Contains(out, "no sealing key is called so") {
		t.Errorf("retiring a key that there is not: exit %d, %q", code, out)
	}
	enginetest.Eventually(t, time.Minute, "the key is kept for the letter alone", func() error {
		if out, code := s.fails("keys", "retire", "--seal", former); code != 1 || !strings.Contains(out, "1 dead letters are sealed for it") {
			return errors.New(out)
		}
		return nil
	})
	if out := must("deadletter", "replay", "--all"); out != "replayed 1 of 1 letters\n" {
		t.Errorf("a letter sealed for the former key is not replayed: %q", out)
	}
	if report := must("fsck", "--wait", "2m"); strings.Contains(report, "DIFF") {
		t.Errorf("fsck finds differences:\n%s", report)
	}
	must("deadletter", "purge", "--all")
	enginetest.Eventually(t, time.Minute, "connectors have turned to the new key, and the former one is destroyed", func() error {
		code, out, errs := called(t, "", append([]string{"keys", "retire", "--seal", former}, flags...)...)
		if code == 0 && strings.Contains(out, "its secret is destroyed") {
			return nil
		}
		return errors.New(out + errs)
	})
	if keys := s.sealingKeys(t); len(keys) != 1 || keys[0] == former || fileExists(layout{s.data()}.private(sealRaw)) {
		t.Errorf("after the retirement the keys are %q", keys)
	}
	s.terminate()
	s.up() // the stages do without the former key
	s.deliverOne(t, school, "b-2")
	if report := must("fsck", "--wait", "2m"); strings.Contains(report, "DIFF") || s.count(t, "answers FINAL") != 2 {
		t.Errorf("%d answers are stored, want 2; fsck:\n%s", s.count(t, "answers FINAL"), report)
	}
	s.terminate()
	var records []string
	for _, line := range auditedCommands(t, s.data()) {
		if strings.HasPrefix(line, "keys_r") {
			records = append(records, line)
		}
	}
	want := []string{"keys_rotate begun seal " + keys[0] + " 0/0", "keys_rotate done seal " + keys[0] + " 0/0",
		"keys_retire begun seal " + former + " 0/0", "keys_retire done seal " + former + " 0/0"}
	if strings.Join(records, ", ") != strings.Join(want, ", ") {
		t.Errorf("on record are %q, want %q", records, want)
	}
}
