package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// deliverOne posts one answer line of a school.
func (s *system) deliverOne(t *testing.T, school, id string) {
	t.Helper()
	publisher := s.population.Publishers[0]
	line := fmt.Sprintf(`{"id":%q,"publisher":%q,"school":%q,"learner":{"scheme":"las","value":"L-4711"},"exercise":"o-1","kind":"practice","score":1,"answered_at":"2026-09-20T10:15:00+02:00"}`,
		id, publisher.ID, school)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url()+"/v1/answers", strings.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.publishers[publisher.ID])
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("deliver: status %s", response.Status)
	}
}

// damage puts a message that differs from its digest where the answers made of
// the next raw message of a school belong, as a broken disk or a wrong hand
// might.
func (s *system) damage(t *testing.T, school string) {
	t.Helper()
	engines, err := engine.Attach(engine.Config{DataDir: s.data()})
	if err != nil {
		t.Fatal(err)
	}
	client, err := stream.NewClient(stream.Config{Brokers: engines.Brokers})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topics, partition := stream.NewTopics(""), answer.PartitionOf(school, 8)
	_, next, err := client.Offsets(t.Context(), topics.Raw, partition)
	if err != nil {
		t.Fatal(err)
	}
	m := stream.Message{Value: []byte("canary-4711 is not what it was"), Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(answer.SchemaAnswers)}, stream.Int64Header(stream.HeaderRawOffset, next),
		stream.Int64Header(stream.HeaderKeyEpoch, 1), stream.DigestHeader([]byte("what it was")), {Key: "canary-4711", Value: []byte("canary-4711")}}}
	if _, err := client.Produce(t.Context(), topics.Answers, partition, m); err != nil {
		t.Fatal(err)
	}
}

// TestDeadLetterCommands loses an answer to a damaged message, finds it in the
// dead letters, delivers it again, and gives another one up.
func TestDeadLetterCommands(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 2, 10))
	s.up()
	school := s.population.Schools[0].Code
	flags := []string{"--data", s.data(), "--config", s.config()}
	letters := func(args ...string) string {
		return s.must(append(append([]string{"deadletter"}, args...), flags...)...)
	}
	lose := func(id string, want int) {
		s.damage(t, school)
		s.deliverOne(t, school, id)
		enginetest.Eventually(t, time.Minute, "the letter is indexed", func() error {
			if n := s.count(t, "dead_letters FINAL"); n != want {
				return fmt.Errorf("%d letters", n)
			}
			return nil
		})
	}
	lose("b-1", 1)
	partition := answer.PartitionOf(school, 8)
	name := fmt.Sprintf("%d/0", partition)
	list, shown := letters("list"), letters("show", name)
	if fields := strings.Fields(strings.Split(list, "\n")[1]); len(fields) != 8 || strings.Join(fields[:6], " ") != fmt.Sprintf("transform digest answers %d waiting 1", partition) {
		t.Errorf("list prints\n%s", list)
	}
	for _, want := range []string{"raw-offset", "answers.v1", "as its digest says: false", "(unknown)"} {
		if !strings.Contains(shown, want) {
			t.Errorf("show does not print %q:\n%s", want, shown)
		}
	}
	if strings.Contains(list+shown, "canary") {
		t.Error("a value of the letter is printed")
	}
	if n := s.count(t, "answers FINAL"); n != 0 {
		t.Fatalf("%d answers are stored, want 0 before the replay", n)
	}
	if out := letters("replay", "--reason", "digest"); out != "replayed 1 of 1 letters\n" {
		t.Errorf("replay prints %q", out)
	}
	if report := s.must(append([]string{"fsck", "--wait", "2m"}, flags...)...); strings.Contains(report, "DIFF") {
		t.Errorf("fsck finds differences:\n%s", report)
	}
	if n := s.count(t, "answers FINAL"); n != 1 {
		t.Errorf("%d answers are stored after the replay, want 1", n)
	}
	if out := letters("replay", "--all"); out != "replayed 0 of 0 letters\n" || !strings.Contains(letters("list"), "replayed") {
		t.Errorf("a second replay prints %q", out)
	}
	lose("b-2", 2)
	if out := letters("purge", fmt.Sprintf("%d/1", partition)); !strings.HasPrefix(out, "purged 1 letters; 1 purged ones remain") {
		t.Errorf("purge of the later letter prints %q", out)
	}
	if out := letters("purge", "--all"); !strings.HasPrefix(out, "purged 2 letters; 0 purged ones remain") {
		t.Errorf("purge of all prints %q", out)
	}
	if report := s.must(append([]string{"fsck"}, flags...)...); strings.Contains(report, "DIFF") {
		t.Errorf("fsck finds differences after the purge:\n%s", report)
	}
	if out, code := s.fails("deadletter", "show", name); code != 1 || !strings.Contains(out, "no longer there") {
		t.Errorf("show of a purged letter: exit %d, %q", code, out)
	}
	// Without the private key letters stay sealed, and can be counted.
	if err := os.Remove(layout{s.data()}.private(sealRaw)); err != nil {
		t.Fatal(err)
	}
	if out, code := s.fails("deadletter", "show", name); code != 1 || !strings.Contains(out, "stay sealed") {
		t.Errorf("show without the key: exit %d, %q", code, out)
	}
	if !strings.Contains(letters("list"), "purged") {
		t.Error("letters can't be counted without the key")
	}
	s.terminate()
}

// fails runs the program and returns what it printed and its exit code.
func (s *system) fails(args ...string) (out string, code int) {
	var both bytes.Buffer
	c := s.command(append(args, "--data", s.data(), "--config", s.config())...)
	c.Stdout, c.Stderr = &both, &both
	if err := c.Run(); err == nil {
		s.t.Errorf("leerstroom %s: want it to fail", strings.Join(args, " "))
	}
	return both.String(), c.ProcessState.ExitCode()
}
