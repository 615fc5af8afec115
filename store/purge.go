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

// purgeAttempts is how often a deletion is ordered before something else must be
// wrong.
const purgeAttempts = 3

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
	tables := tablesOfLearners
	for attempt := 1; len(tables) > 0; attempt++ {
		if attempt > purgeAttempts {
			return fmt.Errorf("purge: the deletion in %s was lost %d times; look into ClickHouse's log for why it forgets mutations", strings.Join(tables, ", "), purgeAttempts)
		}
		ordered := make(map[string]int64)
		for _, table := range tables {
			if ordered[table], err = s.orderPurge(ctx, table); err != nil {
				return fmt.Errorf("purge %s: %w", table, err)
			}
		}
		if tables, err = s.awaitMutations(ctx, ordered); err != nil {
			return fmt.Errorf("purge: %w", err)
		}
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

// orderPurge orders the deletion in one table and returns the number of the
// mutation.
func (s *Store) orderPurge(ctx context.Context, table string) (int64, error) {
	err := s.statement(ctx, "ALTER TABLE {db}."+table+" DELETE WHERE learner IN (SELECT learner FROM {db}.departed FINAL WHERE purged = 1)")
	if err != nil {
		return 0, err
	}
	rows, err := s.integers(ctx, 1, "SELECT max("+mutationNumber+") AS c0 FROM system.mutations WHERE database = {database:String} AND table = {table:String}",
		parameters{"database": s.config.Database, "table": table})
	if err != nil {
		return 0, err
	}
	return rows[0][0], nil
}

// mutationNumber is the number in mutation_12.txt, or in 0000000012 on replicas.
const mutationNumber = "toInt64OrZero(extract(mutation_id, '[0-9]+'))"

// awaitMutations waits until no table of learners is being rewritten, and returns
// the tables of which ClickHouse has forgotten the mutation: one that it could not
// write is gone when it starts again. A connection that waited instead would be
// silent for too long.
func (s *Store) awaitMutations(ctx context.Context, ordered map[string]int64) (lost []string, err error) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		rows, err := s.integers(ctx, 1, "SELECT toInt64(count()) AS c0 FROM system.mutations WHERE database = {database:String}"+
			" AND has(splitByChar(',', {tables:String}), table) AND NOT is_done", parameters{"database": s.config.Database, "tables": strings.Join(tablesOfLearners, ",")})
		if err != nil {
			return nil, err
		}
		if rows[0][0] == 0 {
			return s.lostMutations(ctx, ordered)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *Store) lostMutations(ctx context.Context, ordered map[string]int64) (lost []string, err error) {
	for _, table := range tablesOfLearners {
		number, any := ordered[table]
		if !any {
			continue
		}
		rows, err := s.integers(ctx, 1, "SELECT toInt64(count()) AS c0 FROM system.mutations WHERE database = {database:String} AND table = {table:String} AND "+
			mutationNumber+" = {number:Int64}", parameters{"database": s.config.Database, "table": table, "number": number})
		if err != nil {
			return nil, err
		}
		if rows[0][0] == 0 {
			lost = append(lost, table)
		}
	}
	return lost, nil
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
