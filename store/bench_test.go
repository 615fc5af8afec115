package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"golang.org/x/sync/errgroup"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

const benchMessages, benchRows = 50, 20_000

// engineCPU is the processor time of the engine in microseconds. On a machine
// that does other things too it says more than the time on the clock.
const engineCPU = "SELECT value FROM system.events WHERE event = 'OSCPUVirtualTimeMicroseconds'"

func benchWork() []*answer.Columns {
	w := newWorkload(3, 1)
	list := make([]*answer.Columns, benchMessages)
	for i := range list {
		list[i] = w.message(0, benchRows)
	}
	return list
}

// BenchmarkArchive: ready columns through the store until they are durable.
func BenchmarkArchive(b *testing.B) {
	messages := benchWork()
	for _, variant := range []struct {
		name   string
		change func(*store.Config)
	}{{"store", nil}, {"store-lz4", func(c *store.Config) { c.Compress = true }}} {
		b.Run(variant.name, func(b *testing.B) {
			s := openStore(b, variant.change)
			b.ReportAllocs()
			before := s.number(b, engineCPU)
			start := time.Now()
			for b.Loop() {
				for _, m := range messages {
					if err := s.Archive(b.Context(), 0, m, nil, nil); err != nil {
						b.Fatal(err)
					}
				}
				call, outcome := durable()
				if err := s.Checkpoint(b.Context(), &transform.Checkpoint{Position: messages[len(messages)-1].Position(benchRows - 1), Durable: call}); err != nil {
					b.Fatal(err)
				}
				if err := <-outcome; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*benchMessages*benchRows/time.Since(start).Seconds(), "rows/s")
			b.ReportMetric(float64(s.number(b, engineCPU)-before)/(float64(b.N)*benchMessages*benchRows), "engine-cpu-us/row")
		})
	}
	b.Run("clickhouse-go", func(b *testing.B) { benchClickHouseGo(b, messages) })
}

// benchClickHouseGo sends the same rows in inserts of the same size with
// Column(i).Append, two connections at a time.
func benchClickHouseGo(b *testing.B, messages []*answer.Columns) {
	s := openStore(b, nil)
	e := s.connection
	b.ReportAllocs()
	before := s.number(b, engineCPU)
	start := time.Now()
	for b.Loop() {
		done := make(chan error, 2)
		for half := range 2 {
			go func() {
				done <- insertByColumn(b.Context(), e, messages[half*len(messages)/2:(half+1)*len(messages)/2])
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*benchMessages*benchRows/time.Since(start).Seconds(), "rows/s")
	b.ReportMetric(float64(s.number(b, engineCPU)-before)/(float64(b.N)*benchMessages*benchRows), "engine-cpu-us/row")
}

func insertByColumn(ctx context.Context, e engine.ClickHouse, messages []*answer.Columns) error {
	connection, err := clickhouse.Open(&clickhouse.Options{Addr: e.Addresses,
		Auth:     clickhouse.Auth{Username: e.User, Password: e.Password, Database: e.Database},
		Settings: clickhouse.Settings{"async_insert": 0, "optimize_on_insert": 0, "insert_deduplicate": 0}})
	if err != nil {
		return err
	}
	defer connection.Close()
	for len(messages) > 0 {
		n := min(10, len(messages))
		if err := insertMessages(ctx, connection, messages[:n]); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

func insertMessages(ctx context.Context, connection clickhouse.Conn, messages []*answer.Columns) error {
	insert, err := connection.PrepareBatch(ctx, "INSERT INTO answers (id, learner, key_epoch, publisher, school, `group`, year_group, exercise, goal, subject,"+
		" kind, score, attempt, response_time_ms, answered_at, revision, source_partition, position)")
	if err != nil {
		return err
	}
	for _, m := range messages {
		columns := []any{fixed(m.EventID), tokens(&m.Learner), repeat(m.KeyEpoch, m.Rows), words(&m.Publisher), words(&m.School), words(&m.Group), m.YearGroup,
			words(&m.Exercise), words(&m.Goal), words(&m.Subject), kinds(m.Kind), m.Score, m.Attempt, optional(m.ResponseTime), times(m.AnsweredAt), m.Revision,
			repeat(uint16(0), m.Rows), positions(m)}
		for i, c := range columns {
			if err := insert.Column(i).Append(c); err != nil {
				return err
			}
		}
	}
	return insert.Send()
}

func fixed(ids []answer.EventID) []string {
	out := make([]string, len(ids))
	for i := range ids {
		out[i] = string(ids[i][:])
	}
	return out
}

func tokens(t *answer.Tokens) []string {
	out := make([]string, len(t.Codes))
	for i := range out {
		b := t.At(i).Bytes()
		out[i] = string(b[:])
	}
	return out
}

func words(s *answer.Strings) []string {
	out := make([]string, len(s.Codes))
	for i := range out {
		out[i] = s.At(i)
	}
	return out
}

func repeat[T any](v T, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func kinds(k []uint8) []string {
	out := make([]string, len(k))
	for i := range out {
		out[i] = answer.Kind(k[i]).String()
	}
	return out
}

func optional(v []int32) []*int32 {
	out := make([]*int32, len(v))
	for i := range out {
		if v[i] >= 0 {
			out[i] = &v[i]
		}
	}
	return out
}

func times(ms []int64) []time.Time {
	out := make([]time.Time, len(ms))
	for i := range out {
		out[i] = time.UnixMilli(ms[i])
	}
	return out
}

func positions(c *answer.Columns) []uint64 {
	out := make([]uint64, c.Rows)
	for i := range out {
		out[i] = uint64(c.Position(i))
	}
	return out
}

// BenchmarkRestore: all partitions of a million learners with five layers each,
// two at a time.
func BenchmarkRestore(b *testing.B) {
	const partitions, learners, layers = 64, 1_000_000, 5
	s := openStore(b, nil)
	w := newWorkload(4, 1)
	for p := range partitions {
		position := answer.At(1, 0)
		checkpoint(b, s, &transform.Checkpoint{Partition: p, Position: position, Skills: w.skills(learners/partitions, layers, position)})
	}
	before := s.number(b, engineCPU)
	for b.Loop() {
		var group errgroup.Group
		group.SetLimit(2)
		for p := range partitions {
			group.Go(func() error {
				restored, err := s.Restore(b.Context(), p)
				if err == nil && restored.Skills.Len() != learners/partitions*layers {
					err = fmt.Errorf("%d skills, want %d", restored.Skills.Len(), learners/partitions*layers)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/1M-learners")
	b.ReportMetric(float64(s.number(b, engineCPU)-before)/1e6/float64(b.N), "engine-cpu-s/1M-learners")
}

// BenchmarkKnown: a thousand late answers looked up among a million.
func BenchmarkKnown(b *testing.B) {
	s := openStore(b, nil)
	messages := benchWork()
	for _, m := range messages {
		if err := s.Archive(b.Context(), 0, m, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	checkpoint(b, s, &transform.Checkpoint{Position: messages[len(messages)-1].Position(0)})
	var rows []transform.Lookup
	m := messages[3]
	for row := range 1000 {
		rows = append(rows, transform.Lookup{School: m.School.At(row), Learner: m.Learner.At(row), Moment: m.AnsweredAt[row], ID: m.EventID[row]})
	}
	for b.Loop() {
		known, err := s.Known(b.Context(), transform.AnswersArchive, rows)
		if err != nil || len(known) != len(rows) {
			b.Fatalf("Known = %d rows, %v, want %d", len(known), err, len(rows))
		}
	}
}
