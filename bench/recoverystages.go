package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Stages are processes that run one stage each, on engines in processes of their own.
type Stages struct {
	Start func(ctx context.Context, stage string) (url string, kill func() error, err error) // returns once it listens; kill is SIGKILL, and waits
	Stop  func() error                                                                       // of the engines
}

// Names of the figures of a stage that is killed.
const (
	figureTransformKilled = "recovery_transform_killed_seconds"
	figureServeKilled     = "recovery_serve_killed_seconds"
)

// recoverStages kills one stage at a time, which is what happens to a system of
// several processes, and starts it again at once, as a supervisor does.
func (r *runner) recoverStages(ctx context.Context, process *Process, before recoveryState) (err error) {
	stages, err := process.Apart(ctx)
	if err != nil {
		return fmt.Errorf("start the engines apart: %w", err)
	}
	defer func() { err = errors.Join(err, stages.Stop()) }()
	for _, s := range []struct {
		stage, figure, about string
		whole                func(recoveryState) bool
	}{
		{"transform", figureTransformKilled, "the stage alone is killed with SIGKILL, its engines live; from its start until every partition is its own again and has its learners' states in memory",
			func(now recoveryState) bool { return now.learners >= before.learners }},
		{"serve", figureServeKilled, "the same of the query service, until it is ready with the skills of all learners",
			func(now recoveryState) bool { return now.ready && now.served >= before.served }},
	} {
		took, err := killStage(ctx, stages, s.stage, s.whole)
		if err != nil {
			return err
		}
		r.results.add(s.figure, took.Seconds(), "s", s.about)
	}
	return nil
}

// killStage starts a stage, kills it when it is whole, and returns how long it takes
// until it is whole again.
func killStage(ctx context.Context, stages *Stages, stage string, whole func(recoveryState) bool) (took time.Duration, err error) {
	for range 2 {
		started := time.Now()
		url, kill, err := stages.Start(ctx, stage)
		if err != nil {
			return 0, err
		}
		_, err = awaitState(ctx, url, whole)
		took = time.Since(started)
		if err = errors.Join(err, kill()); err != nil {
			return 0, fmt.Errorf("kill %s: %w", stage, err)
		}
	}
	return took, nil
}
