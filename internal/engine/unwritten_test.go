package engine_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestStartsAfterAFullDisk empties files as a full disk does: those of databases
// that were made twice, because it failed at first, and of a mutation.
func TestStartsAfterAFullDisk(t *testing.T) {
	t.Parallel()
	server := enginetest.StartClickHouse(t)
	conn := open(t, server.Connection())
	for _, statement := range []string{
		"CREATE DATABASE school",
		"CREATE TABLE school.rows (n UInt64) ENGINE = MergeTree ORDER BY n",
		"INSERT INTO school.rows SELECT number FROM numbers(1000)",
		"SYSTEM STOP MERGES school.rows",
		"ALTER TABLE school.rows DELETE WHERE n < 10 SETTINGS mutations_sync = 0",
	} {
		execute(t, conn, statement)
	}
	server.Kill()
	data := filepath.Join(server.DataDir(), "clickhouse", "data")
	mutations, err := filepath.Glob(filepath.Join(data, "store", "*", "*", "mutation_*.txt"))
	if err != nil || len(mutations) != 1 {
		t.Fatalf("mutations: %v, %v", mutations, err)
	}
	database := filepath.Join(data, "metadata", "school.sql")
	written, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{database, mutations[0]} {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	never := filepath.Join(data, "metadata", "never.sql")
	if err := os.WriteFile(never, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	server.Restart()
	conn = open(t, server.Connection())
	if n := count(t, conn, "SELECT count() FROM school.rows"); n != 1000 {
		t.Errorf("%d rows, want 1000", n)
	}
	if n := count(t, conn, "SELECT count() FROM system.databases WHERE name = 'never'"); n != 0 {
		t.Error("a database that was never made is there")
	}
	if again, err := os.ReadFile(database); err != nil || string(again) != string(written) {
		t.Errorf("the description of the database is %q, %v; was %q", again, err, written)
	}
	execute(t, conn, "ALTER TABLE school.rows DELETE WHERE n < 10 SETTINGS mutations_sync = 1")
	if n := count(t, conn, "SELECT count() FROM school.rows"); n != 990 {
		t.Errorf("%d rows after the change was ordered again, want 990", n)
	}
}
