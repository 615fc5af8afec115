package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine"
)

// Process is the whole system as one process of its own, which can be killed.
type Process struct {
	PublisherKeys map[string]string                          // by publisher
	Start         func(ctx context.Context) (string, error)  // returns the base URL once it listens
	Kill          func() error                               // with SIGKILL, its engines too; waits until they are gone
	ID            func() int                                 // of the process
	ClickHouse    func() (engine.ClickHouse, error)          // of the running process
	Partitions    int                                        // of its topics
	Apart         func(ctx context.Context) (*Stages, error) // on the same data, when the process does not run
}

// Names of the figures of a recovery.
const (
	figureRecovered = "recovery_skills_served_seconds"
	figureRestored  = "recovery_partitions_restored_seconds"
	figureListening = "recovery_listening_seconds"
	figureLearners  = "recovery_learners"
)

// recoveryAnswers is how many answers each learner has given, one lesson.
const recoveryAnswers = 5

// recovery fills a system with learners, kills it, starts it again and measures
// until everything works as before: broker, ClickHouse, registry, the states of
// all partitions, and the memory of the query service.
func (r *runner) recovery(ctx context.Context) (err error) {
	if r.config.Process == nil {
		return nil
	}
	population, err := NewPopulation(PopulationConfig{
		Seed: r.config.Seed + 2, Schools: max(1, r.config.RecoveryLearners/200), Learners: 200, Start: beforeSchoolDays(time.Now(), 60),
	})
	if err != nil {
		return err
	}
	w, err := NewWorkload(population, WorkloadConfig{Answers: recoveryAnswers * r.config.RecoveryLearners, SessionAnswers: recoveryAnswers})
	if err != nil {
		return err
	}
	process, err := r.config.Process(ctx, population)
	if err != nil {
		return fmt.Errorf("prepare the system: %w", err)
	}
	defer func() { err = errors.Join(err, process.Kill()) }()
	url, err := process.Start(ctx)
	if err != nil {
		return fmt.Errorf("start the system: %w", err)
	}
	result, err := Push(ctx, w, PushConfig{BaseURL: url, Keys: process.PublisherKeys})
	if err != nil {
		return err
	}
	before, err := awaitState(ctx, url, func(s recoveryState) bool { return s.answers >= float64(result.Accepted) && s.served >= s.learners })
	if err != nil {
		return fmt.Errorf("wait until all is scored: %w", err)
	}
	if err := process.Kill(); err != nil {
		return err
	}
	if err := r.restart(ctx, process, before); err != nil {
		return err
	}
	var took restoring
	err = poll(ctx, time.Second, func() (bool, error) { // the last answers were replayed, and are not in a checkpoint at once
		took, err = restoreAlone(ctx, process)
		return float64(took.learners) >= before.learners, err
	})
	if err != nil {
		return fmt.Errorf("read the states once more: %w", err)
	}
	r.reportRestoring(took)
	if err := process.Kill(); err != nil {
		return err
	}
	return r.recoverStages(ctx, process, before)
}

func (r *runner) restart(ctx context.Context, process *Process, before recoveryState) error {
	started := time.Now()
	url, err := process.Start(ctx)
	if err != nil {
		return fmt.Errorf("start the system again: %w", err)
	}
	listening := time.Since(started)
	start, told := processorTimeOf(process.ID())
	if _, err := awaitState(ctx, url, func(s recoveryState) bool { return s.learners >= before.learners }); err != nil {
		return fmt.Errorf("wait for the partitions: %w", err)
	}
	restored := time.Since(started)
	if _, err := awaitState(ctx, url, func(s recoveryState) bool { return s.ready && s.served >= before.served }); err != nil {
		return fmt.Errorf("wait for the query service: %w", err)
	}
	served := time.Since(started)
	if t, still := processorTimeOf(process.ID()); told && still {
		r.results.add("recovery_processor_seconds", t.all(), "s", "processor time for all of that: divided by the cores, what it takes at least")
		r.results.add("recovery_processor_start_seconds", start.all(), "s", "of that until it listened: both engines read what they have on the disk")
		r.results.add("recovery_processor_clickhouse_seconds", t.clickhouse, "s", "of all in ClickHouse …")
		r.results.add("recovery_processor_merges_seconds", t.merges, "s", "… and of that for merges, which wait")
		r.results.add("recovery_processor_stages_seconds", t.stages, "s", "of all in the process of the stages, which has the broker in it")
	}
	r.results.add(figureLearners, before.learners, "learners", "in the system that was killed with SIGKILL, broker and ClickHouse with it")
	r.results.add(figureListening, listening.Seconds(), "s", "from the start after that until it listens: publishers are served from then on")
	r.results.add(figureRestored, restored.Seconds(), "s", "until every partition has its learners' states in memory again")
	r.results.add(figureRecovered, served.Seconds(), "s", "until the query service is ready with the skills of all learners")
	return nil
}

// recoveryState is what a system tells of itself.
type recoveryState struct {
	learners float64 // in the memory of the stage
	answers  float64 // that moved a learner
	served   float64 // learners in the memory of the query service
	ready    bool
}

// awaitState polls until a state is reached.
func awaitState(ctx context.Context, url string, reached func(recoveryState) bool) (s recoveryState, err error) {
	err = poll(ctx, 100*time.Millisecond, func() (bool, error) {
		s, err = readState(ctx, url)
		return err == nil && reached(s), err
	})
	return s, err
}

func readState(ctx context.Context, url string) (s recoveryState, err error) {
	response, err := get(ctx, url+"/readyz")
	if err != nil {
		return s, err
	}
	s.ready = response.StatusCode == http.StatusOK
	if err := response.Body.Close(); err != nil {
		return s, err
	}
	if response, err = get(ctx, url+"/metrics"); err != nil {
		return s, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, text, found := strings.Cut(lines.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		if !found || err != nil {
			continue // a comment
		}
		switch series, _, _ := strings.Cut(name, "{"); series {
		case "leerstroom_transform_learners":
			s.learners = value
		case "leerstroom_query_learners":
			s.served = value
		case "leerstroom_transform_answers_total":
			if strings.Contains(name, `"first"`) || strings.Contains(name, `"again"`) {
				s.answers += value
			}
		}
	}
	return s, lines.Err()
}

func get(ctx context.Context, url string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}
