package query_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/query"
)

func askFor(school string, identifiers ...string) string {
	var entries []string
	for _, id := range identifiers {
		entries = append(entries, fmt.Sprintf(`{"scheme":"las","value":%q}`, id))
	}
	return fmt.Sprintf(`{"school":%q,"identifiers":[%s]}`, school, strings.Join(entries, ","))
}

// N requests, N records, each with who, what for, which school and how many.
func TestEveryReadHasItsRecord(t *testing.T) {
	t.Parallel()
	const callers, each = 8, 25
	s := newService(t, func(c *query.HandlerConfig) {
		c.Limits = query.IdentityLimits{IdentifiersPerSecond: 1e6, IdentifiersBurst: 1e6, RequestsPerSecond: 1e6, RequestsBurst: 1e6}
	})
	var calling sync.WaitGroup
	for caller := range callers {
		calling.Go(func() {
			for i := range each {
				key, school := "engine", schoolA
				if caller%2 == 1 {
					key, school = "school-b", schoolB
				}
				if got := s.do(t, request{key: key, method: "POST", path: "/v1/pseudonyms", body: askFor(school, identifierOf(i), identifierOf(45), "nobody")}).StatusCode; got != 200 {
					t.Errorf("pseudonyms = %d", got)
				}
				if got := s.do(t, request{key: "school", path: "/v1/groups/5A/overview?limit=7&school=" + schoolA}).StatusCode; got != 200 {
					t.Errorf("overview = %d", got)
				}
			}
		})
	}
	calling.Wait()
	counts := map[string]int{}
	for _, r := range append(s.audit.of(audit.ActionPseudonyms), s.audit.of(audit.ActionOverview)...) {
		if !strings.HasPrefix(r.Key, "key-") {
			t.Fatalf("record without key: %+v", r)
		}
		counts[fmt.Sprintf("%s %s %s %s %s%s %d/%d", r.Action, r.Outcome, r.Role, r.Purpose, r.School, r.Group, r.Given, r.Asked)]++
	}
	want := map[string]int{
		"pseudonyms served engine engine/slim " + schoolA + " 1/3":   callers / 2 * each, // learners 0 to 24 are of school A
		"pseudonyms served school engine/school " + schoolB + " 1/3": callers / 2 * each, // learner 45 is of school B
		"group_overview served school  " + schoolA + "5A 7/20":       callers * each,
	}
	total := 0
	for what, n := range want {
		total += n
		if counts[what] != n {
			t.Errorf("%d records %q, want %d; all: %v", counts[what], what, n, counts)
		}
	}
	if total != 2*callers*each {
		t.Errorf("%d records, want one per request: %d", total, 2*callers*each)
	}
}

// Whoever may not see a school leaves a record, too, and so does who is told that
// there is no such group; what they wrote does not.
func TestAttemptsHaveRecords(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	s.do(t, request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: askFor(schoolB, identifierOf(45))})
	s.do(t, request{key: "school-b", path: "/v1/groups/5A/overview?school=" + schoolA})
	s.do(t, request{key: "school", path: "/v1/groups/" + canary + "/overview?school=" + schoolA})
	if got, want := fmt.Sprint(s.audit.outcomes()), "[pseudonyms not_allowed 34CD01 group_overview not_found 12AB00 group_overview not_found 12AB00]"; got != want {
		t.Errorf("records = %s, want %s", got, want)
	}
}

func (a *trail) outcomes() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		all = append(all, strings.Join(append([]string{r.Action, r.Outcome, r.School}, strings.Fields(r.Group)...), " "))
	}
	return all
}

// What has no record is not answered.
func TestNothingIsShownWithoutRecord(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	s.audit.broken = errors.New("disk full")
	for _, q := range []request{
		{key: "engine", method: "POST", path: "/v1/pseudonyms", body: askFor(schoolA, identifierOf(1))},
		{key: "school", path: "/v1/groups/5A/overview?school=" + schoolA},
		{key: "school-b", path: "/v1/groups/5A/overview?school=" + schoolA},
	} {
		response := s.do(t, q)
		if body := readAll(t, response); response.StatusCode != 503 || strings.Contains(body, "disk") || strings.Contains(body, purposeToken(engine, 1).String()) {
			t.Errorf("%s without audit log = %d %s, want 503", q.path, response.StatusCode, body)
		}
	}
	if !strings.Contains(s.log.String(), "disk full") {
		t.Error("the log does not say why")
	}
}

// The length and the headers of a reply tell nothing but how many were asked for.
func TestReplyHasOneShape(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	shape := func(identifiers ...string) string {
		response := s.do(t, request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: askFor(schoolA, identifiers...)})
		return fmt.Sprint(response.StatusCode, " ", len(readAll(t, response)), " ", response.Header)
	}
	want := shape("nobody", "nobody", "nobody")
	for _, identifiers := range [][]string{
		{identifierOf(1), identifierOf(2), identifierOf(3)}, {"nobody", identifierOf(2), "nobody"}, {identifierOf(45), "nobody", identifierOf(1)},
		{identifierOf(1), identifierOf(1), strings.Repeat("x", 512)},
	} {
		if got := shape(identifiers...); got != want {
			t.Errorf("reply = %s, want %s whoever is asked for", got, want)
		}
	}
	if another := shape("nobody", "nobody"); another == want {
		t.Error("the reply to two has the length of the reply to three: the comparison sees nothing")
	}
}
