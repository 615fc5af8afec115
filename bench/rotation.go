package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// What a rotation moves to new tokens: at most so many answers of so many schools
// in so many partitions. They are few, so that a partition has learners by the
// thousand, as in a deployment of all schools.
const (
	rotationRows       = 400_000
	rotationSchools    = 60
	rotationPartitions = 4
)

// rotation measures the stage pseudonymize when it knows the learners already,
// and then a rotation of the keys on a deployment at rest: from the order until no
// answer is under a token of the former epoch.
func (r *runner) rotation(ctx context.Context) (err error) {
	population, err := NewPopulation(PopulationConfig{Seed: r.config.Seed, Schools: min(r.config.Schools, rotationSchools), Learners: r.config.Learners})
	if err != nil {
		return err
	}
	w, err := NewWorkload(population, WorkloadConfig{Answers: min(r.config.Answers, rotationRows)})
	if err != nil {
		return err
	}
	earlier, err := NewWorkload(population, WorkloadConfig{Answers: w.Answers() / 2})
	if err != nil {
		return err
	}
	environment := *r.config.Environment
	environment.Partitions = min(cmp.Or(environment.Partitions, rotationPartitions), rotationPartitions)
	p, err := newPipeline(ctx, &environment, "rotation", r.config.Workers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	for i, part := range []*Workload{earlier, w.After(earlier)} {
		if err := r.pseudonymizePart(ctx, p, part, i == 1); err != nil {
			return err
		}
	}
	return r.rotate(ctx, p, int64(w.Answers()))
}

// pseudonymizePart puts answers into raw and takes them to answers, and may say
// what a row cost there.
func (r *runner) pseudonymizePart(ctx context.Context, p *pipeline, w *Workload, say bool) (err error) {
	filled, _, err := p.fill(ctx, w, messageRows, func(int) {})
	if err != nil {
		return err
	}
	before, told := readProcessorTime()
	s := newStages(ctx)
	defer func() { err = errors.Join(err, s.stop()) }()
	stage, err := p.startPseudonymize(s)
	if err != nil {
		return err
	}
	perRow, err := steady(s.ctx, func() int64 { return stage.Counts().Rows }, int64(filled))
	if err != nil {
		return err
	}
	err = poll(s.ctx, 2*time.Millisecond, func() (bool, error) {
		counts := stage.Counts()
		if counts.DeadLetters > 0 {
			return false, fmt.Errorf("pseudonymize made %d dead letters", counts.DeadLetters)
		}
		return counts.Rows >= int64(filled), nil
	})
	if err == nil && say {
		r.results.add("pseudonymize_known_allocations_per_row", perRow, "allocations", "heap objects per row of the stage pseudonymize when its learners are known, in the middle half of that")
	}
	after, still := readProcessorTime()
	if err != nil || !say || !told || !still {
		return err
	}
	r.results.add(figureStageRow, (after.stages-before.stages)*1e9/float64(filled), "ns/row",
		"processor time per row of the stage pseudonymize when its learners are known, with start and Kafka's client")
	r.results.compare(figureOpen, figureStageRow)
	return nil
}

// rotate scores and archives all, orders a rotation and waits until everything has
// moved.
func (r *runner) rotate(ctx context.Context, p *pipeline, rows int64) (err error) {
	s := newStages(ctx)
	defer func() { err = errors.Join(err, s.stop()) }()
	if _, err := p.startPseudonymize(s); err != nil {
		return err
	}
	if _, err := p.startTransform(s); err != nil {
		return err
	}
	if err := p.await(s.ctx, uint64(rows), "SELECT count() FROM %s.answers FINAL"); err != nil {
		return err
	}
	learners, err := p.ask(s.ctx, "SELECT uniqExact(school, learner) FROM %s.answers FINAL")
	if err != nil {
		return err
	}
	started := time.Now()
	epoch, err := p.ring.Rotate()
	if err != nil {
		return err
	}
	// A token is noted as left when all that was under it has moved.
	if err := p.await(s.ctx, learners, "SELECT count() FROM %s.departed FINAL"); err != nil {
		return err
	}
	took := time.Since(started).Seconds()
	moved, err := p.ask(s.ctx, fmt.Sprintf("SELECT countIf(key_epoch = %d) FROM %%s.answers FINAL", epoch))
	if err != nil {
		return err
	}
	if moved != uint64(rows) {
		return fmt.Errorf("%d answers are under the new key epoch, want %d", moved, rows)
	}
	r.results.add(figureRotation, float64(rows)/took, "rows/s", fmt.Sprintf(
		"a rotation of the keys in the background: %s stored answers of %s learners under new tokens, with the second within which stages see the order",
		grouped(float64(rows)), grouped(float64(learners))))
	r.results.add(figureRotationToken, float64(learners)/took, "learners/s", "the same by learners, whose skills, sums and registry rows move with them")
	return nil
}

// ask returns a number that ClickHouse knows; the query names the database as %s.
func (p *pipeline) ask(ctx context.Context, query string) (n uint64, err error) {
	if err := p.conn.QueryRow(ctx, fmt.Sprintf(query, p.database)).Scan(&n); err != nil {
		return 0, fmt.Errorf("ask clickhouse: %w", err)
	}
	return n, nil
}

// await waits until a number that ClickHouse knows is as wanted.
func (p *pipeline) await(ctx context.Context, want uint64, query string) error {
	return poll(ctx, 100*time.Millisecond, func() (bool, error) {
		n, err := p.ask(ctx, query)
		return n == want, err
	})
}
