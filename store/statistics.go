package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

// ItemStatistic is what is told of an exercise, over all schools.
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

// archivedUntil: beyond the last position of every partition.
const archivedUntil = `SELECT toInt64(source_partition) AS c0, toInt64(max(position)) + 1 AS c1 FROM {db}.answers GROUP BY source_partition`

// tellItems: the first answer of a learner is that with the earliest position in
// the log; a learner is new to an exercise when that was not in what was told of
// it last. The format takes positions by partition.
const tellItems = `INSERT INTO {db}.told_items
	(release, publisher, exercise, goal, subject, difficulty, standard_error, answers, learners, schools, proportion_correct, version, until)
SELECT (SELECT max(release) FROM {db}.told_items) + 1, i.publisher, i.exercise, i.goal, i.subject, i.difficulty, i.standard_error,
	a.given, a.learners, a.schools, a.proportion, i.version, [%[1]s]
FROM {db}.items AS i
INNER JOIN (
	SELECT l.item AS item, sum(l.given) AS given, count() AS learners, uniqExact(l.school) AS schools, avg(l.first) AS proportion
	FROM (
		SELECT concat(publisher, ':', exercise) AS item, school, any(source_partition) AS part, count() AS given,
			argMin(score, position) AS first, min(position) AS begun
		FROM {db}.answers FINAL WHERE position < [%[1]s][source_partition + 1] GROUP BY item, school, learner
	) AS l
	LEFT JOIN (
		SELECT concat(publisher, ':', exercise) AS item, max(release) AS release FROM {db}.told_items GROUP BY item
	) AS t ON t.item = l.item
	LEFT JOIN (
		SELECT release, toUInt16(number - 1) AS part, told FROM (SELECT release, any(until) AS until FROM {db}.told_items GROUP BY release)
		ARRAY JOIN until AS told, arrayEnumerate(until) AS number
	) AS u ON u.release = t.release AND u.part = l.part
	GROUP BY l.item
	HAVING countIf(l.begun >= u.told) >= {learners:UInt32} AND uniqExactIf(l.school, l.begun >= u.told) >= {schools:UInt32}
) AS a ON a.item = i.item`

// TellItems computes what is told of exercises, for those that at least so many
// learners of at least so many schools have answered who had not when it was told
// last. What is told of the others stays as it was, whatever became of them, so
// that what is told at two times never differs by fewer learners.
func (s *Store) TellItems(ctx context.Context, learners, schools int) error {
	if err := s.catchUp(ctx, "answers", "item_snapshots", "told_items"); err != nil {
		return fmt.Errorf("tell items: %w", err)
	}
	ends, err := s.integers(ctx, 2, s.fill(archivedUntil), nil)
	if err != nil {
		return fmt.Errorf("tell items: %w", err)
	}
	if len(ends) == 0 {
		return nil
	}
	// Done again after a lost reply it finds no new learners.
	err = s.read(ctx, func() ch.Query {
		return ch.Query{Body: s.fill(fmt.Sprintf(tellItems, byPartition(ends))), Parameters: ch.Parameters(parameters{"learners": learners, "schools": schools})}
	})
	if err != nil {
		return fmt.Errorf("tell items: %w", err)
	}
	return nil
}

// byPartition returns positions, given with their partitions, as a list in SQL.
func byPartition(ends [][]int64) string {
	var texts []string
	for _, end := range ends {
		for int64(len(texts)) <= end[0] {
			texts = append(texts, "0")
		}
		texts[end[0]] = strconv.FormatInt(end[1], 10)
	}
	return strings.Join(texts, ",")
}

const toldItems = `SELECT CAST(publisher, 'String') AS of_publisher, exercise, CAST(goal, 'String') AS of_goal, CAST(subject, 'String') AS of_subject, difficulty, standard_error,
	answers, learners, schools, proportion_correct, version
FROM {db}.told_items FINAL ORDER BY publisher, exercise, release DESC LIMIT 1 BY publisher, exercise`

// ToldItems calls see with what is told of exercises, in the order of publisher
// and exercise. The slice is used again. A failure of the connection ends it:
// what was seen can't be taken back.
func (s *Store) ToldItems(ctx context.Context, see func([]ItemStatistic) error) error {
	if err := s.catchUp(ctx, "told_items"); err != nil {
		return fmt.Errorf("read told items: %w", err)
	}
	var publisher, exercise, goal, subject proto.ColStr
	var difficulty, standardError, proportion proto.ColFloat64
	var given, ofLearners, ofSchools proto.ColInt64
	var version proto.ColUInt64
	var rows []ItemStatistic
	err := s.pool.do(ctx, ch.Query{
		Body: s.fill(toldItems),
		Result: proto.Results{{Name: "of_publisher", Data: &publisher}, {Name: "exercise", Data: &exercise}, {Name: "of_goal", Data: &goal},
			{Name: "of_subject", Data: &subject}, {Name: "difficulty", Data: &difficulty}, {Name: "standard_error", Data: &standardError},
			{Name: "answers", Data: &given}, {Name: "learners", Data: &ofLearners}, {Name: "schools", Data: &ofSchools},
			{Name: "proportion_correct", Data: &proportion}, {Name: "version", Data: &version}},
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
		return fmt.Errorf("read told items: %w", err)
	}
	return nil
}
