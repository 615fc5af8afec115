package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/ch-go"

	"github.com/leerstroom/leerstroom/transform"
)

// Config says how to reach ClickHouse and how much to hold back. The zero value
// of a field that is not needed is useful.
type Config struct {
	Addresses []string    // host:port of the native protocol; servers that are replicas of each other
	Database  string      // empty means leerstroom
	User      string      // empty means default
	Password  string      // of User
	TLS       *tls.Config // nil = no TLS

	// Compress sends blocks with LZ4. It pays between machines; to an engine on
	// this one it costs a fifth of the throughput.
	Compress bool

	// Replicated makes inserts wait for a majority of replicas, and Restore for
	// the replica it reads from to have caught up.
	Replicated bool

	MaxRows  int           // rows of one insert; 0 means 131,072
	MaxDelay time.Duration // longest time that rows wait for more while the server keeps up and no more come; 0 means 500 ms
	Pause    time.Duration // between two batches that are sent for their age while rows keep coming; 0 means four times MaxDelay
	Batches  int           // batches held in memory before writers have to wait; 0 means 4
	InFlight int           // of these, archived at the same time; 0 means 2

	// Timeout is how long ClickHouse may be silent before a query counts as
	// failed; 0 means 30 s.
	Timeout time.Duration

	Logger *slog.Logger // nil logs nothing
}

// DefaultDatabase holds everything but identities.
const DefaultDatabase = "leerstroom"

func (c *Config) complete() {
	c.Database = orDefault(c.Database, DefaultDatabase)
	c.MaxRows = orDefault(c.MaxRows, 131_072)
	c.MaxDelay = orDefault(c.MaxDelay, 500*time.Millisecond)
	c.Pause = orDefault(c.Pause, 4*c.MaxDelay)
	c.Batches = orDefault(c.Batches, 4)
	c.InFlight = orDefault(c.InFlight, 2)
	c.Timeout = orDefault(c.Timeout, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Validate names the field that can't be used.
func (c *Config) Validate() error {
	switch {
	case len(c.Addresses) == 0:
		return errors.New("field addresses: at least one is needed")
	case c.Database != "" && !plainName.MatchString(c.Database):
		return errors.New("field database: want a letter or underscore, then at most 62 letters, digits and underscores")
	case c.MaxRows < 0 || c.MaxRows > 1_000_000:
		return errors.New("field max_rows: want 0 to 1,000,000")
	case c.MaxDelay < 0 || c.MaxDelay > time.Minute:
		return errors.New("field max_delay: want 0 to 1m")
	case c.Pause < 0 || c.Pause > time.Minute:
		return errors.New("field pause: want 0 to 1m")
	case c.Batches < 0 || c.Batches > 64:
		return errors.New("field batches: want 0 to 64")
	case c.InFlight < 0 || c.InFlight > 16:
		return errors.New("field in_flight: want 0 to 16")
	case c.Timeout < 0:
		return errors.New("field timeout: want 0 or more")
	}
	return nil
}

// options are those of a connection. Inserts are synchronous; nothing is
// collapsed or deduplicated at insert: merges and FINAL do that, and it would
// halve the throughput. A message may span any number of months.
func (c *Config) options() []ch.Options {
	settings := map[string]string{
		"async_insert": "0", "optimize_on_insert": "0", "insert_deduplicate": "0", "max_partitions_per_insert_block": "0",
	}
	if c.Replicated {
		settings["insert_quorum"] = "auto"
	}
	var list []ch.Options
	for _, address := range c.Addresses {
		o := ch.Options{Address: address, Database: c.Database, User: c.User, Password: c.Password, TLS: c.TLS,
			ClientName: "leerstroom", ReadTimeout: c.Timeout, DialTimeout: 5 * time.Second, HandshakeTimeout: 10 * time.Second}
		if c.Compress {
			o.Compression = ch.CompressionLZ4
		}
		for key, value := range settings {
			o.Settings = append(o.Settings, ch.Setting{Key: key, Value: value, Important: true})
		}
		list = append(list, o)
	}
	return list
}

// Store writes and reads the database of everything but identities. It is safe
// for concurrent use.
type Store struct {
	config Config
	pool   *pool
	writer *writer

	skillRows atomic.Int64 // of the partition last restored; the next one will have about as many
}

var _ transform.Persistence = (*Store)(nil)

// Open connects to a migrated database. It fails when ClickHouse can't be
// reached before ctx ends.
func Open(ctx context.Context, config Config) (*Store, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	config.complete()
	// A batch at work takes four connections at most; readers take the rest.
	s := &Store{config: config, pool: newPool(config.options(), 4+4*config.InFlight)}
	if err := s.ping(ctx); err != nil {
		s.pool.close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.writer = newWriter(&s.config, s.pool)
	return s, nil
}

// ping tries until ctx ends.
func (s *Store) ping(ctx context.Context) error {
	pause := newBackoff()
	for {
		err := s.pool.do(ctx, ch.Query{Body: "SELECT 1 FORMAT Null"})
		if err == nil || permanent(err) || !pause.wait(ctx) {
			return err
		}
	}
}

// Close writes what was handed over until ctx ends, and gives up what is left:
// its Durable functions are called with ErrClosed. Nobody may use the store
// meanwhile or afterwards.
func (s *Store) Close(ctx context.Context) error {
	err := s.writer.close(ctx)
	s.pool.close()
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// table returns the full name of a table.
func (s *Store) table(name string) string { return s.config.Database + "." + name }

// backoff waits ever longer between attempts: 20 ms to 2 s.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{next: 20 * time.Millisecond} }

// wait returns false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	b.next = min(2*b.next, 2*time.Second)
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
