package bench

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// moodyConnector accepts lines but is busy, down or broken at first.
type moodyConnector struct {
	t        *testing.T
	mu       sync.Mutex
	requests atomic.Int64
	ids      map[string]int
	newest   map[string]time.Time // per learner
	backward int
}

func (m *moodyConnector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch m.requests.Add(1) {
	case 1:
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case 2:
		w.WriteHeader(http.StatusTooManyRequests)
		return
	case 3:
		panic(http.ErrAbortHandler) // the connection breaks
	}
	var body io.Reader = r.Body
	switch r.Header.Get("Content-Encoding") {
	case "gzip":
		g, err := gzip.NewReader(r.Body)
		if err != nil {
			m.t.Errorf("open gzip body: %v", err)
			return
		}
		body = g
	case "zstd":
		z, err := zstd.NewReader(r.Body)
		if err != nil {
			m.t.Errorf("open zstd body: %v", err)
			return
		}
		defer z.Close()
		body = z
	}
	rows := 0
	for lines := bufio.NewScanner(body); lines.Scan(); rows++ {
		m.line(r, lines.Bytes())
	}
	fmt.Fprintf(w, `{"accepted":%d,"refused_count":0,"refused":[]}`, rows)
}

func (m *moodyConnector) line(r *http.Request, line []byte) {
	var row struct {
		ID, Publisher string
		Learner       struct{ Value string }
		AnsweredAt    time.Time `json:"answered_at"`
	}
	if err := json.Unmarshal(line, &row); err != nil {
		m.t.Errorf("read line: %v", err)
	}
	if got, want := r.Header.Get("Authorization"), "Bearer key-of-"+row.Publisher; got != want {
		m.t.Errorf("authorization = %s, want %s", got, want)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids[row.ID]++
	if row.AnsweredAt.Before(m.newest[row.Learner.Value]) {
		m.backward++
	}
	m.newest[row.Learner.Value] = row.AnsweredAt
}

func TestPush(t *testing.T) {
	t.Parallel()
	for _, encoding := range []Encoding{Identity, Gzip, Zstd} {
		t.Run("encoding "+string(encoding), func(t *testing.T) {
			t.Parallel()
			p := testPopulation(t, PopulationConfig{Seed: 6, Schools: 5, Learners: 60})
			w := testWorkload(t, p, WorkloadConfig{Answers: 4000})
			connector := &moodyConnector{t: t, ids: map[string]int{}, newest: map[string]time.Time{}}
			server := httptest.NewServer(connector)
			defer server.Close()
			var progress atomic.Int64
			config := PushConfig{
				BaseURL: server.URL, Workers: 3, BodyRows: 300, Encoding: encoding, Keys: map[string]string{},
				Progress: func(rows int) { progress.Add(int64(rows)) },
			}
			for _, publisher := range p.Publishers {
				config.Keys[publisher.ID] = "key-of-" + publisher.ID
			}
			result, err := Push(t.Context(), w, config)
			if err != nil {
				t.Fatalf("Push: %v", err)
			}
			if result.Accepted != 4000 || progress.Load() != 4000 || len(connector.ids) != 4000 || result.Retries != 3 {
				t.Errorf("accepted %d, progress %d, distinct ids %d, retries %d; want 4000 thrice and 3",
					result.Accepted, progress.Load(), len(connector.ids), result.Retries)
			}
			if connector.backward != 0 {
				t.Errorf("%d answers arrived before an older one of the same learner", connector.backward)
			}
		})
	}
}

func TestPushReportsRefusal(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"type":"about:blank","title":"unknown key"}`)
	}))
	defer server.Close()
	p := testPopulation(t, PopulationConfig{Seed: 6, Schools: 1, Learners: 20})
	_, err := PushTestResults(t.Context(), p, p.TestResults(5), PushConfig{BaseURL: server.URL})
	if err == nil || !strings.Contains(err.Error(), "unknown key") {
		t.Errorf("PushTestResults with a bad key = %v, want the problem's title", err)
	}
}

func TestPushEndsWithContext(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	p := testPopulation(t, PopulationConfig{Seed: 6, Schools: 1, Learners: 20})
	w := testWorkload(t, p, WorkloadConfig{Answers: 100})
	if _, err := Push(ctx, w, PushConfig{BaseURL: server.URL}); err == nil {
		t.Errorf("Push against a busy connector = nil error after its context ended")
	}
}
