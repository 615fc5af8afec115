package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

// Environment is where a benchmark runs.
type Environment struct {
	Brokers    []string
	ClickHouse engine.ClickHouse
	Dir        string // for keys; made when missing
	Prefix     string // of topics, groups and databases; empty means bench
	Partitions int    // of topics; 0 means 64, as a deployment has by default
	Logger     *slog.Logger
}

// pipeline is the stages of one deployment, with topics, databases and keys of
// its own, so that several can be measured one after the other on the same
// engines. Its stages run in this process, wired as the commands wire them.
type pipeline struct {
	env      *Environment
	name     string
	topics   stream.Topics
	database string
	client   *stream.Client
	conn     clickhouse.Conn
	store    *store.Store
	ring     *keyring.Ring
	private  *seal.PrivateKey
	vault    *vault.Vault

	partitions, workers int
}

// newPipeline makes topics and tables, and keys in a directory of its own.
func newPipeline(ctx context.Context, env *Environment, name string, workers int) (p *pipeline, err error) {
	prefix := env.Prefix
	if prefix == "" {
		prefix = "bench"
	}
	name = prefix + "_" + name
	p = &pipeline{env: env, name: name, topics: stream.NewTopics(name + "-"), database: name, partitions: env.Partitions, workers: workers}
	if p.partitions == 0 {
		p.partitions = 64
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("set up pipeline %s: %w", name, err), p.close(context.WithoutCancel(ctx)))
		}
	}()
	if err := p.makeKeys(); err != nil {
		return p, err
	}
	if p.client, err = stream.NewClient(stream.Config{Brokers: env.Brokers, ClientID: "leerstroom-bench", Logger: env.Logger}); err != nil {
		return p, err
	}
	if err := p.client.EnsureTopics(ctx, p.topicSpecs()...); err != nil {
		return p, err
	}
	if p.conn, err = clickhouse.Open(env.options()); err != nil {
		return p, fmt.Errorf("open clickhouse: %w", err)
	}
	return p, p.openDatabases(ctx)
}

func (p *pipeline) topicSpecs() []stream.TopicSpec {
	t := p.topics
	specs := []stream.TopicSpec{{Name: t.ItemSums, Partitions: 1}, {Name: t.Items, Partitions: 1}}
	for _, name := range []string{t.Raw, t.Answers, t.Registry, t.Skills, t.DeadLetters} {
		specs = append(specs, stream.TopicSpec{Name: name, Partitions: p.partitions, Unsynced: name == t.Skills})
	}
	return specs
}

// extraTopic makes one more topic and returns its name.
func (p *pipeline) extraTopic(ctx context.Context, name string) (string, error) {
	name = p.name + "-" + name
	return name, p.client.EnsureTopics(ctx, stream.TopicSpec{Name: name, Partitions: p.partitions})
}

// options reach the engine as store does: no compression on one machine, inserts
// as they are.
func (e *Environment) options() *clickhouse.Options {
	return &clickhouse.Options{
		Addr: e.ClickHouse.Addresses, Auth: clickhouse.Auth{Username: e.ClickHouse.User, Password: e.ClickHouse.Password},
		MaxOpenConns: 16, ReadTimeout: 10 * time.Minute,
		Settings: clickhouse.Settings{"optimize_on_insert": 0, "insert_deduplicate": 0, "async_insert": 0, "max_partitions_per_insert_block": 0},
	}
}

func (p *pipeline) makeKeys() error {
	dir := filepath.Join(p.env.Dir, p.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of keys: %w", err)
	}
	var err error
	if p.ring, err = keyring.Create(filepath.Join(dir, "tokens.json")); err != nil {
		return err
	}
	p.private, err = seal.GenerateKey()
	return err
}

func (p *pipeline) openDatabases(ctx context.Context) error {
	db := clickhouse.OpenDB(p.env.options())
	defer db.Close()
	if err := store.Migrate(ctx, db, store.Schema(), store.MigrateOptions{Database: p.database}, nil); err != nil {
		return err
	}
	if err := store.Migrate(ctx, db, vault.Schema(), store.MigrateOptions{Database: p.database + "_vault"}, nil); err != nil {
		return err
	}
	var err error
	p.store, err = store.Open(ctx, store.Config{
		Addresses: p.env.ClickHouse.Addresses, Database: p.database, User: p.env.ClickHouse.User,
		Password: p.env.ClickHouse.Password, Logger: p.env.Logger,
	})
	if err != nil {
		return err
	}
	p.vault, err = vault.New(vault.Config{
		Ring: p.ring, Client: p.client, Topic: p.topics.Registry, Conn: p.conn,
		Native:   vault.NativeOptions(p.env.ClickHouse.Addresses, p.env.ClickHouse.User, p.env.ClickHouse.Password),
		Database: p.database + "_vault", Logger: p.env.Logger,
	})
	return err
}

// close drops the databases and releases everything. The topics stay until the
// broker is thrown away.
func (p *pipeline) close(ctx context.Context) error {
	var errs []error
	if p.store != nil {
		errs = append(errs, p.store.Close(ctx))
	}
	if p.conn != nil {
		for _, database := range []string{p.database, p.database + "_vault"} {
			if err := p.conn.Exec(ctx, "DROP DATABASE IF EXISTS "+database+" SYNC"); err != nil {
				errs = append(errs, fmt.Errorf("drop database %s: %w", database, err))
			}
		}
		errs = append(errs, p.conn.Close())
	}
	if p.client != nil {
		p.client.Close()
	}
	return errors.Join(errs...)
}

// fill seals the workload into `raw` and returns the number of rows, and for each
// partition the offset after the last message.
func (p *pipeline) fill(ctx context.Context, w *Workload, messageRows int, progress func(rows int)) (rows int, ends []int64, err error) {
	ends = make([]int64, p.partitions)
	err = p.sealed(w, messageRows, func(partition int, m stream.Message, n int) error {
		offset, err := p.client.Produce(ctx, p.topics.Raw, partition, m)
		if err != nil {
			return err
		}
		rows += n
		ends[partition] = offset + 1
		progress(rows)
		return nil
	})
	if err != nil {
		return rows, nil, fmt.Errorf("fill %s: %w", p.topics.Raw, err)
	}
	return rows, ends, nil
}

// sealed gives each message of the workload to take, with the number of its rows.
// The message is valid until take returns.
func (p *pipeline) sealed(w *Workload, messageRows int, take func(partition int, m stream.Message, rows int) error) error {
	sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: p.private.Public()})
	if err != nil {
		return err
	}
	writer := raw.NewWriter(sealer, p.topics.Raw)
	var message []byte
	for partition, a := range w.RawMessages(p.partitions, messageRows) {
		if message, err = writer.AppendAnswers(message[:0], partition, a); err != nil {
			return err
		}
		m := stream.Message{Value: message, Headers: []stream.Header{
			{Key: stream.HeaderSchema, Value: []byte(raw.SchemaAnswers)}, stream.Int64Header(stream.HeaderRows, int64(a.Rows)),
		}}
		if err := take(partition, m, a.Rows); err != nil {
			return err
		}
	}
	return nil
}

// stages runs stages until stop is called.
type stages struct {
	cancel context.CancelCauseFunc
	ctx    context.Context
	ended  chan error
	count  int
}

func newStages(ctx context.Context) *stages {
	s := &stages{ended: make(chan error, 16)}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// start runs a stage in a goroutine, which stop ends and waits for. When it fails
// the context of all stages ends with its error.
func (s *stages) start(run func(ctx context.Context) error) {
	s.count++
	go func() {
		err := run(s.ctx)
		if err != nil {
			s.cancel(err)
		}
		s.ended <- err
	}()
}

func (s *stages) stop() error {
	s.cancel(context.Canceled)
	var errs []error
	for range s.count {
		if err := <-s.ended; err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// startPseudonymize runs the stage raw → answers.
func (p *pipeline) startPseudonymize(s *stages) (*pseudonymize.Stage, error) {
	stage, err := pseudonymize.NewStage(pseudonymize.StageConfig{
		Client: p.client, Topics: p.topics, Partitions: p.partitions, Ring: p.ring, Vault: p.vault,
		PrivateKeys: []*seal.PrivateKey{p.private}, Logger: p.env.Logger,
	})
	if err != nil {
		return nil, err
	}
	return stage, p.consume(s, "pseudonymize", p.topics.Raw, stage.Handler)
}

// counted is the store, with a count of the rows that were handed to it.
type counted struct {
	*store.Store
	rows atomic.Int64
}

// Archive implements transform.Persistence.
func (c *counted) Archive(ctx context.Context, partition int, columns *answer.Columns, skip []bool, said *transform.Evidence) error {
	c.rows.Add(int64(columns.Rows))
	return c.Store.Archive(ctx, partition, columns, skip, said)
}

// startTransform runs the stage answers → skills, sums and ClickHouse, and the
// reducer of the sums. It returns a count of the rows that have passed.
func (p *pipeline) startTransform(s *stages) (*atomic.Int64, error) {
	persistence := &counted{Store: p.store}
	catalog := transform.NewCatalog()
	snapshots, err := transform.NewSnapshots(transform.SnapshotsConfig{
		Client: p.client, Topic: p.topics.Items, Persistence: persistence, Catalog: catalog, Logger: p.env.Logger,
	})
	if err != nil {
		return nil, err
	}
	stage, err := transform.NewStage(transform.StageConfig{
		Client: p.client, Topics: p.topics, Persistence: persistence, Snapshots: snapshots, Catalog: catalog,
		DeadLetter: func(_ context.Context, partition int, reason string, m *stream.Message) error {
			return fmt.Errorf("benchmark: dead letter in partition %d at offset %d: %s", partition, m.Offset, reason)
		},
		Now: time.Now, Logger: p.env.Logger,
	})
	if err != nil {
		return nil, err
	}
	reducer, err := transform.NewReducer(transform.ReducerConfig{
		Client: p.client, Topics: p.topics, Persistence: persistence, Partitions: p.partitions, Now: time.Now, Logger: p.env.Logger,
	})
	if err != nil {
		return nil, err
	}
	s.start(snapshots.Run)
	if err := p.consume(s, "reduce", p.topics.ItemSums, reducer.Handler); err != nil {
		return nil, err
	}
	return &persistence.rows, p.consume(s, "transform", p.topics.Answers, stage.Handler)
}

func (p *pipeline) consume(s *stages, group, topic string, handler func(partition int) stream.Handler) error {
	consumer, err := stream.NewConsumer(p.client, stream.ConsumerConfig{
		Group: p.name + "-" + group, Topic: topic, Workers: p.workers, NewHandler: handler,
	})
	if err != nil {
		return err
	}
	s.start(consumer.Run)
	return nil
}

// progress returns per partition the offset in `raw` up to which everything is
// stored and scored, -1 for none.
func (p *pipeline) progress(ctx context.Context) (offsets []int64, err error) {
	offsets = make([]int64, p.partitions)
	for i := range offsets {
		offsets[i] = -1
	}
	rows, err := p.conn.Query(ctx, "SELECT partition, max(raw_offset) FROM "+p.database+".progress GROUP BY partition")
	if err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var partition uint16
		var offset int64
		if err := rows.Scan(&partition, &offset); err != nil {
			return nil, fmt.Errorf("read progress: %w", err)
		}
		if int(partition) >= len(offsets) {
			return nil, fmt.Errorf("read progress: partition %d of %d", partition, len(offsets))
		}
		offsets[partition] = offset
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	return offsets, nil
}

// awaitScored waits until progress has reached the end of every partition.
func (p *pipeline) awaitScored(ctx context.Context, ends []int64) error {
	return poll(ctx, 50*time.Millisecond, func() (bool, error) {
		offsets, err := p.progress(ctx)
		if err != nil {
			return false, err
		}
		for partition, end := range ends {
			if offsets[partition] < end-1 {
				return false, nil
			}
		}
		return true, nil
	})
}

// count returns the number of rows in a table of the pipeline's database.
func (p *pipeline) count(ctx context.Context, table string) (uint64, error) {
	var n uint64
	if err := p.conn.QueryRow(ctx, "SELECT count() FROM "+p.database+"."+table).Scan(&n); err != nil {
		return 0, fmt.Errorf("count rows of %s: %w", table, err)
	}
	return n, nil
}
