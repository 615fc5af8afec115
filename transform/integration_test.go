package transform_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/store"
)

func openStore(t testing.TB) *store.Store {
	t.Helper()
	connection, _ := enginetest.ClickHouse(t)
	db := clickhouse.OpenDB(&clickhouse.Options{Addr: connection.Addresses, Auth: clickhouse.Auth{Username: connection.User, Password: connection.Password}})
	defer db.Close()
	if err := store.Migrate(t.Context(), db, store.Schema(), store.MigrateOptions{Database: connection.Database}, nil); err != nil {
		t.Fatal(err)
	}
	return openStoreAt(t, store.Config{Addresses: connection.Addresses, User: connection.User, Password: connection.Password, Database: connection.Database,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
}

func openStoreAt(t testing.TB, config store.Config) *store.Store {
	t.Helper()
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
	return s
}

// TestWorkers runs the same log through consumers with 1, 2 and 8 workers on a
// real broker and store, ends each of them once on the way, and wants what the
// oracle makes of the log.
func TestWorkers(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 2, 8} {
		t.Run(fmt.Sprintf("workers=%d", workers), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, newRandom(t), 4)
			w.persistence = openStore(t)
			for partition := range w.partitions {
				load := newWorkload(w.random, 30, 80)
				for rawOffset := range int64(23) {
					w.sendNext(partition, load, rawOffset, 1+w.random.IntN(80))
				}
				w.send(partition, load.message(23, 10))
			}
			stop := w.consume(workers)
			w.await("half of the log", 10)
			stop()
			stop = w.consume(workers)
			w.await("the log", 24)
			stop()
			w.verify()
		})
	}
}

// consume runs a whole transform process until the returned function is called.
func (w *world) consume(workers int) (stop func()) {
	w.t.Helper()
	p := w.start()
	answers, err := stream.NewConsumer(w.client, stream.ConsumerConfig{Group: w.topics.Answers + "-transform", Topic: w.topics.Answers,
		Workers: workers, IdleInterval: 50 * time.Millisecond, NewHandler: p.stage.Handler})
	if err != nil {
		w.t.Fatal(err)
	}
	sums, err := stream.NewConsumer(w.client, stream.ConsumerConfig{Group: w.topics.ItemSums + "-reducer", Topic: w.topics.ItemSums,
		Workers: 1, IdleInterval: 50 * time.Millisecond, NewHandler: p.reducer.Handler})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, consumer := range []*stream.Consumer{answers, sums} {
		running.Go(func() {
			if err := consumer.Run(ctx); err != nil {
				w.t.Errorf("consume: %v", err)
			}
		})
	}
	running.Go(func() { // the clock, ten times as fast as that on the wall
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				w.pass(100 * time.Millisecond)
			case <-ctx.Done():
				return
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); running.Wait(); p.stop() })
	w.t.Cleanup(stop)
	return stop
}

// await waits until the store has so many messages of every partition.
func (w *world) await(what string, messages int64) {
	w.t.Helper()
	enginetest.Eventually(w.t, 5*time.Minute, "store "+what, func() error {
		for partition := range w.partitions {
			restored, err := w.persistence.Restore(w.t.Context(), partition)
			if err != nil {
				return err
			}
			if restored.RawOffset < messages-1 {
				return fmt.Errorf("partition %d is at raw offset %d of %d", partition, restored.RawOffset, messages)
			}
		}
		return nil
	})
}
