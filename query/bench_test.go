package query_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
)

// The size of the model in benchmarks: QUERY_LEARNERS learners (default 1
// million) with 5 goals each, and 50,000 exercises.
func benchLearners() int {
	if n, err := strconv.Atoi(os.Getenv("QUERY_LEARNERS")); err == nil {
		return n
	}
	return 1_000_000
}

const (
	benchItems = 50_000
	benchGoals = 5
)

type benchModel struct {
	model    *query.ReadModel
	requests []query.Request
	perGoal  float64 // heap bytes per learner and goal
}

var sharedModel = sync.OnceValue(func() benchModel {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m, requests := large(benchLearners(), benchItems, benchGoals)
	runtime.GC()
	runtime.ReadMemStats(&after)
	heap := float64(after.HeapAlloc) - float64(before.HeapAlloc)
	estimate, layers := m.Bytes()
	per := heap / float64(benchLearners()*benchGoals)
	fmt.Printf("model of %d learners × %d goals and %d exercises: heap %.0f MB, %.0f bytes per learner and goal (learners alone by estimate %.0f MB, %d layers)\n",
		benchLearners(), benchGoals, benchItems, heap/1e6, per, float64(estimate)/1e6, layers)
	return benchModel{m, requests, per}
})

func BenchmarkNext(b *testing.B) {
	m := sharedModel()
	b.ReportAllocs()
	b.ReportMetric(m.perGoal, "B/learner×goal")
	i := 0
	for b.Loop() {
		if _, err := m.model.Next(&m.requests[i%len(m.requests)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkStanding(b *testing.B) {
	m := sharedModel()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, ok := m.model.Standing(m.requests[i%len(m.requests)].Learner); !ok {
			b.Fatal("a learner is missing")
		}
		i++
	}
}

func BenchmarkApplySkills(b *testing.B) {
	m := sharedModel()
	rows := &transform.SkillRows{}
	b.ReportAllocs()
	position := answer.At(1<<40, 0)
	for b.Loop() {
		b.StopTimer()
		rows.Reset()
		for i := range 1000 {
			position++
			p := pupil{n: i * 97 % benchLearners(), school: "00AB00", group: "0", yearGroup: uint8(3 + i*97%6), at: monday.UnixMilli(), position: position}
			one := skillRows(p, float64(position%200)/100-1, 0.1, map[string]float64{fmt.Sprintf("doel-%02d", i*97%20): 0.1})
			rows.AppendRange(one, 0, one.Len())
		}
		b.StartTimer()
		m.model.ApplySkills(rows)
	}
	b.ReportMetric(float64(rows.Len())*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// discard is a ResponseWriter that costs nothing.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// benchHandler serves the model to one engine whose tokens are the analytics
// tokens: what is measured is the serving, not the registry.
func benchHandler(b testing.TB, m *query.ReadModel) (http.Handler, string) {
	b.Helper()
	keys, err := access.Open(filepath.Join(b.TempDir(), "apikeys.json"))
	if err != nil {
		b.Fatal(err)
	}
	key, _, err := keys.Create(access.Scope{Role: access.RoleEngine, Engine: "slim"})
	if err != nil {
		b.Fatal(err)
	}
	identities := away()
	identities.Learner = func(_ context.Context, _ keyring.Purpose, t [16]byte) ([]answer.Token, string, error) {
		return []answer.Token{answer.MintToken(t)}, schoolA, nil
	}
	h, err := query.NewHandler(query.HandlerConfig{Model: m, Keys: keys, Identities: identities})
	if err != nil {
		b.Fatal(err)
	}
	return h, key
}

func BenchmarkNextExerciseHandler(b *testing.B) {
	m := sharedModel()
	handler, key := benchHandler(b, m.model)
	requests := make([]*http.Request, 1000)
	for i := range requests {
		q := m.requests[i*97%len(m.requests)]
		requests[i] = httptest.NewRequest(http.MethodGet, "/v1/learners/"+q.Learner.String()+"/next-exercise?goal="+q.Goal, nil)
		requests[i].Header.Set("Authorization", "Bearer "+key)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		w := &discard{header: http.Header{}, status: 200}
		handler.ServeHTTP(w, requests[i%len(requests)])
		if w.status != http.StatusOK {
			b.Fatalf("status %d", w.status)
		}
		i++
	}
}

// BenchmarkNextExerciseLatency asks the handler 10,000 times a second, at moments
// set beforehand, while 20,000 answers a second stream in, and reports the time
// in the handler and how much later than due the replies were ready. The latter
// holds the timers of the client, too.
func BenchmarkNextExerciseLatency(b *testing.B) {
	const perSecond, workers = 10_000, 64
	m := sharedModel()
	handler, key := benchHandler(b, m.model)
	total := 5 * perSecond
	took, late := make([]time.Duration, total), make([]time.Duration, total)
	var next atomic.Int64
	stop := make(chan struct{})
	var writer, group sync.WaitGroup
	writer.Add(1)
	go func() {
		defer writer.Done()
		pour(m.model, stop)
	}()
	for b.Loop() {
		next.Store(0)
		start := time.Now().Add(10 * time.Millisecond)
		for range workers {
			group.Add(1)
			go func() {
				defer group.Done()
				for {
					i := int(next.Add(1)) - 1
					if i >= total {
						return
					}
					due := start.Add(time.Duration(i) * time.Second / perSecond)
					time.Sleep(time.Until(due))
					q := m.requests[i*97%len(m.requests)]
					r := httptest.NewRequest(http.MethodGet, "/v1/learners/"+q.Learner.String()+"/next-exercise?goal="+q.Goal, nil)
					r.Header.Set("Authorization", "Bearer "+key)
					w := &discard{header: http.Header{}, status: 200}
					begun := time.Now()
					handler.ServeHTTP(w, r)
					took[i], late[i] = time.Since(begun), time.Since(due)
					if w.status != http.StatusOK {
						b.Errorf("status %d", w.status)
					}
				}
			}()
		}
		group.Wait()
	}
	close(stop)
	writer.Wait()
	for name, times := range map[string][]time.Duration{"": took, "late-": late} {
		slices.Sort(times)
		for point, q := range map[string]float64{"p50-µs": .5, "p99-µs": .99, "p99.9-µs": .999} {
			b.ReportMetric(float64(times[int(q*float64(total))].Nanoseconds())/1e3, name+point)
		}
	}
}

// pour applies about 20,000 answers a second until stop is closed.
func pour(m *query.ReadModel, stop <-chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	rows := &transform.SkillRows{}
	for offset := int64(1 << 30); ; offset++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		rows.Reset()
		for i := range 200 {
			p := pupil{n: (int(offset)*200 + i) % benchLearners(), school: "00AB00", group: "0", yearGroup: 5, at: monday.UnixMilli(), position: answer.At(offset, i)}
			one := skillRows(p, float64(i)/100-1, 0.1, map[string]float64{"doel-03": 0.1})
			rows.AppendRange(one, 0, one.Len())
		}
		m.ApplySkills(rows)
	}
}

// BenchmarkPercentile takes the percentiles of learners of norm groups of 1,000,
// 100,000 and 1 million, against the live norm and against a frozen one of the same
// skills: the time does not depend on the size.
func BenchmarkPercentile(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		m := model(b)
		group := transform.NormGroup{Layer: transform.LayerOverall, YearGroup: 5}
		var counts transform.Histogram
		rows := &transform.SkillRows{}
		for i := range n {
			p := pupil{n: i, school: "12AB00", yearGroup: 5, at: monday.UnixMilli(), position: 1}
			skill := float64(i*7919%n)/float64(n)*4 - 2
			appendRow(rows, &p, row{layer: transform.LayerOverall, mean: skill, variance: 0.04, answers: 9})
			counts.AddUncertain(transform.Bin(skill), transform.VarianceClass(0.04), 1)
			if rows.Len() == 10_000 || i == n-1 {
				m.ApplySkills(rows)
				rows.Reset()
			}
		}
		group.Bins, group.Counts = counts.AppendSparse(nil, nil)
		group.Variances = counts.AppendVariances(nil)
		frozen := &transform.FrozenNorm{NormVersion: transform.NormVersion{Name: "2026-2027-M", Version: 1, SchoolYear: 2026, Moment: "M"},
			Groups: []transform.NormGroup{group}}
		if err := m.AddNorm(frozen); err != nil {
			b.Fatal(err)
		}
		choice, ok := m.NormNamed("2026-2027-M", 1)
		if !ok {
			b.Fatal("the frozen norm is missing")
		}
		for name, by := range map[string]query.NormChoice{"live": {}, "frozen": choice} {
			b.Run(fmt.Sprintf("%s/learners=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if s, ok := m.StandingBy(token(i*97%n), by); !ok || !s.Percentiles[0].Shown {
						b.Fatal("a percentile is missing")
					}
					i++
				}
			})
		}
	}
}
