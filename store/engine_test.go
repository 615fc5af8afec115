package store_test

import (
	"context"
	"database/sql"
	"log/slog"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/store"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// openSQL connects database/sql, for migrations and for looking and damaging.
func openSQL(t testing.TB, connection engine.ClickHouse) *sql.DB {
	t.Helper()
	db := clickhouse.OpenDB(&clickhouse.Options{Addr: connection.Addresses,
		Auth:     clickhouse.Auth{Username: connection.User, Password: connection.Password},
		Settings: clickhouse.Settings{"async_insert": 0}})
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close connection: %v", err)
		}
	})
	return db
}

func configOf(connection engine.ClickHouse) store.Config {
	return store.Config{Addresses: connection.Addresses, User: connection.User, Password: connection.Password, Database: connection.Database}
}

// testStore is a store on a migrated database of its own.
type testStore struct {
	*store.Store
	db         *sql.DB
	connection engine.ClickHouse
}

func openStore(t testing.TB, change func(*store.Config)) testStore {
	t.Helper()
	connection, _ := enginetest.ClickHouse(t)
	return openStoreOn(t, connection, change)
}

func openStoreOn(t testing.TB, connection engine.ClickHouse, change func(*store.Config)) testStore {
	t.Helper()
	db := openSQL(t, connection)
	if err := store.Migrate(t.Context(), db, store.Schema(), store.MigrateOptions{Database: connection.Database}, nil); err != nil {
		t.Fatal(err)
	}
	config := configOf(connection)
	config.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	if change != nil {
		change(&config)
	}
	s, err := store.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return testStore{Store: s, db: db, connection: connection}
}

// number reads one number.
func (s testStore) number(t testing.TB, query string) int64 {
	t.Helper()
	var n int64
	if err := s.db.QueryRowContext(t.Context(), "SELECT toInt64(("+query+"))").Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (s testStore) table(name string) string { return s.connection.Database + "." + name }

// execute runs a statement that waits for mutations.
func (s testStore) execute(t testing.TB, statement string) {
	t.Helper()
	ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2}))
	if _, err := s.db.ExecContext(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
