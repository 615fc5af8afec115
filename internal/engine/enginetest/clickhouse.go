package enginetest

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go"

	"github.com/leerstroom/leerstroom/internal/engine"
)

// ClickHouse returns the server that the tests of this binary share and a new
// database in it, which is dropped when the test ends. The Database field of the
// connection is that database.
func ClickHouse(t testing.TB) (connection engine.ClickHouse, database string) {
	t.Helper()
	connection = sharedServer(t)
	return connection, newDatabase(t, &connection)
}

func sharedServer(t testing.TB) engine.ClickHouse {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil && shared.serverErr == nil {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		// The tests do not cut the power, and a sync per insert is slow.
		config := engine.Config{DataDir: sharedDir(t, "clickhouse"), ClickHouse: engine.ClickHouseConfig{UnsyncedWrites: true}}
		shared.server, shared.serverErr = engine.StartClickHouse(ctx, config, nil)
	}
	if shared.serverErr != nil {
		Missing(t, shared.serverErr)
	}
	return shared.server.ClickHouse
}

func newDatabase(t testing.TB, connection *engine.ClickHouse) string {
	t.Helper()
	name := UniqueName("test")
	admin := *connection
	Execute(t, admin, "CREATE DATABASE "+name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := execute(ctx, admin, "DROP DATABASE IF EXISTS "+name+" SYNC"); err != nil {
			t.Logf("drop database %s: %v", name, err) // a test may have stopped the server
		}
	})
	connection.Database = name
	return name
}

// Execute runs a statement outside any database and fails the test when it
// fails.
func Execute(t testing.TB, connection engine.ClickHouse, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := execute(ctx, connection, statement); err != nil {
		t.Fatalf("execute %q: %v", statement, err)
	}
}

func execute(ctx context.Context, connection engine.ClickHouse, statement string) error {
	client, err := ch.Dial(ctx, ch.Options{Address: connection.Addresses[0], User: connection.User, Password: connection.Password, ReadTimeout: time.Minute})
	if err != nil {
		return err
	}
	err = client.Do(ctx, ch.Query{Body: statement})
	if closeErr := client.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Server is a ClickHouse of one test, which may kill it.
type Server struct {
	t       testing.TB
	config  engine.Config
	process *engine.ClickHouseServer
}

// StartClickHouse starts a server for this test alone. Change the configuration
// with options; the data directory is the test's. It is stopped when the test
// ends.
func StartClickHouse(t testing.TB, options ...func(*engine.Config)) *Server {
	t.Helper()
	s := &Server{t: t, config: engine.Config{DataDir: t.TempDir()}}
	for _, o := range options {
		o(&s.config)
	}
	s.Restart()
	t.Cleanup(s.Stop)
	return s
}

// Connection returns how to connect; it stays when the server is restarted.
func (s *Server) Connection() engine.ClickHouse { return s.process.ClickHouse }

// Process returns the running server, or the one that Kill or Stop ended last.
func (s *Server) Process() *engine.ClickHouseServer { return s.process }

// DataDir returns the data directory.
func (s *Server) DataDir() string { return s.config.DataDir }

// Database makes a new database and returns a connection that uses it.
func (s *Server) Database() engine.ClickHouse {
	connection := s.process.ClickHouse
	newDatabase(s.t, &connection)
	return connection
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.process.Kill(); err != nil {
		s.t.Fatalf("kill clickhouse: %v", err)
	}
}

// Stop stops the server in order; it does nothing when it does not run.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.process.Close(); err != nil {
		s.t.Errorf("stop clickhouse: %v", err)
	}
}

// Restart starts the server again on the same data and ports.
func (s *Server) Restart() {
	s.t.Helper()
	process, err := engine.StartClickHouse(within(s.t, startLimit), s.config, logger(s.t))
	if err != nil {
		Missing(s.t, err)
	}
	s.process = process
	s.config.ClickHouse.NativePort = portOf(s.t, process.ClickHouse.Addresses[0])
	s.config.ClickHouse.HTTPPort = portOf(s.t, process.ClickHouse.HTTPAddress)
}

func portOf(t testing.TB, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatalf("address of clickhouse: %v", err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("address of clickhouse: %v", err)
	}
	return port
}
