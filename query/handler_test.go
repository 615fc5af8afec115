package query_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"

	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/query"
)

func pathOf(purpose keyring.Purpose, n int, what string) string {
	return "/v1/learners/" + purposeToken(purpose, n).String() + "/" + what
}

// Every operation answers with every status that the document gives it, and
// with none else.
func TestStatuses(t *testing.T) {
	t.Parallel()
	s := newService(t, func(c *query.HandlerConfig) { c.Limits.IdentifiersPerSecond, c.Limits.IdentifiersBurst = 0.001, 1 })
	next := pathOf(engine, 1, "next-exercise")
	long := strings.Repeat("é", 257)
	ours := `{"school":"12AB00"}`
	one := `{"school":"12AB00","identifiers":[{"scheme":"las","value":"x"}]}`
	for _, c := range []struct {
		request
		status int
	}{
		{request{key: "engine", path: next}, 200},
		{request{key: "engine", path: next + "?goal=optellen&target=0.6"}, 200},
		{request{key: "engine", path: next + "?goal=optellen&target=0.05"}, 200},
		{request{key: "engine", path: next + "?goal=optellen&target=0.95&year_group=8"}, 200},
		{request{key: "engine", path: next + "?target=0.96"}, 400},
		{request{key: "engine", path: next + "?target=0.04"}, 400},
		{request{key: "engine", path: next + "?target=NaN"}, 400},
		{request{key: "engine", path: next + "?target="}, 400},
		{request{key: "engine", path: next + "?target=.5&target=.6"}, 400},
		{request{key: "engine", path: next + "?year_group=0"}, 400},
		{request{key: "engine", path: next + "?year_group=9"}, 400},
		{request{key: "engine", path: next + "?year_group=-1"}, 400},
		{request{key: "engine", path: next + "?Goal=optellen"}, 400},
		{request{key: "engine", path: next + "?goal="}, 400},
		{request{key: "engine", path: next + "?goal=" + long}, 400},
		{request{key: "engine", path: next + "?goal=%00"}, 400},
		{request{key: "engine", path: next + "?goal=%ff"}, 400},
		{request{key: "engine", path: next + "?goal=%zz"}, 400},
		{request{key: "engine", path: next + "?a;b"}, 400},
		{request{key: "engine", path: next + "?goal=delen"}, 404},
		{request{key: "engine", path: "/v1/learners/xyz/next-exercise"}, 400},
		{request{key: "engine", path: strings.ToUpper(next)}, 404},
		{request{path: next}, 401},
		{request{path: next, header: map[string]string{"Authorization": "Bearer lsk_nonsense"}}, 401},
		{request{key: "analyst", path: next}, 403},
		{request{key: "publisher", path: next}, 403},
		{request{key: "impostor", path: next}, 403},
		{request{key: "engine", path: next, method: "POST"}, 405},
		{request{key: "engine", path: pathOf(engine, 60, "next-exercise")}, 200},
		{request{key: "engine", path: pathOf(engine, 60, "next-exercise") + "?year_group=5"}, 200},
		{request{key: "engine", path: pathOf(engine, 1, "percentiles")}, 200},
		{request{key: "engine", path: pathOf(engine, 60, "percentiles")}, 200},
		{request{key: "school", path: pathOf(schools, 1, "percentiles")}, 200},
		{request{key: "engine", path: pathOf(engine, 1, "percentiles") + "?goal=x"}, 400},
		{request{key: "analyst", path: pathOf(engine, 1, "percentiles")}, 403},
		{request{key: "publisher", path: pathOf(engine, 1, "percentiles")}, 403},
		{request{path: pathOf(engine, 1, "percentiles")}, 401},
		{request{key: "engine", path: pathOf(engine, 99, "percentiles")}, 404},
		{request{key: "school", path: "/v1/groups/5A/overview?school=" + schoolA}, 200},
		{request{key: "school", path: "/v1/groups/5A/overview?school=" + schoolA + "&limit=7"}, 200},
		{request{key: "school", path: "/v1/groups/5A/overview"}, 400},
		{request{key: "school", path: "/v1/groups/5A/overview?school=x"}, 400},
		{request{key: "school", path: "/v1/groups/5A/overview?school=" + schoolA + "&limit=0"}, 400},
		{request{key: "school", path: "/v1/groups/9Z/overview?school=" + schoolA}, 404},
		{request{key: "engine", path: "/v1/groups/5A/overview?school=" + schoolA}, 403},
		{request{path: "/v1/groups/5A/overview?school=" + schoolA}, 401},
		{request{key: "school", method: "POST", path: "/v1/groups/9Z/names", body: ours}, 404},
		{request{key: "school", method: "POST", path: "/v1/groups/5A/names", body: ours}, 200},
		{request{key: "school", method: "POST", path: "/v1/groups/5A/names", body: ours}, 429},
		{request{key: "school-b", method: "POST", path: "/v1/groups/5A/names", body: ours}, 404},
		{request{key: "school", method: "POST", path: "/v1/groups/5A/names", body: `{"school":"x"}`}, 400},
		{request{key: "school", method: "POST", path: "/v1/groups/5A/names", body: `{"school":"12AB00","group":"5A"}`}, 400},
		{request{key: "school", method: "POST", path: "/v1/groups/%00/names", body: ours}, 400},
		{request{key: "school", method: "POST", path: "/v1/groups/5A/names?school=12AB00", body: ours}, 400},
		{request{key: "school", method: "POST", path: "/v1/groups/5A/names", body: strings.Repeat(" ", 5<<10)}, 413},
		{request{key: "school", method: "POST", path: "/v1/groups/5A/names", body: ours, header: map[string]string{"Content-Type": "text/csv"}}, 415},
		{request{key: "engine", method: "POST", path: "/v1/groups/5A/names", body: ours}, 403},
		{request{key: "analyst", method: "POST", path: "/v1/groups/5A/names", body: ours}, 403},
		{request{method: "POST", path: "/v1/groups/5A/names", body: ours}, 401},
		{request{key: "school", path: "/v1/groups/5A/names"}, 405},
		{request{key: "analyst", path: "/v1/exercises?goal=optellen"}, 200},
		{request{key: "engine", path: "/v1/exercises?goal=optellen&limit=1000"}, 200},
		{request{key: "school", path: "/v1/exercises?goal=optellen&limit=1001"}, 400},
		{request{key: "analyst", path: "/v1/exercises"}, 400},
		{request{key: "analyst", path: "/v1/exercises?goal=delen"}, 404},
		{request{key: "publisher", path: "/v1/exercises?goal=optellen"}, 403},
		{request{path: "/v1/exercises?goal=optellen"}, 401},
		{request{key: "analyst", path: "/v1/exercises/bingel:som-a1"}, 200},
		{request{key: "analyst", path: "/v1/exercises/bingel:som-zz"}, 404},
		{request{key: "analyst", path: "/v1/exercises/" + url.PathEscape("bingel:a/b")}, 404},
		{request{key: "analyst", path: "/v1/exercises/som-a1"}, 400},
		{request{key: "publisher", path: "/v1/exercises/bingel:som-a1"}, 403},
		{request{path: "/v1/exercises/bingel:som-a1"}, 401},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5"}, 200},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=4"}, 404},
		{request{key: "analyst", path: "/v1/percentiles?goal=romeinse%20cijfers&year_group=5"}, 404},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5&norm=live"}, 200},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5&norm=2025-2026-E"}, 404},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5&moment=E"}, 404},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5&norm=live&moment=E"}, 400},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5&norm=live&version=1"}, 400},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5&version=1"}, 400},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5&norm=2025-2027-E"}, 400},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5&moment=X"}, 400},
		{request{key: "engine", path: pathOf(engine, 1, "percentiles") + "?levels=i-v&norm=live"}, 200},
		{request{key: "engine", path: pathOf(engine, 1, "percentiles") + "?levels=x"}, 400},
		{request{key: "engine", path: pathOf(engine, 1, "history") + "?levels=a-e"}, 200},
		{request{key: "engine", path: pathOf(engine, 60, "history")}, 200},
		{request{key: "engine", path: pathOf(engine, 1, "history") + "?norm=live"}, 400},
		{request{key: "engine-b", path: pathOf(engine, 1, "history")}, 404},
		{request{key: "analyst", path: pathOf(engine, 1, "history")}, 403},
		{request{path: pathOf(engine, 1, "history")}, 401},
		{request{key: "school", path: "/v1/groups/5A/overview?since=2025-2026-E&goal=optellen&school=" + schoolA}, 200},
		{request{key: "school", path: "/v1/groups/5A/overview?since=2026-2027-E&school=" + schoolA}, 400},
		{request{key: "school", path: "/v1/groups/5A/overview?limit=201&school=" + schoolA}, 400},
		{request{key: "school", path: "/v1/groups/5A/overview?norm=2025-2026-E&school=" + schoolA}, 404},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen"}, 400},
		{request{key: "analyst", path: "/v1/percentiles?year_group=5"}, 400},
		{request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5", header: map[string]string{"Accept": "image/png"}}, 406},
		{request{key: "publisher", path: "/v1/percentiles?goal=optellen&year_group=5"}, 403},
		{request{path: "/v1/percentiles?goal=optellen&year_group=5"}, 401},
		{request{path: "/healthz"}, 200},
		{request{path: "/healthz?x=1"}, 400},
		{request{path: "/readyz"}, 503},
		{request{path: "/readyz?x=1"}, 400},
		{request{path: "/metrics"}, 200},
		{request{path: "/metrics?x=1"}, 400},
		{request{path: "/openapi.json"}, 200},
		{request{path: "/openapi.json?x=1"}, 400},
		{request{path: "/openapi.yaml"}, 200},
		{request{path: "/openapi.yaml?x=1"}, 400},
		{request{path: "/"}, 404},
		{request{path: "/v2/exercises"}, 404},
		{request{path: "/v1/learners/"}, 404},
		{request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: one}, 200},
		{request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: one}, 429},
		{request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: "{}"}, 400},
		{request{key: "engine", method: "POST", path: "/v1/pseudonyms?x=1", body: one}, 400},
		{request{method: "POST", path: "/v1/pseudonyms", body: one}, 401},
		{request{key: "analyst", method: "POST", path: "/v1/pseudonyms", body: one}, 403},
		{request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: strings.Repeat(" ", 1<<20+1)}, 413},
		{request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: one, header: map[string]string{"Content-Type": "text/csv"}}, 415},
		{request{key: "engine", path: "/v1/pseudonyms"}, 405},
	} {
		response := s.do(t, c.request)
		if response.StatusCode != c.status {
			t.Errorf("%s %s with key %q = %d, want %d: %s", c.method, c.path, c.key, response.StatusCode, c.status, readAll(t, response))
		}
		if response.StatusCode >= 400 && response.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s = %d with %s, want a problem", c.path, response.StatusCode, response.Header.Get("Content-Type"))
		}
	}
	down := newService(t, func(c *query.HandlerConfig) { c.Identities = away() })
	for _, q := range []request{
		{key: "engine", method: "POST", path: "/v1/pseudonyms", body: one},
		{key: "engine", path: next}, {key: "engine", path: pathOf(engine, 1, "percentiles")},
		{key: "engine", path: pathOf(engine, 1, "history")},
		{key: "school", path: "/v1/groups/5A/overview?school=" + schoolA},
		{key: "school", method: "POST", path: "/v1/groups/5A/names", body: ours},
	} {
		if got := down.do(t, q).StatusCode; got != 503 {
			t.Errorf("%s without registry = %d, want 503", q.path, got)
		}
	}
	s.missing(t, down, "postAnswers", "postTestResults", "getReadiness 200")
}

// missing complains about statuses in the document that were not seen, except
// those of operations or statuses that are tested elsewhere.
func (s *service) missing(t *testing.T, also *service, except ...string) {
	t.Helper()
	for path, item := range s.document.Paths.Map() {
		for method, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				name := operation.OperationID + " " + status
				_, seen := s.seen.Load(name)
				_, alsoSeen := also.seen.Load(name)
				if !seen && !alsoSeen && !slices.Contains(except, name) && !slices.Contains(except, operation.OperationID) {
					t.Errorf("%s %s never answered %s, which the document gives it", method, path, status)
				}
			}
		}
	}
}

// What belongs to another school, to another engine or to nobody is answered in
// the same bytes.
func TestIsolation(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	nobody := "/v1/learners/00000000000000000000000000000000/"
	for _, what := range []string{"next-exercise", "percentiles"} {
		want := s.do(t, request{key: "engine", path: nobody + what})
		wantBody := readAll(t, want)
		if want.StatusCode != http.StatusNotFound {
			t.Fatalf("unknown learner = %d, want 404", want.StatusCode)
		}
		for name, c := range map[string]request{
			"engine, other school":      {key: "engine", path: pathOf(engine, 45, what)},
			"engine, other engine":      {key: "engine", path: pathOf(other, 1, what)},
			"other engine, engine's":    {key: "other", path: pathOf(engine, 1, what)},
			"engine of the other":       {key: "engine-b", path: pathOf(engine, 1, what)},
			"engine, analytics token":   {key: "engine", path: "/v1/learners/" + token(1).String() + "/" + what},
			"school, other school":      {key: "school", path: pathOf(schools, 45, what)},
			"other school, this school": {key: "school-b", path: pathOf(schools, 1, what)},
			"school, engine's token":    {key: "school", path: pathOf(engine, 1, what)},
		} {
			got := s.do(t, c)
			if body := readAll(t, got); got.StatusCode != want.StatusCode || body != wantBody || fmt.Sprint(got.Header) != fmt.Sprint(want.Header) {
				t.Errorf("%s: %s = %d %s, want as for nobody: %d %s", what, name, got.StatusCode, body, want.StatusCode, wantBody)
			}
		}
	}
	want := readAll(t, s.do(t, request{key: "school", path: "/v1/groups/none/overview?school=" + schoolA}))
	for key, school := range map[string]string{"school": schoolB, "school-b": schoolA} {
		got := s.do(t, request{key: key, path: "/v1/groups/5B/overview?school=" + school})
		if body := readAll(t, got); got.StatusCode != 404 || body != want {
			t.Errorf("overview of the other school by %s = %d %s, want 404 %s", key, got.StatusCode, body, want)
		}
	}
	body := fmt.Sprintf(`{"school":%q,"identifiers":[{"scheme":"las","value":%q}]}`, schoolB, identifierOf(45))
	unknown := strings.Replace(body, identifierOf(45), "nobody", 1)
	known, none := s.do(t, request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: body}), s.do(t, request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: unknown})
	if a, b := readAll(t, known), readAll(t, none); known.StatusCode != 403 || a != b {
		t.Errorf("pseudonyms of the other school = %d %s, want 403 %s whoever is asked for", known.StatusCode, a, b)
	}
}

// An engine that a school has not authorised sees nothing of it.
func TestAuthorisation(t *testing.T) {
	t.Parallel()
	s := newService(t, func(c *query.HandlerConfig) {
		c.Authorised = func(engine, school string) bool { return engine == "vlot" }
	})
	if got := s.do(t, request{key: "engine", path: pathOf(engine, 1, "percentiles")}).StatusCode; got != 404 {
		t.Errorf("engine without authorisation = %d, want 404", got)
	}
	if got := s.do(t, request{key: "other", path: pathOf(other, 1, "percentiles")}).StatusCode; got != 200 {
		t.Errorf("engine with authorisation = %d, want 200", got)
	}
}

func TestNextExerciseReply(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	var reply struct {
		Exercise, Goal, Subject, Reason string
		Expected, Target                float64
		Random                          bool
		Skill                           struct{ Value, SE, Low, High float64 }
		Snapshot                        int
	}
	for n := range 40 {
		body := readAll(t, s.do(t, request{key: "engine", path: pathOf(engine, n, "next-exercise") + "?goal=optellen"}))
		if err := json.Unmarshal([]byte(body), &reply); err != nil {
			t.Fatal(err)
		}
		if !reply.Random && (reply.Expected < 0.7 || reply.Expected > 0.8) && reply.Reason != "off-target" {
			t.Errorf("learner %d: expected success %v, want about .75: %s", n, reply.Expected, body)
		}
		if reply.Snapshot != 1 || reply.Subject != "rekenen" || reply.Target != 0.75 || reply.Random != (reply.Reason == "random") ||
			!(reply.Skill.Low < reply.Skill.Value && reply.Skill.Value < reply.Skill.High) {
			t.Errorf("learner %d: %s", n, body)
		}
	}
	body := readAll(t, s.do(t, request{key: "engine", path: pathOf(engine, 60, "next-exercise")}))
	if !strings.Contains(body, `"reason":"new-learner"`) && !strings.Contains(body, `"reason":"random"`) {
		t.Errorf("learner without answers: %s, want reason new-learner", body)
	}
}

func TestNormsInThreeForms(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	get := func(accept string) *http.Response {
		return s.do(t, request{key: "analyst", path: "/v1/percentiles?goal=optellen&year_group=5", header: map[string]string{"Accept": accept}})
	}
	var norm struct {
		Goal      string
		YearGroup int `json:"year_group"`
		Learners  int
		Skill     []*float64
		Norm      struct {
			Kind, Name string
			Version    int
		}
	}
	if err := json.Unmarshal([]byte(readAll(t, get(""))), &norm); err != nil {
		t.Fatal(err)
	}
	if norm.Goal != "optellen" || norm.YearGroup != 5 || norm.Learners != 60 || len(norm.Skill) != 99 {
		t.Fatalf("norm = %+v", norm)
	}
	if norm.Norm.Kind != "live" || norm.Norm.Name != "live" || norm.Norm.Version != 1 {
		t.Errorf("norm = %+v, want live on version 1 of the difficulties", norm.Norm)
	}
	// Of 60 learners, 10 lie in every 17 points.
	told := []int{}
	for i, skill := range norm.Skill {
		if skill != nil {
			told = append(told, i+1)
		}
	}
	if want := []int{17, 34, 51, 68}; !slices.Equal(told, want) {
		t.Errorf("told percentiles = %v, want %v", told, want)
	}
	response := get("text/csv")
	if got := response.Header.Get("Leerstroom-Learners"); got != "60" {
		t.Errorf("Leerstroom-Learners = %q, want 60", got)
	}
	if got := response.Header.Get("Leerstroom-Norm"); got != "live.1" {
		t.Errorf("Leerstroom-Norm = %q, want live.1", got)
	}
	lines := strings.Split(strings.TrimSpace(readAll(t, response)), "\n")
	if len(lines) != 100 || lines[0] != "percentile,skill" || lines[51] != fmt.Sprintf("51,%v", *norm.Skill[50]) || lines[50] != "50," {
		t.Errorf("csv has %d lines, line 51 = %q, want 51,%v", len(lines), lines[51], *norm.Skill[50])
	}
	reader, err := ipc.NewReader(strings.NewReader(readAll(t, get("application/vnd.apache.arrow.stream;q=1, text/csv;q=.9"))))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Release()
	if !reader.Next() {
		t.Fatalf("arrow stream without a record: %v", reader.Err())
	}
	column := reader.Record().Column(1).(*array.Float64)
	for i, want := range norm.Skill {
		if got := column.Value(i); column.IsNull(i) != (want == nil) || want != nil && got != *want {
			t.Errorf("arrow percentile %d = %v, null %v, want %v", i+1, got, column.IsNull(i), want)
		}
	}
	if i := reader.Schema().Metadata().FindKey("learners"); i < 0 || reader.Schema().Metadata().Values()[i] != "60" {
		t.Errorf("arrow metadata = %v, want learners 60", reader.Schema().Metadata())
	}
}

func TestExercisePages(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	seen, after := 0, ""
	for page := 0; page < 20; page++ {
		var reply struct {
			Exercises []struct {
				ID                         string
				Difficulty, SE, Proportion *float64
				Answers                    *int
			}
			Next *string
		}
		path := "/v1/exercises?goal=optellen&limit=7"
		if after != "" {
			path += "&after=" + url.QueryEscape(after)
		}
		if err := json.Unmarshal([]byte(readAll(t, s.do(t, request{key: "analyst", path: path}))), &reply); err != nil {
			t.Fatal(err)
		}
		for _, e := range reply.Exercises {
			if e.ID <= after {
				t.Errorf("exercise %s comes after %s", e.ID, after)
			}
			after = e.ID
			seen++
			if shown := e.Answers != nil; shown != (e.Difficulty != nil) || shown && *e.Answers < 10 || shown && (*e.Proportion < 0.05 || *e.Proportion > 0.95) {
				t.Errorf("exercise %s shows what it must not: %+v", e.ID, e)
			}
		}
		if reply.Next == nil {
			break
		}
	}
	if seen != 60 {
		t.Errorf("pages hold %d exercises, want 60", seen)
	}
}

func TestPseudonyms(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	entry := func(scheme, value string) string { return fmt.Sprintf(`{"scheme":%q,"value":%q}`, scheme, value) }
	body := func(school string, entries ...string) string {
		return fmt.Sprintf(`{"school":%q,"identifiers":[%s]}`, school, strings.Join(entries, ","))
	}
	response := s.do(t, request{key: "engine", method: "POST", path: "/v1/pseudonyms",
		body: body(schoolA, entry("las", identifierOf(1)), entry("las", "nobody"), entry("eckid", identifierOf(1)), entry("las", identifierOf(45)))})
	want := fmt.Sprintf(`{"tokens":[%q,%[2]s,%[2]s,%[2]s]}`, purposeToken(engine, 1), "null"+strings.Repeat(" ", 30))
	if got := readAll(t, response); response.StatusCode != 200 || got != want {
		t.Errorf("pseudonyms = %d %s, want %s", response.StatusCode, got, want)
	}
	for name, c := range map[string]struct {
		body   string
		header map[string]string
		status int
	}{
		"unknown member":  {`{"school":"12AB00","identifiers":[{"scheme":"las","value":"x","name":"` + canary + `"}]}`, nil, 400},
		"member twice":    {`{"school":"12AB00","school":"34CD01","identifiers":[{"scheme":"las","value":"x"}]}`, nil, 400},
		"not JSON":        {`{"school":` + canary, nil, 400},
		"two documents":   {body(schoolA, entry("las", "x")) + "{}", nil, 400},
		"no identifiers":  {body(schoolA), nil, 400},
		"too many":        {body(schoolA, strings.Split(strings.Repeat(entry("las", "x")+"|", 1001)[:1001*len(entry("las", "x"))+1000], "|")...), nil, 400},
		"scheme":          {body(schoolA, entry("bsn", canary)), nil, 400},
		"publisher's ids": {body(schoolA, entry("publisher", canary)), nil, 400},
		"empty value":     {body(schoolA, entry("las", "")), nil, 400},
		"long value":      {body(schoolA, entry("las", strings.Repeat("x", 513))), nil, 400},
		"school":          {body("x", entry("las", canary)), nil, 400},
		"media type":      {body(schoolA, entry("las", "x")), map[string]string{"Content-Type": "text/plain"}, 415},
		"compressed":      {body(schoolA, entry("las", "x")), map[string]string{"Content-Encoding": "gzip"}, 415},
		"large":           {body(schoolA, entry("las", strings.Repeat("x", 1<<20))), nil, 413},
	} {
		response := s.do(t, request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: c.body, header: c.header})
		if got := readAll(t, response); response.StatusCode != c.status || strings.Contains(got, canary) {
			t.Errorf("%s = %d %s, want %d", name, response.StatusCode, got, c.status)
		}
	}
	for key, status := range map[string]int{"": 401, "analyst": 403, "publisher": 403, "impostor": 403} {
		if got := s.do(t, request{key: key, method: "POST", path: "/v1/pseudonyms", body: body(schoolA, entry("las", "x"))}).StatusCode; got != status {
			t.Errorf("key %q = %d, want %d", key, got, status)
		}
	}
}

// Our own API must not be the dictionary: after its burst a key has to wait,
// another key does not.
func TestPseudonymsAreLimitedPerKey(t *testing.T) {
	t.Parallel()
	s := newService(t, func(c *query.HandlerConfig) { c.Limits.IdentifiersPerSecond, c.Limits.IdentifiersBurst = 0.001, 25 })
	entries := strings.Repeat(`{"scheme":"las","value":"x"},`, 10)
	ask := func(key string) *http.Response {
		return s.do(t, request{key: key, method: "POST", path: "/v1/pseudonyms",
			body: `{"school":"12AB00","identifiers":[` + strings.TrimSuffix(entries, ",") + `]}`})
	}
	for i, want := range []int{200, 200, 429, 429} {
		response := ask("engine")
		if response.StatusCode != want {
			t.Errorf("request %d = %d, want %d", i, response.StatusCode, want)
		}
		if want == 429 && response.Header.Get("Retry-After") == "" {
			t.Errorf("request %d: no Retry-After", i)
		}
	}
	if got := ask("other").StatusCode; got != 200 {
		t.Errorf("another key = %d, want 200", got)
	}
	var outcomes []string
	for _, r := range s.audit.of(audit.ActionPseudonyms) {
		outcomes = append(outcomes, fmt.Sprint(r.Outcome, " ", r.Asked, " ", r.Given))
	}
	if want := []string{"served 10 0", "served 10 0", "too_many_identifiers 10 0", "too_many_identifiers 10 0", "served 10 0"}; !slices.Equal(outcomes, want) {
		t.Errorf("audit log = %v, want %v", outcomes, want)
	}
	more := strings.Repeat(entries, 3)
	if got := s.do(t, request{key: "other", method: "POST", path: "/v1/pseudonyms",
		body: `{"school":"12AB00","identifiers":[` + strings.TrimSuffix(more, ",") + `]}`}).StatusCode; got != 400 {
		t.Errorf("more than the key may ever ask for at once = %d, want 400", got)
	}
}

// Requests without many identifiers are counted, too.
func TestRequestsAreLimitedPerKey(t *testing.T) {
	t.Parallel()
	s := newService(t, func(c *query.HandlerConfig) { c.Limits.RequestsPerSecond, c.Limits.RequestsBurst = 0.001, 2 })
	for i, want := range []int{200, 200, 429} {
		response := s.do(t, request{key: "engine", method: "POST", path: "/v1/pseudonyms", body: `{"school":"12AB00","identifiers":[{"scheme":"las","value":"x"}]}`})
		if body := readAll(t, response); response.StatusCode != want || want == 429 && (response.Header.Get("Retry-After") == "" || !strings.Contains(body, "too_many_requests")) {
			t.Errorf("request %d = %d %v %s, want %d", i, response.StatusCode, response.Header, body, want)
		}
	}

}

// Marked identifiers are pushed through every way in; none comes out in a reply,
// a log line, the audit log or a metric. Analytics tokens stay inside too.
func TestNoIdentityComesOut(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	marked := url.QueryEscape(identifierOf(1))
	for _, q := range []request{
		{key: "engine", method: "POST", path: "/v1/pseudonyms", body: `{"school":"12AB00","identifiers":[{"scheme":"las","value":"` + identifierOf(1) + `"}]}`},
		{key: "engine", method: "POST", path: "/v1/pseudonyms", body: `{"school":"` + canary + `","identifiers":[{"scheme":"` + canary + `","value":"` + canary + `"}]}`},
		{key: "engine", method: "POST", path: "/v1/pseudonyms", body: `{"` + canary + `":1}`},
		{key: "engine", path: "/v1/learners/" + marked + "/percentiles"},
		{key: "engine", path: "/v1/learners/" + marked + "/next-exercise?goal=" + marked},
		{key: "engine", path: pathOf(engine, 1, "next-exercise") + "?" + marked + "=1"},
		{key: "engine", path: pathOf(engine, 1, "next-exercise") + "?target=" + marked},
		{key: "engine", path: pathOf(engine, 1, "percentiles")},
		{key: "analyst", path: "/v1/exercises/" + marked},
		{key: "analyst", path: "/v1/exercises?goal=" + marked},
		{key: "school", path: "/v1/groups/" + marked + "/overview?school=" + marked},
		{key: "school", method: "POST", path: "/v1/groups/" + marked + "/names", body: `{"school":"12AB00"}`},
		{key: "school", method: "POST", path: "/v1/groups/5A/names", body: `{"school":"` + canary + `"}`},
		{key: "school", path: "/v1/groups/5A/overview?school=" + schoolA},
		{path: "/" + marked}, {path: "/metrics"},
	} {
		s.do(t, q)
	}
	for name, text := range map[string]string{"replies": s.replies.String(), "log": s.log.String(), "audit log": s.audit.String()} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(canary)) {
			t.Errorf("the %s show a marked identifier", name)
		}
		for n := range 61 {
			if strings.Contains(text, token(n).String()) {
				t.Errorf("the %s show the analytics token of learner %d", name, n)
			}
		}
		for _, key := range s.keys {
			if strings.Contains(text, key) {
				t.Errorf("the %s show an API key", name)
			}
		}
	}
	if got := fmt.Sprintf("%v %+v %s %q %#v", query.Identifier{Scheme: "las", Value: canary}, query.Identifier{Value: canary}, query.Identifier{Value: canary}, query.Identifier{Value: canary}, query.Identifier{Value: canary}); strings.Contains(got, canary) {
		t.Errorf("an identifier prints as %s", got)
	}
}
