package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// maxLookups is how many rows are looked up in one query.
const maxLookups = 50_000

// Known implements transform.Persistence. The rows travel beside the query as a
// table, never in its text.
func (s *Store) Known(ctx context.Context, which transform.Archive, rows []transform.Lookup) (map[answer.EventID]answer.Position, error) {
	known := make(map[answer.EventID]answer.Position)
	archive := archiveOf(which)
	for len(rows) > 0 {
		n := min(len(rows), maxLookups)
		if err := s.lookUp(ctx, archive, rows[:n], known); err != nil {
			return nil, fmt.Errorf("look up %d rows of %s: %w", n, archive.table, err)
		}
		rows = rows[n:]
	}
	return known, nil
}

// archive is a table of delivered rows, and how it tells their moments.
type archive struct {
	table  string
	moment string // its column
	number string // SQL: the moment as transform.Lookup has it
	from   string // SQL: the column's value of a number {from:Int64} …
	until  string // … and of {until:Int64}
}

func archiveOf(which transform.Archive) archive {
	if which == transform.TestResultsArchive {
		const day = "addDays(toDate32('1970-01-01'), {%s:Int64})"
		return archive{table: "test_results", moment: "taken_on", number: "toInt64(toInt32(taken_on))",
			from: fmt.Sprintf(day, "from"), until: fmt.Sprintf(day, "until")}
	}
	const moment = "fromUnixTimestamp64Milli({%s:Int64}, 'UTC')"
	return archive{table: "answers", moment: "answered_at", number: "toUnixTimestamp64Milli(answered_at)",
		from: fmt.Sprintf(moment, "from"), until: fmt.Sprintf(moment, "until")}
}

// fill puts the archive into a query text.
func (a archive) fill(body string) string {
	return strings.NewReplacer("{table}", a.table, "{moment}", a.moment, "{number}", a.number).Replace(body)
}

// momentColumn is a column of moments of an archive.
type momentColumn interface {
	proto.ColInput
	appendMoment(moment int64)
}

func (a archive) newMoments() momentColumn {
	if a.moment == "taken_on" {
		return &daysColumn{}
	}
	return &millisColumn{}
}

func (c *daysColumn) appendMoment(moment int64)   { c.ColInt32 = append(c.ColInt32, int32(moment)) }
func (c *millisColumn) appendMoment(moment int64) { c.ColInt64 = append(c.ColInt64, moment) }

func (s *Store) lookUp(ctx context.Context, a archive, rows []transform.Lookup, known map[answer.EventID]answer.Position) error {
	var school wordColumn
	school.init()
	var learner, id proto.ColFixedStr16
	moments := a.newMoments()
	from, until := rows[0].Moment, rows[0].Moment
	for i := range rows {
		r := &rows[i]
		school.appendWord(r.School)
		learner = append(learner, r.Learner.Bytes())
		id = append(id, r.ID)
		moments.appendMoment(r.Moment)
		from, until = min(from, r.Moment), max(until, r.Moment)
	}
	wanted := ch.ExternalTable{Name: "wanted", Data: proto.Input{column("school", &school), column("learner", &learner),
		column(a.moment, moments), column("id", &id)}}
	var foundID proto.ColFixedStr16
	var position proto.ColUInt64
	return s.read(ctx, func() ch.Query {
		return ch.Query{
			Body: "SELECT id, min(position) AS earliest FROM " + s.table(a.table) +
				" WHERE (school, learner, " + a.moment + ", id) IN (SELECT school, learner, " + a.moment + ", id FROM wanted)" +
				" AND " + a.moment + " >= " + a.from + " AND " + a.moment + " <= " + a.until +
				" GROUP BY id",
			Parameters:     ch.Parameters(map[string]any{"from": from, "until": until}),
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
