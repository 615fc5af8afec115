package query_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
)

var errAway = errors.New("registry is away")

// away are identities that can't be reached.
func away() query.Identities {
	return query.Identities{
		Tokens: func(context.Context, keyring.Purpose, string, []query.Identifier) ([]answer.Token, error) {
			return nil, errAway
		},
		Learner: func(context.Context, keyring.Purpose, [16]byte) ([]answer.Token, string, error) {
			return nil, "", errAway
		},
		Present: func(context.Context, keyring.Purpose, string, []answer.Token) ([]answer.Token, error) {
			return nil, errAway
		},
		Names: func(context.Context, keyring.Purpose, string, string) ([]pseudonymize.NamedLearner, error) {
			return nil, errAway
		},
	}
}

// registry is an identity registry of a few learners: token(n) is the analytics
// token of learner n, whose identifier is marked so that it can be hunted for.
type registry struct{ schools map[int]string }

const canary = "KANARIE"

func identifierOf(n int) string { return canary + "-" + token(n).String()[:8] }

func purposeToken(purpose keyring.Purpose, n int) answer.Token {
	mac := hmac.New(sha256.New, []byte(purpose))
	b := token(n).Bytes()
	mac.Write(b[:])
	return answer.MintToken([16]byte(mac.Sum(nil)))
}

func (r *registry) identities() query.Identities {
	return query.Identities{
		Tokens: func(_ context.Context, p keyring.Purpose, school string, identifiers []query.Identifier) ([]answer.Token, error) {
			out := make([]answer.Token, len(identifiers))
			for i, id := range identifiers {
				for n, s := range r.schools {
					if s == school && id.Value == identifierOf(n) && id.Scheme == "las" {
						out[i] = purposeToken(p, n)
					}
				}
			}
			return out, nil
		},
		Learner: func(_ context.Context, p keyring.Purpose, given [16]byte) ([]answer.Token, string, error) {
			for n, s := range r.schools {
				if purposeToken(p, n).Bytes() == given {
					rotated := token(-n - 2) // of a newer key, which no row has yet
					return []answer.Token{rotated, token(n)}, s, nil
				}
			}
			return nil, "", nil
		},
		Present: func(_ context.Context, p keyring.Purpose, school string, analytics []answer.Token) ([]answer.Token, error) {
			out := make([]answer.Token, len(analytics))
			for i, t := range analytics {
				for n, s := range r.schools {
					if s == school && token(n) == t {
						out[i] = purposeToken(p, n)
					}
				}
			}
			return out, nil
		},
		Names: func(_ context.Context, p keyring.Purpose, school, group string) (named []pseudonymize.NamedLearner, err error) {
			for n, s := range r.schools {
				if s == school && group == "5A" && n < 3 {
					name := vault.Name{First: fmt.Sprint(canary, " ", n), Last: "Voorbeeld", Group: group, YearGroup: uint8(n)}
					named = append(named, pseudonymize.NamedLearner{Token: purposeToken(p, n), Name: name})
				}
			}
			slices.SortFunc(named, func(a, b pseudonymize.NamedLearner) int { return strings.Compare(a.First, b.First) })
			return named, nil
		},
	}
}

// history says that learners 0 to 39 stood lower in June, on 20 answers, and that
// the others had not begun.
func (r *registry) history(_ context.Context, school string, learners []answer.Token, day transform.Day) ([]transform.DailySkill, error) {
	june := transform.DayOf(2026, time.June, 20)
	var rows []transform.DailySkill
	for _, learner := range learners {
		for n := range 40 {
			if token(n) != learner || r.schools[n] != school || day < june {
				continue
			}
			of := transform.DailySkill{Learner: learner, YearGroup: 4, Day: june, Position: 1, Answers: 20, Variance: 0.2}
			overall, subject, goal := of, of, of
			overall.Layer, overall.Mean = transform.LayerOverall, float64(n%20)/10-2
			subject.Layer, subject.Key, subject.Subject = transform.LayerSubject, "rekenen", "rekenen"
			goal.Layer, goal.Key, goal.Subject = transform.LayerGoal, "optellen", "rekenen"
			rows = append(rows, overall, subject, goal)
		}
	}
	return rows, nil
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// trail is an audit log in memory.
type trail struct {
	mu      sync.Mutex
	records []audit.Record
	broken  error // what appending returns
}

func (a *trail) append(r audit.Record) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken == nil {
		a.records = append(a.records, r)
	}
	return a.broken
}

// of returns the records of an action.
func (a *trail) of(action string) (some []audit.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		if r.Action == action {
			some = append(some, r)
		}
	}
	return some
}

func (a *trail) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("%+v", a.records)
}

// service is a handler with learners of two schools and keys of every role.
type service struct {
	handler *query.Handler
	server  http.Handler // the handler, or what stands before it
	model   *query.ReadModel
	keys    map[string]string // name of a key → its text
	log     *lockedBuffer
	audit   *trail
	replies *lockedBuffer
	router  routers.Router

	document *openapi3.T
	seen     sync.Map // operation and status that were held against the document
}

const (
	schoolA = "12AB00"
	schoolB = "34CD01"
	engine  = keyring.Purpose("engine/slim")
	other   = keyring.Purpose("engine/vlot")
	schools = keyring.Purpose("engine/school")
)

// Learners 0–39 are of school A (20–39 in group 5B), 40–59 of school B; 60 is
// known to school A and has not answered anything.
func newService(t testing.TB, change func(*query.HandlerConfig)) *service {
	t.Helper()
	s := &service{model: model(t), keys: map[string]string{}, log: &lockedBuffer{}, audit: &trail{}, replies: &lockedBuffer{}}
	r := &registry{schools: map[int]string{60: schoolA}}
	for n := range 60 {
		p := pupil{n: n, school: schoolA, group: "5A", yearGroup: 5, at: monday.UnixMilli(), position: 1}
		if n >= 20 {
			p.group = "5B"
		}
		if n >= 40 {
			p.school = schoolB
		}
		r.schools[n] = p.school
		s.model.ApplySkills(skillRows(p, float64(n%20)/10-1, 0.1, map[string]float64{"optellen": 0.05 * float64(n%7)}))
	}
	rare := pupil{n: 3, school: schoolA, group: "5A", yearGroup: 5, at: monday.UnixMilli(), position: 2}
	s.model.ApplySkills(skillRows(rare, -0.7, 0.1, map[string]float64{"romeinse cijfers": 0.2}))
	rows := &transform.SnapshotRows{}
	appendGlobal(rows, -0.5)
	appendGoal(rows, "optellen", 0.1, 0.01)
	for i := range 60 {
		appendItem(rows, "bingel:som-"+string(rune('a'+i/10))+string(rune('0'+i%10)), "optellen", float64(i)/20-2, 0.05, int64(i*3), float64(60-i)/60)
	}
	s.model.ApplySnapshot(1, rows)
	s.newKeys(t)
	config := query.HandlerConfig{
		Model: s.model, Keys: s.openKeys(t), Identities: r.identities(), History: r.history,
		Logger: slog.New(slog.NewTextHandler(s.log, nil)), Audit: s.audit.append,
	}
	if change != nil {
		change(&config)
	}
	var err error
	if s.handler, err = query.NewHandler(config); err != nil {
		t.Fatal(err)
	}
	s.server = s.handler
	s.router, s.document = documentRouter(t, s.handler)
	return s
}

var keyFiles sync.Map // test name → path

func (s *service) newKeys(t testing.TB) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "apikeys.json")
	keyFiles.Store(t.Name(), path)
	keys := s.openKeys(t)
	for name, scope := range map[string]access.Scope{
		"engine":    {Role: access.RoleEngine, Engine: "slim", Schools: []string{schoolA}},
		"engine-b":  {Role: access.RoleEngine, Engine: "slim", Schools: []string{schoolB}},
		"other":     {Role: access.RoleEngine, Engine: "vlot", Schools: []string{schoolA}},
		"impostor":  {Role: access.RoleEngine, Engine: "school", Schools: []string{schoolA}},
		"school":    {Role: access.RoleSchool, Schools: []string{schoolA}},
		"school-b":  {Role: access.RoleSchool, Schools: []string{schoolB}},
		"analyst":   {Role: access.RoleAnalyst},
		"publisher": {Role: access.RolePublisher, Publisher: "bingel"},
	} {
		text, _, err := keys.Create(scope)
		if err != nil {
			t.Fatal(err)
		}
		s.keys[name] = text
	}
}

func (s *service) openKeys(t testing.TB) *access.Keys {
	t.Helper()
	path, _ := keyFiles.Load(t.Name())
	keys, err := access.Open(path.(string))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// documentRouter finds operations in the document that the handler itself
// serves.
func documentRouter(t testing.TB, h http.Handler) (routers.Router, *openapi3.T) {
	t.Helper()
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	document, err := openapi3.NewLoader().LoadFromData(recorder.Body.Bytes())
	if err != nil {
		t.Fatalf("load the document: %v", err)
	}
	if err := document.Validate(context.Background()); err != nil {
		t.Fatalf("validate the document: %v", err)
	}
	router, err := gorillamux.NewRouter(document)
	if err != nil {
		t.Fatal(err)
	}
	return router, document
}

// request is one call of the API.
type request struct {
	key    string // name of a key, "" = none
	method string // "" = GET
	path   string
	body   string
	header map[string]string
}

// mediaBodies lets the validator read the media types that it does not know.
var mediaBodies = sync.OnceFunc(func() {
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", openapi3filter.FileBodyDecoder)
	openapi3filter.RegisterBodyDecoder("application/vnd.apache.arrow.stream", openapi3filter.FileBodyDecoder)
})

// do sends a request and holds the reply against the document: the status must
// be one of the operation, and the body must fit its schema. What the document
// says is a bad request must not be served.
func (s *service) do(t testing.TB, q request) *http.Response {
	t.Helper()
	if q.method == "" {
		q.method = http.MethodGet
	}
	make := func() *http.Request {
		r := httptest.NewRequest(q.method, q.path, strings.NewReader(q.body))
		if q.key != "" {
			r.Header.Set("Authorization", "Bearer "+s.keys[q.key])
		}
		if q.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		for name, value := range q.header {
			r.Header.Set(name, value)
		}
		return r
	}
	recorder := httptest.NewRecorder()
	s.server.ServeHTTP(recorder, make())
	response := recorder.Result()
	body := recorder.Body.Bytes()
	_, _ = s.replies.Write(body)
	s.hold(t, make(), response, body)
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response
}

func (s *service) hold(t testing.TB, r *http.Request, response *http.Response, body []byte) {
	t.Helper()
	mediaBodies()
	route, pathParams, err := s.router.FindRoute(r)
	if err != nil {
		if response.StatusCode != http.StatusNotFound && response.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s %s = %d, but the document has no such operation", r.Method, r.URL.Path, response.StatusCode)
		}
		return
	}
	s.seen.Store(fmt.Sprint(route.Operation.OperationID, " ", response.StatusCode), true)
	input := &openapi3filter.RequestValidationInput{Request: r, PathParams: pathParams, Route: route, Options: &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, RejectWhenRequestBodyNotSpecified: true,
	}}
	requestErr := openapi3filter.ValidateRequest(r.Context(), input)
	if requestErr != nil && response.StatusCode < 400 {
		t.Errorf("%s %s = %d, but the document refuses it: %v", r.Method, r.URL, response.StatusCode, requestErr)
	}
	err = openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: response.StatusCode, Header: response.Header,
		Body: io.NopCloser(bytes.NewReader(body)), Options: input.Options,
	})
	if err != nil {
		t.Errorf("%s %s = %d, which differs from the document: %v", r.Method, r.URL, response.StatusCode, err)
	}
}

func readAll(t testing.TB, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
