package pseudonymize_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize"
)

// started returns a handler that knows the learners of a message.
func started(b *testing.B, rows, pupils int) (stream.Handler, []stream.Message) {
	b.Helper()
	d := deploy(b)
	r := rand.New(rand.NewPCG(1, 2))
	h := d.stage(b).Handler(thePart)
	b.Cleanup(h.Stop)
	_, err := h.Start(b.Context(), &stream.Assignment{Topic: d.topics.Raw, Partition: thePart, Committed: -1})
	must(b, err)
	messages := []stream.Message{d.sealAnswers(b, thePart, makeAnswers(r, thePart, rows, pupils))}
	_, _, err = pseudonymize.Transform(b.Context(), h, messages)
	must(b, err)
	return h, messages
}

// BenchmarkStage measures from a sealed message of raw to the bytes of a message
// of answers: open, decode, look up, event ids, encode; without Kafka.
func BenchmarkStage(b *testing.B) {
	for _, rows := range []int{10, 1000, 20_000} {
		b.Run(fmt.Sprint("rows=", rows), func(b *testing.B) {
			h, messages := started(b, rows, 500)
			b.SetBytes(int64(len(messages[0].Value)))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				n, size, err := pseudonymize.Transform(b.Context(), h, messages)
				if err != nil || n != rows || size == 0 {
					b.Fatalf("Transform = %d rows, %d bytes, %v; want %d rows", n, size, err, rows)
				}
			}
			b.ReportMetric(float64(b.N*rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkResolutions measures digests and lookups of the identities of one
// message.
func BenchmarkResolutions(b *testing.B) {
	h, messages := started(b, 5_000, 1_000)
	b.ReportAllocs()
	b.ResetTimer()
	n, err := pseudonymize.Resolve(h, &messages[0], b.N)
	if err != nil || n == 0 {
		b.Fatalf("Resolve = %d, %v", n, err)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "resolutions/s")
}
