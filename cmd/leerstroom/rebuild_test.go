package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/bench"
)

// computed are the tables that a rebuild computes, without places in the log.
var computed = map[string]string{
	"skills": "SELECT * EXCEPT (position) FROM leerstroom.skills FINAL ORDER BY ALL",
	"sums":   "SELECT * EXCEPT (position) FROM leerstroom.item_sums FINAL ORDER BY ALL",
	"norms":  "SELECT * EXCEPT (position) FROM leerstroom.norms FINAL WHERE notEmpty(bins) ORDER BY ALL",
	"said":   "SELECT position, evidence_gradient, evidence_information FROM leerstroom.answers FINAL ORDER BY ALL",
}

// asAnotherModel leaves what a model would that thinks less of skills and more of
// what an answer says. Versions of rows are raised, so that the new ones stay.
var asAnotherModel = []string{
	"INSERT INTO leerstroom.skills SELECT * REPLACE (mean * 0.9 AS mean, position + 1 AS position) FROM leerstroom.skills FINAL",
	"INSERT INTO leerstroom.answers SELECT * REPLACE (evidence_information + 1 AS evidence_information, changed + 1 AS changed) FROM (SELECT * FROM leerstroom.answers FINAL WHERE evidence_information > 0)",
	"INSERT INTO leerstroom.item_sums SELECT * REPLACE (information + 65536 * answers AS information, position + 1 AS position) FROM leerstroom.item_sums FINAL",
}

// TestRebuildCommand: what another model has left becomes what this one makes of
// the same answers, bit for bit; also when everything is killed on the way while
// answers come in. Under the same model there is nothing to do.
func TestRebuildCommand(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 4, 20), "norm_interval: 1s")
	s.up()
	work := func(answers int) { // those of before are delivered again
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := s.push(ctx, newWorkload(t, s.population, bench.WorkloadConfig{Answers: answers}), nil); err != nil {
			t.Fatalf("push: %v\n%s", err, s.printed())
		}
	}
	rebuild := func() string { t.Helper(); return s.must("rebuild", "--data", s.data(), "--config", s.config()) }
	fsck := func() {
		t.Helper()
		if report := s.must("fsck", "--data", s.data(), "--config", s.config(), "--wait", "2m"); strings.Contains(report, "DIFF") {
			t.Errorf("fsck finds differences:\n%s", report)
		}
	}
	work(3000)
	fsck()
	if out := rebuild(); !strings.Contains(out, "nothing differs") {
		t.Errorf("a rebuild under the same model says\n%s", out)
	}
	if said := s.printed(); !strings.Contains(said, "answers: 3000 of 3000 (100 %)") {
		t.Errorf("a rebuild does not say how far it is:\n%s", said)
	}
	want := s.tables(t)
	spoil := func() {
		for _, statement := range asAnotherModel {
			s.ask(t, statement)
		}
		fsck()   // it is consistent
		s.kill() // what is in memory is of the model of before
		s.up()
	}
	spoil()
	if out := rebuild(); !strings.Contains(out, "partitions have switched") || !strings.Contains(out, "scale 1 is published") {
		t.Errorf("a rebuild after a change of the model says\n%s", out)
	}
	fsck()
	for table, got := range s.tables(t) {
		if got != want[table] {
			t.Errorf("%s differ from those of an undisturbed run:\n%.2000s\nwant\n%.2000s", table, got, want[table])
		}
	}

	spoil()
	command := s.command("rebuild", "--data", s.data(), "--config", s.config())
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	work(3500)
	s.kill() // at whatever the switch has come to
	if err := command.Process.Kill(); err != nil {
		t.Logf("the rebuild has ended: %v", err)
	}
	_ = command.Wait() // killed, or the system was taken away under it
	s.up()
	work(4000)
	rebuild()
	if out := rebuild(); !strings.Contains(out, "nothing differs") {
		t.Errorf("a second rebuild says\n%s", out)
	}
	fsck()
	s.terminate()
}

// tables returns what a rebuild computes, as text.
func (s *system) tables(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for name, query := range computed {
		all[name] = s.ask(t, query)
	}
	return all
}
