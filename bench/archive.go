package bench

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/column"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform"
)

// archiver is the stage answers → ClickHouse without scoring: what is left of
// the pipeline when skill, difficulty and norms cost nothing. Only the benchmark
// has it, to tell their price.
type archiver struct {
	persistence transform.Persistence
	rows        *atomic.Int64
	partition   int
	assignment  *stream.Assignment
	decoder     answer.Decoder
	memory      column.Memory // of the decoder
	columns     answer.Columns
	last        transform.Checkpoint // of the messages since the last one; Position 0 when there are none
	waiting     int                  // rows in it
}

// archiveRows is how many rows of a partition a checkpoint covers, as in the
// stage that scores.
const archiveRows = 200_000

// startArchive runs the archiver. It returns a count of the rows that have
// passed.
func (p *pipeline) startArchive(s *stages) (*atomic.Int64, error) {
	rows := new(atomic.Int64)
	return rows, p.consume(s, "archive", p.topics.Answers, func(partition int) stream.Handler {
		a := &archiver{persistence: p.store, rows: rows, partition: partition}
		a.decoder.Use(&a.memory)
		return a
	})
}

// Start implements stream.Handler.
func (a *archiver) Start(ctx context.Context, assignment *stream.Assignment) (next int64, err error) {
	restored, err := a.persistence.Restore(ctx, a.partition)
	if err != nil {
		return 0, fmt.Errorf("restore partition %d: %w", a.partition, err)
	}
	a.assignment, a.waiting = assignment, 0
	return restored.AnswersOffset + 1, nil
}

// Handle implements stream.Handler.
func (a *archiver) Handle(ctx context.Context, messages []stream.Message) error {
	for i := range messages {
		m := &messages[i]
		if err := m.CheckDigest(); err != nil {
			return err
		}
		if err := a.decoder.Answers(m.Value, &a.columns); err != nil {
			return fmt.Errorf("decode answers at offset %d: %w", m.Offset, err)
		}
		offset, err := m.Int64(stream.HeaderRawOffset)
		if err != nil {
			return err
		}
		a.columns.RawOffset, a.columns.KeyEpoch = offset, 1
		if err := a.persistence.Archive(ctx, a.partition, &a.columns, nil, nil); err != nil {
			return err
		}
		a.rows.Add(int64(a.columns.Rows))
		a.waiting += a.columns.Rows
		a.last = transform.Checkpoint{
			Partition: a.partition, Generation: a.assignment.Generation, Position: transform.End(&a.columns),
			AnswersOffset: m.Offset, SkillsOffset: -1,
		}
		if a.waiting >= archiveRows {
			if err := a.checkpoint(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Idle implements stream.Handler.
func (a *archiver) Idle(ctx context.Context) error {
	if a.waiting == 0 {
		return nil
	}
	return a.checkpoint(ctx)
}

func (a *archiver) checkpoint(ctx context.Context) error {
	c := a.last
	a.waiting = 0
	assignment := a.assignment
	c.Durable = func(err error) {
		if err == nil {
			assignment.Commit(c.AnswersOffset + 1)
		}
	}
	if err := a.persistence.Checkpoint(ctx, &c); err != nil {
		return fmt.Errorf("checkpoint partition %d: %w", a.partition, err)
	}
	return nil
}

// Stop implements stream.Handler.
func (a *archiver) Stop() {}
