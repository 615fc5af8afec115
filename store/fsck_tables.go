package store

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// parameters of a query, bound by the server.
type parameters map[string]any

// integers runs a query whose columns are Int64, named c0, c1, …
func (s *Store) integers(ctx context.Context, columns int, body string, p parameters) ([][]int64, error) {
	var rows [][]int64
	err := s.read(ctx, func() ch.Query {
		rows = nil
		data := make([]proto.ColInt64, columns)
		results := make(proto.Results, columns)
		for i := range data {
			results[i] = proto.ResultColumn{Name: fmt.Sprintf("c%d", i), Data: &data[i]}
		}
		q := ch.Query{Body: body, Result: results, OnResult: func(_ context.Context, block proto.Block) error {
			for i := range block.Rows {
				row := make([]int64, columns)
				for k := range row {
					row[k] = data[k][i]
				}
				rows = append(rows, row)
			}
			return nil
		}}
		if p != nil {
			q.Parameters = ch.Parameters(p)
		}
		return q
	})
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", tableOf(body), err)
	}
	return rows, nil
}

// tableOf returns the first table that a query names, for errors.
func tableOf(body string) string {
	_, rest, _ := strings.Cut(body, "FROM ")
	return strings.TrimLeft(strings.SplitN(rest, " ", 2)[0], "(")
}

// ledgerAndArchive compares, per message, what the ledger says was archived,
// less what was erased since, with what lies in the archive. Rows of messages
// beyond the progress are left out.
//
//	c0 partition, c1 messages, c2 in the archive by the ledger, c3 corrections,
//	c4 rows missing, c5 rows too many, c6 messages whose ids have another sum
const ledgerAndArchive = `SELECT toInt64(partition) AS c0, toInt64(count()) AS c1, toInt64(sum(archived)) AS c2, toInt64(sum(corrections)) AS c3,
	toInt64(sumIf(archived - found, archived > found)) AS c4, toInt64(sumIf(found - archived, found > archived)) AS c5,
	toInt64(countIf(found = archived AND ids != id_sum)) AS c6
FROM (
	SELECT partition, raw_offset, sum(archived) AS archived, sum(corrections) AS corrections, sum(id_sum) AS id_sum,
		toInt64(sum(found)) AS found, sum(ids) AS ids
	FROM (
		SELECT partition, raw_offset, toInt64(archived) AS archived, corrections, id_sum, 0 AS found, toUInt64(0) AS ids
		FROM {db}.raw_ledger FINAL WHERE content = '{content}'
		UNION ALL
		SELECT partition, raw_offset, -toInt64(rows), 0, toUInt64(-toInt64(id_sum)), 0, toUInt64(0)
		FROM {db}.erased FINAL WHERE content = '{content}'
		UNION ALL
		SELECT source_partition, bitShiftRight(position, 20), toInt64(0), 0, toUInt64(0), count(), sum(reinterpretAsUInt64(substring(id, 1, 8)))
		FROM {db}.{content} FINAL GROUP BY source_partition, bitShiftRight(position, 20)
	) GROUP BY partition, raw_offset
) AS l
INNER JOIN (SELECT partition, raw_offset AS until FROM {db}.progress FINAL) AS p USING partition
WHERE toInt64(raw_offset) <= until
GROUP BY partition ORDER BY partition`

// archived: the archive holds every row once.
func (c *check) archived(ctx context.Context) error {
	for _, content := range []string{"answers", "test_results"} {
		messages, archived, corrections := int64(0), int64(0), int64(0)
		problems, err := c.settled(ctx, func(ctx context.Context) ([]string, error) {
			var problems []string
			rows, err := c.store.integers(ctx, 7, c.store.fill(strings.ReplaceAll(ledgerAndArchive, "{content}", content)), nil)
			messages, archived, corrections = 0, 0, 0
			for _, r := range rows {
				messages, archived, corrections = messages+r[1], archived+r[2], corrections+r[3]
				if r[4] > 0 {
					problems = append(problems, fmt.Sprintf("partition %d: %d rows are missing", r[0], r[4]))
				}
				if r[5] > 0 {
					problems = append(problems, fmt.Sprintf("partition %d: %d rows too many", r[0], r[5]))
				}
				if r[6] > 0 {
					problems = append(problems, fmt.Sprintf("partition %d: other ids than were delivered in %d messages", r[0], r[6]))
				}
			}
			return problems, err
		})
		if err != nil {
			return err
		}
		c.line(strings.ReplaceAll(content, "_", " ")+" are archived once",
			fmt.Sprintf("%d rows of %d messages, %d corrections beside them", archived, messages, corrections), problems)
	}
	return nil
}

// fill puts the database into a query text.
func (s *Store) fill(body string) string { return strings.ReplaceAll(body, "{db}", s.config.Database) }

// settled runs a comparison of tables that are written one after the other. When
// it finds problems while partitions move or messages wait, they may come from
// that: an erasure that is half carried out stands still for a while when a write
// has to be repeated. It is run again until nothing moved and nothing waited, or
// the time is over.
func (c *check) settled(ctx context.Context, compare func(context.Context) ([]string, error)) ([]string, error) {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(c.sources.Wait); ; {
		before, err := c.positions(ctx)
		if err != nil {
			return nil, err
		}
		problems, err := compare(ctx)
		if err != nil || len(problems) == 0 {
			return problems, err
		}
		after, err := c.positions(ctx)
		if err != nil {
			return nil, err
		}
		waiting, err := c.waiting(ctx)
		if err != nil || before == after && !waiting {
			return problems, err
		}
		if time.Now().After(deadline) {
			return append([]string{"partitions kept moving during the comparison"}, problems...), nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-again.C:
		}
	}
}

// waiting tells whether a partition has messages in answers that the store has
// not taken over.
func (c *check) waiting(ctx context.Context) (bool, error) {
	rows, err := c.store.integers(ctx, 2, "SELECT toInt64(partition) AS c0, answers_offset AS c1 FROM "+c.store.table("progress")+" FINAL", nil)
	if err != nil {
		return false, err
	}
	handled := make(map[int]int64, len(rows))
	for _, r := range rows {
		handled[int(r[0])] = r[1] + 1
	}
	for p := range c.logs {
		_, end, err := c.sources.Client.Offsets(ctx, c.sources.Topics.Answers, p)
		if err != nil || handled[p] < end {
			return true, err
		}
	}
	return false, nil
}

// positions is a digest of how far partitions, skills and sums have come.
func (c *check) positions(ctx context.Context) (digest string, err error) {
	rows, err := c.store.integers(ctx, 1, c.store.fill(`SELECT toInt64(groupBitXor(place)) AS c0 FROM (
	SELECT cityHash64(partition, position, answers_offset) AS place FROM {db}.progress FINAL
	UNION ALL SELECT cityHash64('skills', max(position), count()) FROM {db}.skills
	UNION ALL SELECT cityHash64('norms', max(position), count()) FROM {db}.norms
	UNION ALL SELECT cityHash64('item_sums', max(position), count()) FROM {db}.item_sums
)`), nil)
	return fmt.Sprint(rows), err
}

// archiveAndSkills compares the answers in the archive, corrected and without
// what was erased, with those that have moved overall skills, and the learners of
// both. A score off the scale moves nothing.
//
//	c0 partition, c1 answers in the archive, c2 answers in skills,
//	c3 learners in the archive, c4 learners in skills
const archiveAndSkills = `SELECT toInt64(partition) AS c0, toInt64(sum(archived)) AS c1, toInt64(sum(moved)) AS c2, toInt64(sum(delivered)) AS c3, toInt64(sum(known)) AS c4
FROM (
	SELECT partition, toUInt64(0) AS archived, sum(toUInt64(answers)) AS moved, toUInt64(0) AS delivered, count() AS known
	FROM {db}.skills FINAL WHERE layer = 'overall' GROUP BY partition
	UNION ALL
	SELECT source_partition, count(), toUInt64(0), uniqExact(learner), toUInt64(0)
	FROM {db}.answers FINAL WHERE score >= 0 AND score <= 1 AND learner != toFixedString('', 16) GROUP BY source_partition
) GROUP BY partition ORDER BY partition`

// moved: every archived answer has moved its learner once.
func (c *check) moved(ctx context.Context) error {
	answers, learners := int64(0), int64(0)
	problems, err := c.settled(ctx, func(ctx context.Context) ([]string, error) {
		rows, err := c.store.integers(ctx, 5, c.store.fill(archiveAndSkills), nil)
		var problems []string
		answers, learners = 0, 0
		for _, r := range rows {
			answers, learners = answers+r[2], learners+r[4]
			if r[1] != r[2] {
				problems = append(problems, fmt.Sprintf("partition %d: %d answers are archived, but %d have moved a skill", r[0], r[1], r[2]))
			}
			if r[3] != r[4] {
				problems = append(problems, fmt.Sprintf("partition %d: %d learners have answers, %d have a skill", r[0], r[3], r[4]))
			}
		}
		return problems, err
	})
	if err != nil {
		return err
	}
	c.line("every answer has moved its learner once", fmt.Sprintf("%d answers of %d learners", answers, learners), problems)
	return nil
}

// sumsAndArchive compares the sums of every component with what the rows of the
// archive say by themselves. Both are integers: they are the same or they are
// not.
//
//	c0 partition, c1 exercises, c2 answers in their sums, c3 components that differ
const sumsAndArchive = `SELECT toInt64(partition) AS c0, toInt64(countIf(component = 0)) AS c1, toInt64(sumIf(counted, component = 0)) AS c2,
	toInt64(countIf(off_gradient != 0 OR off_information != 0 OR off_answers != 0 OR off_score != 0)) AS c3
FROM (
	SELECT partition, component, key, sum(gradient) AS off_gradient, sum(information) AS off_information, sum(answers) AS off_answers,
		sum(score_sum) AS off_score, sumIf(answers, answers > 0) AS counted
	FROM (
		SELECT partition, toUInt8(component) AS component, key, gradient, information, answers, score_sum FROM {db}.item_sums FINAL
		UNION ALL
		SELECT source_partition, toUInt8(part.1), part.2, -65536 * sum(toInt64(evidence_gradient)), -65536 * sum(toInt64(evidence_information)),
			-toInt64(count()), -sum(toInt64(roundBankers(score * 4294967296)))
		FROM {db}.answers FINAL ARRAY JOIN [(0, concat(toString(publisher), ':', toString(exercise))), (1, toString(goal)), (2, '')] AS part
		WHERE evidence_information > 0 AND (part.1 != 1 OR part.2 != '')
		GROUP BY source_partition, part.1, part.2
	) GROUP BY partition, component, key
) GROUP BY partition ORDER BY partition`

// sums: the sums of exercises, goals and the global component are those of the
// archive.
func (c *check) sums(ctx context.Context) error {
	items, answers := int64(0), int64(0)
	problems, err := c.settled(ctx, func(ctx context.Context) ([]string, error) {
		var problems []string
		rows, err := c.store.integers(ctx, 4, c.store.fill(sumsAndArchive), nil)
		items, answers = 0, 0
		for _, r := range rows {
			items, answers = items+r[1], answers+r[2]
			if r[3] > 0 {
				problems = append(problems, fmt.Sprintf("partition %d: %d sums are not those of the archive", r[0], r[3]))
			}
		}
		return problems, err
	})
	if err != nil {
		return err
	}
	c.line("sums match the archive", fmt.Sprintf("%d answers in the sums of %d exercises", answers, items), problems)
	return nil
}

// normsAndSkills compares the learners in the histograms of a layer with the
// skills. Histograms are written less often than skills: they hold at least the
// learners that have not moved since, and at most all. A partition without
// histograms yet joins as until = 0, below every position.
//
//	c0 partition, c1 learners counted, c2 histograms outside the bounds
const normsAndSkills = `SELECT toInt64(partition) AS c0, toInt64(sum(counted)) AS c1, toInt64(countIf(counted < least OR counted > most)) AS c2
FROM (
	SELECT partition, layer, key, sum(counted) AS counted, sum(least) AS least, sum(most) AS most
	FROM (
		SELECT partition, layer, key, arraySum(counts) AS counted, toInt64(0) AS least, toInt64(0) AS most FROM {db}.norms FINAL
		UNION ALL
		SELECT s.partition, s.layer, s.key, toInt64(0), toInt64(countIf(s.position < n.until)), toInt64(count())
		FROM (SELECT partition, layer, key, position FROM {db}.skills FINAL WHERE answers > 0) AS s
		LEFT JOIN (SELECT partition, max(position) + 1 AS until FROM {db}.norms GROUP BY partition) AS n ON n.partition = s.partition
		GROUP BY s.partition, s.layer, s.key
	) GROUP BY partition, layer, key
) GROUP BY partition ORDER BY partition`

// norms: the histograms count every learner once.
func (c *check) norms(ctx context.Context) error {
	counted := int64(0)
	problems, err := c.settled(ctx, func(ctx context.Context) ([]string, error) {
		rows, err := c.store.integers(ctx, 3, c.store.fill(normsAndSkills), nil)
		var problems []string
		counted = 0
		for _, r := range rows {
			counted += r[1]
			if r[2] > 0 {
				problems = append(problems, fmt.Sprintf("partition %d: %d histograms do not count the learners that have a skill", r[0], r[2]))
			}
		}
		return problems, err
	})
	if err != nil {
		return err
	}
	c.line("histograms count every learner once", fmt.Sprintf("%d learners in all histograms together", counted), problems)
	return nil
}

// archivedTokens returns the tokens of a partition; some twice.
func (s *Store) archivedTokens(ctx context.Context, partition int) ([]answer.Token, error) {
	var tokens []answer.Token
	err := s.read(ctx, func() ch.Query {
		tokens = nil
		var learner proto.ColFixedStr16
		return ch.Query{
			Body: s.fill("SELECT DISTINCT learner FROM {db}.answers FINAL WHERE source_partition = {partition:UInt16}" +
				" UNION ALL SELECT DISTINCT learner FROM {db}.test_results FINAL WHERE source_partition = {partition:UInt16}"),
			Parameters: ofPartition(partition),
			Result:     proto.Results{{Name: "learner", Data: &learner}},
			OnResult: func(context.Context, proto.Block) error {
				tokens = append(tokens, tokensOf(learner)...)
				return nil
			},
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read tokens of partition %d: %w", partition, err)
	}
	return tokens, nil
}

func compareTokens(a, b answer.Token) int {
	x, y := a.Bytes(), b.Bytes()
	return bytes.Compare(x[:], y[:])
}
