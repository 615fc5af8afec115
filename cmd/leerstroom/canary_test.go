package main

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// The canaries: what a publisher knows a learner by, in every scheme, and a
// name. They stand out, so that finding one anywhere is proof of a leak.
func canaryIdentifier(scheme string, learner int) string {
	switch scheme {
	case "eckid":
		return "https://ketenid.nl/201703/" + strings.Repeat(fmt.Sprintf("c0ffee%02x", learner), 16)
	case "basispoort":
		return fmt.Sprintf("7654321%02d", learner)
	}
	return fmt.Sprintf("kanarie-%s-%02d", scheme, learner)
}

const canaryName = "Roodborstje van Kanarie"

// canaries returns every text whose traces must be nowhere.
func canaries() []string {
	out := []string{canaryName, "kanarie-event"}
	for _, scheme := range []string{"eckid", "basispoort", "las", "publisher"} {
		for learner := range 10 {
			out = append(out, canaryIdentifier(scheme, learner))
		}
	}
	// The distinguishing part of an ECK iD without its common front.
	return append(out, strings.Repeat("c0ffee01", 4))
}

// traces are the forms in which a careless stage could leave a canary behind.
func traces(canary string) map[string][]byte {
	md, s1 := md5.Sum([]byte(canary)), sha1.Sum([]byte(canary))
	s2, s5 := sha256.Sum256([]byte(canary)), sha512.Sum512([]byte(canary))
	out := map[string][]byte{
		"plain": []byte(canary), "upper": []byte(strings.ToUpper(canary)), "hex": []byte(hex.EncodeToString([]byte(canary))),
		"base64": []byte(base64.RawStdEncoding.EncodeToString([]byte(canary))), "base64url": []byte(base64.RawURLEncoding.EncodeToString([]byte(canary))),
	}
	for name, sum := range map[string][]byte{"md5": md[:], "sha1": s1[:], "sha256": s2[:], "sha512": s5[:]} {
		out[name], out[name+" in hex"], out[name+" in base64"] = sum, []byte(hex.EncodeToString(sum)), []byte(base64.RawStdEncoding.EncodeToString(sum))
	}
	return out
}

// TestNoCanaryLeavesTheVault pushes marked identifiers through the whole system
// and looks for their traces in every byte that it wrote: files of the engines,
// tables, logs, audit log, metrics, replies and export.
func TestNoCanaryLeavesTheVault(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 3, 10))
	s.up()
	hunt := &hunt{t: t, needles: make(map[string][]byte)}
	for i, canary := range canaries() {
		for form, trace := range traces(canary) {
			hunt.needles[fmt.Sprintf("canary %d as %s", i, form)] = trace
		}
	}
	answers := s.pushCanaries(hunt)
	enginetest.Eventually(t, 2*time.Minute, "answers stored", func() error {
		if n := s.count(t, "answers FINAL"); n != answers {
			return fmt.Errorf("%d of %d", n, answers)
		}
		return nil
	})
	s.ask(t, "SYSTEM FLUSH LOGS")
	for _, table := range strings.Fields(s.ask(t, "SELECT concat(database, '.', name) FROM system.tables WHERE NOT is_temporary AND database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema')")) {
		hunt.search("table "+table, []byte(s.ask(t, "SELECT * FROM "+table+" FORMAT TSVRaw")))
	}
	hunt.search("metrics", s.get(hunt, "/metrics", ""))
	hunt.search("export", []byte(s.must("export", "difficulty", "--out", filepath.Join(s.directory, "data", "exports", "canary"), "--data", s.data(), "--config", s.config())))
	s.pseudonym(hunt)
	s.terminate()
	hunt.search("output of all processes", []byte(s.printed()))
	hunt.files(s.data())
	// A hunt that can't find what is there proves nothing.
	if hunt.searched < 20 || hunt.controls < 3 {
		t.Errorf("searched %d places and found the name of the goal in %d, want at least 20 and 3", hunt.searched, hunt.controls)
	}
}

// hunt looks for needles, and for a text that may be found, to prove that it
// can.
type hunt struct {
	t                  *testing.T
	needles            map[string][]byte
	searched, controls int
}

func (h *hunt) search(place string, content []byte) {
	h.t.Helper()
	h.searched++
	if bytes.Contains(content, []byte("optellen")) {
		h.controls++
	}
	lower := bytes.ToLower(content)
	for name, needle := range h.needles {
		if bytes.Contains(content, needle) || len(needle) >= 12 && bytes.Contains(lower, bytes.ToLower(needle)) {
			h.t.Errorf("%s holds %s", place, name)
		}
	}
}

func (h *hunt) files(root string) {
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		h.search("path of a file", []byte(path))
		h.search("file "+strings.TrimPrefix(path, root), content)
		return nil
	})
	if err != nil {
		h.t.Error(err)
	}
}

// pushCanaries sends answers of marked learners, with marked event ids, among
// them lines that are refused. It returns the number of good lines.
func (s *system) pushCanaries(h *hunt) (accepted int) {
	schemes := []string{"eckid", "basispoort", "las", "publisher"}
	for code, publishers := range s.population.Authorisations() {
		publisher := publishers[0]
		var body bytes.Buffer
		good := 0
		for learner := range 10 {
			for exercise := range 4 {
				line := map[string]any{"id": fmt.Sprintf("kanarie-event-%s-%d-%d", canaryIdentifier(schemes[exercise], learner), learner, exercise), "publisher": publisher,
					"school": code, "learner": map[string]string{"scheme": schemes[exercise], "value": canaryIdentifier(schemes[exercise], learner)},
					"group": "5A", "year_group": 5, "exercise": fmt.Sprintf("o%d", exercise), "goal": "optellen", "subject": "rekenen", "kind": "practice",
					"score": (learner + exercise) % 2, "attempt": 1, "answered_at": time.Now().Add(-time.Hour).Format(time.RFC3339)}
				s.line(&body, line)
				good++
			}
		}
		// Refused: a field that is not allowed, with a name in it; a score off scale.
		s.line(&body, map[string]any{"id": "kanarie-event-bad", "publisher": publisher, "school": code, "name": canaryName})
		s.line(&body, map[string]any{"id": "kanarie-event-bad", "publisher": publisher, "school": code,
			"learner": map[string]string{"scheme": "las", "value": canaryIdentifier("las", 1)}, "exercise": "o1", "kind": "practice", "score": 7, "answered_at": canaryName})
		reply := s.post(h, "/v1/answers", s.publishers[publisher], body.Bytes())
		var result struct {
			Accepted int               `json:"accepted"`
			Refused  []json.RawMessage `json:"refused"`
		}
		if err := json.Unmarshal(reply, &result); err != nil || result.Accepted != good || len(result.Refused) < 2 {
			s.t.Fatalf("reply: %s (%v), want %d accepted and the bad lines refused", reply, err, good)
		}
		accepted += good
	}
	return accepted
}

func (s *system) line(body *bytes.Buffer, line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		s.t.Fatal(err)
	}
	body.Write(append(text, '\n'))
}

// pseudonym asks for tokens of canaries and for the next exercise of one.
func (s *system) pseudonym(h *hunt) {
	for code := range s.population.Authorisations() {
		request, err := json.Marshal(map[string]any{"school": code, "identifiers": []map[string]string{
			{"scheme": "las", "value": canaryIdentifier("las", 1)}, {"scheme": "las", "value": "kanarie-las-unknown"}}})
		if err != nil {
			s.t.Fatal(err)
		}
		var reply struct{ Tokens []*string }
		if err := json.Unmarshal(s.post(h, "/v1/pseudonyms", s.engineKey, request), &reply); err != nil || len(reply.Tokens) != 2 || reply.Tokens[0] == nil || reply.Tokens[1] != nil {
			s.t.Fatalf("pseudonyms: %+v, %v, want a token and null", reply, err)
		}
		for _, question := range []string{"next-exercise?goal=optellen", "percentiles"} {
			path := "/v1/learners/" + *reply.Tokens[0] + "/" + question
			enginetest.Eventually(s.t, time.Minute, "answer to "+question, func() error {
				_, err := s.try(path, s.engineKey)
				return err
			})
			s.get(h, path, s.engineKey)
		}
	}
}

func (s *system) post(h *hunt, path, key string, body []byte) []byte {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url()+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", map[bool]string{true: "application/json", false: "application/x-ndjson"}[path == "/v1/pseudonyms"])
	return s.do(h, request, key)
}

func (s *system) get(h *hunt, path, key string) []byte {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url()+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.do(h, request, key)
}

var errNotYet = errors.New("not yet")

// try gets a path that may not answer yet.
func (s *system) try(path, key string) ([]byte, error) {
	return s.send(http.MethodGet, path, key, "", nil)
}

// send makes a request that may be refused.
func (s *system) send(method, path, key, media string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	if media != "" {
		request.Header.Set("Content-Type", media)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%w: status %s", errNotYet, response.Status)
	}
	return reply, err
}

func (s *system) do(h *hunt, request *http.Request, key string) []byte {
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %s: %v, status %s: %s", request.Method, request.URL.Path, err, response.Status, body)
	}
	h.search("reply of "+request.URL.Path, body)
	for name, values := range response.Header {
		h.search("reply header "+name, []byte(strings.Join(values, " ")))
	}
	return body
}
