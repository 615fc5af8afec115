package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestSharesOfTheBuffer lets publishers take all that they get. Each has the same
// in the end, and whoever comes next still finds as much.
func TestSharesOfTheBuffer(t *testing.T) {
	t.Parallel()
	const limit, line = 1 << 20, 100
	for _, floods := range []int{1, 2, 5} {
		b := budget{limit: limit}
		shares := make([]share, floods)
		for full := 0; full < floods; {
			full = 0
			for i := range shares {
				if !b.try(&shares[i], line) {
					full++
				}
			}
		}
		fair := int64(limit / (floods + 1))
		for i := range shares {
			if held := shares[i].used.Load(); held < fair-line || held > fair+line {
				t.Errorf("%d floods: number %d holds %d bytes, want %d", floods, i, held, fair)
			}
		}
		var newcomer share
		if err := b.reserve(t.Context(), time.Hour, &newcomer, fair/2-line); err != nil {
			t.Errorf("%d floods: a newcomer gets no room: %v", floods, err)
		}
		b.release(&newcomer, fair/2-line)
		for i := range shares {
			b.release(&shares[i], shares[i].used.Load())
		}
		if b.used.Load() != 0 {
			t.Errorf("%d floods: %d bytes are still held", floods, b.used.Load())
		}
	}
}

// flood posts bodies of many lines from many senders until ctx ends, and counts
// the replies by status.
type flood struct {
	running  sync.WaitGroup
	statuses [600]atomic.Int64
}

func (r *rig) flood(ctx context.Context, senders int, key, body string) *flood {
	f := new(flood)
	for range senders {
		f.running.Go(func() {
			for ctx.Err() == nil {
				got := r.post("/v1/answers", strings.NewReader(body), "Authorization", "Bearer "+key)
				f.statuses[got.Status].Add(1)
				if got.Status != 200 && got.Header.Get("Retry-After") == "" {
					r.t.Errorf("the flood gets %d without Retry-After", got.Status)
				}
			}
		})
	}
	return f
}

// TestFloodLeavesOthersAlone lets one publisher fill the connector while Kafka
// takes nothing for its school. Another publisher's requests are all accepted
// meanwhile, one after the other, although not one of the flood is.
func TestFloodLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{MaxBufferedBytes: 1 << 20, MaxRequests: 8, BufferTimeout: 20 * time.Millisecond, ProduceTimeout: time.Hour})
	flooded, free := (*r.connector.schools.Load())["bingel"]["12AB00"], make(chan struct{})
	r.topic.hold = func(_ context.Context, partition int) error {
		if partition == flooded {
			<-free
		}
		return nil
	}
	other := r.newKey(access.Scope{Role: access.RolePublisher, Publisher: "baps"})
	if (*r.connector.schools.Load())["baps"]["99XX00"] == flooded {
		t.Fatal("both schools are in one partition")
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := r.flood(ctx, 12, r.key, strings.Repeat(answerLine("b-1", "12AB00"), 2000))
	enginetest.Eventually(t, time.Minute, "the flood is turned away for requests and for bytes", func() error {
		if f.statuses[429].Load() == 0 || f.statuses[503].Load() == 0 {
			return fmt.Errorf("%d and %d times", f.statuses[429].Load(), f.statuses[503].Load())
		}
		return nil
	})
	line := strings.ReplaceAll(answerLine("p-1", "99XX00"), "bingel", "baps")
	for i := range 200 {
		if got := r.post("/v1/answers", strings.NewReader(strings.Repeat(line, 20)), "Authorization", "Bearer "+other); got.Status != 200 || got.Accepted != 20 {
			t.Fatalf("request %d of the other publisher = %d %s", i, got.Status, got.Code)
		}
	}
	if n := f.statuses[200].Load(); n != 0 {
		t.Errorf("%d requests of the flood were accepted while Kafka took nothing", n)
	}
	cancel()
	close(free)
	f.running.Wait()
	enginetest.Eventually(t, time.Minute, "nothing is held after the flood", func() error {
		if used := r.connector.batcher.budget.used.Load(); used != 0 {
			return fmt.Errorf("%d bytes", used)
		}
		return nil
	})
}

// endless is a body that never ends and takes no memory.
type endless struct {
	ctx  context.Context
	line string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.ctx.Err() != nil {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) {
		copied := copy(p[n:], e.line[e.at:])
		n, e.at = n+copied, (e.at+copied)%len(e.line)
	}
	return n, nil
}

// TestMemoryIsBounded pushes without end from many publishers while Kafka takes
// nothing: the heap stays within a multiple of what may be buffered.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("measures the heap")
	}
	const limit, senders = 8 << 20, 24
	publishers := []string{"bingel", "baps", "taalpad", "rekenhuis"}
	r := newRig(t, Config{MaxBufferedBytes: limit, BufferTimeout: 20 * time.Millisecond, ProduceTimeout: time.Hour, Authorisations: Authorisations{"12AB00": publishers}})
	free := make(chan struct{})
	r.topic.hold = func(context.Context, int) error { <-free; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var turnedAway, largest atomic.Int64
	before := heap()
	for i := range senders {
		publisher := publishers[i%len(publishers)]
		key := r.newKey(access.Scope{Role: access.RolePublisher, Publisher: publisher})
		line := strings.ReplaceAll(answerLine("b-1", "12AB00"), "bingel", publisher)
		running.Go(func() {
			for ctx.Err() == nil {
				got, err := r.try("/v1/answers", &endless{ctx: ctx, line: line}, "Authorization", "Bearer "+key)
				switch {
				case errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET):
					// The server closes half a second after it has turned a body away; a
					// sender that got no processor still writes then.
				case err != nil:
					t.Error(err)
					return
				case got.Status == 503 || got.Status == 429:
					turnedAway.Add(1)
				}
			}
		})
	}
	for turnedAway.Load() < 40*senders && !t.Failed() {
		largest.Store(max(largest.Load(), heap()-before))
	}
	cancel()
	close(free)
	running.Wait()
	t.Logf("heap %d MiB above the %d before, %d bytes may be buffered, %d requests turned away", largest.Load()>>20, before>>20, limit, turnedAway.Load())
	if most := int64(8 * limit); largest.Load() > most {
		t.Errorf("the heap grew by %d bytes, want at most %d", largest.Load(), most)
	}
}

// heap returns the bytes in use after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}
