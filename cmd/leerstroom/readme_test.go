package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// between returns the text of the README after one mark and before the next.
func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, after, found := strings.Cut(text, from)
	block, _, ended := strings.Cut(after, to)
	if !found || !ended {
		t.Fatalf("README has no text between %q and %q", from, to)
	}
	return block
}

// sentByCurl returns the media type that curl sends with a body, given the text of
// the command.
func sentByCurl(command string) string {
	_, after, found := strings.Cut(command, "-H 'Content-Type: ")
	if !found {
		return "application/x-www-form-urlencoded"
	}
	media, _, _ := strings.Cut(after, "'")
	return media
}

// TestReadme follows the README as a newcomer would: its configuration, its
// keys, its answer, its questions. What the README prints must come back.
func TestReadme(t *testing.T) {
	t.Parallel()
	if _, err := engine.FindLibrary(""); err != nil {
		enginetest.Missing(t, err)
	}
	content, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(content)
	s := &system{t: t, directory: t.TempDir(), publishers: make(map[string]string)}
	t.Cleanup(s.kill)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	// The port of the README may be taken here; everything else is as printed.
	if err := os.WriteFile(s.config(), []byte(between(t, readme, "<<'YAML'\n", "YAML\n")+"listen: "+s.address+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.up()
	keys := make(map[string]string)
	for role, name := range map[string]string{"publisher": "publisher.key", "engine": "engine.key"} {
		arguments := between(t, readme, "apikey create --role "+role, " --data data > "+name)
		keys[role] = strings.TrimSpace(s.must(append([]string{"apikey", "create", "--role", role}, append(strings.Fields(arguments), "--data", s.data())...)...))
	}
	enginetest.Eventually(t, time.Minute, "the server is ready", func() error {
		_, err := s.try("/readyz", "")
		return err
	})
	want := between(t, readme, "```json\n", "\n```")
	enginetest.Eventually(t, time.Minute, "the new keys work", func() error {
		_, err := s.try("/v1/exercises?goal=optellen-tot-1000", keys["engine"])
		if err != nil && strings.Contains(err.Error(), "404") {
			return nil // let in, and the goal has no exercise yet
		}
		return err
	})
	lines := []byte(between(t, readme, "<<'NDJSON'\n", "NDJSON\n"))
	got, err := s.send(http.MethodPost, "/v1/answers", keys["publisher"], sentByCurl(between(t, readme, "/v1/answers ", "<<'NDJSON'")), lines)
	if err != nil {
		t.Fatalf("the README's answer: %v", err)
	}
	if !sameJSON(t, string(got), want) {
		t.Errorf("reply to the README's answer = %s, README says %s", got, want)
	}
	roster := filepath.Join(s.directory, "roster.csv")
	if err := os.WriteFile(roster, []byte(between(t, readme, "<<'CSV'\n", "CSV\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	arguments := strings.Fields(between(t, readme, "roster import roster.csv ", " --data data"))
	s.must(append([]string{"roster", "import", roster, "--data", s.data(), "--config", s.config()}, arguments...)...)
	question := []byte(between(t, readme, "-d '", "'"))
	var reply struct{ Tokens []*string }
	enginetest.Eventually(t, time.Minute, "the learner has a token and percentiles", func() error {
		if reply.Tokens == nil {
			body, err := s.send(http.MethodPost, "/v1/pseudonyms", keys["engine"], sentByCurl(between(t, readme, "/v1/pseudonyms -H", "-d '")), question)
			if err != nil {
				return err
			}
			var answered struct{ Tokens []*string }
			if err := json.Unmarshal(body, &answered); err != nil || len(answered.Tokens) != 1 || answered.Tokens[0] == nil {
				return errNotYet
			}
			reply = answered
		}
		_, err := s.try("/v1/learners/"+*reply.Tokens[0]+"/percentiles", keys["engine"])
		return err
	})
	var next struct{ Exercise string }
	enginetest.Eventually(t, time.Minute, "a next exercise", func() error {
		body, err := s.try("/v1/learners/"+*reply.Tokens[0]+"/next-exercise?goal=optellen-tot-1000", keys["engine"])
		if err != nil {
			return err
		}
		return json.Unmarshal(body, &next)
	})
	if next.Exercise != "bingel:wig5-b3-l2-o7" {
		t.Errorf("next exercise = %q, want the only one there is", next.Exercise)
	}
	if out := s.must("fsck", "--data", s.data(), "--config", s.config()); strings.Contains(out, "DIFF") {
		t.Errorf("fsck:\n%s", out)
	}
	if out := s.must("export", "difficulty", "--out", filepath.Join(s.directory, "out"), "--data", s.data(), "--config", s.config()); !strings.Contains(out, ".parquet") {
		t.Errorf("export prints %q, want the path of the file", out)
	}
	s.terminate()
}

func sameJSON(t *testing.T, got, want string) bool {
	t.Helper()
	var g, w map[string]any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(g)
	b, _ := json.Marshal(w)
	return string(a) == string(b)
}
