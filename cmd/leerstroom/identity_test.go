package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/spf13/cobra"
)

// called runs a command in this process and returns its exit code and output.
func called(t *testing.T, stdin string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetIn(strings.NewReader(stdin))
	err := root.ExecuteContext(t.Context())
	switch {
	case errors.Is(err, errUsage):
		code = 2
	case err != nil:
		code = 1
	}
	if err != nil {
		stderr.WriteString(err.Error())
	}
	return code, stdout.String(), stderr.String()
}

// embedded gives a data directory whose engines can be started.
func embedded(t *testing.T) string {
	t.Helper()
	if _, err := engine.FindLibrary(""); err != nil {
		enginetest.Missing(t, err)
	}
	return filepath.Join(t.TempDir(), "data")
}

// TestRefusesToStartOnASpoiltKeyset goes through the real command: it must not
// start a stage, and say why and what to do.
func TestRefusesToStartOnASpoiltKeyset(t *testing.T) {
	t.Parallel()
	data := embedded(t)
	if code, out, errs := called(t, "", "keys", "create", "--data", data); code != 0 || !strings.Contains(out, "epoch 1") {
		t.Fatalf("keys create = %d, %s%s", code, out, errs)
	}
	path := layout{data}.tokenKeys()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if code, _, errs := called(t, "", "keys", "create", "--data", other); code != 0 {
		t.Fatal(errs)
	}
	foreign, err := os.ReadFile(layout{other}.tokenKeys())
	if err != nil {
		t.Fatal(err)
	}
	// The registry gets a learner, so that it is known whose keyset it is.
	roster := filepath.Join(t.TempDir(), "roster.csv")
	if err := os.WriteFile(roster, []byte("las\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := called(t, "", "roster", "import", roster, "--school", "12AB00", "--data", data); code != 0 {
		t.Fatal(errs)
	}
	for _, c := range []struct {
		name    string
		content []byte
		mode    os.FileMode
		says    []string
	}{
		{"missing", nil, 0, []string{"missing", "restore it from its backup"}},
		{"truncated", good[:len(good)/2], 0o600, []string{"damaged", "restore it from its backup"}},
		{"edited", bytes.Replace(good, []byte("primary"), []byte("active "), 1), 0o600, []string{"damaged"}},
		{"group-readable", good, 0o640, []string{"readable by others", "chmod 600"}},
		{"of another deployment", foreign, 0o600, []string{"another keyset", "load the keyset that this deployment began with"}},
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if c.content != nil {
			if err := os.WriteFile(path, c.content, c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
		}
		code, _, errs := called(t, "", "keys", "status", "--data", data)
		if code == 1 && c.content == nil { // nor does the command that begins deployments put another in its place
			code, _, errs = called(t, "", "up", "--listen", "127.0.0.1:0", "--data", data)
		}
		if code != 1 || slices.ContainsFunc(c.says, func(word string) bool { return !strings.Contains(errs, word) }) {
			t.Errorf("%s: exit %d, %s; want 1 and words %q", c.name, code, errs, c.says)
		}
	}
}

// TestRosterCommands: outcomes by line, no value in any output, decisions by
// identifiers that need not be on the command line.
func TestRosterCommands(t *testing.T) {
	t.Parallel()
	data := embedded(t)
	if code, _, errs := called(t, "", "keys", "create", "--data", data); code != 0 {
		t.Fatal(errs)
	}
	config, err := loadConfiguration("")
	if err != nil {
		t.Fatal(err)
	}
	running, err := openDeployment(t.Context(), config, layout{data}, slog.New(slog.DiscardHandler)) // its engines serve all commands
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := running.close(); err != nil {
			t.Error(err)
		}
	})
	eckid := func(digit string) string { return "https://ketenid.nl/201703/" + strings.Repeat(digit, 128) }
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "roster.csv")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours := []string{"--school", "12AB00", "--data", data}
	steps := []struct {
		name, stdin string
		args        []string
		code        int
		want        []string // in standard output, or in standard error of a failure
	}{
		{"a roster", "", []string{"roster", "import", file("las;eckid;first_name;group\ncanary-1;" + eckid("a") + ";Canaryanna;5A\ncanary-2;" + eckid("b") + ";Canarybram;5A\n")}, 0,
			[]string{"line 2: created", "line 3: created", "2 lines: 0 unchanged, 0 renamed, 2 created"}},
		{"a trial", "", []string{"roster", "import", "--dry-run", file("las;publisher:bingel\ncanary-1;canary-b1\ncanary-3;\n")}, 0, []string{"line 2: linked", "line 3: created"}},
		{"swapped twins and a bad line", "", []string{"roster", "import", file("las;eckid\ncanary-1;" + eckid("b") + "\ncanary-2;" + eckid("a") + "\ncanary-3;eckid_canary\n")}, 1,
			[]string{"line 2: conflict", "line 3: conflict", "line 4: invalid: eckid not_eckid"}},
		{"the decision", "las:canary-2", []string{"roster", "reassign", "--alias", "eckid:" + eckid("b"), "--to", "las:canary-1", "--alias", "eckid:" + eckid("a"), "--to", "-"}, 0, []string{"reassigned 2 identifiers"}},
		{"the twins again", "", []string{"roster", "import", file("las;eckid\ncanary-1;" + eckid("b") + "\ncanary-2;" + eckid("a") + "\n")}, 0, []string{"line 2: unchanged", "line 3: unchanged"}},
		{"one pupil under two keys", "", []string{"roster", "merge", "--from", "@" + file("las:canary-1\n"), "--into", "las:canary-2"}, 0, []string{"merged"}},
		{"one pupil on one line", "", []string{"roster", "import", file("las;basispoort;eckid\ncanary-1;;" + eckid("a") + "\n")}, 0, []string{"line 2: unchanged"}},
		{"an unknown pupil", "", []string{"roster", "merge", "--from", "las:canary-7", "--into", "las:canary-2"}, 1, []string{"alias is unknown"}},
		{"no scheme", "", []string{"roster", "merge", "--from", "canary-7", "--into", "las:canary-2"}, 2, []string{"want eckid:VALUE"}},
		{"no roster", "", []string{"roster", "import", file("name\ncanary\n")}, 1, []string{"not a roster", "column 1"}},
		{"an unknown pupil to erase", "las:canary-7", []string{"erase", "--alias", "-"}, 1, []string{"alias is unknown"}},
		{"nobody to erase", "", []string{"erase"}, 2, []string{"one of --alias, --aliases and --again is needed"}},
	}
	for _, step := range steps {
		code, out, errs := called(t, step.stdin, append(step.args, ours...)...)
		for _, words := range step.want {
			if !strings.Contains(out+errs, words) {
				t.Errorf("%s: no %q in\n%s%s", step.name, words, out, errs)
			}
		}
		if code != step.code {
			t.Errorf("%s: exit %d, want %d\n%s%s", step.name, code, step.code, out, errs)
		}
		if strings.Contains(strings.ToLower(out+errs), "canary") {
			t.Errorf("%s: the output holds a value", step.name)
		}
	}
	holdsNoCanary(t, data, "canary")
	want := []string{"keys_create begun 0/0", "keys_create done 0/0",
		"roster_import begun 12AB00 0/0", "roster_import done 12AB00 2/2",
		"roster_plan begun 12AB00 0/0", "roster_plan done 12AB00 2/2",
		"roster_import begun 12AB00 0/0", "roster_import failed 12AB00 0/3", // of its lines none was taken
		"roster_reassign begun 12AB00 0/2", "roster_reassign done 12AB00 2/2",
		"roster_import begun 12AB00 0/0", "roster_import done 12AB00 2/2",
		"roster_merge begun 12AB00 0/1", "roster_merge done 12AB00 1/1",
		"roster_import begun 12AB00 0/0", "roster_import done 12AB00 1/1",
		"roster_merge begun 12AB00 0/1", "roster_merge failed 12AB00 0/1",
		"roster_import begun 12AB00 0/0", "roster_import failed 12AB00 0/0",
		"erase begun 12AB00 0/1", "erase failed 12AB00 0/1"}
	if got := auditedCommands(t, data); !slices.Equal(got, want) {
		t.Errorf("on record are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if code, out, errs := called(t, "", "keys", "status", "--data", data, "--prove"); code != 0 || !strings.Contains(out, "nothing depends on an epoch before 1") {
		t.Errorf("keys status --prove = %d\n%s%s", code, out, errs)
	}
}

// TestALearnersIdentityChanges goes the whole way on a running system: answers
// under identifiers that nobody knows, a roster that makes two of them one learner,
// a merge, an erasure, a rotation and the retirement of the old key. fsck finds every
// answer where it belongs.
func TestALearnersIdentityChanges(t *testing.T) {
	t.Parallel()
	broker := enginetest.StartBroker(t) // Apache Kafka in `make apache`
	s := newSystem(t, newPopulation(t, 1, 4), "engine:", "  kafka:", "    brokers: ["+strings.Join(broker.Brokers(), ", ")+"]", "")
	school := slices.Sorted(maps.Keys(s.population.Authorisations()))[0]
	s.up()
	s.deliverOf(school, "L-1", "L-2", "L-3")
	s.deliverAs(school, "publisher", "x-1")
	flags := []string{"--data", s.data(), "--config", s.config()}
	must := func(args ...string) string { t.Helper(); return s.must(append(args, flags...)...) }
	clean := func(when string) {
		t.Helper()
		if report := must("fsck"); strings.Contains(report, "DIFF") {
			t.Errorf("fsck finds differences %s:\n%s", when, report)
		}
	}
	clean("after the answers")
	roster := filepath.Join(t.TempDir(), "roster.csv")
	publisher := s.population.Authorisations()[school][0]
	if err := os.WriteFile(roster, []byte("las;publisher:"+publisher+"\nL-1;x-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := must("roster", "import", roster, "--school", school); !strings.Contains(out, "line 2: merged") {
		t.Errorf("roster import prints %s", out)
	}
	must("roster", "merge", "--school", school, "--from", "las:L-2", "--into", "las:L-1")
	enginetest.Eventually(t, 2*time.Minute, "the answers of three identifiers are those of one learner", func() error {
		if n := s.count(t, "departed FINAL"); n != 2 {
			return fmt.Errorf("%d tokens have gone", n)
		}
		return nil
	})
	clean("after two merges")
	if got := s.ask(t, "SELECT max(n), count() FROM (SELECT count() AS n FROM leerstroom.answers FINAL GROUP BY learner)"); strings.TrimSpace(got) != "9\t2" {
		t.Errorf("the most answers of a learner, and learners = %s, want 9 and 2", got)
	}
	if got := s.ask(t, "SELECT max(answers) FROM leerstroom.skills FINAL WHERE layer = 'overall'"); strings.TrimSpace(got) != "9" {
		t.Errorf("a skill is computed from %s answers at most, want 9", got)
	}
	out := must("erase", "--school", school, "--alias", "las:L-3")
	if !strings.Contains(out, "rows left           0") || s.count(t, "answers FINAL") != 9 {
		t.Errorf("an erasure leaves %d answers, want 9, and prints\n%s", s.count(t, "answers FINAL"), out)
	}
	clean("after an erasure")
	must("keys", "rotate")
	must("keys", "status", "--prove")
	must("keys", "retire", "1")
	if n := s.count(t, "answers FINAL WHERE key_epoch = 2"); n != 9 {
		t.Errorf("%d answers are under the new epoch, want 9", n)
	}
	clean("after a rotation")
	s.terminate()
}

// TestQuickCommandIsNoFailure: a command whose work is over before the stages
// beside it have started.
func TestQuickCommandIsNoFailure(t *testing.T) {
	t.Parallel()
	data := embedded(t)
	if code, _, errs := called(t, "", "keys", "create", "--data", data); code != 0 {
		t.Fatal(errs)
	}
	command := &cobra.Command{}
	command.SetErr(new(bytes.Buffer))
	command.SetContext(t.Context())
	for attempt := range 3 {
		worked := false
		err := withDeployment(command, &stageFlags{data: data}, func(context.Context, *deployment) error {
			worked = true
			return nil
		})
		if err != nil || !worked {
			t.Errorf("attempt %d: worked: %v, %v", attempt, worked, err)
		}
	}
}
