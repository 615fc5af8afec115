package store

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

// ItemStatistic is what is known of an exercise, over all schools.
type ItemStatistic struct {
	Publisher     string
	Exercise      string
	Goal          string // empty = unknown
	Subject       string // empty = unknown
	Difficulty    float64
	StandardError float64
	Answers       int64   // in the archive
	Learners      int64   // distinct, who gave them
	Schools       int64   // distinct, of these learners
	Proportion    float64 // mean score of the first answer of every learner
	Version       uint64  // of the item snapshot that last changed the difficulty
}

// itemStatistics: the first answer of a learner is that with the earliest
// position in the log.
const itemStatistics = `SELECT toString(i.publisher) AS publisher, toString(i.exercise) AS exercise, toString(i.goal) AS goal, toString(i.subject) AS subject,
	i.difficulty AS difficulty, i.standard_error AS standard_error, toInt64(a.given) AS given, toInt64(a.learners) AS learners, toInt64(a.schools) AS schools,
	a.proportion AS proportion, toUInt64(i.version) AS version
FROM {db}.items AS i
INNER JOIN (
	SELECT item, sum(given) AS given, count() AS learners, uniqExact(school) AS schools, avg(first) AS proportion
	FROM (
		SELECT concat(publisher, ':', exercise) AS item, school, count() AS given, argMin(score, position) AS first
		FROM {db}.answers FINAL GROUP BY item, school, learner
	) GROUP BY item HAVING learners >= {learners:UInt32} AND schools >= {schools:UInt32}
) AS a ON a.item = i.item
ORDER BY publisher, exercise`

// ItemStatistics calls see with the exercises that at least so many learners of
// at least so many schools have answered, in the order of publisher and
// exercise. The slice is used again. A failure of the connection ends it: what
// was seen can't be taken back.
func (s *Store) ItemStatistics(ctx context.Context, learners, schools int, see func([]ItemStatistic) error) error {
	if err := s.catchUp(ctx, "answers", "item_snapshots"); err != nil {
		return fmt.Errorf("read item statistics: %w", err)
	}
	var publisher, exercise, goal, subject proto.ColStr
	var difficulty, standardError, proportion proto.ColFloat64
	var given, ofLearners, ofSchools proto.ColInt64
	var version proto.ColUInt64
	var rows []ItemStatistic
	err := s.pool.do(ctx, ch.Query{
		Body:       s.fill(itemStatistics),
		Parameters: ch.Parameters(parameters{"learners": learners, "schools": schools}),
		Result: proto.Results{{Name: "publisher", Data: &publisher}, {Name: "exercise", Data: &exercise}, {Name: "goal", Data: &goal},
			{Name: "subject", Data: &subject}, {Name: "difficulty", Data: &difficulty}, {Name: "standard_error", Data: &standardError},
			{Name: "given", Data: &given}, {Name: "learners", Data: &ofLearners}, {Name: "schools", Data: &ofSchools},
			{Name: "proportion", Data: &proportion}, {Name: "version", Data: &version}},
		OnResult: func(_ context.Context, block proto.Block) error {
			rows = rows[:0]
			for i := range block.Rows {
				rows = append(rows, ItemStatistic{Publisher: publisher.Row(i), Exercise: exercise.Row(i), Goal: goal.Row(i), Subject: subject.Row(i),
					Difficulty: difficulty[i], StandardError: standardError[i], Answers: given[i], Learners: ofLearners[i], Schools: ofSchools[i],
					Proportion: proportion[i], Version: version[i]})
			}
			if len(rows) == 0 {
				return nil
			}
			return see(rows)
		},
	})
	if err != nil {
		return fmt.Errorf("read item statistics: %w", err)
	}
	return nil
}
