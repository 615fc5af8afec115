package engine_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestDamagedPartIsReplaced empties the marks of a merged part, as a full disk
// can: its rows are there again without anybody's doing.
func TestDamagedPartIsReplaced(t *testing.T) {
	t.Parallel()
	server := enginetest.StartClickHouse(t)
	conn := open(t, server.Connection())
	execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n SETTINGS min_bytes_for_wide_part = 67108864")
	for range 3 {
		execute(t, conn, "INSERT INTO rows SELECT number FROM numbers(1000)")
	}
	execute(t, conn, "OPTIMIZE TABLE rows FINAL")
	if n := count(t, conn, "SELECT toUInt64(value) FROM system.merge_tree_settings WHERE name = 'old_parts_lifetime'"); n < 60 {
		t.Errorf("merged parts are kept for %d s, want minutes", n)
	}
	var path string
	if err := conn.QueryRow(t.Context(), "SELECT path FROM system.parts WHERE table = 'rows' AND active").Scan(&path); err != nil {
		t.Fatal(err)
	}
	marks := path + "data.cmrk4"
	if info, err := os.Stat(marks); err != nil || info.Size() == 0 {
		t.Fatalf("marks of the part: %v", err)
	}
	if err := os.Truncate(marks, 0); err != nil {
		t.Fatal(err)
	}
	execute(t, conn, "SYSTEM DROP MARK CACHE")
	var sum uint64
	if err := conn.QueryRow(t.Context(), "SELECT sum(n) FROM rows").Scan(&sum); err == nil {
		t.Fatal("the damaged part was read")
	}
	enginetest.Eventually(t, time.Minute, "rows of the damaged part", func() error {
		if err := conn.QueryRow(t.Context(), "SELECT sum(n) FROM rows").Scan(&sum); err != nil {
			return err
		}
		if sum != 3*999*1000/2 {
			return fmt.Errorf("sum = %d", sum)
		}
		return nil
	})
}
