package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// holding starts a server that puts off merges and finds a table of two parts.
func holding(t *testing.T, limit time.Duration) (*enginetest.Server, driver.Conn) {
	t.Helper()
	server := enginetest.StartClickHouse(t, func(c *engine.Config) { c.ClickHouse.HoldMerges = limit })
	conn := open(t, server.Database())
	execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n")
	execute(t, conn, "INSERT INTO rows VALUES (1)")
	execute(t, conn, "INSERT INTO rows VALUES (2)")
	server.Stop()
	server.Restart()
	return server, conn
}

func awaitMerge(t *testing.T, conn driver.Conn) {
	t.Helper()
	enginetest.Eventually(t, time.Minute, "parts to be merged", func() error {
		if err := conn.Exec(t.Context(), "OPTIMIZE TABLE rows FINAL"); err != nil {
			return err
		}
		var parts uint64
		err := conn.QueryRow(t.Context(), "SELECT count() FROM system.parts WHERE database = currentDatabase() AND active").Scan(&parts)
		if err == nil && parts != 1 {
			err = fmt.Errorf("%d parts", parts)
		}
		return err
	})
}

func TestMergesWaitUntilReleased(t *testing.T) {
	t.Parallel()
	server, conn := holding(t, time.Hour)
	if err := conn.Exec(t.Context(), "OPTIMIZE TABLE rows FINAL"); err == nil {
		t.Fatal("parts were merged, want that to wait")
	}
	execute(t, conn, "ALTER TABLE rows DELETE WHERE n = 1 SETTINGS mutations_sync = 0") // it is ordered, and waits as well
	if n := count(t, conn, "SELECT count() FROM rows"); n != 2 {
		t.Errorf("%d rows while mutations wait, want 2", n)
	}
	server.Process().ReleaseMerges()
	server.Process().ReleaseMerges()
	awaitMerge(t, conn)
	enginetest.Eventually(t, time.Minute, "the mutation", func() error {
		if n := count(t, conn, "SELECT count() FROM rows"); n != 1 {
			return fmt.Errorf("%d rows, want 1", n)
		}
		return nil
	})
}

func TestMergesDoNotWaitForEver(t *testing.T) {
	t.Parallel()
	_, conn := holding(t, time.Millisecond)
	awaitMerge(t, conn)
}
