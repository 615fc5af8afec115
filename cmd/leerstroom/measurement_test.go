package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// practise posts a round of answers: of 15 learners at 20 exercises of one goal, the
// later ones harder.
func (s *system) practise(school, round string) {
	s.t.Helper()
	publisher := s.population.Authorisations()[school][0]
	var body bytes.Buffer
	for learner := range 15 {
		for exercise := range 20 {
			score := 0
			if (learner*7+exercise*3)%20 > exercise/2 {
				score = 1
			}
			s.line(&body, map[string]any{"id": fmt.Sprint(round, "-", learner, "-", exercise), "publisher": publisher, "school": school,
				"learner": map[string]string{"scheme": "las", "value": fmt.Sprint("L-", learner)}, "group": "5A", "year_group": 5,
				"exercise": fmt.Sprint("o", round, exercise), "goal": "optellen", "subject": "rekenen", "kind": "practice", "score": score, "attempt": 1,
				"answered_at": time.Now().Add(-time.Minute).Format(time.RFC3339)})
		}
	}
	s.post(&hunt{t: s.t}, "/v1/answers", s.publishers[publisher], body.Bytes())
}

// awaitStored waits until so many answers are in ClickHouse, with their sums.
func (s *system) awaitStored(t *testing.T, answers int) {
	t.Helper()
	if report := s.must("fsck", "--data", s.data(), "--config", s.config(), "--wait", "2m"); strings.Contains(report, "DIFF") {
		t.Errorf("fsck finds differences:\n%s", report)
	}
	if n := s.count(t, "answers FINAL"); n != answers {
		t.Fatalf("answers stored = %d, want %d", n, answers)
	}
}

// TestScalesAndNorms goes the whole way on a running system: a refit by the command
// and one by the schedule are published as scales, a norm that was frozen is listed
// and is the one that percentiles compare with.
func TestScalesAndNorms(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 1, 4), "norms: {moments: [{name: T, from: 08-01, to: 07-31}]}", "refit: {off: true}")
	school := slices.Sorted(maps.Keys(s.population.Authorisations()))[0]
	flags := []string{"--data", s.data(), "--config", s.config()}
	s.up()
	if out := s.must(append([]string{"refit"}, flags...)...); !strings.Contains(out, "nothing was published") {
		t.Errorf("refit of nothing prints %s", out)
	}
	s.practise(school, "a")
	s.awaitStored(t, 300)
	out := s.must(append([]string{"refit", "--wait", "2m"}, flags...)...)
	for _, want := range []string{"optellen", "300", "scale 1 is published"} {
		if !strings.Contains(out, want) {
			t.Errorf("refit prints no %q:\n%s", want, out)
		}
	}
	s.frozen(t, flags)
	s.terminate()

	s.change(func(config map[string]any) { config["refit"] = map[string]any{"every": "2s"} })
	s.up()
	s.practise(school, "b")
	enginetest.Eventually(t, 3*time.Minute, "a refit by the schedule, of all answers", func() error {
		if got := strings.TrimSpace(s.ask(t, "SELECT max(number), argMax(answers, number) FROM leerstroom.scales")); !strings.HasSuffix(got, "\t600") {
			return fmt.Errorf("newest scale, its answers: %s", got)
		}
		return nil
	})
	s.awaitStored(t, 600)
	s.terminate()
}

// frozen freezes the norm of the school year, twice, and looks for it in the list
// and in the interface.
func (s *system) frozen(t *testing.T, flags []string) {
	t.Helper()
	freeze := append([]string{"norms", "freeze"}, flags...)
	out := s.must(freeze...)
	name, rest, _ := strings.Cut(strings.TrimSpace(out), " ")
	if !strings.HasSuffix(name, "-T") || !strings.HasPrefix(rest, "version 1: frozen") || !strings.Contains(rest, "15 learners, 3 norm groups") {
		t.Fatalf("norms freeze prints %s", out)
	}
	if out := s.must(append(freeze, name)...); !strings.Contains(out, "version 1: unchanged") {
		t.Errorf("freezing again prints %s", out)
	}
	if out := s.must(append([]string{"norms", "list"}, flags...)...); strings.Count(out, name) != 1 {
		t.Errorf("norms list prints %s", out)
	}
	if out, code := s.fails(append([]string{"norms", "freeze", "2026-2027-Q"}, flags...)...); code != 2 || !strings.Contains(out, "moment of the calendar") {
		t.Errorf("freezing an unknown moment = %d, %s", code, out)
	}
	enginetest.Eventually(t, 2*time.Minute, "percentiles against the frozen norm", func() error {
		reply, err := s.send(http.MethodGet, "/v1/percentiles?goal=optellen&year_group=5", s.engineKey, "", nil)
		if err != nil {
			return err
		}
		var got struct {
			Norm struct{ Kind, Name string }
		}
		if err := json.Unmarshal(reply, &got); err != nil {
			return err
		}
		if got.Norm.Kind != "frozen" || got.Norm.Name != name {
			return fmt.Errorf("the norm is %+v", got.Norm)
		}
		return nil
	})
}

func TestRefitsAreDueAtNight(t *testing.T) {
	t.Parallel()
	calendar := (&normsConfig{}).calendar()
	at := func(day, hour, minute int) time.Time {
		return time.Date(2026, 11, day, hour, minute, 0, 0, calendar.Location)
	}
	for _, c := range []struct {
		every     time.Duration
		now, want time.Time
	}{
		{24 * time.Hour, at(26, 2, 59), at(26, 3, 0)},
		{24 * time.Hour, at(26, 3, 0), at(27, 3, 0)},
		{6 * time.Hour, at(26, 14, 10), at(26, 15, 0)},
		{6 * time.Hour, at(26, 1, 0), at(26, 3, 0)},
		{48 * time.Hour, at(26, 4, 0), at(28, 3, 0)},
	} {
		config := refitConfig{Every: c.every}
		if got := config.next(c.now); !got.Equal(c.want) {
			t.Errorf("every %v at %v: due %v, want %v", c.every, c.now, got, c.want)
		}
	}
}

// TestEvaluateCommand: JSON with the agreed keys on standard output, and of a file
// that can't be used what is wrong with it, without a value.
func TestEvaluateCommand(t *testing.T) {
	t.Parallel()
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "answers.csv")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	code, out, errs := called(t, "", "evaluate", "--answers", file("learner,item,correct\na,x,1\nb,x,0\na,y,0\nb,y,1\n"), "--json")
	var report map[string]map[string]any
	if err := json.Unmarshal([]byte(out), &report); code != 0 || err != nil {
		t.Fatalf("evaluate = %d, %v\n%s%s", code, err, out, errs)
	}
	for _, system := range []string{"leerstroom", "elo_1_05", "elo_04", "elo_tree", "item_mean"} {
		for _, figure := range []string{"auc", "logloss", "rmse", "ece"} {
			if _, ok := report[system][figure].(float64); !ok {
				t.Errorf("%s.%s is missing", system, figure)
			}
		}
	}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no file":      {[]string{}, 2, "answers"},
		"missing file": {[]string{"--answers", filepath.Join(t.TempDir(), "none.csv")}, 1, "no such file"},
		"empty":        {[]string{"--answers", file("")}, 1, "header"},
		"no score":     {[]string{"--answers", file("learner,item\ncanary,x\n")}, 1, "find columns"},
		"not a number": {[]string{"--answers", file("learner,item,correct\ncanary,x,canary\n")}, 1, "line 2"},
		"no order":     {[]string{"--answers", file("learner,item,correct\na,x,1\n"), "--order", "none"}, 2, "order"},
	} {
		code, out, errs := called(t, "", append([]string{"evaluate"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.says) || strings.Contains(out+errs, "canary") {
			t.Errorf("%s: exit %d, %s%s; want %d and %q", name, code, out, errs, c.code, c.says)
		}
	}
}
