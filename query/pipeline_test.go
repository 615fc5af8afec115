package query_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

const pipelinePartitions = 4

// pipeline is the real line from the topic answers to the read model: Kafka,
// ClickHouse, store, transform stage and reducer.
type pipeline struct {
	client *stream.Client
	topics stream.Topics
	store  *store.Store
	random *rand.Rand
	next   [pipelinePartitions]int64 // raw offset
	truth  map[string]float64        // difficulty of an item key
	skills []float64
	events uint64
	at     int64
}

func newPipeline(t *testing.T) *pipeline {
	t.Helper()
	p := &pipeline{random: seeded(t), truth: map[string]float64{}, at: monday.UnixMilli()}
	for range 300 {
		p.skills = append(p.skills, p.random.NormFloat64())
	}
	for i := range 40 {
		p.truth[answer.ItemKey("bingel", fmt.Sprintf("som-%02d", i))] = float64(i)/12 - 3
	}
	brokers := enginetest.Kafka(t)
	connection, _ := enginetest.ClickHouse(t)
	topic := func(name string, partitions int) string { return enginetest.Topic(t, brokers, name, partitions) }
	p.topics = stream.Topics{Answers: topic("answers", pipelinePartitions), Skills: topic("skills", pipelinePartitions),
		ItemSums: topic("sums", 1), Items: topic("items", 1), Raw: "raw", Registry: "registry", DeadLetters: "deadletters"}
	var err error
	if p.client, err = stream.NewClient(stream.Config{Brokers: brokers}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.Close)
	db := clickhouse.OpenDB(&clickhouse.Options{Addr: connection.Addresses,
		Auth: clickhouse.Auth{Username: connection.User, Password: connection.Password}, Settings: clickhouse.Settings{"async_insert": 0}})
	if err := store.Migrate(t.Context(), db, store.Schema(), store.MigrateOptions{Database: connection.Database}, nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	p.store, err = store.Open(t.Context(), store.Config{Addresses: connection.Addresses, User: connection.User, Password: connection.Password, Database: connection.Database})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := p.store.Close(ctx); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return p
}

// background runs something until the test ends.
func background(t *testing.T, what string, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("%s: %v", what, err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// transform starts the stage and the reducer.
func (p *pipeline) transform(t *testing.T) {
	t.Helper()
	catalog := transform.NewCatalog()
	snapshots, err := transform.NewSnapshots(transform.SnapshotsConfig{Client: p.client, Topic: p.topics.Items, Persistence: p.store, Catalog: catalog})
	if err != nil {
		t.Fatal(err)
	}
	stage, err := transform.NewStage(transform.StageConfig{Client: p.client, Topics: p.topics, Persistence: p.store, Snapshots: snapshots,
		Catalog: catalog, Now: time.Now, CheckpointInterval: 200 * time.Millisecond, SumsInterval: 50 * time.Millisecond,
		DeadLetter: func(_ context.Context, _ int, reason string, m *stream.Message) error {
			t.Errorf("dead letter at offset %d: %s", m.Offset, reason)
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	reducer, err := transform.NewReducer(transform.ReducerConfig{Client: p.client, Topics: p.topics, Persistence: p.store,
		Partitions: pipelinePartitions, Now: time.Now, Interval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	background(t, "snapshots", snapshots.Run)
	for group, c := range map[string]stream.ConsumerConfig{
		"answers": {Topic: p.topics.Answers, NewHandler: stage.Handler}, "sums": {Topic: p.topics.ItemSums, NewHandler: reducer.Handler},
	} {
		c.Group, c.Workers = enginetest.UniqueName(group), 2
		consumer, err := stream.NewConsumer(p.client, c)
		if err != nil {
			t.Fatal(err)
		}
		background(t, group, func(ctx context.Context) error {
			select {
			case <-snapshots.Ready():
				return consumer.Run(ctx)
			case <-ctx.Done():
				return nil
			}
		})
	}
}

// produce sends a message of answers to each partition.
func (p *pipeline) produce(t *testing.T, rows int) {
	t.Helper()
	var encoder answer.Encoder
	for partition := range pipelinePartitions {
		value, err := encoder.AppendAnswers(nil, p.columns(partition, rows))
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.client.Produce(t.Context(), p.topics.Answers, partition, stream.Message{Value: value, Headers: []stream.Header{
			{Key: stream.HeaderSchema, Value: []byte(answer.SchemaAnswers)}, stream.Int64Header(stream.HeaderRawOffset, p.next[partition]),
			stream.Int64Header(stream.HeaderKeyEpoch, 1), stream.DigestHeader(value),
		}})
		if err != nil {
			t.Fatal(err)
		}
		p.next[partition]++
	}
}

// columns makes answers of the learners of a partition; every learner belongs to
// one.
func (p *pipeline) columns(partition, rows int) *answer.Columns {
	c := &answer.Columns{KeyEpoch: 1, RawOffset: p.next[partition]}
	c.Rows = rows
	one := func(s *answer.Strings, value string) {
		*s = answer.Strings{Codes: make([]int32, rows), Values: []string{value}}
	}
	one(&c.Publisher, "bingel")
	one(&c.School, fmt.Sprintf("%02dAB00", partition))
	one(&c.Group, "5A")
	one(&c.Goal, "optellen")
	one(&c.Subject, "rekenen")
	for i := range 40 {
		c.Exercise.Values = append(c.Exercise.Values, fmt.Sprintf("som-%02d", i))
	}
	for n := partition; n < len(p.skills); n += pipelinePartitions {
		c.Learner.Values = append(c.Learner.Values, token(n))
	}
	for range rows {
		item, code := p.random.IntN(40), p.random.IntN(len(c.Learner.Values))
		c.Exercise.Codes = append(c.Exercise.Codes, int32(item))
		c.Learner.Codes = append(c.Learner.Codes, int32(code))
		skill := p.skills[partition+code*pipelinePartitions]
		score := 0.0
		if p.random.Float64() < 1/(1+math.Exp(p.truth[answer.ItemKey("bingel", c.Exercise.Values[item])]-skill)) {
			score = 1
		}
		p.events++
		p.at += 10
		var id answer.EventID
		binary.LittleEndian.PutUint64(id[:], p.events)
		c.EventID = append(c.EventID, id)
		c.YearGroup = append(c.YearGroup, 5)
		c.Kind = append(c.Kind, uint8(answer.KindPractice))
		c.Score = append(c.Score, score)
		c.Attempt = append(c.Attempt, 1)
		c.ResponseTime = append(c.ResponseTime, 4000)
		c.AnsweredAt = append(c.AnsweredAt, p.at)
		c.Revision = append(c.Revision, 0)
	}
	return c
}

// follow makes a model that follows.
func (p *pipeline) follow(t *testing.T) (m *query.ReadModel, stop func()) {
	t.Helper()
	m = query.NewReadModel(query.Config{Partitions: pipelinePartitions, Now: func() time.Time { return monday }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	source := query.Source{Restore: p.store.Restore, LoadSnapshot: p.store.LoadSnapshot}
	return m, background(t, "follow", func(ctx context.Context) error { return m.Follow(ctx, p.client, p.topics, source) })
}

// answered returns how many answers the model knows of.
func (p *pipeline) answered(m *query.ReadModel) (n int) {
	for i := range p.skills {
		if s, ok := m.Standing(token(i)); ok {
			n += int(s.Percentiles[0].Answers)
		}
	}
	return n
}

// From answers on Kafka to what is served: skills and difficulties go the right
// way, a model that starts later or again knows the same, and readiness tells
// when it has caught up.
func TestFollowingTheRealPipeline(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	p.transform(t)
	early, _ := p.follow(t)
	const messages, rows = 15, 400
	const total = messages * rows * pipelinePartitions
	for range messages {
		before := early.SnapshotVersion()
		p.produce(t, rows)
		// Skills that moved against difficulties from before the first answers
		// would stay off: let the difficulties keep up, as they do in life.
		enginetest.Eventually(t, time.Minute, "a new item snapshot", func() error {
			if early.SnapshotVersion() == before {
				return errors.New("still the same version")
			}
			return nil
		})
	}
	arrived := func(m *query.ReadModel, want int) func() error {
		return func() error {
			if got := p.answered(m); got != want || !m.Ready() {
				return fmt.Errorf("the model knows %d answers of %d, ready = %v", got, want, m.Ready())
			}
			return nil
		}
	}
	enginetest.Eventually(t, time.Minute, "answers in the model", arrived(early, total))
	enginetest.Eventually(t, time.Minute, "difficulties in the model", func() error {
		if early.Items() < 40 {
			return errors.New("exercises are missing")
		}
		return p.checkDirections(early)
	})
	late, stop := p.follow(t)
	enginetest.Eventually(t, time.Minute, "answers in a model that starts later", arrived(late, total))
	stop()
	p.produce(t, rows)
	enginetest.Eventually(t, time.Minute, "new answers in the first model", arrived(early, total+rows*pipelinePartitions))
	again, _ := p.follow(t)
	shown, _ := p.followShown(t)
	for name, loaded := range map[string]*query.ReadModel{"one that loaded": again, "one that was shown what others restored": shown} {
		enginetest.Eventually(t, time.Minute, "all answers in "+name, arrived(loaded, total+rows*pipelinePartitions))
		for n := range p.skills {
			a, _ := early.Standing(token(n))
			b, _ := loaded.Standing(token(n))
			if fmt.Sprint(a) != fmt.Sprint(b) {
				t.Fatalf("learner %d: a model that followed and %s differ:\n%+v\n%+v", n, name, a, b)
			}
		}
	}
}

// followShown starts a model that is shown all partitions but one, and restores
// that one by itself.
func (p *pipeline) followShown(t *testing.T) (m *query.ReadModel, stop func()) {
	t.Helper()
	m = query.NewReadModel(query.Config{Partitions: pipelinePartitions, Now: func() time.Time { return monday }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	const alone = 2
	source := query.Source{LoadSnapshot: p.store.LoadSnapshot,
		Restore: func(ctx context.Context, partition int) (transform.Restored, error) {
			if partition != alone {
				t.Errorf("partition %d was restored a second time", partition)
			}
			return p.store.Restore(ctx, partition)
		},
		Await: func(ctx context.Context, partition int, take func(*transform.Restored)) bool {
			if partition == alone {
				return false
			}
			restored, err := p.store.Restore(ctx, partition)
			if err != nil {
				t.Error(err)
				return false
			}
			take(&restored)
			return true
		}}
	return m, background(t, "follow", func(ctx context.Context) error { return m.Follow(ctx, p.client, p.topics, source) })
}

// checkDirections holds the served estimates against the truth of the
// simulation.
func (p *pipeline) checkDirections(m *query.ReadModel) error {
	var estimates, truths []float64
	for n, truth := range p.skills {
		s, ok := m.Standing(token(n))
		if !ok {
			return fmt.Errorf("learner %d is missing", n)
		}
		estimates, truths = append(estimates, s.Percentiles[0].Skill), append(truths, truth)
	}
	if r := correlation(estimates, truths); r < 0.9 {
		return fmt.Errorf("skills correlate %.3f with the truth, want .9", r)
	}
	// What is expected must be what happens, on average over the learners. The
	// limit is wide: it is to find a wrong sign, not to judge the filter.
	sum := 0.0
	for n := range p.skills {
		s, err := m.Next(&query.Request{Learner: token(n), Goal: "optellen", Target: 0.75})
		if err != nil {
			return err
		}
		sum += 1/(1+math.Exp(p.truth[s.Exercise]-p.skills[n])) - s.Expected
	}
	if off := sum / float64(len(p.skills)); math.Abs(off) > 0.1 {
		return fmt.Errorf("true success differs from the expected by %.3f on average", off)
	}
	return nil
}

func correlation(x, y []float64) float64 {
	var sx, sy, sxx, syy, sxy float64
	for i := range x {
		sx, sy = sx+x[i], sy+y[i]
		sxx, syy, sxy = sxx+x[i]*x[i], syy+y[i]*y[i], sxy+x[i]*y[i]
	}
	n := float64(len(x))
	return (sxy - sx*sy/n) / math.Sqrt((sxx-sx*sx/n)*(syy-sy*sy/n))
}
