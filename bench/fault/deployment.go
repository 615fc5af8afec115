package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// What every deployment of this package has.
const (
	partitions     = 4
	sessionTimeout = 2 * time.Second
	normInterval   = time.Second
	database       = "fault"
	prefix         = "fault-"
)

// deployment is every stage in processes of their own, and the engines.
type deployment struct {
	binary   string
	dir      string
	apache   bool
	disk     *disk  // nil: the engines lie in dir
	engines  string // directory of the engines
	broker   *engine.BrokerProcess
	store    *engine.ClickHouseServer
	storeAt  engine.Config
	port     int // of the broker
	ring     *keyring.Ring
	keys     map[string]string // API key of each publisher
	listen   string            // where ingest listens
	serveAt  string
	members  []*member
	client   *stream.Client // direct, not through a link
	names    stream.Topics
	schools  map[string][]string // authorisations
	timeline func(format string, args ...any)
}

// start makes the engines and begins all stages.
func (d *deployment) start(ctx context.Context, withDisk bool) error {
	d.engines = filepath.Join(d.dir, "engines")
	if withDisk {
		made, err := newDisk(d.dir)
		if err != nil {
			return err
		}
		d.disk, d.engines = made, made.mount
	}
	if err := errors.Join(d.startBroker(ctx), d.startStore(ctx)); err != nil {
		return err
	}
	if err := d.makeKeys(); err != nil {
		return err
	}
	var err error
	d.client, err = stream.NewClient(stream.Config{Brokers: []string{d.brokerAddress()}, ClientID: "fault"})
	if err != nil {
		return err
	}
	d.names = stream.NewTopics(prefix)
	if d.listen, err = freeAddress(); err != nil {
		return err
	}
	if d.serveAt, err = freeAddress(); err != nil {
		return err
	}
	for i, stage := range []string{"ingest", "pseudonymize", "pseudonymize", "transform", "transform", "serve"} {
		if err := d.startMember(i, stage); err != nil {
			return err
		}
	}
	return nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}

func (d *deployment) brokerAddress() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port))
}

func (d *deployment) storeAddress() string { return d.store.ClickHouse.Addresses[0] }

func (d *deployment) startBroker(ctx context.Context) (err error) {
	at := filepath.Join(d.engines, "broker")
	var broker *engine.BrokerProcess
	if d.apache {
		broker, err = engine.StartApacheKafka(ctx, engine.ApacheKafkaConfig{Dir: at, Port: d.port, HeapMB: 256, Synced: true, ShortLived: true,
			// Small logs: the disk is small, and it is filled on purpose.
			Properties: map[string]string{"log.index.size.max.bytes": strconv.Itoa(256 << 10), "log.cleaner.enable": "false"}})
	} else {
		broker, err = engine.StartBrokerProcess(ctx, at, engine.KafkaConfig{Port: d.port})
	}
	if err != nil {
		return err
	}
	d.broker = broker
	_, port, err := net.SplitHostPort(d.broker.Address)
	if err == nil {
		d.port, err = strconv.Atoi(port)
	}
	return err
}

func (d *deployment) startStore(ctx context.Context) error {
	d.storeAt.DataDir = filepath.Join(d.engines, "store")
	d.storeAt.ClickHouse.MemoryRatio = .1
	store, err := engine.StartClickHouse(ctx, d.storeAt, nil)
	if err != nil {
		return err
	}
	d.store = store
	c := &d.storeAt.ClickHouse
	for address, into := range map[string]*int{d.store.ClickHouse.Addresses[0]: &c.NativePort, d.store.ClickHouse.HTTPAddress: &c.HTTPPort} {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("address of clickhouse: %w", err)
		}
		if *into, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("address of clickhouse: %w", err)
		}
	}
	return nil
}

func (d *deployment) data() string { return filepath.Join(d.dir, "data") }

// makeKeys makes what an operator makes before the first start.
func (d *deployment) makeKeys() (err error) {
	at := filepath.Join(d.data(), "keys")
	if err := os.MkdirAll(at, 0o700); err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	if d.ring, err = keyring.Create(filepath.Join(at, "tokens.json")); err != nil {
		return err
	}
	if _, err := seal.CreateKeyFiles(filepath.Join(at, "raw.private"), filepath.Join(at, "raw.public")); err != nil {
		return err
	}
	api, err := access.Open(filepath.Join(d.data(), "apikeys.json"))
	if err != nil {
		return err
	}
	d.keys = make(map[string]string)
	for _, p := range publishers {
		if d.keys[p], _, err = api.Create(access.Scope{Role: access.RolePublisher, Publisher: p}); err != nil {
			return err
		}
	}
	// The password must be readable while the disk has no power.
	password, err := os.ReadFile(filepath.Join(d.storeAt.DataDir, "clickhouse", "password"))
	if err != nil {
		return fmt.Errorf("read password: %w", err)
	}
	return os.WriteFile(d.passwordFile(), password, 0o600)
}

func (d *deployment) passwordFile() string { return filepath.Join(d.dir, "password") }

// startMember begins one process with links of its own.
func (d *deployment) startMember(number int, stage string) error {
	kafka, err := newLink(d.brokerAddress(), true)
	if err != nil {
		return err
	}
	store, err := newLink(d.storeAddress(), false)
	if err != nil {
		return err
	}
	listen := d.listen
	if stage == "serve" {
		listen = d.serveAt
	}
	path := filepath.Join(d.dir, fmt.Sprintf("%d-%s.yaml", number, stage))
	if err := d.configure(path, listen, kafka.address(), store.address()); err != nil {
		return err
	}
	d.members = append(d.members, newMember(stage, d.binary, path+".clock", kafka, store, stage, "--config", path, "--data", d.data()))
	return nil
}

// configure writes the configuration of one process.
func (d *deployment) configure(path, listen, kafka, store string) error {
	text, err := yaml.Marshal(map[string]any{
		"listen": listen, "workers": 2, "session_timeout": sessionTimeout.String(), "norm_interval": normInterval.String(),
		"engine": map[string]any{
			"kafka":      map[string]any{"brokers": []string{kafka}},
			"clickhouse": map[string]any{"addresses": []string{store}, "database": database, "user": d.store.ClickHouse.User, "password_file": d.passwordFile()},
		},
		"topics": map[string]any{"prefix": prefix, "partitions": partitions},
		"ingest": map[string]any{"authorisations": d.schools, "produce_timeout": "5s", "max_batch_rows": 64},
	})
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return os.WriteFile(path, text, 0o600)
}

// of returns the processes of a stage.
func (d *deployment) of(stage string) []*member {
	var found []*member
	for _, m := range d.members {
		if m.stage == stage {
			found = append(found, m)
		}
	}
	return found
}

// losePower takes everything down at once, drops what was never synced, and
// brings it up again. Everything stands still before the disk is gone: the kernel
// lets a sync succeed that it has just given up, and nobody may tell of it.
func (d *deployment) losePower(ctx context.Context) error {
	pids := []int{d.broker.ID(), d.store.ID()}
	for _, m := range d.members {
		m.hold(true)
		pids = append(pids, m.id())
	}
	err := errors.Join(standStill(ctx, pids), d.disk.losePower())
	for _, m := range d.members {
		m.signal(syscall.SIGKILL)
	}
	if err := errors.Join(err, d.broker.Kill(), d.store.Kill()); err != nil {
		return err
	}
	if err := d.disk.restorePower(); err != nil {
		return err
	}
	err = errors.Join(d.startBroker(ctx), d.startStore(ctx))
	for _, m := range d.members {
		m.hold(false)
	}
	return err
}

// reviveEngines starts engines again that ended by themselves, as they may on a
// full disk.
func (d *deployment) reviveEngines(ctx context.Context) error {
	var errs []error
	select {
	case <-d.broker.Done():
		d.timeline("the broker has ended: %v", d.broker.Err())
		errs = append(errs, d.broker.Kill(), d.startBroker(ctx))
	default:
	}
	select {
	case <-d.store.Done():
		d.timeline("the store has ended: %v", d.store.Err())
		errs = append(errs, d.store.Kill(), d.startStore(ctx))
	default:
	}
	return errors.Join(errs...)
}

// close ends everything.
func (d *deployment) close() error {
	var errs []error
	for _, m := range d.members {
		m.stop()
		errs = append(errs, m.kafka.close(), m.store.close())
	}
	if d.client != nil {
		d.client.Close()
	}
	if d.broker != nil {
		errs = append(errs, d.broker.Kill())
	}
	if d.store != nil {
		errs = append(errs, d.store.Kill())
	}
	if d.disk != nil {
		errs = append(errs, d.disk.close())
	}
	return errors.Join(errs...)
}

// printed returns the last lines of every process.
func (d *deployment) printed(lines int) string {
	var out strings.Builder
	for i, m := range d.members {
		fmt.Fprintf(&out, "--- %d %s, ended %d times by itself\n%s\n", i, m.stage, m.ownExits(), m.output.last(lines))
	}
	return out.String()
}

// complaints returns the last warnings and errors in ClickHouse's log.
func (d *deployment) complaints(lines int) string {
	content, err := os.ReadFile(filepath.Join(d.storeAt.DataDir, "clickhouse", "log", "clickhouse.log"))
	if err != nil {
		return fmt.Sprintf("log of clickhouse: %v\n", err)
	}
	var found []string
	for line := range strings.Lines(string(content)) {
		if strings.Contains(line, "<Error>") || strings.Contains(line, "<Warning>") {
			found = append(found, line)
		}
	}
	return "--- clickhouse complains\n" + strings.Join(found[max(0, len(found)-lines):], "")
}

// stacks makes the processes that may hang print what they are doing, and returns
// it.
func (d *deployment) stacks() string {
	var out strings.Builder
	for i, m := range d.members {
		if m.stage != "pseudonymize" && m.stage != "transform" {
			continue
		}
		m.hold(true)
		m.signal(syscall.SIGQUIT)
		time.Sleep(500 * time.Millisecond)
		fmt.Fprintf(&out, "--- %d %s, its goroutines\n%s\n", i, m.stage, m.output.last(1500))
	}
	return out.String()
}
