package engine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	outside := engine.Config{
		Kafka:      engine.KafkaConfig{Brokers: []string{"kafka-1:9092", "[::1]:9092"}},
		ClickHouse: engine.ClickHouseConfig{Addresses: []string{"clickhouse:9000"}},
	}
	for _, test := range []struct {
		change func(*engine.Config)
		field  string // "" = valid
	}{
		{func(*engine.Config) {}, ""},
		{func(c *engine.Config) { c.Kafka.Brokers = nil }, "data_dir"},
		{func(c *engine.Config) { c.ClickHouse.Addresses = nil }, "data_dir"},
		{func(c *engine.Config) { *c = engine.Config{DataDir: "d"} }, ""},
		{func(c *engine.Config) { c.Kafka.Brokers = []string{"kafka"} }, "kafka.brokers"},
		{func(c *engine.Config) { c.Kafka.Brokers = []string{":9092"} }, "kafka.brokers"},
		{func(c *engine.Config) { c.ClickHouse.Addresses = []string{"c:0"} }, "clickhouse.addresses"},
		{func(c *engine.Config) { c.Kafka.Port = 65536 }, "kafka.port"},
		{func(c *engine.Config) { c.ClickHouse.HTTPPort = -1 }, "clickhouse.http_port"},
		{func(c *engine.Config) { c.ClickHouse.Database = "a;b" }, "clickhouse.database"},
		{func(c *engine.Config) { c.ClickHouse.Cluster = "<x>" }, "clickhouse.cluster"},
		{func(c *engine.Config) { c.ClickHouse.User = "default" }, ""},
		{func(c *engine.Config) { *c = engine.Config{DataDir: "d"}; c.ClickHouse.User = "default" }, "clickhouse.user"},
		{func(c *engine.Config) { c.ClickHouse.MemoryRatio = 1.1 }, "clickhouse.memory_ratio"},
		{func(c *engine.Config) { c.ClickHouse.RemoteServers = []string{"a:1"} }, "clickhouse.cluster"},
	} {
		config := outside
		test.change(&config)
		err := config.Validate()
		if test.field == "" && err != nil || test.field != "" && (err == nil || !strings.HasPrefix(err.Error(), test.field+":")) {
			t.Errorf("%+v: Validate() = %v, want an error of field %q", config, err, test.field)
		}
	}
}

func TestPasswordIsNotPrinted(t *testing.T) {
	t.Parallel()
	c := engine.ClickHouse{Addresses: []string{"a:1"}, User: "u", Password: "canary"}
	encoded, err := json.Marshal(map[string]any{"c": c})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c, "in", []any{c})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", &c)
	for _, printed := range []string{
		fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s", c, c, c, c), fmt.Sprintf("%v", &c), fmt.Sprintf("%+v", struct{ C engine.ClickHouse }{c}),
		string(encoded), log.String(),
	} {
		if strings.Contains(printed, "canary") {
			t.Errorf("the password is in %q", printed)
		}
		if !strings.Contains(printed, "a:1") {
			t.Errorf("the address is not in %q", printed)
		}
	}
}

func TestStartElsewhereConnectsNowhere(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := engine.Config{
		Kafka:      engine.KafkaConfig{Brokers: []string{"kafka:9092"}},
		ClickHouse: engine.ClickHouseConfig{Addresses: []string{"clickhouse:9000"}, PasswordFile: file, Cluster: "c", User: "u", Database: "d"},
	}
	engines, err := engine.Start(t.Context(), config, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := engines.ClickHouse
	if c.Password != "secret" || c.User != "u" || c.Database != "d" || c.Cluster != "c" || engines.Brokers[0] != "kafka:9092" {
		t.Errorf("engines = %v, brokers %v", c, engines.Brokers)
	}
	if err := errors.Join(engines.Close(), engines.Close()); err != nil {
		t.Error(err)
	}
	config.ClickHouse.PasswordFile += ".missing"
	if _, err := engine.Start(t.Context(), config, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing password file: %v", err)
	}
}

func TestMissingLibraryNamesTheCommand(t *testing.T) {
	t.Chdir(t.TempDir()) // above it is no project
	t.Setenv(engine.LibraryVariable, "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := engine.FindLibrary("")
	if !errors.Is(err, engine.ErrNoLibrary) || !strings.Contains(err.Error(), "make engine") || !strings.Contains(err.Error(), engine.LibraryVariable) {
		t.Errorf("FindLibrary = %v", err)
	}
	if _, err := engine.FindLibrary("nowhere.so"); !errors.Is(err, engine.ErrNoLibrary) {
		t.Errorf("FindLibrary(nowhere.so) = %v", err)
	}
	t.Setenv(engine.JarsVariable, "")
	if _, err := engine.FindKafkaJars(""); !errors.Is(err, engine.ErrNoKafka) || !strings.Contains(err.Error(), "make broker") {
		t.Errorf("FindKafkaJars = %v", err)
	}
	if err := os.WriteFile("libchdb.so", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(engine.LibraryVariable, "libchdb.so")
	if path, err := engine.FindLibrary(""); err != nil || !filepath.IsAbs(path) {
		t.Errorf("FindLibrary with variable = %q, %v", path, err)
	}
}

// TestStartAndCloseLeaveNothing starts both engines twice on the same data: the
// addresses stay, nobody else may read the directory, and Close ends all that
// was started.
func TestStartAndCloseLeaveNothing(t *testing.T) {
	leaks := goleak.IgnoreCurrent() // engines that other tests share
	config := engine.Config{DataDir: filepath.Join(t.TempDir(), "data")}
	var first string
	for range 2 {
		engines, err := engine.Start(t.Context(), config, nil)
		if err != nil {
			enginetest.Missing(t, err)
		}
		addresses := fmt.Sprint(engines.Brokers, engines.ClickHouse.Addresses, engines.ClickHouse.HTTPAddress, engines.ClickHouse.Password)
		if first == "" {
			first = addresses
		}
		if addresses != first {
			t.Error("addresses or password differ at the second start")
		}
		if err := engine.AnswersKafka(t.Context(), engines.Brokers[0]); err != nil {
			t.Error(err)
		}
		if err := errors.Join(engines.Close(), engines.Err(), engines.Close()); err != nil {
			t.Error(err)
		}
		for _, a := range append(engines.Brokers, engines.ClickHouse.Addresses...) {
			if conn, err := net.Dial("tcp", a); err == nil {
				t.Errorf("%s still listens: %v", a, conn.Close())
			}
		}
	}
	if left := processesOf(t, config.DataDir); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	checkPrivate(t, config.DataDir)
	goleak.VerifyNone(t, leaks)
}

func checkPrivate(t *testing.T, dir string) {
	t.Helper()
	for path, want := range map[string]os.FileMode{
		".": 0o700, "kafka": 0o700, "clickhouse": 0o700,
		"clickhouse/password": 0o600, "clickhouse/config.xml": 0o600, "clickhouse/users.xml": 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Error(err)
		} else if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %o, want %o", path, got, want)
		}
	}
	password, err := os.ReadFile(filepath.Join(dir, "clickhouse/password"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.xml", "users.xml"} {
		text, err := os.ReadFile(filepath.Join(dir, "clickhouse", name))
		if err != nil {
			t.Error(err)
		} else if bytes.Contains(text, bytes.TrimSpace(password)) {
			t.Errorf("the password stands in %s", name)
		}
	}
}

// TestPortOfTheLastRunIsTaken: another port is chosen, unless the configuration
// fixes it.
func TestPortOfTheLastRunIsTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broker, err := engine.StartBrokerProcess(t.Context(), dir, engine.KafkaConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Close(); err != nil {
		t.Fatal(err)
	}
	squatter, err := net.Listen("tcp", broker.Address)
	if err != nil {
		t.Skipf("SKIPPED: somebody else took %s meanwhile", broker.Address)
	}
	defer func() {
		if err := squatter.Close(); err != nil {
			t.Error(err)
		}
	}()
	other, err := engine.StartBrokerProcess(t.Context(), dir, engine.KafkaConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if other.Address == broker.Address {
		t.Error("both have the same address")
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	_, text, err := net.SplitHostPort(broker.Address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.StartBrokerProcess(t.Context(), dir, engine.KafkaConfig{Port: port}); err == nil {
		t.Error("started on a fixed port that is taken")
	}
}

// TestLogHoldsNoQueries: a failed query is in the answer, not in the log.
func TestLogHoldsNoQueries(t *testing.T) {
	t.Parallel()
	server := enginetest.StartClickHouse(t)
	conn := open(t, server.Connection())
	for _, statement := range []string{"SELECT 'canary' FROM nothing", "INSERT INTO nothing VALUES ('canary')", "selekt canary", "SELECT throwIf(1, 'canary')"} {
		if err := conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("%s succeeded", statement)
		}
	}
	server.Stop()
	logs, err := filepath.Glob(filepath.Join(server.DataDir(), "clickhouse", "log", "*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log: %v", err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("canary")) {
			t.Errorf("%s quotes a query:\n%s", filepath.Base(path), text)
		}
	}
}
