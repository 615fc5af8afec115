package ingest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/ingest/line"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// benchBody is a request as a publisher sends it: some schools, hundreds of
// learners, mixed exercises.
func benchBody(rows int) string {
	var text strings.Builder
	for i := range rows {
		fmt.Fprintf(&text, `{"id":"a-%d-%d","publisher":"bingel","school":"%02dAB00","learner":{"scheme":"eckid","value":"https://ketenid.nl/201703/%s%08x"},"group":"%dA","year_group":%d,`+
			`"exercise":"wig5-b3-l2-o%d","goal":"goal-%d","subject":"rekenen","kind":"practice","score":%d,"attempt":1,"response_time_ms":%d,"answered_at":"2026-11-23T10:%02d:%02d.%03d+01:00"}`+"\n",
			i/1000, i, i%20+10, hexDigits[:120], i*7919%4000, i%8+1, i%8+1, i*31%900, i%25, i%2, 1000+i*17%9000, i/60%60, i%60, i%1000)
	}
	return text.String()
}

func benchConfig() Config {
	a := make(Authorisations)
	for i := range 20 {
		a[fmt.Sprintf("%02dAB00", i+10)] = []string{"bingel"}
	}
	return Config{Authorisations: a, MaxBodyBytes: 64 << 20}
}

// BenchmarkConnector measures the way from a request's body to sealed messages:
// cutting, parsing, validating, columns, Arrow, LZ4, sealing. Kafka is left out.
// What it allocates is Arrow's cost of a message; a row costs nothing.
func BenchmarkConnector(b *testing.B) {
	for _, rows := range []int{100, 5000, 50000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			r := newRig(b, benchConfig())
			var sealed, messages atomic.Int64
			r.connector.batcher.produce = func(_ context.Context, _ int, m stream.Message) error {
				sealed.Add(int64(len(m.Value)))
				messages.Add(1)
				return nil
			}
			text := []byte(benchBody(rows))
			body := bytes.NewReader(text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			before := processSeconds(b)
			for b.Loop() {
				body.Reset(text)
				request := httptest.NewRequest("POST", "/v1/answers", io.NopCloser(body))
				request.Header.Set("Authorization", "Bearer "+r.key)
				recorder := httptest.NewRecorder()
				r.connector.Answers().ServeHTTP(recorder, request)
				if recorder.Code != 200 || !strings.HasPrefix(recorder.Body.String(), fmt.Sprintf(`{"accepted":%d,`, rows)) {
					b.Fatalf("reply = %d %.100s", recorder.Code, recorder.Body)
				}
			}
			b.ReportMetric(float64(b.N)*float64(rows)/b.Elapsed().Seconds(), "rows/s")
			// On a machine that others use too, this is the figure that holds.
			b.ReportMetric(float64(b.N)*float64(rows)/(processSeconds(b)-before), "rows/cpu-s")
			b.ReportMetric(float64(b.N)*float64(rows)/float64(messages.Load()), "rows/message")
			b.ReportMetric(float64(sealed.Load())/float64(b.N*rows), "B/row")
		})
	}
}

// processSeconds returns the processor time that this process has used.
func processSeconds(b *testing.B) float64 {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// BenchmarkColumns measures what follows parsing.
func BenchmarkColumns(b *testing.B) {
	r := newRig(b, benchConfig())
	q := newRequest(r.connector)
	q.publisher = "bingel"
	q.parser.SetPolicy(line.Policy{Publisher: "bingel", NowMS: time.Now().UnixMilli()})
	lines := strings.Split(strings.TrimSpace(benchBody(16384)), "\n")
	c := newAnswerColumns()
	writer := <-r.connector.batcher.writers
	defer func() { r.connector.batcher.writers <- writer }()
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		c.reset()
		for _, text := range lines {
			if refusal := q.parser.Answer([]byte(text), &q.answer); refusal.Rule != "" {
				b.Fatal(refusal)
			}
			c.append(q.publisher, &q.answer)
		}
		b.StartTimer()
		var err error
		if dst, err = writer.Append(dst[:0], c.schema(), answer.PartitionOf("10AB00", testPartitions), c.encode); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(lines)), "ns/row")
}
