package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"time"

	"github.com/leerstroom/leerstroom/ingest/line"
	"github.com/leerstroom/leerstroom/internal/access"
)

// request is one request at work. It is reused; everything that identifies a
// learner is wiped between two.
type request struct {
	connector *Connector
	body      body
	lines     lines
	parser    *line.Parser
	answer    line.Answer
	result    line.TestResult
	publisher string
	caller    *caller
	fills     [kinds]func(columns)

	last    []int // per partition, 1 + the index in touched of the batch that its last line went to
	touched []touched

	accepted     int
	lineCount    int
	refusedCount int
	refused      []refusal
	refusedBy    map[line.Rule]int
}

// touched counts this request's rows in a batch.
type touched struct {
	batch *batch
	rows  int
}

// refusal is one refused line in a reply.
type refusal struct {
	Line  int       `json:"line"`
	Field string    `json:"field"`
	Rule  line.Rule `json:"rule"`
}

func newRequest(c *Connector) *request {
	q := &request{connector: c, parser: line.NewParser(line.Policy{}), last: make([]int, c.partitions), refusedBy: make(map[line.Rule]int)}
	q.fills[kindAnswers] = func(to columns) { to.(*answerColumns).append(q.publisher, &q.answer) }
	q.fills[kindResults] = func(to columns) { to.(*resultColumns).append(q.publisher, &q.result) }
	return q
}

// release empties the request for the next one.
func (q *request) release() {
	q.body.release()
	q.lines.wipe()
	clear(q.last)
	clear(q.touched)
	q.touched, q.refused = q.touched[:0], q.refused[:0]
	clear(q.refusedBy)
	q.accepted, q.lineCount, q.refusedCount = 0, 0, 0
	q.parser.Wipe()
	q.answer, q.result = line.Answer{}, line.TestResult{}
}

// take reads the body, hands its lines over and waits for Kafka.
func (q *request) take(w http.ResponseWriter, r *http.Request, kind recordKind, principal *access.Principal, who *caller) *access.Problem {
	c := q.connector
	encoding, problem := c.encodingOf(r)
	if problem != nil {
		return problem
	}
	q.publisher, q.caller = principal.Publisher, who
	q.parser.SetPolicy(line.Policy{Publisher: principal.Publisher, NowMS: time.Now().UnixMilli(), ClockSkewMS: c.config.ClockSkew.Milliseconds(),
		TestIdentifiers: c.config.TestIdentifiers, NineDigitIdentifiers: c.mayBeNineDigits(principal.Publisher)})
	c.reading.Add(1)
	err := readDeadline(w, time.Now().Add(c.config.RequestTimeout))
	if err == nil {
		err = q.body.reset(&c.config, r.Body, encoding)
	}
	if err == nil {
		q.lines.reset(&q.body, c.config.MaxLineBytes)
		err = q.read(r.Context(), kind, principal)
	}
	alone := c.reading.Add(-1) == 0
	for i := range q.touched {
		c.batcher.await(q.touched[i].batch, alone)
	}
	if err == nil {
		err = readDeadline(w, time.Time{}) // waiting for Kafka is not the sender's fault
	}
	if err == nil {
		err = q.wait(r.Context())
	}
	if err == nil && q.lineCount == 0 {
		return &access.Problem{Status: http.StatusBadRequest, Code: "empty_body", Detail: "send one JSON object per line"}
	}
	return c.problemOf(r, err)
}

// readDeadline bounds how long the body may take. A server that knows no deadlines
// has its own bounds.
func readDeadline(w http.ResponseWriter, until time.Time) error {
	if err := http.NewResponseController(w).SetReadDeadline(until); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set deadline: %w", err)
	}
	return nil
}

// encodingOf checks the headers of a request.
func (c *Connector) encodingOf(r *http.Request) (string, *access.Problem) {
	if content := r.Header.Get("Content-Type"); content != "" {
		media, _, err := mime.ParseMediaType(content)
		switch {
		case err == nil && (media == "application/x-ndjson" || media == "application/ndjson" || media == "application/jsonl"):
		default:
			return "", &access.Problem{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type", Detail: "send application/x-ndjson"}
		}
	}
	if r.ContentLength > c.config.MaxBodyBytes {
		return "", c.tooLarge("body_too_large", fmt.Sprintf("a body has at most %d bytes", c.config.MaxBodyBytes))
	}
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return "", nil
	case "gzip", "zstd":
		return encoding, nil
	}
	return "", &access.Problem{Status: http.StatusUnsupportedMediaType, Code: "unsupported_encoding", Detail: "send gzip, zstd or no content encoding"}
}

func (c *Connector) tooLarge(code, detail string) *access.Problem {
	return &access.Problem{Status: http.StatusRequestEntityTooLarge, Code: code, Detail: detail}
}

// problemOf turns an error into what the sender is told.
func (c *Connector) problemOf(r *http.Request, err error) *access.Problem {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errBodyTooLarge):
		return c.tooLarge("body_too_large", fmt.Sprintf("a body has at most %d bytes", c.config.MaxBodyBytes))
	case errors.Is(err, errDecodedTooLarge):
		return c.tooLarge("decoded_too_large", fmt.Sprintf("a body has at most %d bytes when decompressed", c.config.MaxDecodedBytes))
	case errors.Is(err, errRatio):
		return c.tooLarge("decompression_ratio", fmt.Sprintf("a body decompresses to at most %d times its size", c.config.MaxRatio))
	case errors.Is(err, errEncoding):
		return &access.Problem{Status: http.StatusBadRequest, Code: "bad_encoding", Detail: "the body is not what its content encoding says"}
	// Before deadlines: that of a connection to Kafka is not the sender's.
	case errors.Is(err, errNotAcknowledged):
		c.logger.ErrorContext(r.Context(), "raw message not acknowledged", "error", err)
		return &access.Problem{Status: http.StatusServiceUnavailable, Code: "not_stored", RetryAfter: 5 * time.Second,
			Detail: "nothing of this request counts as accepted: send it again"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &access.Problem{Status: http.StatusRequestTimeout, Code: "too_slow", Detail: fmt.Sprintf("a body is to be sent within %v", c.config.RequestTimeout)}
	case errors.Is(err, errBusy):
		return &access.Problem{Status: http.StatusServiceUnavailable, Code: "busy", RetryAfter: 2 * time.Second}
	case errors.Is(err, errClosed):
		return &access.Problem{Status: http.StatusServiceUnavailable, Code: "stopping", RetryAfter: 5 * time.Second}
	}
	return &access.Problem{Status: http.StatusBadRequest, Code: "body_unreadable"}
}

// read passes the lines of the body on.
func (q *request) read(ctx context.Context, kind recordKind, principal *access.Principal) error {
	c := q.connector
	schools := (*c.schools.Load())[principal.Publisher]
	for {
		text, whole, err := q.lines.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if whole && blank(text) {
			continue
		}
		q.lineCount++
		broken := line.Refusal{Rule: line.RuleLineTooLong}
		if whole {
			broken = q.parse(kind, text)
		}
		if broken.Rule == "" {
			who := q.who(kind)
			partition, ok := schools[string(who.School)]
			if ok && principal.Covers(string(who.School)) {
				if err := q.add(ctx, kind, partition, len(text)); err != nil {
					return err
				}
				continue
			}
			broken = line.Refusal{Field: "school", Rule: line.RuleNotAuthorised}
		}
		q.refuse(broken)
	}
}

// blank tells whether a line is empty but for white space: such lines carry
// nothing and break nothing.
func blank(text []byte) bool {
	for _, c := range text {
		if c != ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

func (q *request) parse(kind recordKind, text []byte) line.Refusal {
	if kind == kindAnswers {
		return q.parser.Answer(text, &q.answer)
	}
	return q.parser.TestResult(text, &q.result)
}

func (q *request) who(kind recordKind) *line.Who {
	if kind == kindAnswers {
		return &q.answer.Who
	}
	return &q.result.Who
}

// add puts the parsed line into the open batch of its partition.
func (q *request) add(ctx context.Context, kind recordKind, partition, size int) error {
	b, err := q.connector.batcher.add(ctx, partition, kind, &q.caller.buffered, size, q.fills[kind])
	if err != nil {
		return err
	}
	at := q.last[partition] - 1
	if at < 0 || q.touched[at].batch != b {
		at = len(q.touched)
		q.touched = append(q.touched, touched{batch: b})
		q.last[partition] = at + 1
	}
	q.touched[at].rows++
	return nil
}

func (q *request) refuse(broken line.Refusal) {
	q.refusedCount++
	q.refusedBy[broken.Rule]++
	if len(q.refused) < q.connector.config.MaxRefusals {
		q.refused = append(q.refused, refusal{Line: q.lines.number, Field: broken.Field, Rule: broken.Rule})
	}
}

// wait waits for all messages that hold lines of this request.
func (q *request) wait(ctx context.Context) error {
	for i := range q.touched {
		t := &q.touched[i]
		select {
		case <-t.batch.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if t.batch.err != nil {
			return t.batch.err
		}
		q.accepted += t.rows
	}
	return nil
}

// outcome is the reply to a request whose body could be read.
type outcome struct {
	Accepted     int       `json:"accepted"`
	RefusedCount int       `json:"refused_count"`
	Refused      []refusal `json:"refused"` // the first ones
}

// problemOutcome is the reply when every line was refused: a problem document
// with the outcome as extension.
type problemOutcome struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	outcome
}

// reply tells the outcome and returns the status.
func (q *request) reply(w http.ResponseWriter) int {
	out := outcome{Accepted: q.accepted, RefusedCount: q.refusedCount, Refused: q.refused}
	if out.Refused == nil {
		out.Refused = []refusal{}
	}
	status, media, content := http.StatusOK, "application/json", any(out)
	if q.accepted == 0 {
		status, media = http.StatusUnprocessableEntity, "application/problem+json"
		content = problemOutcome{"about:blank", http.StatusText(status), status, "all_refused", out}
	}
	w.Header().Set("Content-Type", media)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A sender who went away can't be told; it repeats the request.
	_ = json.NewEncoder(w).Encode(content)
	return status
}
