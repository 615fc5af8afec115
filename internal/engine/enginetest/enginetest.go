// Package enginetest gives tests real engines. A test binary starts at most one
// Kafka and one ClickHouse, when a test first asks for it, and gives each test
// topics and a database of its own; tests that kill engines get one for
// themselves.
//
// TestMain of the package has to call Main. With LEERSTROOM_TEST_KAFKA=apache
// Kafka is Apache Kafka, else the embedded broker.
//
// Where an engine is not installed, tests that need it are skipped and say what
// to run; with CI=true they fail.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine"
)

// startLimit bounds the start of any engine.
const startLimit = 5 * time.Minute

// shared holds what the tests of this binary share. Tests can't be handed
// anything by TestMain but through a variable.
var shared struct {
	mu         sync.Mutex
	dir        string
	broker     stopper
	brokers    []string
	brokerErr  error
	server     *engine.ClickHouseServer
	serverErr  error
	underMain  bool
	topicCount int
	baseCount  int
}

type stopper interface{ Close() error }

// Main runs the tests of a package and stops the engines that they started.
// TestMain returns after it; the testing package exits with the result.
func Main(m *testing.M) {
	engine.RunIfChild()
	shared.underMain = true
	m.Run()
	if err := stopShared(); err != nil {
		// Nobody else can say it: the tests are over.
		fmt.Fprintln(os.Stderr, "enginetest:", err)
	}
}

func stopShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	var errs []error
	if shared.broker != nil {
		errs = append(errs, shared.broker.Close())
	}
	if shared.server != nil {
		errs = append(errs, shared.server.Close())
	}
	if shared.dir != "" {
		errs = append(errs, os.RemoveAll(shared.dir))
	}
	return errors.Join(errs...)
}

// sharedDir makes the directory of the shared engines; shared.mu is held.
func sharedDir(t testing.TB, name string) string {
	if !shared.underMain {
		t.Fatal("TestMain of this package has to call enginetest.Main")
	}
	if shared.dir == "" {
		dir, err := os.MkdirTemp("", "leerstroom-test-")
		if err != nil {
			t.Fatalf("make directory of the engines: %v", err)
		}
		shared.dir = dir
	}
	return filepath.Join(shared.dir, name)
}

// Missing skips the test because an engine is not installed; with CI=true it
// fails it. Other errors fail it always.
func Missing(t testing.TB, err error) {
	t.Helper()
	absent := errors.Is(err, engine.ErrNoLibrary) || errors.Is(err, engine.ErrNoKafka)
	if absent && os.Getenv("CI") != "true" {
		t.Skipf("SKIPPED: %v", err)
	}
	t.Fatal(err)
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func within(t testing.TB, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}
