package store

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// maxLookups is how many rows are looked up in one query.
const maxLookups = 50_000

// Known implements transform.Persistence. The rows travel beside the query as a
// table, never in its text.
func (s *Store) Known(ctx context.Context, rows []transform.Lookup) (map[answer.EventID]answer.Position, error) {
	known := make(map[answer.EventID]answer.Position)
	for len(rows) > 0 {
		n := min(len(rows), maxLookups)
		if err := s.lookUp(ctx, rows[:n], known); err != nil {
			return nil, fmt.Errorf("look up %d answers: %w", n, err)
		}
		rows = rows[n:]
	}
	return known, nil
}

func (s *Store) lookUp(ctx context.Context, rows []transform.Lookup, known map[answer.EventID]answer.Position) error {
	var school wordColumn
	school.init()
	var learner, id proto.ColFixedStr16
	var answeredAt millisColumn
	from, to := rows[0].AnsweredAt, rows[0].AnsweredAt
	for i := range rows {
		r := &rows[i]
		school.appendWord(r.School)
		learner = append(learner, r.Learner.Bytes())
		id = append(id, r.ID)
		answeredAt.ColInt64 = append(answeredAt.ColInt64, r.AnsweredAt)
		from, to = min(from, r.AnsweredAt), max(to, r.AnsweredAt)
	}
	wanted := ch.ExternalTable{Name: "wanted", Data: proto.Input{column("school", &school), column("learner", &learner),
		column("answered_at", &answeredAt), column("id", &id)}}
	var foundID proto.ColFixedStr16
	var position proto.ColUInt64
	return s.read(ctx, func() ch.Query {
		return ch.Query{
			Body: "SELECT id, min(position) AS earliest FROM " + s.table("answers") +
				" WHERE (school, learner, answered_at, id) IN (SELECT school, learner, answered_at, id FROM wanted)" +
				" AND answered_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND answered_at <= fromUnixTimestamp64Milli({to:Int64}, 'UTC')" +
				" GROUP BY id",
			Parameters:     ch.Parameters(map[string]any{"from": from, "to": to}),
			ExternalTables: []ch.ExternalTable{wanted},
			Result:         proto.Results{{Name: "id", Data: &foundID}, {Name: "earliest", Data: &position}},
			OnResult: func(_ context.Context, block proto.Block) error {
				for i := range block.Rows {
					known[foundID[i]] = answer.Position(position[i])
				}
				return nil
			},
		}
	})
}
