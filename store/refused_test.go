package store_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

// TestTooManyParts lets ClickHouse refuse an insert because a table has too many
// parts. That passes with time, so the insert is tried until it is in.
func TestTooManyParts(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := openStore(t, func(c *store.Config) {
		c.MaxDelay, c.Logger = 10*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
	})
	change := func(statement string) {
		enginetest.Execute(t, s.connection, strings.ReplaceAll(statement, "{table}", s.table("answers")))
	}
	change("SYSTEM STOP MERGES {table}")
	w := newWorkload(23, 1)
	write(t, s, 0, w.message(0, 50), nil)
	change("ALTER TABLE {table} MODIFY SETTING parts_to_throw_insert = 1")
	second := w.message(0, 50)
	if err := s.Archive(t.Context(), 0, second, nil, nil); err != nil {
		t.Fatal(err)
	}
	call, outcome := durable()
	if err := s.Checkpoint(t.Context(), &transform.Checkpoint{Position: second.Position(49), Durable: call}); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, time.Minute, "ClickHouse refuses the insert", func() error {
		if !strings.Contains(log.String(), "TOO_MANY_PARTS") {
			return errors.New("it has not")
		}
		return nil
	})
	select {
	case err := <-outcome:
		t.Fatalf("durable (%v) while ClickHouse refuses", err)
	default:
	}
	change("ALTER TABLE {table} RESET SETTING parts_to_throw_insert")
	if err := <-outcome; err != nil {
		t.Fatal(err)
	}
	if n := s.number(t, "SELECT count() FROM "+s.table("answers")); n != 100 {
		t.Errorf("%d answers, want 100", n)
	}
}

// TestTableIsReadOnly makes each table that is written to refuse inserts for a
// while, as one does that has lost its coordinator. What is in the others then is
// in the order that makes it whole; the writer waits in bounded memory; and once
// the table takes inserts again, everything comes in, once.
func TestTableIsReadOnly(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := openStore(t, func(c *store.Config) {
		c.MaxRows, c.Batches, c.MaxDelay = 10_000, 3, 20*time.Millisecond
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	set := func(table string, readOnly int) {
		enginetest.Execute(t, s.connection, fmt.Sprintf("ALTER TABLE %s MODIFY SETTING table_readonly = %d", s.table(table), readOnly))
	}
	refused := func(table string, before int64) {
		enginetest.Eventually(t, time.Minute, "ClickHouse refuses inserts into "+table, func() error {
			if s.Stats().Retries == before {
				return errors.New("it has not")
			}
			return nil
		})
	}
	w := newWorkload(24, 1)
	total := 0
	for _, table := range []string{"answers", "raw_ledger", "item_sums", "norms", "adoptions", "skills", "progress"} {
		set(table, 1)
		before := s.Stats().Retries
		messages := make(chan *answer.Columns, 3)
		for range 3 {
			messages <- w.message(0, 100)
		}
		close(messages)
		outcome := make(chan error, 1)
		go func() {
			_, err := writeSteps(t.Context(), s.Store, newWorkload(1, 1), 0, messages)
			outcome <- err
		}()
		refused(table, before)
		select {
		case err := <-outcome:
			t.Fatalf("durable (%v) while %s refuses", err, table)
		default:
		}
		if n := s.number(t, strings.ReplaceAll(disorder, "{db}", s.connection.Database)); n != 0 {
			t.Errorf("%s refuses: something is further than what it stands on", table)
		}
		set(table, 0)
		if err := <-outcome; err != nil {
			t.Fatalf("after %s refused: %v", table, err)
		}
		total += 300
		if n := s.number(t, "SELECT count() FROM "+s.table("answers")); n != int64(total) {
			t.Errorf("after %s refused: %d answers, want %d", table, n, total)
		}
	}
	set("answers", 1)
	sent, waiting := fill(t, s, w)
	set("answers", 0)
	write(t, s, 0, waiting, nil)
	if total += 5000 * (sent + 1); s.number(t, "SELECT count() FROM "+s.table("answers")) != int64(total) {
		t.Errorf("not %d answers after the writer waited", total)
	}
	if !strings.Contains(log.String(), "clickhouse error 774") {
		t.Error("the log does not say that the table is read-only (774)")
	}
}
