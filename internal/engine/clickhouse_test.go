package engine_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

func open(t *testing.T, c engine.ClickHouse) driver.Conn {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr: c.Addresses, Auth: clickhouse.Auth{Database: c.Database, Username: c.User, Password: c.Password},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func count(t *testing.T, conn driver.Conn, query string) uint64 {
	t.Helper()
	var n uint64
	if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func execute(t *testing.T, conn driver.Conn, statement string) {
	t.Helper()
	if err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestClickHouseRestartKeepsData(t *testing.T) {
	t.Parallel()
	server := enginetest.StartClickHouse(t)
	before := server.Connection()
	conn := open(t, before)
	execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n")
	execute(t, conn, "INSERT INTO rows SELECT number FROM numbers(1000)")
	server.Stop()
	server.Restart()
	after := server.Connection()
	if fmt.Sprint(after.Addresses, after.Password) != fmt.Sprint(before.Addresses, before.Password) {
		t.Errorf("address or password changed with a restart")
	}
	if n := count(t, conn, "SELECT count() FROM rows"); n != 1000 {
		t.Errorf("rows after restart = %d, want 1000", n)
	}
}

func TestClickHouseKillKeepsAcknowledgedRows(t *testing.T) {
	t.Parallel()
	server := enginetest.StartClickHouse(t)
	c := server.Database()
	conn := open(t, c)
	execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n")
	for round := range 3 {
		acknowledged := make(chan uint64)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(acknowledged)
			for n := range uint64(100_000) {
				if err := conn.Exec(ctx, fmt.Sprintf("INSERT INTO rows SELECT %d", uint64(round)*1_000_000+n)); err != nil {
					return // killed
				}
				acknowledged <- uint64(round)*1_000_000 + n
			}
		}()
		var last uint64
		for range 20 {
			last = <-acknowledged
		}
		server.Kill()
		for n := range acknowledged {
			last = n
		}
		cancel()
		server.Restart()
		from := uint64(round) * 1_000_000
		if got, want := count(t, conn, fmt.Sprintf("SELECT count() FROM rows WHERE n BETWEEN %d AND %d", from, last)), last-from+1; got != want {
			t.Errorf("round %d: %d acknowledged rows after kill, want %d", round, got, want)
		}
	}
}

func TestDefaultUserReadsNothing(t *testing.T) {
	t.Parallel()
	c, database := enginetest.ClickHouse(t)
	conn := open(t, c)
	execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n")
	execute(t, conn, "INSERT INTO rows VALUES (1)")
	anonymous := c
	anonymous.User, anonymous.Password, anonymous.Database = "default", "", ""
	stranger := open(t, anonymous)
	for _, statement := range []string{
		"SELECT * FROM " + database + ".rows",
		"SELECT count() FROM " + database + ".rows",
		"INSERT INTO " + database + ".rows VALUES (2)",
		"DROP DATABASE " + database,
		"CREATE DATABASE mine",
		"CREATE USER mine",
		"BACKUP DATABASE " + database + " TO File('stolen')",
		"SYSTEM DROP MARK CACHE",
		"SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
		"INSERT INTO FUNCTION file('written', 'CSV', 'n UInt8') SELECT 1",
	} {
		if err := stranger.Exec(t.Context(), statement); err == nil {
			t.Errorf("user default may %s", statement)
		} else if code, ok := err.(*clickhouse.Exception); !ok || code.Code != 497 { // ACCESS_DENIED
			t.Errorf("user default: %s: %v, want access denied", statement, err)
		}
	}
}

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	c, database := enginetest.ClickHouse(t)
	conn := open(t, c)
	execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n")
	execute(t, conn, "INSERT INTO rows SELECT number FROM numbers(10)")
	execute(t, conn, "BACKUP TABLE rows TO File('"+database+"')")
	execute(t, conn, "DROP TABLE rows SYNC")
	execute(t, conn, "RESTORE TABLE rows FROM File('"+database+"')")
	if n := count(t, conn, "SELECT count() FROM rows"); n != 10 {
		t.Errorf("rows restored = %d, want 10", n)
	}
	if err := conn.Exec(t.Context(), "BACKUP TABLE rows TO File('/elsewhere')"); err == nil {
		t.Error("a backup may be written outside the backup directory")
	}
}

// TestNoSystemLogs: ClickHouse's logs about itself would grow for ever, take
// processor time, and may quote queries.
func TestNoSystemLogs(t *testing.T) {
	t.Parallel()
	conn := open(t, enginetest.StartClickHouse(t).Connection())
	execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n")
	execute(t, conn, "INSERT INTO rows SELECT number FROM numbers(1000)")
	execute(t, conn, "SYSTEM FLUSH LOGS")
	rows, err := conn.Query(t.Context(), "SELECT name FROM system.tables WHERE database = 'system' AND engine LIKE '%MergeTree'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		t.Errorf("ClickHouse keeps the log system.%s", name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
