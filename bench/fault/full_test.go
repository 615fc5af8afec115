package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestAcknowledgedOnAFullDisk fills the disk again and again, at any moment of
// inserts that are under way, kills the store, and looks for every row that it
// has acknowledged.
func TestAcknowledgedOnAFullDisk(t *testing.T) {
	t.Parallel()
	d := &deployment{}
	var err error
	if d.disk, err = newDisk(t.TempDir()); errors.Is(err, errNoDisk) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.engines = d.disk.mount
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.startStore(t.Context()); err != nil {
		enginetest.Missing(t, err)
	}
	conn := d.open(t)
	const table = "CREATE TABLE acknowledged (id UInt64, word LowCardinality(String), path Array(String)) ENGINE = ReplacingMergeTree ORDER BY (word, id)"
	if err := conn.Exec(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var next atomic.Uint64
	acknowledged := make(map[uint64]bool) // true as long as it was not read
	for range 4 {
		d.insertWhileFull(t, conn, random, &next, acknowledged)
		if err := d.store.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := d.startStore(t.Context()); err != nil {
			t.Fatal(err)
		}
		var ids []uint64
		if err := conn.QueryRow(t.Context(), "SELECT groupArray(id) FROM acknowledged").Scan(&ids); err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			acknowledged[id] = false
		}
		for id, missing := range acknowledged {
			if missing {
				t.Errorf("row %d was acknowledged and is gone", id)
			}
		}
	}
	if len(acknowledged) == 0 {
		t.Error("no row was acknowledged")
	}
}

// insertWhileFull inserts from several sides while the disk is full three times,
// and notes what was acknowledged.
func (d *deployment) insertWhileFull(t *testing.T, conn clickhouse.Conn, random *rand.Rand, next *atomic.Uint64, acknowledged map[uint64]bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var inserts sync.WaitGroup
	for range 6 {
		inserts.Go(func() {
			for ctx.Err() == nil {
				id := next.Add(1)
				limited, cancel := context.WithTimeout(ctx, 20*time.Second)
				err := conn.Exec(limited, fmt.Sprintf("INSERT INTO acknowledged SELECT %d, 'a', ['b']", id))
				cancel()
				if err == nil {
					mu.Lock()
					acknowledged[id] = true
					mu.Unlock()
				}
			}
		})
	}
	for range 3 {
		pause(ctx, time.Duration(200+random.IntN(200))*time.Millisecond)
		if err := d.disk.fill(); err != nil {
			t.Error(err)
		}
		pause(ctx, shortestFull+time.Duration(random.IntN(200))*time.Millisecond)
		if err := d.disk.empty(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	inserts.Wait()
}

// open connects to the store, also to one that is started again later.
func (d *deployment) open(t *testing.T) clickhouse.Conn {
	t.Helper()
	c := &d.store.ClickHouse
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: c.Addresses, MaxOpenConns: 16,
		Auth: clickhouse.Auth{Username: c.User, Password: c.Password, Database: c.Database}, Settings: clickhouse.Settings{"async_insert": 0}})
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
