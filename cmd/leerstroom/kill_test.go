package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/bench"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestKilledMidStream kills the whole system with SIGKILL several times while
// publishers push, and starts it again. Publishers send again what was not
// acknowledged, and some sessions a second time anyway. Afterwards every answer
// must be there exactly once and fsck must find no difference.
func TestKilledMidStream(t *testing.T) {
	t.Parallel()
	const answers, kills = 12_000, 3
	random := rand.New(rand.NewPCG(1, 0))
	s := newSystem(t, newPopulation(t, 6, 40))
	s.up()
	var acknowledged atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	pushed := make(chan error, 1)
	work := newWorkload(t, s.population, bench.WorkloadConfig{Answers: answers, RepeatShare: .1})
	go func() { pushed <- s.push(ctx, work, func(rows int) { acknowledged.Add(int64(rows)) }) }()
	for i := range int64(kills) {
		threshold := answers*(i+1)/(kills+2) + int64(random.IntN(answers/10))
		enginetest.Eventually(t, 3*time.Minute, "answers acknowledged", func() error {
			if n := acknowledged.Load(); n < threshold && len(pushed) == 0 {
				return fmt.Errorf("%d of %d", n, threshold)
			}
			return nil
		})
		s.kill()
		s.up()
	}
	if err := <-pushed; err != nil {
		t.Fatalf("push: %v\n%s", err, s.printed())
	}
	report := s.must("fsck", "--data", s.data(), "--config", s.config())
	if strings.Contains(report, "DIFF") {
		t.Errorf("fsck finds differences:\n%s", report)
	}
	if n := s.count(t, "answers FINAL"); n != answers {
		t.Errorf("answers stored = %d, want %d", n, answers)
	}
	// Merges waited for the states to be read back, not for ever.
	enginetest.Eventually(t, time.Minute, "clickhouse to merge", func() error {
		_, err := s.query(t.Context(), "OPTIMIZE TABLE leerstroom.progress")
		return err
	})
	s.terminate()
}

// count asks the embedded ClickHouse of the running system.
func (s *system) count(t *testing.T, table string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(s.ask(t, "SELECT count() FROM leerstroom."+table), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// ask runs a query that does not fail.
func (s *system) ask(t *testing.T, query string) string {
	t.Helper()
	answer, err := s.query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// query runs one over the HTTP interface of the embedded ClickHouse.
func (s *system) query(ctx context.Context, query string) (string, error) {
	// Only ClickHouse is asked, so any broker will do.
	engines, err := engine.Attach(engine.Config{DataDir: s.data(), Kafka: engine.KafkaConfig{Brokers: []string{"127.0.0.1:1"}}})
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+engines.ClickHouse.HTTPAddress+"/", strings.NewReader(query))
	if err != nil {
		return "", err
	}
	request.SetBasicAuth(engines.ClickHouse.User, engines.ClickHouse.Password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask clickhouse: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	if err != nil {
		return "", fmt.Errorf("ask clickhouse: %w", err)
	}
	return string(body), nil
}
