package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/leerstroom/leerstroom/internal/access"
)

func gzipped(t testing.TB, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t testing.TB, text string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll([]byte(text), nil)
}

func TestCompressedBodies(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	var text strings.Builder
	for i := range 500 {
		text.WriteString(answerLine(fmt.Sprint("b-", i), "12AB00"))
	}
	for encoding, body := range map[string][]byte{"gzip": gzipped(t, text.String()), "zstd": zstded(t, text.String()), "identity": []byte(text.String())} {
		for range 2 { // the second request uses a used decompressor
			if got := r.post("/v1/answers", bytes.NewReader(body), "Content-Encoding", encoding); got.Status != 200 || got.Accepted != 500 {
				t.Errorf("%s: reply = %+v", encoding, got)
			}
		}
	}
}

func TestBombsAndOversizedBodies(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxBodyBytes: 64 << 10, MaxDecodedBytes: 4 << 20, MaxRatio: 50})
	blanks := strings.Repeat(" \n", 20<<20)
	short := answerLine("b-1", "12AB00")
	damaged := gzipped(t, strings.Repeat(short, 50))
	damaged[len(damaged)/2] ^= 0xff
	for _, c := range []struct {
		name, encoding, code string
		status               int
		body                 io.Reader
	}{
		{"gzip bomb", "gzip", "decompression_ratio", 413, bytes.NewReader(gzipped(t, blanks))},
		{"zstd bomb", "zstd", "decompression_ratio", 413, bytes.NewReader(zstded(t, blanks))},
		{"endless line", "zstd", "decompression_ratio", 413, bytes.NewReader(zstded(t, strings.Repeat("x", 30<<20)))},
		{"a declared length", "", "body_too_large", 413, strings.NewReader(strings.Repeat(" ", 65<<10))},
		{"an undeclared length", "", "body_too_large", 413, io.MultiReader(strings.NewReader(strings.Repeat(" \n", 33<<10)))},
		{"truncated gzip", "gzip", "bad_encoding", 400, bytes.NewReader(gzipped(t, short)[:30])},
		{"damaged gzip", "gzip", "bad_encoding", 400, bytes.NewReader(damaged)},
		{"truncated zstd", "zstd", "bad_encoding", 400, bytes.NewReader(zstded(t, strings.Repeat(short, 50))[:40])},
		{"text as gzip", "gzip", "bad_encoding", 400, strings.NewReader(short)},
		{"text as zstd", "zstd", "bad_encoding", 400, strings.NewReader(short)},
		{"nothing as gzip", "gzip", "bad_encoding", 400, strings.NewReader("")},
		{"another encoding", "br", "unsupported_encoding", 415, strings.NewReader(short)},
		{"two encodings", "gzip, gzip", "unsupported_encoding", 415, strings.NewReader(short)},
		{"nothing", "", "empty_body", 400, strings.NewReader("")},
		{"blank lines", "", "empty_body", 400, strings.NewReader("\n\r\n  \n")},
	} {
		got := r.post("/v1/answers", c.body, "Content-Encoding", c.encoding)
		if got.Status != c.status || got.Code != c.code || got.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: reply = %d %s, want %d %s", c.name, got.Status, got.Code, c.status, c.code)
		}
	}
	if got := r.post("/v1/answers", strings.NewReader(short)); got.Accepted != 1 {
		t.Errorf("after all that: reply = %+v", got)
	}
}

func TestDecodedSizeIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxDecodedBytes: 256 << 10})
	body := strings.Repeat(answerLine("b-1", "12AB00"), 1000)
	if got := r.post("/v1/answers", bytes.NewReader(gzipped(t, body)), "Content-Encoding", "gzip"); got.Status != 413 || got.Code != "decoded_too_large" {
		t.Errorf("reply = %d %s, want 413 decoded_too_large", got.Status, got.Code)
	}
}

func TestALongLineRefusesItselfOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxLineBytes: 1024})
	exact := answerLine("b-1", "12AB00")
	exact = strings.Repeat(" ", 1024-len(exact)+1) + exact
	for name, long := range map[string]string{"in the middle": strings.Repeat("x", 5000) + "\n", "larger than any buffer": strings.Repeat("x", 300<<10) + "\n", "by one byte": " " + exact} {
		got := r.post("/v1/answers", strings.NewReader(exact+long+exact))
		if got.Accepted != 2 || fmt.Sprint(got.Refused) != "[{2  line_too_long}]" {
			t.Errorf("%s: reply = %+v", name, got)
		}
	}
	if got := r.post("/v1/answers", strings.NewReader(exact+strings.Repeat("x", 70<<10))); got.Accepted != 1 || got.RefusedCount != 1 {
		t.Errorf("at the end, without a newline: reply = %+v", got)
	}
}

func TestHeadersAndRoles(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	body := answerLine("b-1", "12AB00")
	analyst := r.newKey(access.Scope{Role: access.RoleAnalyst})
	scoped := r.newKey(access.Scope{Role: access.RolePublisher, Publisher: "bingel", Schools: []string{"12AB01"}})
	for _, c := range []struct {
		name    string
		headers []string
		status  int
		code    string
	}{
		{"no key", []string{"Authorization", ""}, 401, "no_key"},
		{"unknown key", []string{"Authorization", "Bearer lsk_x"}, 401, "unknown_key"},
		{"another role", []string{"Authorization", "Bearer " + analyst}, 403, "not_allowed"},
		{"a form", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"},
		{"arrow", []string{"Content-Type", "application/vnd.apache.arrow.stream"}, 415, "unsupported_media_type"},
		{"ndjson", []string{"Content-Type", "application/x-ndjson; charset=utf-8"}, 200, ""},
		{"a school outside the key", []string{"Authorization", "Bearer " + scoped}, 422, "all_refused"},
	} {
		if got := r.post("/v1/answers", strings.NewReader(body), c.headers...); got.Status != c.status || got.Code != c.code {
			t.Errorf("%s: reply = %d %s, want %d %s", c.name, got.Status, got.Code, c.status, c.code)
		}
	}
	response, err := http.Get(r.server.URL + "/v1/answers")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET = %d, want 405", response.StatusCode)
	}
}

func TestAllRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxRefusals: 3})
	got := r.post("/v1/answers", strings.NewReader(strings.Repeat("x\n", 10)))
	if got.Status != 422 || got.Accepted != 0 || got.RefusedCount != 10 || len(got.Refused) != 3 || got.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("reply = %+v", got)
	}
	if answers, _ := r.rows(); len(answers) != 0 {
		t.Errorf("stored %d rows of refused lines", len(answers))
	}
}

func TestAuthorisationsCanChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{Authorisations: Authorisations{}})
	body := answerLine("b-1", "12AB00")
	if got := r.post("/v1/answers", strings.NewReader(body)); got.Status != 422 || got.Refused[0].Rule != "not_authorised" {
		t.Errorf("without any authorisation: %+v", got)
	}
	if err := r.connector.SetAuthorisations(Authorisations{"12AB00": {"bingel"}}); err != nil {
		t.Fatal(err)
	}
	if got := r.post("/v1/answers", strings.NewReader(body)); got.Accepted != 1 {
		t.Errorf("after the authorisation: %+v", got)
	}
	for _, bad := range []Authorisations{{"12ab00": {"bingel"}}, {"12AB00": {"a:b"}}, {"": nil}} {
		if err := r.connector.SetAuthorisations(bad); err == nil {
			t.Errorf("SetAuthorisations(%v) = nil, want an error", bad)
		}
	}
}

// While Kafka holds a message, the limits on requests and on buffered bytes turn
// senders away, and the sender whose message is held gets its reply after it.
func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxPublisher: 2, MaxRequests: 3})
	free := make(chan struct{})
	held := make(chan struct{}, 10)
	r.topic.hold = func(context.Context, int) error {
		held <- struct{}{}
		<-free
		return nil
	}
	second := r.newKey(access.Scope{Role: access.RolePublisher, Publisher: "baps"})
	var waiting sync.WaitGroup
	start := func(key, body string) {
		waiting.Go(func() {
			if got := r.post("/v1/answers", strings.NewReader(body), "Authorization", "Bearer "+key); got.Status != 200 || got.Accepted != 1 {
				t.Errorf("held request: %+v", got)
			}
		})
		<-held
	}
	start(r.key, answerLine("b-1", "12AB00"))
	start(r.key, answerLine("b-2", "12AB01"))
	got := r.post("/v1/answers", strings.NewReader(answerLine("b-3", "12AB00")))
	if got.Status != 429 || got.Code != "too_many_requests" || got.Header.Get("Retry-After") == "" {
		t.Errorf("third request of a publisher = %+v, want 429 with Retry-After", got)
	}
	start(second, strings.ReplaceAll(answerLine("p-1", "99XX00"), "bingel", "baps"))
	got = r.post("/v1/answers", strings.NewReader(""), "Authorization", "Bearer "+r.newKey(access.Scope{Role: access.RolePublisher, Publisher: "third"}))
	if got.Status != 503 || got.Header.Get("Retry-After") == "" {
		t.Errorf("fourth request of all = %+v, want 503 with Retry-After", got)
	}
	close(free)
	waiting.Wait()
	if got := r.post("/v1/answers", strings.NewReader(answerLine("b-4", "12AB00"))); got.Accepted != 1 {
		t.Errorf("afterwards: %+v", got)
	}
}

func TestFullBufferRefusesBeforeLoss(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxBufferedBytes: 2 << 20, BufferTimeout: 50 * time.Millisecond, MaxBodyBytes: 16 << 20})
	free := make(chan struct{})
	r.topic.hold = func(context.Context, int) error { <-free; return nil }
	got := r.post("/v1/answers", strings.NewReader(strings.Repeat(answerLine("b-1", "12AB00"), 4000)))
	if got.Status != 503 || got.Code != "busy" || got.Accepted != 0 || got.Header.Get("Retry-After") == "" {
		t.Errorf("reply = %d %s, want 503 busy with Retry-After", got.Status, got.Code)
	}
	if used := r.connector.batcher.budget.used.Load(); used > 1<<20 {
		t.Errorf("%d bytes buffered by one publisher, at most half of %d allowed", used, 2<<20)
	}
	close(free)
	if got := r.post("/v1/answers", strings.NewReader(strings.Repeat(answerLine("b-1", "12AB00"), 1500))); got.Accepted != 1500 {
		t.Errorf("afterwards: %+v", got)
	}
	r.server.Close()
	r.connector.Close(context.Background())
	if used := r.connector.batcher.budget.used.Load(); used != 0 {
		t.Errorf("%d bytes still count as buffered when all is done", used)
	}
}

// One full partition waits for Kafka; the others go on.
func TestOneSlowPartitionDoesNotStopOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxBatchRows: 10, BufferTimeout: 50 * time.Millisecond})
	slow := (*r.connector.schools.Load())["bingel"]["12AB00"]
	free := make(chan struct{})
	defer close(free)
	r.topic.hold = func(_ context.Context, partition int) error {
		if partition == slow {
			<-free
		}
		return nil
	}
	if got := r.post("/v1/answers", strings.NewReader(strings.Repeat(answerLine("b-1", "12AB00"), 50))); got.Status != 503 {
		t.Errorf("slow partition: %+v, want 503", got)
	}
	if got := r.post("/v1/answers", strings.NewReader(strings.Repeat(answerLine("b-1", "12AB01"), 50))); got.Accepted != 50 {
		t.Errorf("other partition: %+v, want 50 accepted", got)
	}
}

func TestUnacknowledgedCountsAsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	for _, away := range []error{errors.New("kafka is away"), fmt.Errorf("read from kafka: %w", os.ErrDeadlineExceeded)} {
		r.topic.mu.Lock()
		r.topic.hold = func(context.Context, int) error { return away }
		r.topic.mu.Unlock()
		got := r.post("/v1/answers", strings.NewReader(answerLine("b-1", "12AB00")+"x\n"))
		if got.Status != 503 || got.Code != "not_stored" || got.Accepted != 0 || got.Header.Get("Retry-After") == "" {
			t.Errorf("%v: reply = %+v, want 503 not_stored", away, got)
		}
	}
	// Two partitions, one of which fails.
	failing := (*r.connector.schools.Load())["bingel"]["12AB01"]
	r.topic.mu.Lock()
	r.topic.hold = func(_ context.Context, partition int) error {
		if partition == failing {
			return errors.New("kafka is away")
		}
		return nil
	}
	r.topic.mu.Unlock()
	if got := r.post("/v1/answers", strings.NewReader(answerLine("b-1", "12AB00")+answerLine("b-2", "12AB01"))); got.Status != 503 || got.Accepted != 0 {
		t.Errorf("half acknowledged: %+v, want 503", got)
	}
}

func TestProduceTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{ProduceTimeout: 50 * time.Millisecond})
	r.topic.hold = func(ctx context.Context, _ int) error { <-ctx.Done(); return context.Cause(ctx) }
	if got := r.post("/v1/answers", strings.NewReader(answerLine("b-1", "12AB00"))); got.Status != 503 || got.Code != "not_stored" {
		t.Errorf("reply = %+v, want 503 not_stored", got)
	}
}

func TestSlowSenderIsCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{RequestTimeout: 100 * time.Millisecond})
	connection, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	text := answerLine("b-1", "12AB00")
	fmt.Fprintf(connection, "POST /v1/answers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", r.key, 2*len(text), text[:40])
	if err := connection.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(connection)
	if err != nil {
		t.Fatalf("the sender is not cut off: %v", err)
	}
	if !bytes.HasPrefix(reply, []byte("HTTP/1.1 408")) || !bytes.Contains(reply, []byte("too_slow")) {
		t.Errorf("reply = %.60q, want 408 too_slow", reply)
	}
}

func TestCloseSendsWhatWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{Linger: time.Hour})
	b, err := r.connector.batcher.add(t.Context(), 1, kindAnswers, new(share), 10, func(c columns) {
		q := newRequest(r.connector)
		q.publisher = "bingel"
		q.answer.ID, q.answer.School, q.answer.Scheme, q.answer.Learner = []byte("b-1"), []byte("12AB00"), 3, []byte("4711")
		q.fills[kindAnswers](c)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.connector.Close(t.Context())
	<-b.done
	if b.err != nil {
		t.Errorf("the waiting batch failed: %v", b.err)
	}
	if _, err := r.connector.batcher.add(t.Context(), 1, kindAnswers, new(share), 10, nil); !errors.Is(err, errClosed) {
		t.Errorf("add after Close = %v, want errClosed", err)
	}
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"max_body_bytes": func(c *Config) { c.MaxBodyBytes = -1 }, "linger": func(c *Config) { c.Linger = -1 }, "max_batch_rows": func(c *Config) { c.MaxBatchRows = 1 << 20 },
		"max_batch_bytes": func(c *Config) { c.MaxBatchBytes = 1 << 30 }, "max_line_bytes": func(c *Config) { c.MaxLineBytes = 2 << 20 },
		"max_buffered_bytes": func(c *Config) { c.MaxBufferedBytes = 1 }, "authorisations": func(c *Config) { c.Authorisations = Authorisations{"x": nil} },
	} {
		var c Config
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Validate = %v, want it to name %s", err, name)
		}
	}
	if err := new(Config).Validate(); err != nil {
		t.Errorf("Validate of the zero value = %v", err)
	}
}

// Marked values pushed through every kind of refusal must not come back in
// replies, logs or metrics.
func TestCanariesStayInside(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	const canary = "canary4711"
	marked := func(field, value string) string {
		text := answerLine("b-1", "12AB00")
		at := strings.Index(text, `"`+field+`":`)
		end := at + strings.IndexAny(text[at:], ",}")
		return text[:at] + `"` + field + `":` + value + text[end:]
	}
	var body strings.Builder
	for _, field := range []string{"id", "publisher", "school", "group", "year_group", "exercise", "kind", "score", "attempt", "answered_at"} {
		for _, value := range []string{`"` + canary + `"`, `"` + canary + strings.Repeat("x", 300) + `"`, `"` + canary + `\u0000"`, `{"` + canary + `":1}`} {
			body.WriteString(marked(field, value) + "\n")
		}
	}
	for _, learner := range []string{`"` + canary + `"`, `{"scheme":"` + canary + `"`, `{"` + canary + `":1`, `{"scheme":"eckid","value":"` + canary + `"`, `{"scheme":"las","value":"#` + canary + `"`, `{"scheme":"las","value":"` + canary + `"`} {
		text := answerLine("b-1", "12AB00")
		at := strings.Index(text, `{"scheme"`)
		body.WriteString(text[:at] + learner + text[at+strings.Index(text[at:], "}"):])
	}
	body.WriteString(`{"` + canary + `":"` + canary + `"}` + "\n" + canary + "\n" + `{"id":"` + canary + "\n")
	for _, path := range []string{"/v1/answers", "/v1/test-results", "/v1/answers?" + "x=1"} {
		got := r.post(path, strings.NewReader(body.String()))
		if got.RefusedCount < 40 {
			t.Errorf("%s: only %d lines refused", path, got.RefusedCount)
		}
		if strings.Contains(got.Text, canary) {
			t.Errorf("%s: the reply shows a value", path)
		}
	}
	r.post("/v1/answers", strings.NewReader(canary), "Content-Encoding", "gzip")
	r.topic.mu.Lock()
	r.topic.hold = func(context.Context, int) error { return errors.New("kafka is away") }
	r.topic.mu.Unlock()
	r.post("/v1/answers", strings.NewReader(strings.Replace(answerLine(canary, "12AB00"), hexDigits[:8], "ca4a4700", 1)))
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(families); strings.Contains(text, canary) || strings.Contains(text, "12AB00") || !strings.Contains(text, "wrong_type") {
		t.Error("the metrics show a value, or no rules")
	}
	if log := r.log.String(); log == "" || strings.Contains(log, canary) || strings.Contains(log, "ca4a4700") {
		t.Error("the log shows a value, or is empty")
	}
}
