package pseudonymize_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/store"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

const (
	partitions = 4
	thePart    = 1 // the partition that most tests work on
)

// deployment is a pseudonymize stage's world on real engines.
type deployment struct {
	ring     *keyring.Ring
	key      *seal.PrivateKey
	writer   *raw.Writer
	client   *stream.Client
	brokers  []string
	topics   stream.Topics
	conn     driver.Conn
	native   []ch.Options
	database string
	engines  []pseudonymize.EngineTopic
	logs     *logBuffer
	mint     func(*vault.Digest) (vault.Secret, error)
}

// logBuffer collects everything that is logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.text.Bytes())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func deploy(t testing.TB) *deployment {
	t.Helper()
	connection, database := enginetest.ClickHouse(t)
	return deployOn(t, connection, database)
}

func deployOn(t testing.TB, connection engine.ClickHouse, database string) *deployment {
	t.Helper()
	d := &deployment{ring: freshRing(t), brokers: enginetest.Kafka(t), database: database, logs: new(logBuffer)}
	var err error
	d.key, err = seal.GenerateKey()
	must(t, err)
	d.freshTopics(t)
	d.sealFor(t, d.key)
	options := &clickhouse.Options{Addr: connection.Addresses, DialTimeout: 2 * time.Second,
		Auth: clickhouse.Auth{Username: connection.User, Password: connection.Password}}
	db := clickhouse.OpenDB(options)
	defer db.Close()
	must(t, store.Migrate(t.Context(), db, vault.Schema(), store.MigrateOptions{Database: database}, nil))
	d.conn, err = clickhouse.Open(options)
	must(t, err)
	t.Cleanup(func() { d.conn.Close() })
	d.native = vault.NativeOptions(connection.Addresses, connection.User, connection.Password)
	return d
}

// topic makes a topic. The client remembers for a while what exists, so it is
// replaced by one that asks again.
func (d *deployment) topic(t testing.TB, name string) string {
	topic := enginetest.Topic(t, d.brokers, name, partitions)
	d.connect(t)
	return topic
}

func (d *deployment) connect(t testing.TB) {
	var err error
	d.client, err = stream.NewClient(stream.Config{Brokers: d.brokers})
	must(t, err)
	t.Cleanup(d.client.Close)
}

func (d *deployment) freshTopics(t testing.TB) {
	topic := func(name string) string { return d.topic(t, name) }
	d.topics = stream.Topics{Raw: topic("raw"), Answers: topic("answers"), Registry: topic("registry"), DeadLetters: topic("deadletters")}
}

func (d *deployment) sealFor(t testing.TB, key *seal.PrivateKey) {
	sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: key.Public()})
	must(t, err)
	d.writer = raw.NewWriter(sealer, d.topics.Raw)
}

func (d *deployment) logger() *slog.Logger { return slog.New(slog.NewTextHandler(d.logs, nil)) }

func (d *deployment) vault(t testing.TB) *vault.Vault {
	t.Helper()
	v, err := vault.New(vault.Config{Ring: d.ring, Client: d.client, Topic: d.topics.Registry, Conn: d.conn, Native: d.native,
		Database: d.database, Mint: d.mint, Logger: d.logger()})
	must(t, err)
	return v
}

func (d *deployment) stage(t testing.TB) *pseudonymize.Stage {
	t.Helper()
	s, err := pseudonymize.NewStage(pseudonymize.StageConfig{Client: d.client, Topics: d.topics, Partitions: partitions, Ring: d.ring,
		Vault: d.vault(t), PrivateKeys: []*seal.PrivateKey{d.key}, Engines: d.engines, SyncEvery: time.Millisecond, Logger: d.logger()})
	must(t, err)
	return s
}

// schoolsOf returns n schools of a partition.
func schoolsOf(partition, n int) []string {
	var out []string
	for i := 0; len(out) < n; i++ {
		if school := fmt.Sprintf("%02dAB%02d", i/100%100, i%100); answer.PartitionOf(school, partitions) == partition {
			out = append(out, school)
		}
	}
	return out
}

func dictionary(r *rand.Rand, rows, values int, name string) answer.Strings {
	s := answer.Strings{}
	for i := range values {
		s.Values = append(s.Values, fmt.Sprint(name, "-", i))
	}
	for range rows {
		s.Codes = append(s.Codes, int32(r.IntN(values)))
	}
	return s
}

// pupil makes the identity of a pupil under one of the schemes.
func pupil(school string, i int, scheme raw.Scheme) raw.Identity {
	id := raw.Identity{School: school, Identifier: raw.Identifier{Scheme: scheme, Value: fmt.Sprintf("las-%s-%05d", school, i)}}
	switch scheme {
	case raw.SchemeECKID:
		id.Value = fmt.Sprintf("https://ketenid.nl/201703/%x", sha512.Sum512(fmt.Append(nil, school, i)))
	case raw.SchemePublisher:
		id.Publisher = "publisher-0"
	}
	return id
}

// makeAnswers makes rows of pupils of a partition's schools.
func makeAnswers(r *rand.Rand, partition, rows, pupils int) *raw.Answers {
	a := &raw.Answers{}
	a.Rows = rows
	schools := schoolsOf(partition, 3)
	a.Publisher, a.Group, a.Exercise = dictionary(r, rows, 2, "publisher"), dictionary(r, rows, 5, "group"), dictionary(r, rows, 200, "exercise")
	a.Goal, a.Subject = dictionary(r, rows, 20, "goal"), dictionary(r, rows, 3, "subject")
	a.School = answer.Strings{Values: schools}
	codes := map[int]int32{}
	a.EventID.Offsets = append(a.EventID.Offsets, 0)
	for row := range rows {
		school, n := r.IntN(len(schools)), r.IntN(pupils)
		who := school*pupils + n
		if _, ok := codes[who]; !ok {
			codes[who] = int32(len(a.Identity.Values))
			a.Identity.Values = append(a.Identity.Values, pupil(schools[school], n, raw.Scheme(1+n%4)))
		}
		a.Identity.Codes = append(a.Identity.Codes, codes[who])
		a.School.Codes = append(a.School.Codes, int32(school))
		a.YearGroup = append(a.YearGroup, uint8(1+n%8))
		a.Kind = append(a.Kind, uint8(answer.KindPractice))
		a.Score = append(a.Score, float64(r.IntN(2)))
		a.Attempt = append(a.Attempt, 1)
		a.ResponseTime = append(a.ResponseTime, int32(r.IntN(60_000)))
		a.AnsweredAt = append(a.AnsweredAt, 1_790_000_000_000+int64(r.IntN(1_000_000_000)))
		a.Revision = append(a.Revision, 0)
		a.EventID.Bytes = fmt.Appendf(a.EventID.Bytes, "event-%d-%d", r.Uint64(), row)
		a.EventID.Offsets = append(a.EventID.Offsets, int32(len(a.EventID.Bytes)))
	}
	return a
}

func makeResults(r *rand.Rand, partition, rows, pupils int) *raw.TestResults {
	a := makeAnswers(r, partition, rows, pupils)
	t := &raw.TestResults{EventID: a.EventID, Identity: a.Identity}
	t.Rows, t.Publisher, t.School, t.Group, t.Subject = rows, a.Publisher, a.School, a.Group, a.Subject
	t.Test, t.TestName, t.Part = dictionary(r, rows, 4, "test"), dictionary(r, rows, 4, "name"), dictionary(r, rows, 3, "part")
	t.YearGroup, t.Revision, t.Score = a.YearGroup, a.Revision, a.Score
	for range rows {
		t.Path = append(t.Path, []string{"blok 3", "bewerkingen"})
		t.TakenOn = append(t.TakenOn, 20_000)
		t.MaxScore = append(t.MaxScore, 20)
		t.Made, t.Right, t.Wrong = append(t.Made, 20), append(t.Right, 17), append(t.Wrong, 3)
		t.DurationS = append(t.DurationS, -1)
		t.NormKinds, t.NormValues = append(t.NormKinds, []string{"vaardigheidsscore"}), append(t.NormValues, []float64{83})
	}
	return t
}

func (d *deployment) sealAnswers(t testing.TB, partition int, a *raw.Answers) stream.Message {
	t.Helper()
	value, err := d.writer.AppendAnswers(nil, partition, a)
	must(t, err)
	return stream.Message{Value: value, Headers: []stream.Header{{Key: stream.HeaderSchema, Value: []byte(raw.SchemaAnswers)}}}
}

func (d *deployment) sealResults(t testing.TB, partition int, a *raw.TestResults) stream.Message {
	t.Helper()
	value, err := d.writer.AppendTestResults(nil, partition, a)
	must(t, err)
	return stream.Message{Value: value, Headers: []stream.Header{{Key: stream.HeaderSchema, Value: []byte(raw.SchemaTestResults)}}}
}

func (d *deployment) send(t testing.TB, partition int, messages ...stream.Message) {
	t.Helper()
	_, err := d.client.Produce(t.Context(), d.topics.Raw, partition, messages...)
	must(t, err)
}

// load is what tests push: the messages as they were before sealing, in order.
type load struct {
	answers map[int]*raw.Answers // by raw offset
	results map[int]*raw.TestResults
	n       int
}

// push sends n messages, every fifth of them test results.
func (d *deployment) push(t testing.TB, r *rand.Rand, partition, n int) *load {
	t.Helper()
	l := &load{answers: map[int]*raw.Answers{}, results: map[int]*raw.TestResults{}, n: n}
	for i := range n {
		if i%5 == 4 {
			l.results[i] = makeResults(r, partition, 1+r.IntN(20), 40)
			d.send(t, partition, d.sealResults(t, partition, l.results[i]))
		} else {
			l.answers[i] = makeAnswers(r, partition, 1+r.IntN(60), 40)
			d.send(t, partition, d.sealAnswers(t, partition, l.answers[i]))
		}
	}
	return l
}

// read returns all messages of a partition, copied.
func (d *deployment) read(t testing.TB, topic string, partition int) []stream.Message {
	t.Helper()
	first, end, err := d.client.Offsets(t.Context(), topic, partition)
	must(t, err)
	var all []stream.Message
	var batch stream.Batch
	for next := first; next < end; {
		must(t, d.client.Fetch(t.Context(), topic, partition, next, time.Second, &batch))
		for _, m := range batch.Messages {
			m.Value = bytes.Clone(m.Value)
			all = append(all, m)
			next = m.Offset + 1
		}
	}
	return all
}

// work runs the stage over a partition until raw's end, in cuts of random size.
func work(ctx context.Context, d *deployment, s *pseudonymize.Stage, partition int, r *rand.Rand) error {
	h := s.Handler(partition)
	defer h.Stop()
	next, err := h.Start(ctx, &stream.Assignment{Topic: d.topics.Raw, Partition: partition, Committed: -1})
	if err != nil {
		return err
	}
	_, end, err := d.client.Offsets(ctx, d.topics.Raw, partition)
	if err != nil {
		return err
	}
	var batch stream.Batch
	for next < end {
		if err := d.client.Fetch(ctx, d.topics.Raw, partition, next, time.Second, &batch); err != nil {
			return err
		}
		messages := batch.Messages
		for len(messages) > 0 {
			n := 1 + r.IntN(len(messages))
			if err := h.Handle(ctx, messages[:n]); err != nil {
				return err
			}
			next = messages[n-1].Offset + 1
			messages = messages[n:]
		}
	}
	return h.Idle(ctx)
}

var errCrash = errors.New("crash")

// repeat prints how to run a random test again, and returns its generator.
func repeat(t testing.TB) *rand.Rand {
	seed := uint64(1)
	if text := seedFlag(); text != 0 {
		seed = text
	}
	t.Logf("repeat with: LEERSTROOM_TEST_SEED=%d go test -run '^%s$' ./pseudonymize", seed, t.Name())
	return rand.New(rand.NewPCG(seed, 1))
}

// roster makes lines without names.
func roster(lines [][]vault.Alias) []vault.RosterLine {
	out := make([]vault.RosterLine, len(lines))
	for i := range lines {
		out[i].Aliases = lines[i]
	}
	return out
}
