package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leerstroom/leerstroom/internal/stream"
)

// RunConfig says what to measure on which engines.
type RunConfig struct {
	Environment *Environment
	Command     string // that was given, for the document
	Answers     int    // in the stream; 0 means 5,000,000
	Schools     int    // 0 means 250
	Learners    int    // about so many per school; 0 means 200
	Seed        uint64
	Workers     int // handlers at work in each stage; 0 means one per core

	RegistryLearners int // in the registry whose memory is measured; 0 means 1,500,000
	ModelLearners    int // in the read model that is measured alone; 0 means 1,000,000
	RecoveryLearners int // in the system that is killed, about; 0 means 1,000,000

	// DelayRates are the rates, in answers per second, at which the delay from an
	// answer to the served skill is measured; nil means 20,000 and 50,000.
	DelayRates []int

	// Only names the measures to take, of Measures; empty means all.
	Only []string

	// Serve starts the whole system, as `leerstroom up` does, with publishers
	// authorised for all schools of the population, and returns when it is
	// ready. nil leaves out what needs it: connector, latency and delay.
	Serve func(ctx context.Context, population *Population) (*Serving, error)

	// Process prepares the whole system as a process of its own, as `leerstroom up`,
	// in a directory that is empty. nil leaves out the recovery.
	Process func(ctx context.Context, population *Population) (*Process, error)

	Progress Progress
}

// Serving is a running system.
type Serving struct {
	BaseURL       string
	PublisherKeys map[string]string // by publisher
	EngineKey     string            // of role engine, for all schools
	Stop          func() error
}

func (c *RunConfig) setDefaults() {
	for field, value := range map[*int]int{&c.Answers: 5_000_000, &c.Schools: 250, &c.Learners: 200, &c.Workers: runtime.GOMAXPROCS(0), &c.RegistryLearners: 1_500_000, &c.ModelLearners: 1_000_000, &c.RecoveryLearners: 1_000_000} {
		if *field == 0 {
			*field = value
		}
	}
	if c.DelayRates == nil {
		c.DelayRates = []int{20_000, 50_000}
	}
	if c.Progress == nil {
		c.Progress = func(string, int64, int64) {}
	}
}

// messageRows is how many rows a message of `raw` holds when connectors are busy.
const messageRows = 16_384

// Run measures everything one after the other and returns the figures. It fails
// when a measure does not end with exactly the rows that went in.
func Run(ctx context.Context, config RunConfig) (*Results, error) {
	config.setDefaults()
	for _, name := range config.Only {
		if !slices.Contains(Measures(), name) {
			return nil, fmt.Errorf("run benchmark: no measure is called %q, want one of %s", name, strings.Join(Measures(), ", "))
		}
	}
	population, err := NewPopulation(PopulationConfig{
		Seed: config.Seed, Schools: config.Schools, Learners: config.Learners, ExercisesPerGoal: 50,
	})
	if err != nil {
		return nil, err
	}
	workload, err := NewWorkload(population, WorkloadConfig{Answers: config.Answers})
	if err != nil {
		return nil, err
	}
	r := &runner{config: &config, workload: workload, results: &Results{
		Command: config.Command, Taken: time.Now(), Machine: ThisMachine(), Rows: config.Answers,
	}}
	steps := r.measures()
	for i, step := range steps {
		config.Progress("measure", int64(i), int64(len(steps)))
		if err := step.run(ctx); err != nil {
			return r.results, fmt.Errorf("measure %s: %w", step.name, err)
		}
		runtime.GC()
	}
	config.Progress("measure", int64(len(steps)), int64(len(steps)))
	r.compare()
	return r.results, nil
}

// Measures returns the names of what Run measures, in order.
func Measures() []string {
	var names []string
	for _, m := range (&runner{config: &RunConfig{}}).measures() {
		names = append(names, m.name)
	}
	return names
}

type measure struct {
	name string
	run  func(context.Context) error
}

// measures returns those that the configuration wants.
func (r *runner) measures() []measure {
	all := []measure{
		{"bare", r.bare}, {"stages", r.stagesAlone}, {"end-to-end", r.endToEnd}, {"unscored", r.endToEndUnscored},
		{"kafka-engine", r.kafkaEngine}, {"identity", r.identity}, {"read-model", r.readModel}, {"serving", r.serving}, {"recovery", r.recovery},
	}
	if len(r.config.Only) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(m measure) bool { return !slices.Contains(r.config.Only, m.name) })
}

// runner is one run.
type runner struct {
	config   *RunConfig
	workload *Workload
	results  *Results
}

// Names of the figures that others are compared with.
const (
	figureEndToEnd  = "end_to_end_rows_per_second"
	figureKnown     = "end_to_end_known_allocations_per_row"
	figureCopied    = "bare_kafka_copy_allocations_per_row"
	figureWay       = "bare_kafka_way_allocations_per_row"
	figureUnscored  = "end_to_end_without_scoring_rows_per_second"
	figurePseudonym = "pseudonymize_rows_per_second"
	figureTransform = "transform_and_store_rows_per_second"
	figureConnector = "connector_rows_per_second"
	figureHMAC      = "bare_hmac_per_second"
	figureDriver    = "bare_insert_clickhouse_go_rows_per_second"
	figureColumns   = "bare_insert_ch_go_rows_per_second"
	figureCopy      = "bare_kafka_copy_rows_per_second"
	figureEngine    = "clickhouse_kafka_engine_rows_per_second"
	figureProduce   = "produce_rows_per_second"
	figureWriter    = "kafka_go_writer_rows_per_second"
	figureIdem      = "idempotent_produce_rows_per_second"
)

// compare sets the ratios that the document promises, of what was measured.
func (r *runner) compare() {
	for _, pair := range [][2]string{
		{figureEndToEnd, figureEngine}, {figureKnown, figureWay}, {figureUnscored, figureDriver}, {figureTransform, figureDriver},
		{figurePseudonym, figureHMAC}, {figureColumns, figureDriver}, {figureEngine, figureDriver},
	} {
		if r.results.find(pair[0]) != nil && r.results.find(pair[1]) != nil {
			r.results.compare(pair[0], pair[1])
		}
	}
}

// total is the number of rows in the stream.
func (r *runner) total() int64 { return int64(r.config.Answers) }

// withPipeline runs f on a fresh pipeline whose topic `raw` is filled.
func (r *runner) withPipeline(ctx context.Context, name string, f func(p *pipeline, ends []int64) error) (err error) {
	p, err := newPipeline(ctx, r.config.Environment, name, r.config.Workers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	rows, ends, err := p.fill(ctx, r.workload, messageRows, func(rows int) {
		r.config.Progress(name+": fill raw", int64(rows), r.total())
	})
	if err != nil {
		return err
	}
	if int64(rows) != r.total() {
		return fmt.Errorf("filled %d rows, want %d", rows, r.total())
	}
	runtime.GC()
	return f(p, ends)
}

// stagesAlone measures pseudonymize and transform one after the other.
func (r *runner) stagesAlone(ctx context.Context) error {
	return r.withPipeline(ctx, "alone", func(p *pipeline, ends []int64) error {
		if err := r.pseudonymizeAlone(ctx, p); err != nil {
			return err
		}
		if err := r.copyAlone(ctx, p); err != nil {
			return err
		}
		if err := r.produce(ctx, p); err != nil {
			return err
		}
		return r.transformAlone(ctx, p, ends)
	})
}

func (r *runner) pseudonymizeAlone(ctx context.Context, p *pipeline) (err error) {
	s := newStages(ctx)
	defer func() { err = errors.Join(err, s.stop()) }()
	started := time.Now()
	stage, err := p.startPseudonymize(s)
	if err != nil {
		return err
	}
	perRow, err := steady(s.ctx, func() int64 { return stage.Counts().Rows }, r.total())
	if err != nil {
		return err
	}
	err = poll(s.ctx, 2*time.Millisecond, func() (bool, error) {
		counts := stage.Counts()
		if counts.DeadLetters > 0 {
			return false, fmt.Errorf("pseudonymize made %d dead letters", counts.DeadLetters)
		}
		return counts.Rows >= r.total(), nil
	})
	if err != nil {
		return err
	}
	rate := float64(r.total()) / time.Since(started).Seconds()
	r.results.add(figurePseudonym, rate, "rows/s", "the stage pseudonymize alone: open, resolve, tokens, `answers`; with joining the group and every learner new")
	r.results.add("pseudonymize_allocations_per_row", perRow, "allocations", "heap objects per row in the middle half of that")
	return nil
}

// copyAlone measures what Kafka's client does without us. A row is written to
// `raw`, `answers` and in what it changes to `skills` and `item-sums`, and read from
// all but `skills`: the way is three copies, which leaves out one writing.
func (r *runner) copyAlone(ctx context.Context, p *pipeline) error {
	objects, from := uint64(0), p.topics.Answers
	for i := range 3 {
		to, err := p.extraTopic(ctx, fmt.Sprintf("copy-%d", i+1))
		if err != nil {
			return err
		}
		before := allocations()
		took, err := copyTopic(ctx, r.config.Environment.Brokers, from, to, p.partitions, r.config.Workers)
		if err != nil {
			return err
		}
		objects += allocations() - before
		if i == 0 {
			r.results.add(figureCopy, float64(r.total())/took.Seconds(), "rows/s", "kafka-go alone: fetch every message of `answers` and produce it to another topic")
			r.results.add(figureCopied, float64(objects)/float64(r.total()), "allocations", "heap objects per row of that")
		}
		from = to
	}
	r.results.add(figureWay, float64(objects)/float64(r.total()), "allocations",
		"the same through three topics, one after the other: a message of a row is read three times and written four times on its way")
	return nil
}

func (r *runner) transformAlone(ctx context.Context, p *pipeline, ends []int64) (err error) {
	s := newStages(ctx)
	defer func() { err = errors.Join(err, s.stop()) }()
	started := time.Now()
	rows, err := p.startTransform(s)
	if err != nil {
		return err
	}
	perRow, err := steady(s.ctx, rows.Load, r.total())
	if err != nil {
		return err
	}
	if err := p.awaitScored(s.ctx, ends); err != nil {
		return err
	}
	rate := float64(r.total()) / time.Since(started).Seconds()
	r.results.add(figureTransform, rate, "rows/s", "transform and store alone: decode, score, `skills`, committed in ClickHouse")
	r.results.add("transform_and_store_allocations_per_row", perRow, "allocations", "heap objects per row in the middle half of that")
	return r.verify(ctx, p)
}

// verify compares the archive with what went in.
func (r *runner) verify(ctx context.Context, p *pipeline) error {
	count, err := p.count(ctx, "answers")
	if err != nil {
		return err
	}
	if int64(count) != r.total() {
		return fmt.Errorf("%d rows are stored, want %d", count, r.total())
	}
	return nil
}

// endToEnd measures all stages at once, from `raw` to what ClickHouse has
// committed.
func (r *runner) endToEnd(ctx context.Context) error {
	return r.withPipeline(ctx, "whole", func(p *pipeline, ends []int64) (err error) {
		resident := watchResident()
		s := newStages(ctx)
		defer func() { err = errors.Join(err, s.stop()) }()
		processor := r.watchProcessor("end_to_end", "all stages together")
		started := time.Now()
		if _, err := p.startPseudonymize(s); err != nil {
			resident()
			return err
		}
		rows, err := p.startTransform(s)
		if err != nil {
			resident()
			return err
		}
		perRow, err := steady(s.ctx, rows.Load, r.total())
		if err == nil {
			err = p.awaitScored(s.ctx, ends)
		}
		took, peak := time.Since(started), resident()
		if err != nil {
			return err
		}
		r.results.add(figureEndToEnd, float64(r.total())/took.Seconds(), "rows/s", "all stages together: sealed in `raw` until scored and committed in ClickHouse, with joining the groups")
		r.results.add("end_to_end_allocations_per_row", perRow, "allocations", "heap objects per row of all stages in the middle half of that")
		processor()
		r.results.add("end_to_end_resident_memory", peak, "MiB", "largest resident memory of the process of all stages at that speed, engines apart")
		if err := r.verify(ctx, p); err != nil {
			return err
		}
		return r.known(s.ctx, p, rows)
	})
}

// known measures allocations when the running stages know everybody and
// everything: the same schools go on answering. The messages are made before,
// since making them allocates, too.
func (r *runner) known(ctx context.Context, p *pipeline, rows *atomic.Int64) error {
	more, err := NewWorkload(r.workload.Population, WorkloadConfig{Answers: r.workload.Answers() + r.workload.Answers()/4})
	if err != nil {
		return err
	}
	type sealed struct {
		partition int
		message   stream.Message
	}
	var messages []sealed
	want := rows.Load()
	err = p.sealed(more.After(r.workload), messageRows, func(partition int, m stream.Message, n int) error {
		m.Value = slices.Clone(m.Value)
		messages = append(messages, sealed{partition, m})
		want += int64(n)
		return nil
	})
	if err != nil {
		return fmt.Errorf("seal what schools answer next: %w", err)
	}
	runtime.GC()
	before, from := allocations(), rows.Load()
	for i := range messages {
		if _, err := p.client.Produce(ctx, p.topics.Raw, messages[i].partition, messages[i].message); err != nil {
			return err
		}
	}
	if err := poll(ctx, 10*time.Millisecond, func() (bool, error) { return rows.Load() >= want, nil }); err != nil {
		return err
	}
	objects := float64(allocations() - before)
	r.results.add(figureKnown, objects/float64(want-from), "allocations",
		"heap objects per row of all stages when learners and exercises are known, with those of writing to `raw`")
	r.results.add("end_to_end_known_allocations_per_message", objects/float64(len(messages)), "allocations",
		fmt.Sprintf("the same per message of `raw`; %.0f rows were in one", float64(want-from)/float64(len(messages))))
	return r.stored(ctx, p, r.total()+want-from)
}

// stored waits until a number of rows is archived, and fails when there are more.
func (r *runner) stored(ctx context.Context, p *pipeline, want int64) error {
	var count int64
	err := poll(ctx, 100*time.Millisecond, func() (bool, error) {
		n, err := p.count(ctx, "answers")
		count = int64(n)
		return count >= want, err
	})
	if err == nil && count > want {
		err = fmt.Errorf("%d rows are stored, want %d", count, want)
	}
	return err
}

// endToEndUnscored measures pseudonymize and the archive without scoring.
func (r *runner) endToEndUnscored(ctx context.Context) error {
	return r.withPipeline(ctx, "unscored", func(p *pipeline, ends []int64) (err error) {
		s := newStages(ctx)
		defer func() { err = errors.Join(err, s.stop()) }()
		processor := r.watchProcessor("end_to_end_without_scoring", "the same without scoring")
		started := time.Now()
		if _, err := p.startPseudonymize(s); err != nil {
			return err
		}
		if _, err := p.startArchive(s); err != nil {
			return err
		}
		if err := p.awaitScored(s.ctx, ends); err != nil {
			return err
		}
		r.results.add(figureUnscored, float64(r.total())/time.Since(started).Seconds(), "rows/s", "the same with scoring off: pseudonymised and archived only")
		processor()
		return r.verify(ctx, p)
	})
}
