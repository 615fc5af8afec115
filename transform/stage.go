package transform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform/filter"

	"github.com/prometheus/client_golang/prometheus"
)

// StageConfig says what the stage works with. Durations and numbers that are 0
// get the values named.
type StageConfig struct {
	Client      *stream.Client
	Topics      stream.Topics
	Persistence Persistence
	Snapshots   *Snapshots
	Catalog     *Catalog          // the one of Snapshots
	Parameters  filter.Parameters // zero value: the defaults; the same as of Snapshots
	// DeadLetter takes over a message that can't be used: it seals the value and
	// returns when the dead letter is durable. A reason is one of the Reason
	// constants. It may get the same message again after a crash.
	DeadLetter func(ctx context.Context, partition int, reason string, message *stream.Message) error
	// Now times flushes. No result depends on it.
	Now func() time.Time

	CheckpointInterval time.Duration // longest wait of an applied answer for a checkpoint while the store keeps up and no more arrives; 1 s
	CheckpointPause    time.Duration // between two checkpoints by age of a partition where answers keep arriving; four times the interval
	CheckpointRows     int           // answers that call for a checkpoint at once; 200,000
	SumsInterval       time.Duration // longest wait of an answer for `item-sums`; .5 s
	SumsAnswers        int           // first answers that call for sums sooner, but not within half of the interval; 500
	NormInterval       time.Duration // between norm histograms in checkpoints; 1 min
	MaxPendingRows     int           // answers of a partition that may wait for durability; 131,072
	PurgeDelay         time.Duration // from the last order about learners until their rows are taken off the disk; 10 min
	MaxSkillsBytes     int           // value of one message of `skills`; stream.MaxMessageBytes

	Logger   *slog.Logger
	Registry prometheus.Registerer // nil keeps no metrics
}

// Reasons of dead letters.
const (
	ReasonHeaders   = "headers"   // raw-offset, key-epoch or digest is missing or malformed
	ReasonDigest    = "digest"    // the value differs from its digest
	ReasonSchema    = "schema"    // unknown schema
	ReasonMalformed = "malformed" // can't be decoded
)

// Validate names the field that is missing or out of range.
func (c *StageConfig) Validate() error {
	switch {
	case c.Client == nil:
		return errors.New("transform: client is needed")
	case c.Topics == (stream.Topics{}):
		return errors.New("transform: topics are needed")
	case c.Persistence == nil:
		return errors.New("transform: persistence is needed")
	case c.Snapshots == nil || c.Catalog == nil:
		return errors.New("transform: snapshots and their catalog are needed")
	case c.Catalog != c.Snapshots.config.Catalog:
		return errors.New("transform: catalog: want the one of the snapshots")
	case c.DeadLetter == nil:
		return errors.New("transform: dead letter function is needed")
	case c.Now == nil:
		return errors.New("transform: now is needed")
	case c.CheckpointInterval < 0 || c.CheckpointPause < 0 || c.SumsInterval < 0 || c.NormInterval < 0 || c.PurgeDelay < 0:
		return errors.New("transform: intervals: want none below 0")
	case c.CheckpointRows < 0 || c.SumsAnswers < 0 || c.MaxPendingRows < 0:
		return errors.New("transform: numbers of rows: want none below 0")
	case c.MaxSkillsBytes < 0 || c.MaxSkillsBytes > stream.MaxMessageBytes:
		return fmt.Errorf("transform: bytes of a skills message: want 0 to %d", stream.MaxMessageBytes)
	}
	if c.Parameters == (filter.Parameters{}) {
		return nil
	}
	if err := c.Parameters.Validate(); err != nil {
		return fmt.Errorf("transform: %w", err)
	}
	return nil
}

func (c *StageConfig) fillIn() {
	c.CheckpointInterval = orDefault(c.CheckpointInterval, time.Second)
	c.CheckpointPause = orDefault(c.CheckpointPause, 4*c.CheckpointInterval)
	c.CheckpointRows = orDefault(c.CheckpointRows, 200_000)
	c.SumsInterval = orDefault(c.SumsInterval, time.Second/2)
	c.SumsAnswers = orDefault(c.SumsAnswers, 500)
	c.NormInterval = orDefault(c.NormInterval, time.Minute)
	c.PurgeDelay = orDefault(c.PurgeDelay, 10*time.Minute)
	c.MaxPendingRows = orDefault(c.MaxPendingRows, 1<<17)
	c.MaxSkillsBytes = orDefault(c.MaxSkillsBytes, stream.MaxMessageBytes)
	if c.Parameters == (filter.Parameters{}) {
		c.Parameters = filter.DefaultParameters()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// due tells whether so long has passed since a moment. A clock that was set back
// makes it due: nothing may wait until the clock is where it was.
func due(now, since time.Time, after time.Duration) bool {
	passed := now.Sub(since)
	return passed >= after || passed < 0
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// Stage makes the handlers of the topic `answers`. It is safe for concurrent
// use.
type Stage struct {
	config  StageConfig
	metrics stageMetrics

	mu   sync.Mutex
	idle []*workspace // the one that was used last is used first
}

// idleWorkspaces is how many workspaces keep their memory between runs of
// messages. More are made when more handlers are at work at once.
const idleWorkspaces = 8

// NewStage makes a stage.
func NewStage(config StageConfig) (*Stage, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config.fillIn()
	s := &Stage{config: config}
	if err := s.metrics.register(config.Registry); err != nil {
		return nil, err
	}
	return s, nil
}

// Handler returns the handler of a partition, for stream.ConsumerConfig.
func (s *Stage) Handler(partition int) stream.Handler {
	return &handler{stage: s, partition: partition}
}

func (s *Stage) take() *workspace {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.idle)
	if n == 0 {
		return newWorkspace()
	}
	w := s.idle[n-1]
	s.idle[n-1] = nil
	s.idle = s.idle[:n-1]
	return w
}

func (s *Stage) put(w *workspace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) < idleWorkspaces {
		s.idle = append(s.idle, w)
	}
}

type stageMetrics struct {
	answers     *prometheus.CounterVec
	testResults *prometheus.CounterVec
	learners    prometheus.Gauge
	layers      prometheus.Gauge
	pending     prometheus.Gauge
	lookups     prometheus.Counter
	deadLetters *prometheus.CounterVec
	checkpoints prometheus.Counter
	amendments  prometheus.Counter
	differing   prometheus.Counter
}

func (m *stageMetrics) register(registry prometheus.Registerer) error {
	m.answers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "leerstroom_transform_answers_total", Help: "Answers by what was done with them."}, []string{"outcome"})
	m.testResults = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "leerstroom_transform_test_results_total", Help: "Test results by what was done with them."}, []string{"outcome"})
	m.learners = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "leerstroom_transform_learners", Help: "Learners in memory."})
	m.layers = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "leerstroom_transform_layers", Help: "Layers of skill in memory."})
	m.pending = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "leerstroom_transform_pending_answers", Help: "Answers and test results handled but not durable."})
	m.lookups = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "leerstroom_transform_lookups_total", Help: "Late answers and test results looked up in the store."})
	m.deadLetters = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "leerstroom_transform_dead_letters_total", Help: "Messages that could not be used."}, []string{"reason"})
	m.checkpoints = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "leerstroom_transform_checkpoints_total", Help: "Checkpoints handed over."})
	m.amendments = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "leerstroom_transform_amendments_total", Help: "Messages of corrections or orders that were followed."})
	m.differing = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "leerstroom_transform_replays_differing_total", Help: "Messages of skills that a replay would have made otherwise."})
	return register(registry, m.answers, m.testResults, m.learners, m.layers, m.pending, m.lookups, m.deadLetters, m.checkpoints, m.amendments, m.differing)
}

func (m *stageMetrics) countTestResults(skip []bool) {
	repeats := 0
	for _, skipped := range skip {
		if skipped {
			repeats++
		}
	}
	m.testResults.WithLabelValues("archived").Add(float64(len(skip) - repeats))
	m.testResults.WithLabelValues("repeat").Add(float64(repeats))
}

func (m *stageMetrics) count(a Applied) {
	m.answers.WithLabelValues("first").Add(float64(a.First))
	m.answers.WithLabelValues("again").Add(float64(a.Rows - a.First))
	m.answers.WithLabelValues("repeat").Add(float64(a.Repeats))
	m.answers.WithLabelValues("replayed").Add(float64(a.Replayed))
	m.answers.WithLabelValues("invalid").Add(float64(a.Invalid))
}
