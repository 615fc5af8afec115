package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// EpochRows counts the rows of a table by the epoch of the key that made their
// tokens.
type EpochRows struct {
	Table string
	Epoch uint32
	Rows  int64
}

// Epochs counts what readers see under the tokens of every key epoch.
func (s *Store) Epochs(ctx context.Context) ([]EpochRows, error) {
	var all []EpochRows
	for _, table := range []string{"answers", "test_results", "skills"} {
		rows, err := s.integers(ctx, 2, "SELECT toInt64(key_epoch) AS c0, toInt64(count()) AS c1 FROM "+s.table(table)+" FINAL GROUP BY c0 ORDER BY c0", nil)
		if err != nil {
			return nil, fmt.Errorf("count rows by key epoch: %w", err)
		}
		for _, r := range rows {
			all = append(all, EpochRows{Table: table, Epoch: uint32(r[0]), Rows: r[1]})
		}
	}
	return all, nil
}

// Reached is how far the store has come in a partition: everything up to these
// offsets of the topics, inclusive, is in the tables.
type Reached struct{ Raw, Answers, Skills int64 }

// Progress returns how far the store has come, by partition. A partition of
// which nothing is stored is missing.
func (s *Store) Progress(ctx context.Context) (map[int]Reached, error) {
	rows, err := s.integers(ctx, 4, "SELECT toInt64(partition) AS c0, raw_offset AS c1, answers_offset AS c2, skills_offset AS c3 FROM "+s.table("progress")+" FINAL", nil)
	if err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	reached := make(map[int]Reached, len(rows))
	for _, r := range rows {
		reached[int(r[0])] = Reached{Raw: r[1], Answers: r[2], Skills: r[3]}
	}
	return reached, nil
}

// Traces counts the rows that readers see under the tokens, in every table of
// learners.
func (s *Store) Traces(ctx context.Context, school string, tokens []answer.Token) (int64, error) {
	texts := make([]string, len(tokens))
	for i := range tokens {
		texts[i] = tokens[i].String()
	}
	total := int64(0)
	for _, table := range []string{"answers", "test_results", "skills"} {
		rows, err := s.integers(ctx, 1, "SELECT toInt64(count()) AS c0 FROM "+s.table(table)+
			" FINAL WHERE school = {school:String} AND has(splitByChar(',', {tokens:String}), lower(hex(learner)))",
			parameters{"school": school, "tokens": strings.Join(texts, ",")})
		if err != nil {
			return 0, fmt.Errorf("count rows of tokens: %w", err)
		}
		total += rows[0][0]
	}
	return total, nil
}
