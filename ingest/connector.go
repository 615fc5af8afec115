// Package ingest takes answers and test results in over HTTP and writes them,
// sealed, to the topic `raw`.
//
//	POST body ─▶ decompress ─▶ cut into lines ─▶ parse and validate ─▶ columns per
//	partition ─▶ Arrow IPC ─▶ seal ─▶ Kafka ─▶ reply
//
// Invariants:
//   - A line counts as accepted only after Kafka has acknowledged its message
//     with all in-sync replicas. When that is in doubt, the request gets 503 and
//     nothing counts; the sender repeats it, and the ids of the events make the
//     repetition harmless.
//   - A bad line refuses itself only. A refusal names line, field and rule; no
//     reply, error, log line or metric holds a value from a record.
//   - A school that has not authorised the publisher gets nothing stored.
//   - What one publisher holds, of requests and of buffered bytes, is at most what
//     is free for the others: whoever floods gets 429 or 503, nobody else does.
//   - Body, decompressed size, line, number of requests, buffered bytes and every
//     wait are bounded. When full, the sender waits briefly and then gets 503.
//   - The connector holds a public key only: it can seal, not open.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// Parts are what a Connector works with.
type Parts struct {
	Client     *stream.Client
	Topic      string // of raw
	Partitions int    // of that topic
	Sealer     *seal.Sealer
	Keys       *access.Keys
	Logger     *slog.Logger          // may be nil
	Registry   prometheus.Registerer // may be nil
}

// Connector serves POST /v1/answers and POST /v1/test-results. It is safe for
// concurrent use.
type Connector struct {
	config     Config
	partitions int
	keys       *access.Keys
	logger     *slog.Logger
	metrics    *metrics
	batcher    *batcher
	schools    atomic.Pointer[map[string]schoolSet]
	requests   sync.Pool
	reading    atomic.Int64 // requests whose body is being read

	mu       sync.Mutex
	atWork   int
	byCaller map[string]*caller // publishers, of which there are as many as have keys
}

// caller is what one publisher is using.
type caller struct {
	requests int
	buffered share
}

// New makes a Connector. Close ends it.
func New(config Config, parts Parts) (*Connector, error) {
	if parts.Client == nil {
		return nil, errors.New("make connector: no kafka client")
	}
	return newConnector(config, parts, func(ctx context.Context, partition int, message stream.Message) error {
		_, err := parts.Client.Produce(ctx, parts.Topic, partition, message)
		return err
	})
}

func newConnector(config Config, parts Parts, produce produceFunc) (*Connector, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("make connector: %w", err)
	}
	if parts.Topic == "" || parts.Partitions <= 0 || parts.Sealer == nil || parts.Keys == nil {
		return nil, errors.New("make connector: topic, partitions, sealer and keys are needed")
	}
	if parts.Logger == nil {
		parts.Logger = slog.New(slog.DiscardHandler)
	}
	config.setDefaults()
	c := &Connector{config: config, partitions: parts.Partitions, keys: parts.Keys, logger: parts.Logger, byCaller: make(map[string]*caller)}
	var err error
	c.metrics, err = newMetrics(parts.Registry, func() float64 { return float64(c.batcher.budget.used.Load()) })
	if err != nil {
		return nil, fmt.Errorf("make connector: %w", err)
	}
	c.requests.New = func() any { return newRequest(c) }
	c.setAuthorisations(config.Authorisations)
	c.batcher = newBatcher(&c.config, parts.Partitions, parts.Sealer, parts.Topic, c.metrics, produce)
	return c, nil
}

// SetAuthorisations replaces the authorisations; requests that begin later go by
// the new ones.
func (c *Connector) SetAuthorisations(a Authorisations) error {
	if err := a.Validate(); err != nil {
		return err
	}
	c.setAuthorisations(a)
	return nil
}

func (c *Connector) setAuthorisations(a Authorisations) {
	schools := a.byPublisher(func(school string) int { return answer.PartitionOf(school, c.partitions) })
	c.schools.Store(&schools)
}

// Close sends what is buffered and ends the connector; call it after the HTTP
// server has stopped. When ctx ends first, messages under way are given up, which
// no sender takes for accepted.
func (c *Connector) Close(ctx context.Context) { c.batcher.close(ctx) }

// Answers serves POST /v1/answers.
func (c *Connector) Answers() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(w, r, kindAnswers) })
}

// TestResults serves POST /v1/test-results.
func (c *Connector) TestResults() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(w, r, kindResults) })
}

// Register adds both paths to a mux.
func (c *Connector) Register(mux *http.ServeMux) {
	mux.Handle("POST /v1/answers", c.Answers())
	mux.Handle("POST /v1/test-results", c.TestResults())
}

// serve answers one request.
func (c *Connector) serve(w http.ResponseWriter, r *http.Request, kind recordKind) {
	started := time.Now()
	principal, err := c.keys.Authenticate(r)
	if err != nil {
		if errors.Is(err, access.ErrUnavailable) {
			c.logger.ErrorContext(r.Context(), "API keys can't be read", "error", err)
		}
		access.Deny(w, err)
		return
	}
	if principal.Role != access.RolePublisher {
		access.Forbid(w, "only a publisher's key may deliver")
		return
	}
	who, problem := c.enter(principal.Publisher)
	if problem != nil {
		c.refuse(w, r, kind, &principal, problem, started)
		return
	}
	defer c.leave(who)
	q := c.requests.Get().(*request)
	defer func() {
		q.release()
		c.requests.Put(q)
	}()
	problem = q.take(w, r, kind, &principal, who)
	if problem != nil {
		c.refuse(w, r, kind, &principal, problem, started)
		c.metrics.reply(kind, problem.Status, q.body.received, time.Since(started), nil)
		return
	}
	status := q.reply(w)
	c.metrics.reply(kind, status, q.body.received, time.Since(started), q.refusedBy)
	c.logger.DebugContext(r.Context(), "lines taken in", "key", principal.KeyID, "kind", kindNames[kind],
		"accepted", q.accepted, "refused", q.refusedCount, "took", time.Since(started))
}

// refuse sends a problem and notes it. The log says who and why, not what.
func (c *Connector) refuse(w http.ResponseWriter, r *http.Request, kind recordKind, principal *access.Principal, problem *access.Problem, started time.Time) {
	c.logger.WarnContext(r.Context(), "request refused", "key", principal.KeyID, "publisher", principal.Publisher, "kind", kindNames[kind],
		"status", problem.Status, "code", problem.Code, "took", time.Since(started))
	access.WriteProblem(w, *problem)
}

// enter counts a request in, or says why it must wait. As with the budget, a
// publisher may have as many requests at work as there are places free for the
// others, and at most MaxPublisher.
func (c *Connector) enter(publisher string) (*caller, *access.Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who := c.byCaller[publisher]
	if who == nil {
		who = new(caller)
		c.byCaller[publisher] = who
	}
	free := c.config.MaxRequests - c.atWork
	switch {
	case free <= 0:
		return nil, &access.Problem{Status: http.StatusServiceUnavailable, Code: "busy", RetryAfter: time.Second}
	case who.requests >= min(c.config.MaxPublisher, free):
		return nil, &access.Problem{Status: http.StatusTooManyRequests, Code: "too_many_requests", RetryAfter: time.Second,
			Detail: fmt.Sprintf("at most %d requests of one publisher at the same time, fewer when others deliver", c.config.MaxPublisher)}
	}
	who.requests++
	c.atWork++
	c.metrics.inRequest.Inc()
	return who, nil
}

func (c *Connector) leave(who *caller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.inRequest.Dec()
	c.atWork--
	who.requests--
}

func (c *Connector) mayBeNineDigits(publisher string) bool {
	return slices.Contains(c.config.NineDigits, publisher)
}
