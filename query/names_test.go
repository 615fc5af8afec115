package query_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/query"
)

// A school sees what the learners of its group are called, beside the tokens that
// the overview shows; the names are in that reply and nowhere else.
func TestGroupNames(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	ask := func(key, group, school string) *http.Response {
		return s.do(t, request{key: key, method: "POST", path: "/v1/groups/" + group + "/names", body: fmt.Sprintf(`{"school":%q}`, school)})
	}
	response := ask("school", "5A", schoolA)
	var reply struct {
		School, Group string
		Learners      []struct {
			Learner, First, Prefix, Last string
			YearGroup                    *int `json:"year_group"`
		}
	}
	if err := json.Unmarshal([]byte(readAll(t, response)), &reply); err != nil || response.StatusCode != 200 {
		t.Fatalf("names = %d (%v)", response.StatusCode, err)
	}
	if response.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control = %q, want no-store", response.Header.Get("Cache-Control"))
	}
	overview := readAll(t, s.do(t, request{key: "school", path: "/v1/groups/5A/overview?school=" + schoolA}))
	for n, l := range reply.Learners {
		if l.Learner != purposeToken(schools, n).String() || l.First != fmt.Sprint(canary, " ", n) || l.Last != "Voorbeeld" || (l.YearGroup == nil) != (n == 0) {
			t.Errorf("learner %d = %+v", n, l)
		}
		if !strings.Contains(overview, l.Learner) {
			t.Errorf("learner %d has a token that the overview doesn't show", n)
		}
	}
	if len(reply.Learners) != 3 || reply.School != schoolA || reply.Group != "5A" {
		t.Errorf("reply = %+v, want three learners of 5A", reply)
	}
	want := ask("school", "none", schoolA)
	wantBody := readAll(t, want)
	for name, got := range map[string]*http.Response{"other school": ask("school", "5A", schoolB), "other school's key": ask("school-b", "5A", schoolA), "nobody's school": ask("school", "5A", "99XX99")} {
		if body := readAll(t, got); got.StatusCode != 404 || body != wantBody || fmt.Sprint(got.Header) != fmt.Sprint(want.Header) {
			t.Errorf("%s = %d %s, want as for a group that doesn't exist: %d %s", name, got.StatusCode, body, want.StatusCode, wantBody)
		}
	}
	var outcomes []string
	for _, r := range s.audit.of(audit.ActionNames) {
		outcomes = append(outcomes, fmt.Sprintf("%s %s %s%s %d", r.Outcome, r.Role, r.School, r.Group, r.Given))
	}
	slices.Sort(outcomes)
	if want := []string{"not_found school 12AB00 0", "not_found school 12AB00 0", "not_found school 34CD01 0", "not_found school 99XX99 0", "served school 12AB005A 3"}; !slices.Equal(outcomes, want) {
		t.Errorf("records = %q, want %q", outcomes, want)
	}
	if text := s.log.String() + s.audit.String(); strings.Contains(text, canary) {
		t.Error("a name is in the log or the audit log")
	}
}

// Names count as identifiers: a stolen key of a school does not empty the vault at
// once.
func TestNamesAreLimited(t *testing.T) {
	t.Parallel()
	s := newService(t, func(c *query.HandlerConfig) { c.Limits.IdentifiersPerSecond, c.Limits.IdentifiersBurst = 0.001, 7 })
	for i, want := range []int{200, 200, 429} {
		response := s.do(t, request{key: "school", method: "POST", path: "/v1/groups/5A/names", body: `{"school":"12AB00"}`})
		if body := readAll(t, response); response.StatusCode != want || want == 429 && (response.Header.Get("Retry-After") == "" || strings.Contains(body, canary)) {
			t.Errorf("request %d = %d %s, want %d", i, response.StatusCode, body, want)
		}
	}
	s.audit.broken = errAway
	if response := s.do(t, request{key: "school-b", method: "POST", path: "/v1/groups/5A/names", body: `{"school":"34CD01"}`}); response.StatusCode != 503 {
		t.Errorf("names without audit log = %d, want 503", response.StatusCode)
	}
}

// Whatever is posted for names: no panic, a status that the document has, and
// nothing of it in the reply.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"school":"12AB00"}`, `{"school":"34CD01"}`, `{"school":"12AB00","x":1}`, `{"school":null}`, "[]", "\xff", strings.Repeat("[", 5000)} {
		f.Add(seed)
	}
	s := newService(f, nil)
	f.Fuzz(func(t *testing.T, body string) {
		r, err := http.NewRequest(http.MethodPost, "http://x/v1/groups/5A/names", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		s.replay(t, "school", r, body)
	})
}
