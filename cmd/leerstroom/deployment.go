package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/handover"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

// deployment is what the stages of one process share: where the engines are,
// and connections that are made when first needed. close undoes all of it.
type deployment struct {
	config  *configuration
	layout  layout
	logger  *slog.Logger
	allowed *authorisations
	engines *engine.Engines
	client  *stream.Client
	names   stream.Topics
	attach  bool // use the embedded engines of another process if there are any

	readings *readings // of the stages of this process

	// What stages of this process read of partitions, for others that need the same.
	// nil when there are no others.
	restored   *handover.Handover[*transform.Restored]
	registries *vault.Handover

	mutex     sync.Mutex // of the connections that stages open
	vaultConn driver.Conn
	closers   []func() error // in the order of opening
}

// openDeployment starts or reaches the engines, makes the topics and brings
// both databases to the newest version of their schema.
func openDeployment(ctx context.Context, config *configuration, paths layout, logger *slog.Logger) (*deployment, error) {
	return open(ctx, &deployment{config: config, layout: paths, logger: logger, names: config.names()})
}

// attachDeployment does the same beside a process that runs the engines, and
// starts them when there is none.
func attachDeployment(ctx context.Context, config *configuration, paths layout, logger *slog.Logger) (*deployment, error) {
	return open(ctx, &deployment{config: config, layout: paths, logger: logger, names: config.names(), attach: true})
}

func open(ctx context.Context, d *deployment) (*deployment, error) {
	if err := d.layout.prepare(); err != nil {
		return nil, err
	}
	d.config.Engine.DataDir = d.layout.data
	d.allowed = newAuthorisations(d.config, d.logger)
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *deployment) open(ctx context.Context) error {
	engines, err := engine.Start(ctx, d.config.Engine, d.logger)
	if d.attach && errors.Is(err, engine.ErrInUse) {
		engines, err = engine.Attach(d.config.Engine)
	}
	if err != nil {
		return err
	}
	d.engines = engines
	d.closers = append(d.closers, engines.Close)
	d.client, err = stream.NewClient(stream.Config{Brokers: engines.Brokers, ClientID: "leerstroom", Logger: d.logger})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { d.client.Close(); return nil })
	if err := d.client.EnsureTopics(ctx, d.config.specs()...); err != nil {
		return err
	}
	return d.migratePatiently(ctx)
}

// awaitClickHouse is how long ClickHouse may be away when a command begins.
const awaitClickHouse = time.Minute

// migratePatiently tries again while ClickHouse can't be reached: it may be
// starting, or somebody else's restart may be under way.
func (d *deployment) migratePatiently(ctx context.Context) error {
	for began := time.Now(); ; {
		err := d.migrate(ctx)
		if err == nil || !unreachable(err) || time.Since(began) > awaitClickHouse {
			return err
		}
		d.logger.WarnContext(ctx, "clickhouse can't be reached, trying again", "error", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// unreachable tells whether an error is of the connection and not of a statement.
func unreachable(err error) bool {
	const networkError = 210 // how ClickHouse, and the gate before the embedded one, call it
	var exception *clickhouse.Exception
	if errors.As(err, &exception) {
		return exception.Code == networkError
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// migrate brings the databases of the store and of the vault up to date.
func (d *deployment) migrate(ctx context.Context) error {
	db := clickhouse.OpenDB(d.options("default"))
	defer db.Close()
	for _, m := range []struct {
		database string
		schema   fs.FS
	}{{d.engines.ClickHouse.Database, store.Schema()}, {d.vaultDatabase(), vault.Schema()}} {
		if err := d.migrateOne(ctx, db, m.database, m.schema); err != nil {
			return err
		}
	}
	return nil
}

// vaultDatabase is beside the one of everything but identities, so that several
// deployments can share one ClickHouse.
func (d *deployment) vaultDatabase() string { return d.engines.ClickHouse.Database + "_vault" }

func (d *deployment) migrateOne(ctx context.Context, db *sql.DB, database string, schema fs.FS) error {
	return store.Migrate(ctx, db, schema, store.MigrateOptions{
		Database: database, Cluster: d.engines.ClickHouse.Cluster, Replicated: d.config.Replicated}, d.logger)
}

func (d *deployment) options(database string) *clickhouse.Options {
	c := d.engines.ClickHouse
	return &clickhouse.Options{Addr: c.Addresses, Auth: clickhouse.Auth{Database: database, Username: c.User, Password: c.Password},
		DialTimeout: 5 * time.Second}
}

// close ends everything that was opened, the newest first.
func (d *deployment) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	d.closers = nil
	return errors.Join(errs...)
}

// openStore connects to the database of everything but identities.
func (d *deployment) openStore(ctx context.Context) (*store.Store, error) {
	c := d.engines.ClickHouse
	return store.Open(ctx, store.Config{Addresses: c.Addresses, Database: c.Database, User: c.User, Password: c.Password,
		Replicated: d.config.Replicated, Logger: d.logger})
}

// closeTimeout is how long the store may take to write what it was handed.
const closeTimeout = 10 * time.Second

// closeStore closes a store even when ctx has ended, and joins what goes wrong to
// the error of its user.
func closeStore(ctx context.Context, s *store.Store, err *error) {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	*err = errors.Join(*err, s.Close(closing))
}

// loadKeyset loads the keyset, through its key service if there is one.
func (d *deployment) loadKeyset() (*keyring.Ring, error) {
	return keyring.LoadWith(d.layout.tokenKeys(), d.config.Keys.Service())
}

// openVault connects to the registry of identities. The keyset must exist.
func (d *deployment) openVault() (*vault.Vault, *keyring.Ring, error) {
	ring, err := d.loadKeyset()
	if err != nil {
		return nil, nil, err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.vaultConn == nil {
		conn, err := clickhouse.Open(d.options("default"))
		if err != nil {
			return nil, nil, fmt.Errorf("connect to the vault: %w", err)
		}
		d.vaultConn = conn
		d.closers = append(d.closers, conn.Close)
	}
	c := d.engines.ClickHouse
	v, err := vault.New(vault.Config{Ring: ring, Client: d.client, Topic: d.names.Registry, Database: d.vaultDatabase(), Conn: d.vaultConn,
		Native: vault.NativeOptions(c.Addresses, c.User, c.Password), Restored: d.registries, Logger: d.logger})
	return v, ring, err
}

// openAudit opens the log of who saw which learners, until the deployment closes.
func (d *deployment) openAudit() (*audit.Log, error) {
	log, err := audit.Open(d.layout.audit(), d.config.Audit, d.logger)
	if err != nil {
		return nil, err
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.closers = append(d.closers, log.Close)
	return log, nil
}

// createKeys makes the keys of a new deployment. Only commands that begin one may
// call it; a stage that misses its key must stop instead. A deployment is new when
// nothing was sealed for it yet: a keyset that is missing beside a sealing key was
// lost, and a new one would open nothing.
func (d *deployment) createKeys() error {
	if fileExists(d.layout.public(sealRaw)) {
		_, err := d.loadKeyset()
		return err
	}
	return d.audited(audit.Record{Action: audit.ActionKeysCreate}, func(*audit.Record) error { return d.makeKeys() })
}

func (d *deployment) makeKeys() error {
	if !fileExists(d.layout.tokenKeys()) {
		if _, err := keyring.CreateWith(d.layout.tokenKeys(), d.config.Keys.Service()); err != nil {
			return err
		}
	}
	if fileExists(d.layout.private(sealRaw)) { // a crash came between the two files
		key, err := seal.LoadPrivateKey(d.layout.private(sealRaw))
		if err != nil {
			return err
		}
		return seal.WritePublicKey(d.layout.public(sealRaw), key.Public())
	}
	_, err := seal.CreateKeyFiles(d.layout.private(sealRaw), d.layout.public(sealRaw))
	return err
}

// sealRaw names the key pair that seals and opens `raw` and the dead letters.
const sealRaw = "raw"

// newLogger writes lines that people can read; nothing of a record is in them.
func newLogger(out io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))
}
