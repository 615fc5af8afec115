package store

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// dailyResult reads blocks of skills_daily.
type dailyResult struct {
	learner          proto.ColFixedStr16
	layer, yearGroup proto.ColUInt8
	key, subject     *wordResult
	day              proto.ColInt32
	mean, variance   proto.ColFloat64
	answers          proto.ColUInt32
	position         proto.ColUInt64

	keys, subjects []string
}

const dailyColumns = "learner, toUInt8(layer) AS layer_number, key, subject, year_group, toInt32(day) AS day_number, mean, variance, answers, position"

func newDailyResult() *dailyResult {
	return &dailyResult{key: newWordResult(), subject: newWordResult()}
}

func (r *dailyResult) results() proto.Results {
	return proto.Results{{Name: "learner", Data: &r.learner}, {Name: "layer_number", Data: &r.layer}, {Name: "key", Data: r.key},
		{Name: "subject", Data: r.subject}, {Name: "year_group", Data: &r.yearGroup}, {Name: "day_number", Data: &r.day},
		{Name: "mean", Data: &r.mean}, {Name: "variance", Data: &r.variance}, {Name: "answers", Data: &r.answers},
		{Name: "position", Data: &r.position}}
}

func (r *dailyResult) appendTo(rows []transform.DailySkill) []transform.DailySkill {
	tokens := tokensOf(r.learner)
	r.keys, r.subjects = r.key.appendTo(r.keys[:0]), r.subject.appendTo(r.subjects[:0])
	for i := range tokens {
		rows = append(rows, transform.DailySkill{
			Learner: tokens[i], Layer: transform.Layer(r.layer[i]), Key: r.keys[i], Subject: r.subjects[i],
			YearGroup: r.yearGroup[i], Day: transform.Day(r.day[i]), Mean: r.mean[i], Variance: r.variance[i], Answers: r.answers[i],
			Position: answer.Position(r.position[i])})
	}
	return rows
}

// SkillsUntil returns every layer of learners of one school as it was at the end
// of a day; what a learner had not met by then is not there. The rows of a learner
// stand together. The learners travel beside the query as a table.
func (s *Store) SkillsUntil(ctx context.Context, school string, learners []answer.Token, day transform.Day) ([]transform.DailySkill, error) {
	if len(learners) == 0 {
		return nil, nil
	}
	if err := s.catchUp(ctx, "skills_daily"); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	var wanted proto.ColFixedStr16
	for _, t := range learners {
		wanted = append(wanted, t.Bytes())
	}
	var rows []transform.DailySkill
	err := s.read(ctx, func() ch.Query {
		rows = rows[:0]
		r := newDailyResult()
		return ch.Query{
			Body: "SELECT " + dailyColumns + " FROM " + s.table("skills_daily") +
				" WHERE school = {school:String} AND learner IN (SELECT learner FROM wanted) AND toInt32(day) <= {day:Int32}" +
				" ORDER BY learner, layer, key, day DESC, position DESC LIMIT 1 BY learner, layer, key",
			Parameters:     ch.Parameters(parameters{"school": school, "day": int32(day)}),
			ExternalTables: []ch.ExternalTable{{Name: "wanted", Data: proto.Input{column("learner", &wanted)}}},
			Result:         r.results(),
			OnResult: func(context.Context, proto.Block) error {
				rows = r.appendTo(rows)
				return nil
			},
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read history of %d learners: %w", len(learners), err)
	}
	return rows, nil
}

// CountHistory returns the number of rows of the history between two days, both
// included.
func (s *Store) CountHistory(ctx context.Context, from, to transform.Day) (int64, error) {
	rows, err := s.integers(ctx, 1, s.fill("SELECT toInt64(count()) AS c0 FROM {db}.skills_daily WHERE toInt32(day) BETWEEN {from:Int32} AND {to:Int32}"),
		parameters{"from": int32(from), "to": int32(to)})
	if err != nil {
		return 0, fmt.Errorf("count history: %w", err)
	}
	return rows[0][0], nil
}

// History calls see with the history of every learner between two days, both
// included, one learner after the other. The slice is used again. A failure of
// the connection ends it: what was seen can't be taken back.
func (s *Store) History(ctx context.Context, from, to transform.Day, see func([]transform.DailySkill) error) error {
	if err := s.catchUp(ctx, "skills_daily"); err != nil {
		return fmt.Errorf("read history: %w", err)
	}
	r := newDailyResult()
	var block, rows []transform.DailySkill
	err := s.pool.do(ctx, ch.Query{
		Body: "SELECT " + dailyColumns + " FROM " + s.table("skills_daily") +
			" WHERE toInt32(day) BETWEEN {from:Int32} AND {to:Int32} ORDER BY school, learner",
		Parameters: ch.Parameters(parameters{"from": int32(from), "to": int32(to)}),
		Settings:   []ch.Setting{{Key: "optimize_read_in_order", Value: "1", Important: true}},
		Result:     r.results(),
		OnResult: func(context.Context, proto.Block) error {
			block = r.appendTo(block[:0])
			for i := range block {
				if len(rows) > 0 && rows[0].Learner != block[i].Learner {
					if err := see(rows); err != nil {
						return err
					}
					rows = rows[:0]
				}
				rows = append(rows, block[i])
			}
			return nil
		},
	})
	if err == nil && len(rows) > 0 {
		err = see(rows)
	}
	if err != nil {
		return fmt.Errorf("read history: %w", err)
	}
	return nil
}
