package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// deliverOf posts three answers of each learner, known by LAS keys.
func (s *system) deliverOf(school string, learners ...string) {
	s.t.Helper()
	s.deliverAs(school, "las", learners...)
}

// deliverAs posts three answers of each learner, known by identifiers of a scheme.
func (s *system) deliverAs(school, scheme string, learners ...string) {
	s.t.Helper()
	publisher := s.population.Authorisations()[school][0]
	var body bytes.Buffer
	for _, learner := range learners {
		for i := range 3 {
			s.line(&body, map[string]any{"id": fmt.Sprint(learner, "-", i), "publisher": publisher, "school": school,
				"learner": map[string]string{"scheme": scheme, "value": learner}, "group": "5A", "year_group": 5, "exercise": fmt.Sprint("o", i), "goal": "optellen",
				"subject": "rekenen", "kind": "practice", "score": 1, "attempt": 1, "answered_at": time.Now().Add(time.Duration(i-9) * time.Hour).Format(time.RFC3339)})
		}
	}
	s.post(&hunt{t: s.t}, "/v1/answers", s.publishers[publisher], body.Bytes())
}

// copyTo copies the engines' files of a system that is not running.
func (s *system) copyTo(to string) { s.copyEngines(s.data(), to) }

// restoreFrom puts the engines' files of a copy in the place of the present ones.
func (s *system) restoreFrom(from string) { s.copyEngines(from, s.data()) }

func (s *system) copyEngines(from, to string) {
	s.t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{"kafka", "clickhouse"} {
		if err := os.RemoveAll(filepath.Join(to, name)); err != nil {
			s.t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-a", filepath.Join(from, name), to).CombinedOutput(); err != nil {
			s.t.Fatalf("copy %s: %v\n%s", name, err, out)
		}
	}
}

// TestErasuresOutliveARestore erases a learner, puts back a backup from before in
// which the learner is there, and repeats the erasure from its certificate. One
// that was interrupted is finished in the same way.
func TestErasuresOutliveARestore(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 1, 4))
	school := slices.Sorted(maps.Keys(s.population.Authorisations()))[0]
	backup := filepath.Join(s.directory, "backup")
	of := []string{"--school", school, "--data", s.data(), "--config", s.config()}
	erase := func(args ...string) string {
		t.Helper()
		return s.must(append(append([]string{"erase"}, args...), of...)...)
	}
	stored := func(want int, when string) {
		t.Helper()
		if report := s.must("fsck", "--data", s.data(), "--config", s.config()); strings.Contains(report, "DIFF") {
			t.Errorf("fsck finds differences %s:\n%s", when, report)
		}
		if n := s.count(t, "answers FINAL"); n != want {
			t.Errorf("%d answers are stored %s, want %d", n, when, want)
		}
	}
	s.up()
	s.deliverOf(school, "L-1", "L-2", "L-3")
	stored(9, "before the erasure")
	s.terminate()
	s.copyTo(backup)

	s.up()
	if out := erase("--alias", "las:L-3"); !strings.Contains(out, "rows left           0") {
		t.Errorf("erase prints\n%s", out)
	}
	stored(6, "after the erasure")
	if out := erase("--again"); !strings.HasSuffix(out, "1 certificates, 0 erasures repeated or finished\n") {
		t.Errorf("erase --again of what is erased prints\n%s", out)
	}
	s.terminate()

	s.restoreFrom(backup)
	s.up()
	if n := s.count(t, "answers FINAL"); n != 9 {
		t.Errorf("%d answers are stored after the restore, want 9", n)
	}
	if out, code := s.fails("fsck"); code != 1 || !strings.Contains(out, "DIFF  erased learners stay away          1 of school "+school+": leerstroom erase --school "+school+" --again") {
		t.Errorf("fsck after the restore: exit %d\n%s", code, out)
	}
	enginetest.Eventually(t, time.Minute, "the stage says that an erased learner is back", func() error {
		if !strings.Contains(s.printed(), "learners are there again who were erased") {
			return errors.New("it does not")
		}
		return nil
	})
	if out := erase("--again"); !strings.Contains(out, "rows left           0") || !strings.HasSuffix(out, "1 certificates, 1 erasures repeated or finished\n") {
		t.Errorf("erase --again prints\n%s", out)
	}
	stored(6, "after the erasure was repeated")

	if out, code := s.fails("erase", "--school", school, "--alias", "las:L-2", "--wait", "1ns"); code != 1 || !strings.Contains(out, "then use --again") {
		t.Errorf("an erasure that can't wait: exit %d\n%s", code, out)
	}
	if signed, all := s.certificates(); signed != 1 || all != 2 {
		t.Errorf("%d of %d certificates are signed, want 1 of 2", signed, all)
	}
	if out := erase("--again"); !strings.HasSuffix(out, "2 certificates, 1 erasures repeated or finished\n") {
		t.Errorf("erase --again after an interruption prints\n%s", out)
	}
	if signed, all := s.certificates(); signed != 2 || all != 2 {
		t.Errorf("%d of %d certificates are signed, want all", signed, all)
	}
	stored(3, "after the interrupted erasure was finished")
	s.terminate()
	done, failed := 0, 0
	for _, line := range auditedCommands(t, s.data()) {
		done += strings.Count(line, "erase done "+school+" 1/1")
		failed += strings.Count(line, "erase failed "+school+" 0/1")
	}
	if done != 3 || failed != 1 {
		t.Errorf("on record are %d erasures and %d that failed, want 3 and 1", done, failed)
	}
}

// TestManyErasuresTogether: a flood of erasures rewrites every table once, while
// answers of others come in. When one learner is unknown, nobody is erased.
func TestManyErasuresTogether(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 1, 4))
	school := slices.Sorted(maps.Keys(s.population.Authorisations()))[0]
	of := []string{"--school", school, "--data", s.data(), "--config", s.config()}
	list := filepath.Join(s.directory, "leavers")
	const leavers, stayers = 40, 10
	var all []string
	for i := range leavers + stayers {
		all = append(all, fmt.Sprint("L-", i))
	}
	erase := func(identifiers ...string) []string {
		t.Helper()
		if err := os.WriteFile(list, []byte(strings.Join(identifiers, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		return append([]string{"erase", "--aliases", list}, of...)
	}
	mutations := func() (n int) {
		t.Helper()
		if _, err := fmt.Sscan(s.ask(t, "SELECT count() FROM system.mutations WHERE database = 'leerstroom'"), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.up()
	s.deliverOf(school, all...)
	s.must("fsck", "--data", s.data(), "--config", s.config())

	if out, code := s.fails(erase("las:L-0", "las:nobody")...); code != 1 || !strings.Contains(out, "identifier 2: alias is unknown") || strings.Contains(out, "nobody\"") {
		t.Errorf("an unknown learner among others: exit %d\n%s", code, out)
	}
	if n := s.count(t, "answers FINAL"); n != 3*len(all) {
		t.Errorf("%d answers are stored, want %d", n, 3*len(all))
	}

	identifiers := []string{"las:L-0", ""} // again below
	for _, learner := range all[:leavers] {
		identifiers = append(identifiers, "las:"+learner)
	}
	before := mutations()
	command := s.command(erase(identifiers...)...)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	delivered := 0
	for running := true; running; delivered++ {
		s.deliverOf(school, fmt.Sprint("M-", delivered))
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("erase: %v\n%s", err, out.String())
			}
			running = false
		default:
		}
	}
	if n := strings.Count(out.String(), "Certificate of erasure"); n != leavers {
		t.Errorf("erase prints %d certificates, want %d\n%s", n, leavers, out.String())
	}
	if signed, kept := s.certificates(); signed != leavers || kept != leavers {
		t.Errorf("%d of %d certificates are signed, want %d", signed, kept, leavers)
	}
	const tables = 12 // that hold rows of learners
	if n := mutations() - before; n == 0 || n > tables {
		t.Errorf("%d mutations for %d erasures, want at most %d", n, leavers, tables)
	}
	if report := s.must("fsck", "--data", s.data(), "--config", s.config()); strings.Contains(report, "DIFF") {
		t.Errorf("fsck finds differences:\n%s", report)
	}
	if n, want := s.count(t, "answers FINAL"), 3*(stayers+delivered); n != want {
		t.Errorf("%d answers are stored, want %d", n, want)
	}
	s.terminate()
}

// certificates counts the certificates, and those whose digest is right.
func (s *system) certificates() (signed, all int) {
	s.t.Helper()
	files, err := filepath.Glob(layout{s.data()}.path("erasures", "*.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		var c, again certificate
		if err := json.Unmarshal(content, &c); err != nil {
			s.t.Fatal(err)
		}
		again = c
		if err := again.sign(); err != nil {
			s.t.Fatal(err)
		}
		if c.Digest == again.Digest {
			signed++
		}
	}
	return signed, len(files)
}

// TestErasedBytesAreOnNoDisk erases a learner and then looks for the ids of its
// answers and for its token in every byte of the data directory: they are gone from
// ClickHouse when it has dropped replaced parts, and from the embedded Kafka after
// its next start. Only the list of tokens that have left names the token.
func TestErasedBytesAreOnNoDisk(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 1, 4))
	school := slices.Sorted(maps.Keys(s.population.Authorisations()))[0]
	flags := []string{"--data", s.data(), "--config", s.config()}
	clean := func(when string) {
		t.Helper()
		if report := s.must(append([]string{"fsck"}, flags...)...); strings.Contains(report, "DIFF") {
			t.Errorf("fsck finds differences %s:\n%s", when, report)
		}
	}
	s.up()
	s.deliverOf(school, "L-3")
	clean("after the first answers")
	erased := s.byLearner(t)
	s.deliverOf(school, "L-1", "L-2")
	clean("after all answers")
	ids, tokens := unhexed(t, slices.Collect(maps.Keys(erased))), unhexed(t, slices.Compact(slices.Sorted(maps.Values(erased))))
	if len(ids) != 3 || len(tokens) != 1 {
		t.Fatalf("%d answers of %d learners, want 3 of one", len(ids), len(tokens))
	}
	for _, where := range []string{"kafka", "clickhouse"} {
		if s.files(t, ids, where) == nil || s.files(t, tokens, where) == nil {
			t.Errorf("%s holds nothing of the learner before the erasure: this test sees nothing", where)
		}
	}
	for _, table := range []string{"answers", "skills", "skills_daily", "vacated"} {
		s.ask(t, "ALTER TABLE leerstroom."+table+" MODIFY SETTING old_parts_lifetime = 1") // of 8 minutes
	}
	left := strings.TrimSpace(s.ask(t, "SELECT arrayElement(data_paths, 1) FROM system.tables WHERE database = 'leerstroom' AND name = 'departed'"))
	s.must(append([]string{"erase", "--school", school, "--alias", "las:L-3"}, flags...)...)
	s.terminate()
	s.up()
	enginetest.Eventually(t, 2*time.Minute, "no file holds anything of the learner", func() error {
		found := s.files(t, ids, "")
		for _, path := range s.files(t, tokens, "") {
			if !strings.HasPrefix(path, filepath.Clean(left)) {
				found = append(found, path)
			}
		}
		if len(found) > 0 {
			return fmt.Errorf("found in %q", found)
		}
		return nil
	})
	for event := range s.byLearner(t) {
		if s.files(t, unhexed(t, []string{event}), "clickhouse") == nil {
			t.Error("an answer of another learner is on no disk")
		}
	}
	clean("after the erasure")
	s.terminate()
}

func unhexed(t *testing.T, texts []string) (all [][]byte) {
	t.Helper()
	for _, text := range texts {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raw)
	}
	return all
}

// files returns the files below a part of the data directory that hold any of the
// needles, as bytes or in hex.
func (s *system) files(t *testing.T, needles [][]byte, below string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(s.data(), below), func(path string, entry os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) || err == nil && !entry.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) { // an engine has removed it meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		lower := bytes.ToLower(content)
		for _, needle := range needles {
			if bytes.Contains(content, needle) || bytes.Contains(lower, []byte(hex.EncodeToString(needle))) {
				found = append(found, path)
				return nil
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
