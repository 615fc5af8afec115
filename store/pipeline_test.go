package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

const pipelinePartitions = 4

// pipeline is the real transform stage between Kafka and the store.
type pipeline struct {
	store  testStore
	client *stream.Client
	topics stream.Topics
	work   *workload
	stop   func()
}

func startPipeline(t *testing.T) *pipeline {
	t.Helper()
	p := &pipeline{store: openStore(t, func(c *store.Config) { c.MaxDelay = 50 * time.Millisecond }), work: newWorkload(11, pipelinePartitions)}
	client, err := stream.NewClient(stream.Config{Brokers: enginetest.Kafka(t)})
	if err != nil {
		t.Fatal(err)
	}
	p.client, p.topics = client, stream.NewTopics(enginetest.UniqueName("store")+"_")
	t.Cleanup(client.Close)
	err = client.EnsureTopics(t.Context(), stream.TopicSpec{Name: p.topics.Raw, Partitions: pipelinePartitions},
		stream.TopicSpec{Name: p.topics.Answers, Partitions: pipelinePartitions}, stream.TopicSpec{Name: p.topics.Skills, Partitions: pipelinePartitions},
		stream.TopicSpec{Name: p.topics.ItemSums, Partitions: 1}, stream.TopicSpec{Name: p.topics.Items, Partitions: 1},
		stream.TopicSpec{Name: p.topics.DeadLetters, Partitions: pipelinePartitions})
	if err != nil {
		t.Fatal(err)
	}
	p.run(t)
	return p
}

// run starts the stage, the snapshots and the index of dead letters.
func (p *pipeline) run(t *testing.T) {
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	catalog := transform.NewCatalog()
	snapshots, err := transform.NewSnapshots(transform.SnapshotsConfig{Client: p.client, Topic: p.topics.Items, Persistence: p.store, Catalog: catalog, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	stage, err := transform.NewStage(transform.StageConfig{Client: p.client, Topics: p.topics, Persistence: p.store, Snapshots: snapshots, Catalog: catalog,
		Now: time.Now, CheckpointInterval: 50 * time.Millisecond, NormInterval: 50 * time.Millisecond, Logger: logger,
		DeadLetter: func(ctx context.Context, partition int, reason string, m *stream.Message) error {
			_, err := p.client.Produce(ctx, p.topics.DeadLetters, partition, stream.Message{Value: []byte("sealed"), Headers: []stream.Header{
				{Key: "topic", Value: []byte(p.topics.Answers)}, stream.Int64Header("partition", int64(partition)), stream.Int64Header("offset", m.Offset),
				{Key: "stage", Value: []byte("transform")}, {Key: "reason", Value: []byte(reason)}}})
			return err
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := snapshots.Run(ctx); err != nil {
			t.Errorf("snapshots: %v", err)
		}
	})
	for topic, handler := range map[string]func(int) stream.Handler{p.topics.Answers: stage.Handler, p.topics.DeadLetters: p.store.DeadLetterHandler} {
		consumer, err := stream.NewConsumer(p.client, stream.ConsumerConfig{Group: topic + "-group", Topic: topic, NewHandler: handler,
			IdleInterval: 50 * time.Millisecond, CommitInterval: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := consumer.Run(ctx); err != nil {
				t.Errorf("consumer: %v", err)
			}
		})
	}
	p.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(p.stop)
}

// deliver writes a message to raw, where only its size is of interest here, and
// to answers.
func (p *pipeline) deliver(t *testing.T, partition int, c *answer.Columns) {
	t.Helper()
	p.deliverRaw(t, partition, c.RawOffset, c.Rows)
	var encoder answer.Encoder
	value, err := encoder.AppendAnswers(nil, c)
	if err != nil {
		t.Fatal(err)
	}
	p.deliverAnswers(t, partition, c.RawOffset, c.Rows, answer.SchemaAnswers, value)
}

func (p *pipeline) deliverCommands(t *testing.T, partition int, c *answer.Commands) {
	t.Helper()
	p.deliverRaw(t, partition, c.RawOffset, c.Rows)
	var encoder answer.Encoder
	value, err := encoder.AppendCommands(nil, c)
	if err != nil {
		t.Fatal(err)
	}
	p.deliverAnswers(t, partition, c.RawOffset, c.Rows, answer.SchemaCommands, value)
}

func (p *pipeline) deliverRaw(t *testing.T, partition int, offset int64, rows int) {
	t.Helper()
	got, err := p.client.Produce(t.Context(), p.topics.Raw, partition, stream.Message{Value: []byte("sealed"),
		Headers: []stream.Header{stream.Int64Header(stream.HeaderRows, int64(rows))}})
	if err != nil || got != offset {
		t.Fatalf("Produce to raw = %d, %v, want %d", got, err, offset)
	}
}

func (p *pipeline) deliverAnswers(t *testing.T, partition int, rawOffset int64, rows int, schema string, value []byte) {
	t.Helper()
	_, err := p.client.Produce(t.Context(), p.topics.Answers, partition, stream.Message{Value: value, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(schema)}, stream.Int64Header(stream.HeaderRawOffset, rawOffset), stream.Int64Header(stream.HeaderKeyEpoch, 1),
		stream.DigestHeader(value), stream.Int64Header(stream.HeaderRows, int64(rows))}})
	if err != nil {
		t.Fatal(err)
	}
}

// check runs the comparison and returns its lines by name.
func (p *pipeline) check(t *testing.T, wait time.Duration) (map[string]store.Line, error) {
	t.Helper()
	lines := make(map[string]store.Line)
	err := p.store.Check(t.Context(), store.Sources{Client: p.client, Topics: p.topics, Partitions: pipelinePartitions, Wait: wait,
		UnknownTokens: func(_ context.Context, _ int, tokens []answer.Token) (int, error) {
			unknown := 0
			for _, token := range tokens {
				if !p.knows(token) {
					unknown++
				}
			}
			return unknown, nil
		}}, func(l store.Line) {
		if _, twice := lines[l.Check]; twice {
			t.Errorf("check %q reported twice", l.Check)
		}
		lines[l.Check] = l
	})
	return lines, err
}

func (p *pipeline) knows(token answer.Token) bool {
	for _, known := range p.work.learners {
		if known == token {
			return true
		}
	}
	return false
}

func describe(lines map[string]store.Line) string {
	text := ""
	for _, l := range lines {
		text += fmt.Sprintf("\n%v %s: %s", l.OK, l.Check, l.Detail)
	}
	return text
}

// damage runs statements in which {db} is the database.
func (p *pipeline) damage(t *testing.T, statements string) {
	t.Helper()
	for _, s := range strings.Split(strings.ReplaceAll(statements, "{db}", p.store.connection.Database), ";") {
		p.store.execute(t, s)
	}
}
