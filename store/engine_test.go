package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/leerstroom/leerstroom/store"
)

type engine struct{ address, user, password, database string }

var databases atomic.Int64

func freshEngine(t testing.TB) engine {
	e := engine{address: os.Getenv("SCRATCH"), user: "default", database: fmt.Sprintf("test_%d_%d", os.Getpid(), databases.Add(1))}
	db := e.sql(t)
	t.Cleanup(func() { db.Exec("DROP DATABASE IF EXISTS " + e.database + " SYNC"); db.Close() })
	return e
}

func (e engine) sql(t testing.TB) *sql.DB {
	return clickhouse.OpenDB(&clickhouse.Options{Addr: []string{e.address}, Auth: clickhouse.Auth{Username: e.user, Password: e.password}})
}

func (e engine) config() store.Config {
	return store.Config{Addresses: []string{e.address}, User: e.user, Password: e.password, Database: e.database}
}

// openStore migrates a fresh database and opens a store on it.
func openStore(t testing.TB, change func(*store.Config)) (*store.Store, *sql.DB, engine) {
	t.Helper()
	e := freshEngine(t)
	db := e.sql(t)
	t.Cleanup(func() { db.Close() })
	if err := store.Migrate(t.Context(), db, store.Schema(), store.MigrateOptions{Database: e.database}, nil); err != nil {
		t.Fatal(err)
	}
	config := e.config()
	if change != nil {
		change(&config)
	}
	s, err := store.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return s, db, e
}
