package query_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Whatever stands in a query string: no panic, a status that the document has,
// and nothing of it in the reply but a goal that exists.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "goal=optellen", "goal=optellen&target=0.5", "target=1e-1", "target=0x1p-1", "year_group=5&goal=optellen",
		"goal=%00", "goal=a;b", "%zz", "goal=" + strings.Repeat("x", 300), "limit=9999999999999999999", "after=bingel%3Asom-a1&goal=optellen&limit=3", "school=12AB00"} {
		f.Add(seed)
	}
	s := newService(f, nil)
	f.Fuzz(func(t *testing.T, query string) {
		for key, path := range map[string]string{"engine": pathOf(engine, 1, "next-exercise"), "analyst": "/v1/exercises", "school": "/v1/groups/5A/overview", "other": "/v1/percentiles"} {
			r, err := http.NewRequest(http.MethodGet, "http://x"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.URL.RawQuery = query
			s.replay(t, key, r, "")
		}
	})
}

// Whatever is posted as a request for pseudonyms: no panic, a status that the
// document has, and nothing of it in the reply.
func FuzzPseudonyms(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"school":"12AB00","identifiers":[{"scheme":"las","value":"x"}]}`, `{"school":"12AB00","identifiers":[{"scheme":"las","value":"\u0000"}]}`,
		`{"school":"12AB00","identifiers":null}`, `{"school":1}`, `[]`, `null`, "\xff", `{"school":"12AB00","identifiers":[{}]}`, strings.Repeat("[", 20000)} {
		f.Add(seed)
	}
	s := newService(f, nil)
	f.Fuzz(func(t *testing.T, body string) {
		r, err := http.NewRequest(http.MethodPost, "http://x/v1/pseudonyms", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		s.replay(t, "engine", r, body)
	})
}

// FuzzAccept: some offer or a refusal, never a panic.
func FuzzAccept(f *testing.F) {
	for _, seed := range []string{"", "*/*", "text/csv;q=0.3,application/json;q=.1", ";;,,", "text/*;q=1e9", strings.Repeat("a/b,", 100)} {
		f.Add(seed)
	}
	s := newService(f, nil)
	f.Fuzz(func(t *testing.T, accept string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/v1/percentiles", RawQuery: "goal=optellen&year_group=5"}, Header: http.Header{"Accept": {accept}}, Body: http.NoBody}
		s.replay(t, "analyst", r, "")
	})
}

// replay sends a request and looks at the reply only.
func (s *service) replay(t *testing.T, key string, r *http.Request, secret string) {
	t.Helper()
	r.Header.Set("Authorization", "Bearer "+s.keys[key])
	w := &capture{discard: discard{header: http.Header{}, status: http.StatusOK}}
	s.handler.ServeHTTP(w, r)
	switch w.status {
	case 200, 400, 403, 404, 406, 413, 415, 429:
	default:
		t.Errorf("%s %s = %d", r.Method, r.URL.Path, w.status)
	}
	if len(secret) > 12 && strings.Contains(w.body.String(), secret) {
		t.Errorf("%s %s repeats its body", r.Method, r.URL.Path)
	}
}

type capture struct {
	discard
	body strings.Builder
}

func (c *capture) Write(p []byte) (int, error) { return c.body.Write(p) }
