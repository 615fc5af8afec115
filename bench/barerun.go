package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// insertRows is the number of rows of one bare insert: that of the store's
// batches.
const insertRows = 200_000

// bare measures HMAC and the two drivers with ready columns.
func (r *runner) bare(ctx context.Context) (err error) {
	r.results.add(figureHMAC, hmacAlone(r.config.Answers, r.config.Workers), "tokens/s",
		"HMAC-SHA-256 alone, of an ECK iD with the key schedule reused, on all cores")
	p, err := newPipeline(ctx, r.config.Environment, "bare", r.config.Workers)
	if err != nil {
		return err
	}
	synced, err := syncTime(r.config.Environment.Dir)
	if err != nil {
		return errors.Join(err, p.close(context.WithoutCancel(ctx)))
	}
	r.results.add("disk_sync_p50", synced, "ms", "writing 20 kB and syncing it, on the disk of this run: what an acknowledgement waits for at least")
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	table := p.database + ".bare_answers"
	byDriver, err := newDriverInserter(r.config.Environment.options(), table)
	if err != nil {
		return err
	}
	defer byDriver.close()
	byColumns, err := newColumnInserter(ctx, r.config.Environment.options(), table, r.config.Workers)
	if err != nil {
		return err
	}
	defer byColumns.close()
	if err := r.insertAlone(ctx, p, byDriver, figureDriver, "ready columns into the same table by clickhouse-go's columnar batch: the bare limit"); err != nil {
		return err
	}
	return r.insertAlone(ctx, p, byColumns, figureColumns, "the same by ch-go, whose columns are the Go slices that are sent")
}

func (r *runner) insertAlone(ctx context.Context, p *pipeline, into inserter, figure, what string) error {
	table := p.database + ".bare_answers"
	if err := p.conn.Exec(ctx, "CREATE TABLE "+table+" AS "+p.database+".answers"); err != nil {
		return fmt.Errorf("create table for bare inserts: %w", err)
	}
	processor := r.watchProcessor(strings.TrimSuffix(figure, "_rows_per_second"), what, partClickHouse)
	rate, err := insertAll(ctx, r.workload, into, r.config.Workers)
	if err != nil {
		return fmt.Errorf("%s: %w", figure, err)
	}
	count, err := p.count(ctx, "bare_answers")
	if err != nil {
		return err
	}
	if int64(count) != r.total() {
		return fmt.Errorf("%s: %d rows are stored, want %d", figure, count, r.total())
	}
	r.results.add(figure, rate, "rows/s", what)
	processor()
	if err := p.conn.Exec(ctx, "DROP TABLE "+table+" SYNC"); err != nil {
		return fmt.Errorf("drop table of bare inserts: %w", err)
	}
	return nil
}

// kafkaEngine measures what ClickHouse does alone.
func (r *runner) kafkaEngine(ctx context.Context) (err error) {
	p, err := newPipeline(ctx, r.config.Environment, "engine", r.config.Workers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	topic, err := p.extraTopic(ctx, "lines")
	if err != nil {
		return err
	}
	r.config.Progress("ClickHouse's Kafka engine: fill", 0, r.total())
	rows, err := fillLineTopic(ctx, r.config.Environment.Brokers, topic, p.partitions, r.workload)
	if err != nil {
		return err
	}
	r.config.Progress("ClickHouse's Kafka engine: fill", int64(rows), r.total())
	k := &kafkaEngine{conn: p.conn, database: p.database, brokers: r.config.Environment.Brokers, topic: topic, group: topic, workers: r.config.Workers}
	processor := r.watchProcessor("clickhouse_kafka_engine", "ClickHouse's own Kafka engine", partKafka, partClickHouse)
	rate, err := k.run(ctx, rows)
	if err != nil {
		return err
	}
	processor()
	r.results.add(figureEngine, rate, "rows/s", "ClickHouse's own Kafka engine with a materialized view that computes HMAC in SQL from JSONEachRow, same broker and server; no scoring, no registry, identifiers in clear on the broker; without the time to join")
	return nil
}

// syncTime returns the median time in milliseconds that a small write takes to
// become durable in a directory.
func syncTime(dir string) (_ float64, err error) {
	f, err := os.CreateTemp(dir, "sync-*")
	if err != nil {
		return 0, fmt.Errorf("measure sync: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var all latencies
	block := make([]byte, 20_000)
	for range 101 {
		if _, err := f.Write(block); err != nil {
			return 0, fmt.Errorf("measure sync: %w", err)
		}
		started := time.Now()
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("measure sync: %w", err)
		}
		all = append(all, float64(time.Since(started).Nanoseconds())/1e6)
	}
	p50, _, _ := all.quantiles()
	return p50, nil
}
