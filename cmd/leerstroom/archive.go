package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/leerstroom/leerstroom/bench"
)

// archiveCounts counts what is stored and scored.
type archiveCounts struct {
	conn     driver.Conn
	database string
	last     bench.Stored
	asked    time.Time
}

// askInterval is the shortest pause between two questions to ClickHouse: counting
// must not take what storing needs.
const askInterval = 300 * time.Millisecond

func (d *deployment) openArchiveCounts() (*archiveCounts, error) {
	database := d.engines.ClickHouse.Database
	conn, err := clickhouse.Open(d.options(database))
	if err != nil {
		return nil, fmt.Errorf("connect to clickhouse: %w", err)
	}
	d.closers = append(d.closers, conn.Close)
	return &archiveCounts{conn: conn, database: database}, nil
}

// stored reads the ledger of messages, which is cheap, while rows still arrive.
// Once it stands still, the rows themselves are counted.
func (a *archiveCounts) stored(ctx context.Context) (bench.Stored, error) {
	if time.Since(a.asked) < askInterval {
		return a.last, nil
	}
	a.asked = time.Now()
	var ledger bench.Stored
	err := a.conn.QueryRow(ctx, `SELECT sumIf(toInt64(archived), content = 'answers'), sumIf(toInt64(archived), content = 'test_results')
		FROM raw_ledger FINAL INNER JOIN (SELECT partition, raw_offset AS done FROM progress FINAL) AS p USING (partition)
		WHERE toInt64(raw_offset) <= toInt64(p.done)`).Scan(&ledger.Answers, &ledger.TestResults)
	if err != nil {
		return ledger, fmt.Errorf("count stored messages: %w", err)
	}
	if ledger != a.last || ledger == (bench.Stored{}) {
		a.last = ledger
		return ledger, nil
	}
	var rows bench.Stored
	err = a.conn.QueryRow(ctx, `SELECT toInt64((SELECT count() FROM answers FINAL)), toInt64((SELECT count() FROM test_results FINAL))`).
		Scan(&rows.Answers, &rows.TestResults)
	if err != nil {
		return ledger, fmt.Errorf("count stored rows: %w", err)
	}
	return rows, nil
}
