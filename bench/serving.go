package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	warmAnswers   = 600_000
	delayDuration = 20 * time.Second // of each rate
	probeWorkers  = 2
	probeLearners = 200
	probePause    = 20 * time.Millisecond // between two answers of a worker
	probeEvery    = 2 * time.Millisecond  // how often the served skill is looked at: half of it is in the delay …
	probeShare    = 16                    // … or a part of the time that has passed, where that is more
	askRate       = 100                   // next-exercise requests per second
	askWorkers    = 8
)

// serving measures through HTTP, as publishers and adaptive engines see it.
func (r *runner) serving(ctx context.Context) (err error) {
	if r.config.Serve == nil {
		return nil
	}
	// Answers of the last weeks, so that skills are not stale. The first school
	// is left to the probes.
	population, err := NewPopulation(PopulationConfig{
		Seed: r.config.Seed + 1, Schools: 100, Learners: 200, Start: beforeSchoolDays(time.Now(), 60),
	})
	if err != nil {
		return err
	}
	system, err := r.config.Serve(ctx, population)
	if err != nil {
		return fmt.Errorf("start the system: %w", err)
	}
	defer func() { err = errors.Join(err, system.Stop()) }()
	m := &servingMeasure{runner: r, population: population, system: system, api: newAPIClient(system.BaseURL, system.EngineKey)}
	if err := m.connector(ctx); err != nil {
		return fmt.Errorf("connector: %w", err)
	}
	if err := m.findProbes(ctx); err != nil {
		return fmt.Errorf("find learners: %w", err)
	}
	for _, rate := range r.config.DelayRates {
		if err := m.awaitDrained(ctx); err != nil {
			return fmt.Errorf("wait until all is served: %w", err)
		}
		if err := m.underLoad(ctx, rate); err != nil {
			return fmt.Errorf("at %d answers/s: %w", rate, err)
		}
	}
	return nil
}

type servingMeasure struct {
	runner     *runner
	population *Population
	system     *Serving
	api        *apiClient
	tokens     []string // of learners of the first school, by place
	probes     atomic.Int64
	sent       *Workload // everything so far
}

func (m *servingMeasure) push(rate int) PushConfig {
	config := PushConfig{BaseURL: m.system.BaseURL, Keys: m.system.PublisherKeys, Workers: 8, RowsPerSecond: rate}
	if rate > 0 { // many small requests at the same time, as of many clients
		config.BodyRows, config.Workers = 250, 24
	}
	return config
}

// connector measures HTTP → raw with all stages behind it running, which is also
// what warms the system up.
func (m *servingMeasure) connector(ctx context.Context) error {
	w, err := NewWorkload(m.population, WorkloadConfig{Answers: warmAnswers})
	if err != nil {
		return err
	}
	result, err := Push(ctx, w, m.push(0))
	if err != nil {
		return err
	}
	m.sent = w
	if result.Accepted != warmAnswers {
		return fmt.Errorf("%d of %d answers accepted", result.Accepted, warmAnswers)
	}
	m.runner.results.add(figureConnector, result.RowsPerSecond(), "rows/s",
		"HTTP until acknowledged by Kafka, on the running system: the stages behind it and the rendering of the lines share the cores")
	return nil
}

// findProbes asks for the tokens of the first school and waits until its skills
// are served.
func (m *servingMeasure) findProbes(ctx context.Context) error {
	school := &m.population.Schools[0]
	var learners []int
	for i := range min(probeLearners, school.Count) {
		learners = append(learners, school.First+i)
	}
	// The limit of identifiers per second is not to be met.
	return poll(ctx, 5*time.Second, func() (bool, error) {
		var err error
		m.tokens, err = m.api.pseudonyms(ctx, m.population, 0, learners, "eckid")
		if notYet(err) || slices.Contains(m.tokens, "") {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, nil
	})
}

// lastLearner is the learner who gives the last answer of a school.
type lastLearner struct {
	learner int
	answers int64 // in all
	token   string
}

// awaitDrained waits until the last answers of every school are served, but those
// of the first one, where the probes are.
func (m *servingMeasure) awaitDrained(ctx context.Context) error {
	for school := 1; school < len(m.population.Schools); school++ {
		l := lastOf(m.sent, school)
		err := poll(ctx, 200*time.Millisecond, func() (bool, error) {
			if l.token == "" {
				tokens, err := m.api.pseudonyms(ctx, m.population, school, []int{l.learner}, "eckid")
				if notYet(err) || err == nil && tokens[0] == "" {
					return false, nil
				}
				if err != nil {
					return false, err
				}
				l.token = tokens[0]
			}
			lines, err := m.api.percentiles(ctx, l.token)
			if notYet(err) {
				return false, nil
			}
			return overallAnswers(lines) >= l.answers, err
		})
		if err != nil {
			return err
		}
	}
	return m.awaitServed(ctx)
}

func lastOf(w *Workload, school int) lastLearner {
	counts := map[int32]int64{}
	last := int32(0)
	stream := w.School(school)
	for more := true; more; {
		var rows []Row
		rows, more = stream.NextSlot(nil)
		for i := range rows {
			last = rows[i].Learner
			counts[last]++
		}
	}
	return lastLearner{learner: int(last), answers: counts[last]}
}

// awaitServed waits until every probed learner's skill is served.
func (m *servingMeasure) awaitServed(ctx context.Context) error {
	for _, token := range m.tokens {
		err := poll(ctx, 50*time.Millisecond, func() (bool, error) {
			lines, err := m.api.percentiles(ctx, token)
			if notYet(err) {
				return false, nil
			}
			return overallAnswers(lines) > 0, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// underLoad sends answers at a rate and meanwhile measures the delay of single
// answers and the latency of next-exercise.
func (m *servingMeasure) underLoad(ctx context.Context, rate int) (err error) {
	w, err := NewWorkload(m.population, WorkloadConfig{Answers: m.sent.Answers() + rate*int(delayDuration/time.Second)})
	if err != nil {
		return err
	}
	load := w.After(m.sent, 0)
	m.sent = w
	bare, stop, err := startBareServer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var delays, asks, bareAsks latencies
	var sent PushResult
	reportShare := m.runner.watchShare(atRate(rate))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		defer cancel() // the probes end with the load
		sent, err = Push(ctx, load, m.push(rate))
		return err
	})
	group.Go(func() (err error) { delays, err = m.probe(ctx); return err })
	group.Go(func() (err error) { asks, err = m.ask(ctx, m.api); return err })
	group.Go(func() (err error) { bareAsks, err = m.ask(ctx, newAPIClient(bare, "")); return err })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if len(delays) == 0 || len(asks) == 0 || len(bareAsks) == 0 {
		return fmt.Errorf("%d probes and %d requests ended while the load lasted, want some of each", len(delays), len(asks))
	}
	m.report(rate, sent, delays, asks, bareAsks)
	reportShare()
	return nil
}

func atRate(rate int) string { return fmt.Sprintf("_at_%d_per_second", rate) }

func (m *servingMeasure) report(rate int, sent PushResult, delays, asks, bareAsks latencies) {
	r := m.runner.results
	at := atRate(rate)
	r.add("load"+at, sent.RowsPerSecond(), "rows/s", "answers that were really sent and acknowledged meanwhile")
	p50, p99, p999 := delays.quantiles()
	r.add("delay_p50"+at, p50, "ms", fmt.Sprintf("from sending one answer until the served skill contains it, looked at every 2 ms, or when another 16th of the time has passed, %d answers", len(delays)))
	r.add("delay_p99"+at, p99, "ms", "")
	r.add("delay_p999"+at, p999, "ms", "")
	p50, p99, p999 = asks.quantiles()
	r.add("next_exercise_p50"+at, p50, "ms", fmt.Sprintf("next-exercise over HTTP as the caller sees it, %d requests", len(asks)))
	r.add("next_exercise_p99"+at, p99, "ms", "")
	r.add("next_exercise_p999"+at, p999, "ms", "")
	p50, p99, p999 = bareAsks.quantiles()
	r.add("bare_http_p50"+at, p50, "ms", "the same requests, at the same time and in the same way, to a handler that replies a constant: what the load leaves of the cores")
	r.add("bare_http_p99"+at, p99, "ms", "")
	r.add("bare_http_p999"+at, p999, "ms", "")
	r.compare("next_exercise_p50"+at, "bare_http_p50"+at)
	r.compare("next_exercise_p99"+at, "bare_http_p99"+at)
}

// startBareServer starts a server of this process that replies the same next
// exercise to every request at once. It returns its URL and what stops it.
func startBareServer() (url string, stop func() error, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("start bare server: %w", err)
	}
	reply, err := json.Marshal(NextExercise{Exercise: "publisher:exercise", Goal: "goal", Subject: "subject", Reason: "target"})
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("start bare server: %w", err), listener.Close())
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(reply) // a client that went away
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ends with stop, which waits for it
	return "http://" + listener.Addr().String(), func() error {
		err := server.Close()
		if ended := <-ended; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
		return err
	}, nil
}

// probe sends single answers of learners whom nobody else answers for, and polls
// until the number of answers in the served skill has grown.
func (m *servingMeasure) probe(ctx context.Context) (latencies, error) {
	var mu sync.Mutex
	var all latencies
	places := len(m.tokens) / probeWorkers * probeWorkers // so that no two share a learner
	if places == 0 {
		return nil, fmt.Errorf("only %d learners to probe", len(m.tokens))
	}
	group, ctx := errgroup.WithContext(ctx)
	for worker := range probeWorkers {
		group.Go(func() error {
			lines := newLineWriter(m.population)
			config := m.push(0)
			config.setDefaults()
			s := newPusher(&config, m.population).newSender("/v1/answers")
			for turn := worker; ctx.Err() == nil; turn += probeWorkers {
				delay, err := m.probeOnce(ctx, s, lines, turn%places)
				if err != nil {
					return endOf(ctx, err)
				}
				mu.Lock()
				all = append(all, delay)
				mu.Unlock()
				if err := sleep(ctx, probePause); err != nil {
					return nil // the measure is over
				}
			}
			return nil
		})
	}
	return all, group.Wait()
}

// endOf returns nil for an error that the end of ctx caused.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// probeOnce returns the delay of one answer in milliseconds.
func (m *servingMeasure) probeOnce(ctx context.Context, s *sender, lines *lineWriter, place int) (float64, error) {
	before, err := m.api.percentiles(ctx, m.tokens[place])
	if err != nil {
		return 0, err
	}
	known := overallAnswers(before)
	b := m.probeLine(lines, place)
	started := time.Now()
	if err := s.send(ctx, b); err != nil {
		return 0, err
	}
	for {
		now, err := m.api.percentiles(ctx, m.tokens[place])
		passed := time.Since(started)
		if err != nil || overallAnswers(now) > known {
			return float64(passed.Nanoseconds()) / 1e6, err
		}
		if err := sleep(ctx, max(probeEvery, passed/probeShare)); err != nil {
			return 0, err
		}
	}
}

// probeLine renders an answer of now to an exercise that the learner's year group
// works on.
func (m *servingMeasure) probeLine(lines *lineWriter, place int) *body {
	p := m.population
	school := &p.Schools[0]
	learner := &p.Learners[school.First+place]
	n := m.probes.Add(1)
	goal := yearGoal(0, learner.YearGroup, int(n)%goalsPerYear)
	items := p.itemsOf[school.Practice[0]*len(p.Goals)+goal]
	row := Row{
		Learner: int32(learner.Index), Item: items[int(n)%len(items)], Sequence: 1<<31 + uint32(n), Attempt: 1,
		AnsweredAt: time.Now().UnixMilli(), ResponseTime: 5000, Right: n%2 == 0,
	}
	return &body{publisher: p.Items[row.Item].Publisher, rows: 1, data: lines.appendAnswer(nil, &row)}
}

// ask requests next exercises at a steady rate. A request that leaves late
// because others took long is counted from when it should have left.
func (m *servingMeasure) ask(ctx context.Context, api *apiClient) (latencies, error) {
	var mu sync.Mutex
	var all latencies
	group, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for worker := range askWorkers {
		group.Go(func() error {
			var own latencies
			defer func() { mu.Lock(); all = append(all, own...); mu.Unlock() }()
			for turn := worker; ; turn += askWorkers {
				due := began.Add(time.Duration(turn) * time.Second / askRate)
				if err := sleep(ctx, time.Until(due)); err != nil {
					return nil // the measure is over
				}
				if _, err := api.nextExercise(ctx, m.tokens[turn%len(m.tokens)], ""); err != nil {
					return endOf(ctx, err)
				}
				own = append(own, float64(time.Since(due).Nanoseconds())/1e6)
			}
		})
	}
	return all, group.Wait()
}
