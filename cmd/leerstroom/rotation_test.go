package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/bench"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestKilledDuringRotation rotates the keys while publishers push, and kills the
// whole system with SIGKILL right after the order, when the first rows of the new
// epoch are stored beside those of the former one, and once more later. Publishers
// are served all the time, the rotation comes to its end by itself, no answer is
// lost or there twice, and all answers from before have the learners that they had.
func TestKilledDuringRotation(t *testing.T) {
	t.Parallel()
	const before = 9_000
	s := newSystem(t, newPopulation(t, 6, 150))
	s.up()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	first := newWorkload(t, s.population, bench.WorkloadConfig{Answers: before, RepeatShare: .1})
	if err := s.push(ctx, first, func(int) {}); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--data", s.data(), "--config", s.config()}
	fsck := func(when string) {
		t.Helper()
		if report := s.must(append([]string{"fsck", "--wait", "3m"}, flags...)...); strings.Contains(report, "DIFF") {
			t.Errorf("fsck finds differences %s:\n%s", when, report)
		}
	}
	fsck("before the rotation")
	belonged := s.byLearner(t)

	load := s.startLoad(t, ctx, first)
	s.must(append([]string{"keys", "rotate", "--detach"}, flags...)...)
	s.kill()
	s.up()
	s.awaitEpochs(t, "rows of the new epoch are stored", func(_, current int) bool { return current > 0 })
	s.kill()
	s.up()
	begun := load.acknowledged.Load()
	load.await(t, begun+500)
	s.kill()
	s.up()
	s.awaitEpochs(t, "no row of the former epoch is stored", func(former, _ int) bool { return former == 0 })
	load.await(t, begun+1_000) // it is served while the rotation is under way and afterwards
	answers := before + load.stop(t)
	enginetest.Eventually(t, 3*time.Minute, "nothing depends on the former epoch", func() error {
		code, out, errs := called(t, "", append([]string{"keys", "status", "--prove"}, flags...)...)
		if code != 0 {
			return errors.New(out + errs)
		}
		return nil
	})
	fsck("after the rotation")
	if n := s.count(t, "answers FINAL"); n != answers {
		t.Errorf("answers stored = %d, want %d", n, answers)
	}
	s.sameLearners(t, belonged)
	s.must(append([]string{"keys", "retire", "1"}, flags...)...)
	fsck("after the former key was destroyed")
	s.terminate()
}

// byLearner returns the learner of every event that is stored.
func (s *system) byLearner(t *testing.T) map[string]string {
	t.Helper()
	learners := make(map[string]string)
	for line := range strings.Lines(s.ask(t, "SELECT hex(id), hex(learner) FROM leerstroom.answers FINAL")) {
		event, learner, _ := strings.Cut(strings.TrimSpace(line), "\t")
		learners[event] = learner
	}
	return learners
}

// sameLearners checks that every learner of before is one learner with another
// token, and that no two have become one.
func (s *system) sameLearners(t *testing.T, before map[string]string) {
	t.Helper()
	after := s.byLearner(t)
	renamed := make(map[string]string)
	for event, learner := range before {
		is, stored := after[event]
		if known, ok := renamed[learner]; !stored || is == learner || ok && known != is {
			t.Fatalf("an answer of before the rotation: stored %v, moved %v, its learner has one new token %v; want all true", stored, is != learner, !ok || known == is)
		}
		renamed[learner] = is
	}
	distinct := slices.Compact(slices.Sorted(maps.Values(renamed)))
	if len(distinct) != len(renamed) {
		t.Errorf("%d learners of before are %d after the rotation", len(renamed), len(distinct))
	}
}

// awaitEpochs waits until the numbers of answers under key epochs 1 and 2 are as
// wanted.
func (s *system) awaitEpochs(t *testing.T, what string, want func(former, current int) bool) {
	t.Helper()
	enginetest.Eventually(t, 3*time.Minute, what, func() error {
		former, current := s.count(t, "answers FINAL WHERE key_epoch = 1"), s.count(t, "answers FINAL WHERE key_epoch = 2")
		if !want(former, current) {
			return fmt.Errorf("%d and %d answers are under the former and the new epoch", former, current)
		}
		t.Logf("%s: %d beside %d of the former epoch", what, current, former)
		return nil
	})
}

// load are publishers that push until they are stopped.
type load struct {
	acknowledged atomic.Int64
	last         atomic.Bool // no further round
	rows         atomic.Int64
	ended        chan error
}

// loadRows is the number of answers of one round of a load, which lasts a second.
const loadRows = 1_000

// startLoad pushes what schools answer after a workload, round after round.
func (s *system) startLoad(t *testing.T, ctx context.Context, earlier *bench.Workload) *load {
	t.Helper()
	l := &load{ended: make(chan error, 1)}
	go func() {
		for !l.last.Load() {
			next, err := bench.NewWorkload(s.population, bench.WorkloadConfig{Answers: earlier.Answers() + loadRows})
			if err == nil {
				_, err = bench.Push(ctx, next.After(earlier), bench.PushConfig{BaseURL: s.url(), Keys: s.publishers, Workers: 4, BodyRows: 100,
					RowsPerSecond: loadRows, Progress: func(rows int) { l.acknowledged.Add(int64(rows)) }})
			}
			if err != nil {
				l.ended <- err
				return
			}
			l.rows.Add(loadRows)
			earlier = next
		}
		l.ended <- nil
	}()
	return l
}

// await waits until so many answers of the load are acknowledged.
func (l *load) await(t *testing.T, rows int64) {
	t.Helper()
	enginetest.Eventually(t, 3*time.Minute, "publishers are served", func() error {
		if n := l.acknowledged.Load(); n < rows {
			return fmt.Errorf("%d answers acknowledged, want %d", n, rows)
		}
		return nil
	})
}

// stop ends the load and returns the number of answers.
func (l *load) stop(t *testing.T) int {
	t.Helper()
	l.last.Store(true)
	if err := <-l.ended; err != nil {
		t.Fatalf("push: %v", err)
	}
	return int(l.rows.Load())
}
