package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// Encoding is the content encoding of requests.
type Encoding string

// The content encodings that the connector reads.
const (
	Identity Encoding = ""
	Gzip     Encoding = "gzip"
	Zstd     Encoding = "zstd"
)

// PushConfig says where and how simulated publishers send. The zero value of
// an optional field takes its default.
type PushConfig struct {
	BaseURL       string            // such as http://127.0.0.1:8080
	Keys          map[string]string // API key of each publisher
	Client        *http.Client      // default: one with a connection per worker
	Workers       int               // concurrent senders, default 8
	BodyRows      int               // lines of a request at most, default 5,000
	Encoding      Encoding          // default identity
	RowsPerSecond int               // of all workers together; 0 = as fast as possible
	Progress      func(rows int)    // after each acknowledged request, concurrently
}

func (c *PushConfig) setDefaults() {
	if c.Workers <= 0 {
		c.Workers = 8
	}
	if c.BodyRows <= 0 {
		c.BodyRows = 5000
	}
	if c.Client == nil {
		c.Client = &http.Client{Transport: &http.Transport{
			MaxIdleConns: c.Workers, MaxIdleConnsPerHost: c.Workers, DisableCompression: true,
		}}
	}
	if c.Progress == nil {
		c.Progress = func(int) {}
	}
}

// PushResult counts what publishers sent. Rows are counted when the connector
// has acknowledged them.
type PushResult struct {
	Accepted int64
	Refused  int64
	Requests int64
	Retries  int64
	Bytes    int64 // of bodies, as sent
	Elapsed  time.Duration
}

// RowsPerSecond returns the accepted rows per second.
func (r *PushResult) RowsPerSecond() float64 { return float64(r.Accepted) / r.Elapsed.Seconds() }

// Push sends the answers of a workload through POST /v1/answers. Each sender
// owns some schools and waits for the acknowledgement of one batch before it
// sends the next, so that a learner's answers arrive in order. 429, 503 and lost
// connections are tried again until ctx ends: event ids make that harmless.
func Push(ctx context.Context, w *Workload, config PushConfig) (PushResult, error) {
	config.setDefaults()
	p := newPusher(&config, w.Population)
	started := time.Now()
	err := p.pushAll(ctx, w)
	return p.result(started), err
}

func (u *pusher) pushAll(ctx context.Context, w *Workload) error {
	group, ctx := errgroup.WithContext(ctx)
	for worker := range u.config.Workers {
		group.Go(func() error {
			f := newFeed(w, newLineWriter(w.Population), worker, u.config.Workers, u.config.BodyRows)
			s := u.newSender("/v1/answers")
			defer s.close()
			for bodies := f.next(); len(bodies) > 0; bodies = f.next() {
				for i := range bodies {
					if err := s.send(ctx, &bodies[i]); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// PushTestResults sends test results through POST /v1/test-results.
func PushTestResults(ctx context.Context, p *Population, results []TestResult, config PushConfig) (PushResult, error) {
	config.setDefaults()
	pusher := newPusher(&config, p)
	started := time.Now()
	s := pusher.newSender("/v1/test-results")
	defer s.close()
	for _, b := range testResultBodies(newLineWriter(p), results, config.BodyRows) {
		if err := s.send(ctx, &b); err != nil {
			return pusher.result(started), err
		}
	}
	return pusher.result(started), nil
}

// pusher is what the senders of one push share.
type pusher struct {
	config   *PushConfig
	keys     []string // per publisher of the population
	accepted atomic.Int64
	refused  atomic.Int64
	requests atomic.Int64
	retries  atomic.Int64
	bytes    atomic.Int64
	pace     pace
}

func newPusher(config *PushConfig, p *Population) *pusher {
	u := &pusher{config: config, pace: pace{rowsPerSecond: config.RowsPerSecond}}
	for i := range p.Publishers {
		u.keys = append(u.keys, config.Keys[p.Publishers[i].ID])
	}
	return u
}

func (u *pusher) result(started time.Time) PushResult {
	return PushResult{
		Accepted: u.accepted.Load(), Refused: u.refused.Load(), Requests: u.requests.Load(),
		Retries: u.retries.Load(), Bytes: u.bytes.Load(), Elapsed: time.Since(started),
	}
}

// pace spreads rows evenly over time.
type pace struct {
	mu            sync.Mutex
	rowsPerSecond int
	free          time.Time // when the next row may leave
}

// wait returns when n more rows may leave.
func (p *pace) wait(ctx context.Context, n int) error {
	if p.rowsPerSecond <= 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	at := p.free
	p.free = p.free.Add(time.Duration(n) * time.Second / time.Duration(p.rowsPerSecond))
	p.mu.Unlock()
	return sleep(ctx, at.Sub(now))
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sender sends bodies one after the other. It is not safe for concurrent use.
type sender struct {
	*pusher
	path string
	buf  bytes.Buffer
	gzip *gzip.Writer
	zstd *zstd.Encoder
}

func (u *pusher) newSender(path string) *sender { return &sender{pusher: u, path: path} }

func (s *sender) close() {
	if s.zstd != nil {
		s.zstd.Close()
	}
}

// send delivers a body and does not return before it is acknowledged, refused
// for good, or ctx has ended.
func (s *sender) send(ctx context.Context, b *body) error {
	if err := s.pace.wait(ctx, b.rows); err != nil {
		return err
	}
	data, err := s.encode(b.data)
	if err != nil {
		return fmt.Errorf("encode body: %w", err)
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		s.requests.Add(1)
		after, err := s.post(ctx, b, data)
		if err == nil {
			s.bytes.Add(int64(len(data)))
			s.config.Progress(b.rows)
			return nil
		}
		if !errors.Is(err, errTryAgain) {
			return fmt.Errorf("post %s: %w", s.path, err)
		}
		s.retries.Add(1)
		if after <= 0 {
			after = wait
		}
		if err := sleep(ctx, after); err != nil {
			return fmt.Errorf("post %s: %w", s.path, err)
		}
	}
}

var errTryAgain = errors.New("try again")

// post makes one attempt. With errTryAgain it says how long the connector asks
// to wait, 0 = it does not say.
func (s *sender) post(ctx context.Context, b *body, data []byte) (after time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.config.BaseURL+s.path, bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+s.keys[b.publisher])
	request.Header.Set("Content-Type", "application/x-ndjson")
	if s.config.Encoding != Identity {
		request.Header.Set("Content-Encoding", string(s.config.Encoding))
	}
	response, err := s.config.Client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, fmt.Errorf("%w: %w", errTryAgain, err)
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return 0, fmt.Errorf("%w: read reply: %w", errTryAgain, err)
	}
	switch response.StatusCode {
	case http.StatusOK, http.StatusUnprocessableEntity: // 422: every line was refused
		return 0, s.count(b, reply)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return retryAfter(response.Header.Get("Retry-After")), fmt.Errorf("%w: %s", errTryAgain, response.Status)
	}
	return 0, fmt.Errorf("%s: %s", response.Status, problemTitle(reply))
}

// count reads the reply to an acknowledged body.
func (s *sender) count(b *body, reply []byte) error {
	var outcome struct {
		Accepted int64 `json:"accepted"`
		Refused  int64 `json:"refused_count"`
	}
	if err := json.Unmarshal(reply, &outcome); err != nil {
		return fmt.Errorf("read reply: %w", err)
	}
	if outcome.Accepted+outcome.Refused != int64(b.rows) {
		return fmt.Errorf("reply accepts %d and refuses %d of %d lines", outcome.Accepted, outcome.Refused, b.rows)
	}
	s.accepted.Add(outcome.Accepted)
	s.refused.Add(outcome.Refused)
	return nil
}

// retryAfter reads a Retry-After header in seconds; 0 when there is none. A date
// is not used by the connector.
func retryAfter(header string) time.Duration {
	seconds, err := strconv.Atoi(header)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// problemTitle returns the title and detail of RFC 9457 problem JSON.
func problemTitle(reply []byte) string {
	var problem struct{ Title, Detail string }
	if json.Unmarshal(reply, &problem) != nil || problem.Title == "" {
		return "no problem document"
	}
	if problem.Detail == "" {
		return problem.Title
	}
	return problem.Title + ": " + problem.Detail
}

func (s *sender) encode(data []byte) ([]byte, error) {
	s.buf.Reset()
	switch s.config.Encoding {
	case Identity:
		return data, nil
	case Gzip:
		if s.gzip == nil {
			writer, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
			if err != nil {
				return nil, err
			}
			s.gzip = writer
		}
		s.gzip.Reset(&s.buf)
		if _, err := s.gzip.Write(data); err != nil {
			return nil, err
		}
		if err := s.gzip.Close(); err != nil {
			return nil, err
		}
		return s.buf.Bytes(), nil
	case Zstd:
		if s.zstd == nil {
			encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
			if err != nil {
				return nil, err
			}
			s.zstd = encoder
		}
		return s.zstd.EncodeAll(data, s.buf.AvailableBuffer()), nil
	}
	return nil, fmt.Errorf("unknown content encoding %q", s.config.Encoding)
}
