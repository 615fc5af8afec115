package store_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

var update = flag.Bool("update", false, "write the golden files")

// TestRenderForCluster: the same migrations run on a cluster with replicated
// engines by configuration alone.
func TestRenderForCluster(t *testing.T) {
	t.Parallel()
	rendered, err := store.RenderSchema(store.Schema(), store.MigrateOptions{Database: "leerstroom", Cluster: "scholen", Replicated: true, StoragePolicy: "ssd"})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	names, err := fs.Glob(rendered, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		content, err := fs.ReadFile(rendered, name)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString("-- " + name + "\n" + string(content))
	}
	const golden = "testdata/cluster.sql"
	if *update {
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("the rendered schema differs from %s; look at the difference, then: go test ./store -run TestRenderForCluster -update", golden)
	}
	for _, statement := range strings.Split(text.String(), "-- +goose StatementBegin")[1:] {
		if !strings.Contains(statement, "ON CLUSTER scholen") {
			t.Errorf("runs on one server only: %.80s", statement)
		}
		if strings.Contains(statement, "ENGINE =") && !strings.Contains(statement, "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/") {
			t.Errorf("table is not replicated: %.80s", statement)
		}
	}
}

func TestMigrateRefusesNames(t *testing.T) {
	t.Parallel()
	for field, o := range map[string]store.MigrateOptions{
		"database":       {Database: "a; DROP DATABASE b"},
		"cluster":        {Database: "a", Cluster: "b'"},
		"storage_policy": {Database: "a", StoragePolicy: "b'"},
		"replica_path":   {Database: "a", ReplicaPath: "/x'"},
	} {
		if _, err := store.RenderSchema(store.Schema(), o); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("RenderSchema with a bad %s = %v, want an error that names it", field, err)
		}
	}
	if _, err := store.RenderSchema(fstest.MapFS{}, store.MigrateOptions{Database: "a"}); err == nil {
		t.Error("RenderSchema of nothing succeeded")
	}
}

// TestMigrateTogether: several processes start at the same time, and again
// later; each finds everything there. Every column says what it holds.
func TestMigrateTogether(t *testing.T) {
	t.Parallel()
	connection, database := enginetest.ClickHouse(t)
	db := openSQL(t, connection)
	var migrating sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		migrating.Go(func() {
			errs[i] = store.Migrate(t.Context(), db, store.Schema(), store.MigrateOptions{Database: database}, nil)
		})
	}
	migrating.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), db, store.Schema(), store.MigrateOptions{Database: database}, nil); err != nil {
		t.Fatal(err)
	}
	s := testStore{db: db, connection: connection}
	if n := s.number(t, "SELECT max(version_id) FROM "+s.table("schema_versions")); n != 7 {
		t.Errorf("version %d, want 7", n)
	}
	silent := s.number(t, "SELECT count() FROM system.columns AS c INNER JOIN system.tables AS t ON t.database = c.database AND t.name = c.table"+
		" WHERE c.database = '"+database+"' AND c.comment = '' AND t.engine LIKE '%MergeTree' AND c.table != 'schema_versions'")
	if silent != 0 {
		t.Errorf("%d columns say nothing about themselves", silent)
	}
	for _, view := range []string{"answers_current", "items", "item_components", "item_totals", "norm_totals"} {
		if n := s.number(t, "SELECT count() FROM "+s.table(view)); n != 0 {
			t.Errorf("%s has %d rows, want none", view, n)
		}
	}
}

// TestOtherSchema: another package brings its own schema, with versions of its
// own.
func TestOtherSchema(t *testing.T) {
	t.Parallel()
	connection, database := enginetest.ClickHouse(t)
	db := openSQL(t, connection)
	schema := fstest.MapFS{"00001_x.sql": {Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\nCREATE TABLE {{.Database}}.x {{.OnCluster}} (a UInt8) ENGINE = {{engine \"MergeTree\" \"x\"}} ORDER BY a {{settings}};\n")}}
	for range 2 { // the statement may not be repeated: the second time it is not run
		if err := store.Migrate(t.Context(), db, schema, store.MigrateOptions{Database: database}, nil); err != nil {
			t.Fatal(err)
		}
	}
	schema["00002_y.sql"] = &fstest.MapFile{Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\nCREATE TABEL {{.Database}}.y;\n")}
	if err := store.Migrate(t.Context(), db, schema, store.MigrateOptions{Database: database}, nil); err == nil {
		t.Error("a migration with an error succeeded")
	}
}

// TestTwoServers runs the migrations on two servers that know each other as the
// shards of a cluster, and reads both as one. The embedded engine has no Keeper:
// it refuses ON CLUSTER and replicated tables, so that these are tested as text.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	first := enginetest.StartClickHouse(t)
	connection := first.Database()
	second := enginetest.StartClickHouse(t, func(c *engine.Config) {
		c.ClickHouse.Cluster, c.ClickHouse.RemoteServers = "both", []string{connection.Addresses[0]}
		c.ClickHouse.PasswordFile = passwordFile(t, connection.Password)
	})
	other := second.Connection()
	other.Database = connection.Database
	total := 0
	for i, c := range []engine.ClickHouse{connection, other} {
		s := openStoreOn(t, c, func(c *store.Config) { c.MaxDelay = 10 * time.Millisecond })
		w := newWorkload(uint64(40+i), 1)
		message := w.message(0, 100*(i+1))
		total += message.Rows
		if err := s.Archive(t.Context(), 0, message, nil, nil); err != nil {
			t.Fatal(err)
		}
		call, outcome := durable()
		if err := s.Checkpoint(t.Context(), &transform.Checkpoint{Position: message.Position(message.Rows - 1), Durable: call}); err != nil {
			t.Fatal(err)
		}
		if err := <-outcome; err != nil {
			t.Fatal(err)
		}
	}
	s := testStore{db: openSQL(t, other), connection: other}
	remote := s.number(t, "SELECT count() FROM cluster('both', '"+connection.Database+"', 'answers')")
	local := s.number(t, "SELECT count() FROM "+s.table("answers"))
	if remote+local != int64(total) || remote != 100 {
		t.Errorf("%d answers there and %d here, want 100 and %d", remote, local, total-100)
	}
	err := store.Migrate(t.Context(), s.db, store.Schema(), store.MigrateOptions{Database: "on_both", Cluster: "both"}, nil)
	if err == nil {
		t.Error("the embedded engine has learned ON CLUSTER: test the migrations with it")
	}
}

func passwordFile(t *testing.T, password string) string {
	t.Helper()
	path := t.TempDir() + "/password"
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
