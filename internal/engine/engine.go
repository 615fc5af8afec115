// Package engine starts Kafka and ClickHouse, or connects to those that run
// elsewhere. It is the only place that knows the difference: everybody else gets
// addresses.
//
// Embedded ClickHouse is the library libchdb, which holds clickhouse-local,
// which can listen. It runs in a child process: this executable, called again
// with the subcommand ChildClickHouse, loads the library and blocks on its
// standard input. The parent holds the other end of that pipe, so the engine
// stops when the parent closes it and also when the parent dies in any way.
//
// Clients reach it through a gate in this process, see gate.go, and it is started
// again when it dies.
//
// Embedded Kafka runs in this process and keeps its log on disk. What it tells is
// on the disk before it is told, see disk.go.
//
// Both listen on loopback only. What they keep lies below Config.DataDir, which
// nobody else may read:
//
//	kafka/                 segments, offsets of groups
//	kafka-port             port of the last run
//	kafka-boot             run of the system that last wrote to kafka/, see torn.go
//	kafka-watermarks.json  next offset of every partition, see watermarks.go
//	clickhouse/data/       tables
//	clickhouse/backups/    what BACKUP may write and RESTORE may read
//	clickhouse/log/        the engine's own log, without the text of queries
//	clickhouse/password    password of our user
//	clickhouse/*.xml       configuration, written anew at every start
//	clickhouse-ports       ports of the last run
//	lock                   held by the process that runs the engines
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config says which engines to use. A zero Config with a DataDir starts both.
type Config struct {
	// DataDir holds the data of embedded engines. It is made when missing, with
	// access for its owner only. Not needed when both engines run elsewhere.
	DataDir string `yaml:"data_dir"`

	Kafka      KafkaConfig      `yaml:"kafka"`
	ClickHouse ClickHouseConfig `yaml:"clickhouse"`

	// LibraryPath is the file libchdb. Empty means that FindLibrary looks for it.
	LibraryPath string `yaml:"library_path"`
}

// KafkaConfig says where Kafka is.
type KafkaConfig struct {
	// Brokers are host:port addresses. Empty starts the embedded broker.
	Brokers []string `yaml:"brokers"`

	// Port of the embedded broker; 0 takes that of the last run if it is free,
	// else any.
	Port int `yaml:"port"`

	// UnsyncedWrites lets the embedded broker acknowledge before the message is
	// on disk. Death of the process loses nothing then either, loss of power
	// may. It is for tests and measurements.
	UnsyncedWrites bool `yaml:"unsynced_writes"`

	sync func(*os.File) error // of the embedded broker; nil outside of tests
}

// ClickHouseConfig says where ClickHouse is and who we are there.
type ClickHouseConfig struct {
	// Addresses are host:port of the native protocol. Empty starts the embedded
	// server.
	Addresses []string `yaml:"addresses"`

	Database     string `yaml:"database"`      // empty means leerstroom
	User         string `yaml:"user"`          // empty means leerstroom
	PasswordFile string `yaml:"password_file"` // embedded: empty generates one

	// Cluster is the name of the cluster in remote_servers. Empty means that
	// there is one server.
	Cluster string `yaml:"cluster"`

	// RemoteServers lists the shards of Cluster, one host:port each, for the
	// embedded server. All must know our user by the same password.
	RemoteServers []string `yaml:"remote_servers"`

	// NativePort and HTTPPort of the embedded server; 0 takes those of the last
	// run if they are free, else any.
	NativePort int `yaml:"native_port"`
	HTTPPort   int `yaml:"http_port"`

	// MemoryRatio is the share of the machine's memory that the embedded server
	// may use; 0 means 0.4.
	MemoryRatio float64 `yaml:"memory_ratio"`

	// UnsyncedWrites lets the embedded server acknowledge an insert before it is
	// on disk. Death of the process loses nothing then either, loss of power
	// may.
	UnsyncedWrites bool `yaml:"unsynced_writes"`

	// HoldMerges is how long after its start the embedded server leaves the parts
	// of tables that it has found as they are, unless ReleaseMerges is called
	// before. 0 = not at all. Who reads much at the start has the processor to
	// itself then.
	HoldMerges time.Duration `yaml:"-"`
}

// Names used where the configuration gives none.
const (
	DefaultDatabase = "leerstroom"
	DefaultUser     = "leerstroom"

	defaultMemoryRatio = 0.4
)

// Embedded tells whether any engine has to be started.
func (c Config) Embedded() bool {
	return len(c.Kafka.Brokers) == 0 || len(c.ClickHouse.Addresses) == 0
}

// Validate reports the first field that can't be right, by its name in the
// configuration file.
func (c Config) Validate() error {
	if c.Embedded() && c.DataDir == "" {
		return errors.New("data_dir: needed by the embedded engines")
	}
	for field, addresses := range map[string][]string{
		"kafka.brokers": c.Kafka.Brokers, "clickhouse.addresses": c.ClickHouse.Addresses, "clickhouse.remote_servers": c.ClickHouse.RemoteServers,
	} {
		if err := checkAddresses(addresses); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
	}
	for field, port := range map[string]int{
		"kafka.port": c.Kafka.Port, "clickhouse.native_port": c.ClickHouse.NativePort, "clickhouse.http_port": c.ClickHouse.HTTPPort,
	} {
		if port < 0 || port > 65535 {
			return fmt.Errorf("%s: %d is not a port", field, port)
		}
	}
	return c.ClickHouse.validate()
}

func (c ClickHouseConfig) validate() error {
	for field, name := range map[string]string{
		"clickhouse.database": c.Database, "clickhouse.user": c.User, "clickhouse.cluster": c.Cluster,
	} {
		if !validName(name) {
			return fmt.Errorf("%s: only letters, digits and _ are allowed", field)
		}
	}
	if c.User == "default" && len(c.Addresses) == 0 {
		return errors.New("clickhouse.user: the embedded server keeps the user default for itself")
	}
	if c.MemoryRatio < 0 || c.MemoryRatio > 1 {
		return fmt.Errorf("clickhouse.memory_ratio: %v is not between 0 and 1", c.MemoryRatio)
	}
	if len(c.RemoteServers) > 0 && c.Cluster == "" {
		return errors.New("clickhouse.cluster: needed with remote_servers")
	}
	return nil
}

func validName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
	})
}

// Engines are running engines, ours or others'.
type Engines struct {
	Brokers    []string
	ClickHouse ClickHouse

	broker *Broker           // nil when Kafka runs elsewhere
	server *ClickHouseServer // nil when ClickHouse runs elsewhere
	lock   *os.File          // of the data directory; nil when nothing was started

	done    chan struct{}
	stop    chan struct{}
	watched sync.WaitGroup
	once    sync.Once
	mu      sync.Mutex
	err     error
	closed  error
}

// Start starts the engines that the configuration does not name addresses for,
// and returns when they answer. For the others it returns the addresses without
// connecting. A nil logger discards. The caller closes the engines. ErrInUse says
// that another process already runs them.
func Start(ctx context.Context, config Config, logger *slog.Logger) (*Engines, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("start engines: %w", err)
	}
	if config.Embedded() {
		if err := privateDir(config.DataDir); err != nil {
			return nil, fmt.Errorf("start engines: %w", err)
		}
	}
	e := &Engines{Brokers: config.Kafka.Brokers, done: make(chan struct{}), stop: make(chan struct{})}
	if config.Embedded() {
		var err error
		if e.lock, err = lockDirectory(config.DataDir); err != nil {
			return nil, fmt.Errorf("start engines: %w", err)
		}
	}
	if err := e.startBoth(ctx, config, logger); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// startBoth starts the engines beside each other: each has much to read.
func (e *Engines) startBoth(ctx context.Context, config Config, logger *slog.Logger) error {
	var both errgroup.Group
	both.Go(func() error { return e.startClickHouse(ctx, config, logger) })
	if len(config.Kafka.Brokers) == 0 {
		both.Go(func() error {
			broker, err := startBroker(config, logger)
			if err == nil {
				e.broker, e.Brokers = broker, []string{broker.Address}
			}
			return err
		})
	}
	return both.Wait()
}

func (e *Engines) startClickHouse(ctx context.Context, config Config, logger *slog.Logger) error {
	if len(config.ClickHouse.Addresses) > 0 {
		connection, err := external(config.ClickHouse)
		e.ClickHouse = connection
		return err
	}
	server, err := startServer(ctx, config, logger, true)
	if err != nil {
		return err
	}
	e.server, e.ClickHouse = server, server.ClickHouse
	e.watched.Go(func() {
		select {
		case <-server.Done():
			e.fail(fmt.Errorf("embedded clickhouse ended: %w; its log is in %s", server.Err(), filepath.Join(config.DataDir, "clickhouse", "log")))
		case <-e.stop:
		}
	})
	return nil
}

func (e *Engines) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
		close(e.done)
	}
}

// Done is closed when an embedded engine ended although nobody called Close, and
// starting it again did not help.
func (e *Engines) Done() <-chan struct{} { return e.done }

// Err returns why Done is closed, nil before.
func (e *Engines) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// ReleaseMerges lets the embedded ClickHouse merge parts, and execute mutations,
// that Config told it to put off. It may be called at any time and again.
func (e *Engines) ReleaseMerges() {
	if e.server != nil {
		e.server.ReleaseMerges()
	}
}

// Close stops the engines that Start started and waits for their end. It may be
// called more than once.
func (e *Engines) Close() error {
	e.once.Do(func() {
		close(e.stop)
		e.watched.Wait()
		var errs []error
		if e.broker != nil {
			errs = append(errs, e.broker.Close())
		}
		if e.server != nil {
			errs = append(errs, e.server.Close())
		}
		if e.lock != nil {
			errs = append(errs, unlockDirectory(e.lock))
		}
		e.closed = errors.Join(errs...)
	})
	return e.closed
}

// privateDir makes a directory that only its owner can enter. One that exists
// is narrowed to that.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close data directory to others: %w", err)
	}
	return nil
}
