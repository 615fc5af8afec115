package query_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/leerstroom/leerstroom/ingest"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

const (
	goodAnswer = `{"id":"b-%d","publisher":"bingel","school":"12AB00","learner":{"scheme":"las","value":"4711"},"group":"5A","year_group":5,"exercise":"wig5-b3-l2-o7","goal":"optellen-tot-1000","subject":"rekenen","kind":"practice","score":1,"attempt":1,"response_time_ms":8200,"answered_at":"2026-11-23T10:15:00+01:00"}`
	goodResult = `{"id":"t-%d","publisher":"bingel","school":"12AB00","learner":{"scheme":"las","value":"4711"},"group":"5A","year_group":5,"test":"pp4-blok3","test_name":"Pluspunt 4 blok 3","subject":"rekenen","part":"bewerkingen","path":["blok 3","bewerkingen"],"taken_on":"2026-11-20","score":17,"max_score":20,"made":20,"right":17,"wrong":3,"duration_s":1500,"norms":[{"kind":"vaardigheidsscore","value":83}]}`
)

// withConnector puts the connector of ingest in front of the service, as one
// process does, on a real Kafka.
func (s *service) withConnector(t *testing.T) {
	t.Helper()
	brokers := enginetest.Kafka(t)
	client, err := stream.NewClient(stream.Config{Brokers: brokers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	private, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: private.Public()})
	if err != nil {
		t.Fatal(err)
	}
	connector, err := ingest.New(ingest.Config{MaxBodyBytes: 1 << 20, Authorisations: ingest.Authorisations{schoolA: {"bingel"}}}, ingest.Parts{
		Client: client, Topic: enginetest.Topic(t, brokers, "raw", 2), Partitions: 2, Sealer: sealer, Keys: s.openKeys(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connector.Close(t.Context()) })
	mux := http.NewServeMux()
	connector.Register(mux)
	mux.Handle("/", s.handler)
	s.server = mux
}

// The document describes the connector's replies too.
func TestDeliveriesFitTheDocument(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	s.withConnector(t)
	ndjson := map[string]string{"Content-Type": "application/x-ndjson"}
	for path, line := range map[string]string{"/v1/answers": fmt.Sprintf(goodAnswer, 1), "/v1/test-results": fmt.Sprintf(goodResult, 1)} {
		bad := strings.Replace(line, "12AB00", "99ZZ99", 1)
		for _, c := range []struct {
			request
			status int
		}{
			{request{key: "publisher", body: line + "\n" + bad + "\nnonsense\n", header: ndjson}, 200},
			{request{key: "publisher", body: bad, header: ndjson}, 422},
			{request{key: "publisher", body: "\n", header: ndjson}, 400},
			{request{body: line, header: ndjson}, 401},
			{request{key: "engine", body: line, header: ndjson}, 403},
			{request{key: "publisher", body: strings.Repeat("x", 1<<20+1), header: ndjson}, 413},
			{request{key: "publisher", body: line, header: map[string]string{"Content-Type": "text/csv"}}, 415},
			{request{key: "publisher", body: zipped(t, line), header: map[string]string{"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}}, 200},
			{request{key: "publisher", body: line, header: map[string]string{"Content-Type": "application/x-ndjson", "Content-Encoding": "br"}}, 415},
		} {
			c.method, c.path = http.MethodPost, path
			response := s.do(t, c.request)
			if response.StatusCode != c.status {
				t.Errorf("%s with key %q = %d, want %d: %s", path, c.key, response.StatusCode, c.status, readAll(t, response))
			}
		}
	}
	if got := s.do(t, request{key: "analyst", path: "/v1/exercises?goal=optellen"}).StatusCode; got != http.StatusOK {
		t.Errorf("a query beside the connector = %d, want 200", got)
	}
}

// A line that the connector accepts fits the document, and a line with a field
// that the document does not have is refused by both.
func TestLinesFitTheDocument(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	s.withConnector(t)
	for name, c := range map[string]struct{ path, line string }{
		"Answer": {"/v1/answers", fmt.Sprintf(goodAnswer, 2)}, "TestResult": {"/v1/test-results", fmt.Sprintf(goodResult, 2)},
	} {
		schema := s.document.Components.Schemas[name].Value
		var full map[string]any
		if err := json.Unmarshal([]byte(c.line), &full); err != nil {
			t.Fatal(err)
		}
		lines := map[string]bool{"": true}
		for field := range schema.Properties {
			lines[field] = true
		}
		for left := range lines {
			for _, change := range []string{"without", "null", "list"} {
				record := map[string]any{}
				for field, value := range full {
					record[field] = value
				}
				switch {
				case left == "":
				case change == "without":
					delete(record, left)
				case change == "null":
					record[left] = nil
				case change == "list":
					record[left] = []any{[]any{}}
				}
				s.compare(t, c.path, schema, record, fmt.Sprintf("%s %s %s", name, change, left))
			}
		}
		full["unheard"] = 1
		s.compare(t, c.path, schema, full, name+" with another field")
	}
}

// compare asks document and connector about one line.
func (s *service) compare(t *testing.T, path string, schema *openapi3.Schema, record map[string]any, what string) {
	t.Helper()
	line, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(line))
	r.Header.Set("Authorization", "Bearer "+s.keys["publisher"])
	recorder := httptest.NewRecorder()
	s.server.ServeHTTP(recorder, r)
	var plain any
	if err := json.Unmarshal(line, &plain); err != nil {
		t.Fatal(err)
	}
	fits := schema.VisitJSON(plain, openapi3.EnableJSONSchema2020()) == nil
	if accepted := recorder.Code == http.StatusOK; accepted != fits && !inconsistent(recorder.Body.String()) {
		t.Errorf("%s: accepted = %v, fits the document = %v: %s", what, accepted, fits, recorder.Body)
	}
}

// inconsistent tells of a refusal by a rule between fields, which a schema does
// not express.
func inconsistent(reply string) bool {
	return strings.Contains(reply, `"inconsistent"`) || strings.Contains(reply, `"no_result"`)
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
