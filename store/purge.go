package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// tablesOfLearners hold rows under tokens.
var tablesOfLearners = []string{"answers", "test_results", "skills", "skills_daily", "vacated", "relearnt", "rebuilt_skills"}

// departedInUse: tokens that have left and hold something again stay as they
// are; readers see what is under them by its versions.
const departedInUse = `SELECT learner FROM {db}.answers FINAL WHERE learner IN (SELECT learner FROM {db}.departed FINAL WHERE purged = 0)
UNION DISTINCT SELECT learner FROM {db}.test_results FINAL WHERE learner IN (SELECT learner FROM {db}.departed FINAL WHERE purged = 0)
UNION DISTINCT SELECT learner FROM {db}.skills FINAL WHERE learner IN (SELECT learner FROM {db}.departed FINAL WHERE purged = 0)`

// Purge implements transform.Persistence: it takes everything under tokens that
// have left off the disk, all of them in one mutation per table, and returns when
// that is done. Readers don't see those rows before either. It may run at any
// time, also several times at once.
func (s *Store) Purge(ctx context.Context) error {
	err := s.statement(ctx, "INSERT INTO {db}.departed (partition, learner, position, school, into, purged)"+
		" SELECT partition, learner, position, school, into, 1 FROM {db}.departed FINAL WHERE purged = 0 AND learner NOT IN ("+departedInUse+")")
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	rows, err := s.integers(ctx, 1, s.fill("SELECT toInt64(count()) AS c0 FROM {db}.departed FINAL WHERE purged = 1"), nil)
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	if rows[0][0] == 0 {
		return nil
	}
	for _, table := range tablesOfLearners {
		if err := s.statement(ctx, "ALTER TABLE {db}."+table+" DELETE WHERE learner IN (SELECT learner FROM {db}.departed FINAL WHERE purged = 1)"); err != nil {
			return fmt.Errorf("purge %s: %w", table, err)
		}
	}
	if err := s.awaitMutations(ctx); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	err = s.statement(ctx, "INSERT INTO {db}.departed (partition, learner, position, school, into, purged)"+
		" SELECT partition, learner, position, school, into, 2 FROM {db}.departed FINAL WHERE purged = 1")
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	return nil
}

func (s *Store) statement(ctx context.Context, body string) error {
	return s.read(ctx, func() ch.Query {
		return ch.Query{Body: s.fill(body), Settings: []ch.Setting{{Key: "allow_nondeterministic_mutations", Value: "1", Important: true}}}
	})
}

// awaitMutations waits until no table of learners is being rewritten. A
// connection that waited instead would be silent for too long.
func (s *Store) awaitMutations(ctx context.Context) error {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		rows, err := s.integers(ctx, 1, "SELECT toInt64(count()) AS c0 FROM system.mutations WHERE database = {database:String}"+
			" AND has(splitByChar(',', {tables:String}), table) AND NOT is_done", parameters{"database": s.config.Database, "tables": strings.Join(tablesOfLearners, ",")})
		if err != nil || rows[0][0] == 0 {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// loadDeparted returns the tokens of a partition that have left.
func (s *Store) loadDeparted(ctx context.Context, partition int) ([]transform.Departed, error) {
	var departed []transform.Departed
	err := s.read(ctx, func() ch.Query {
		departed = nil
		var learner proto.ColFixedStr16
		var position proto.ColUInt64
		return ch.Query{
			Body:       s.fill("SELECT learner, max(position) AS newest FROM {db}.departed WHERE partition = {partition:UInt16} GROUP BY learner"),
			Parameters: ofPartition(partition),
			Result:     proto.Results{{Name: "learner", Data: &learner}, {Name: "newest", Data: &position}},
			OnResult: func(context.Context, proto.Block) error {
				for i, token := range tokensOf(learner) {
					departed = append(departed, transform.Departed{Learner: token, Position: answer.Position(position[i])})
				}
				return nil
			},
		}
	})
	return departed, err
}

// loadVacated returns the moments that corrections took from learners.
func (s *Store) loadVacated(ctx context.Context, partition int) ([]transform.Vacated, error) {
	var vacated []transform.Vacated
	err := s.read(ctx, func() ch.Query {
		vacated = nil
		var learner proto.ColFixedStr16
		var newest proto.ColUInt64
		return ch.Query{
			Body:       s.fill("SELECT learner, answered_ms FROM {db}.vacated FINAL WHERE partition = {partition:UInt16}"),
			Parameters: ofPartition(partition),
			Result:     proto.Results{{Name: "learner", Data: &learner}, {Name: "answered_ms", Data: &newest}},
			OnResult: func(context.Context, proto.Block) error {
				for i, token := range tokensOf(learner) {
					vacated = append(vacated, transform.Vacated{Learner: token, AnsweredAt: int64(newest[i])})
				}
				return nil
			},
		}
	})
	return vacated, err
}
