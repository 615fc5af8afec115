package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/bench"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// outage is how long an engine is away in these tests.
const outage = 30 * time.Second

// TestClickHouseAway freezes ClickHouse while publishers push: what they send is
// acknowledged meanwhile, and stored exactly once afterwards.
func TestClickHouseAway(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 4, 30))
	s.up()
	engineProcess := s.child(t, engine.ChildClickHouse)
	s.pushThrough(t, func() {
		if err := syscall.Kill(engineProcess, syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
	}, func() {
		if err := syscall.Kill(engineProcess, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
}

// TestKafkaAway kills the broker while publishers push and starts it again:
// publishers are told to come back, and nothing that was acknowledged is lost.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	broker := enginetest.StartBroker(t)
	s := newSystem(t, newPopulation(t, 4, 30), "engine:", "  kafka:", "    brokers: ["+strings.Join(broker.Brokers(), ", ")+"]", "")
	s.up()
	s.pushThrough(t, broker.Kill, broker.Restart)
}

// pushThrough pushes a workload; when a third is acknowledged an engine goes
// away for a while. In the end everything must be stored exactly once.
func (s *system) pushThrough(t *testing.T, away, back func()) {
	t.Helper()
	const answers = 6_000
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var acknowledged atomic.Int64
	pushed := make(chan error, 1)
	work := newWorkload(t, s.population, bench.WorkloadConfig{Answers: answers, LateShare: .05, RepeatShare: .05})
	go func() { pushed <- s.push(ctx, work, func(rows int) { acknowledged.Add(int64(rows)) }) }()
	enginetest.Eventually(t, 2*time.Minute, "a third acknowledged", func() error {
		if n := acknowledged.Load(); n < answers/3 {
			return fmt.Errorf("%d answers", n)
		}
		return nil
	})
	away()
	<-time.After(outage)
	back()
	if err := <-pushed; err != nil {
		t.Fatalf("push: %v\n%s", err, s.printed())
	}
	report := s.must("fsck", "--data", s.data(), "--config", s.config(), "--wait", "3m")
	if strings.Contains(report, "DIFF") {
		t.Errorf("fsck finds differences:\n%s", report)
	}
	if n := s.count(t, "answers FINAL"); n != answers {
		t.Errorf("answers stored = %d, want %d", n, answers)
	}
	s.terminate()
}

// child returns the process that the running system started with a subcommand.
func (s *system) child(t *testing.T, subcommand string) int {
	t.Helper()
	s.mutex.Lock()
	group := s.process.Process.Pid
	s.mutex.Unlock()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(line, []byte(subcommand)) {
			continue // a process that ended meanwhile can't be read
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		if of, err := syscall.Getpgid(pid); err == nil && of == group || bytes.Contains(line, []byte(s.data())) {
			return pid
		}
	}
	t.Fatalf("no process runs %s", subcommand)
	return 0
}
