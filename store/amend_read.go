package store

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// findEvents reads all ids of the schools, which come first in the primary key: a
// school has some 100 granules of answers a year.
const findEvents = `SELECT CAST(school, 'String') AS school_code, learner, {number} AS at, id AS event,
	newest.1 AS place, newest.2 AS revision_number, newest.3 AS corrected_at, newest.4 AS changed_at, newest.5 AS gone
FROM (
	SELECT school, learner, {moment}, id, argMax((position, revision, corrected, changed, is_deleted), version) AS newest
	FROM {db}.{table} WHERE school IN (SELECT school FROM wanted) AND (school, id) IN (SELECT school, id FROM wanted)
		AND source_partition = {partition:UInt16}
	GROUP BY school, learner, {moment}, id
)`

// FindEvents implements transform.Persistence.
func (s *Store) FindEvents(ctx context.Context, partition int, which transform.Archive, events []transform.EventName) ([]transform.Found, error) {
	var found []transform.Found
	a := archiveOf(which)
	if len(events) == 0 {
		return nil, nil
	}
	if err := s.catchUp(ctx, a.table); err != nil {
		return nil, fmt.Errorf("find %d events in %s: %w", len(events), a.table, err)
	}
	var school wordColumn
	school.init()
	var id proto.ColFixedStr16
	for i := range events {
		school.appendWord(events[i].School)
		id = append(id, events[i].ID)
	}
	wanted := ch.ExternalTable{Name: "wanted", Data: proto.Input{column("school", &school), column("id", &id)}}
	err := s.read(ctx, func() ch.Query {
		found = nil
		var code proto.ColStr
		var learner, event proto.ColFixedStr16
		var at proto.ColInt64
		var place, correctedAt, changedAt proto.ColUInt64
		var revision proto.ColUInt32
		var gone proto.ColUInt8
		return ch.Query{Body: s.fill(a.fill(findEvents)), Parameters: ofPartition(partition), ExternalTables: []ch.ExternalTable{wanted},
			Result: proto.Results{{Name: "school_code", Data: &code}, {Name: "learner", Data: &learner}, {Name: "at", Data: &at},
				{Name: "event", Data: &event}, {Name: "place", Data: &place}, {Name: "revision_number", Data: &revision},
				{Name: "corrected_at", Data: &correctedAt}, {Name: "changed_at", Data: &changedAt}, {Name: "gone", Data: &gone}},
			OnResult: func(_ context.Context, block proto.Block) error {
				tokens := tokensOf(learner)
				for i := range block.Rows {
					found = append(found, transform.Found{
						Lookup:   transform.Lookup{School: code.Row(i), Learner: tokens[i], Moment: at[i], ID: event[i]},
						Position: answer.Position(place[i]), Revision: revision[i], Corrected: answer.Position(correctedAt[i]),
						Changed: answer.Position(changedAt[i]), Gone: gone[i] == 1})
				}
				return nil
			}}
	})
	if err != nil {
		return nil, fmt.Errorf("find %d events in %s of partition %d: %w", len(events), a.table, partition, err)
	}
	return found, nil
}

// findDoubles looks at all rows of the learners only when somebody comes to stand
// where somebody is: a token that is new, as all are in a rotation, has no rows.
const findDoubles = `SELECT event, target, other.2 AS place
FROM (
	SELECT a.id AS event, m.into AS target, arrayJoin(arrayPopFront(arraySort(groupUniqArray((-toInt64(a.revision), a.position))))) AS other
	FROM (
		SELECT school, learner, {moment} AS at, id, revision, position FROM {db}.{table} FINAL
		WHERE (school, learner) IN (
			SELECT school, learner FROM joining WHERE several = 1 OR into IN (
				SELECT learner FROM {db}.{table} WHERE (school, learner) IN (SELECT school, into FROM joining))
		) AND position < {before:UInt64} AND source_partition = {partition:UInt16}
	) AS a
	INNER JOIN joining AS m ON m.school = a.school AND m.learner = a.learner
	GROUP BY a.school, m.into, a.at, a.id
) ORDER BY place`

// Doubles implements transform.Persistence.
func (s *Store) Doubles(ctx context.Context, partition int, which transform.Archive, learners []transform.Joining, before answer.Position) ([]transform.Double, error) {
	a := archiveOf(which)
	if err := s.catchUp(ctx, a.table); err != nil {
		return nil, fmt.Errorf("look for events that stand twice in %s: %w", a.table, err)
	}
	movers := make(map[answer.Token]int)
	for i := range learners {
		if learners[i].Learner != learners[i].Into {
			movers[learners[i].Into]++
		}
	}
	var school wordColumn
	school.init()
	var learner, into proto.ColFixedStr16
	var several proto.ColUInt8
	for i := range learners {
		l := &learners[i]
		school.appendWord(l.School)
		learner, into = append(learner, l.Learner.Bytes()), append(into, l.Into.Bytes())
		several = append(several, uint8(min(1, movers[l.Into]-1)))
	}
	joining := ch.ExternalTable{Name: "joining", Data: proto.Input{column("school", &school), column("learner", &learner),
		column("into", &into), column("several", &several)}}
	var doubles []transform.Double
	err := s.read(ctx, func() ch.Query {
		doubles = nil
		var event, target proto.ColFixedStr16
		var place proto.ColUInt64
		return ch.Query{Body: s.fill(a.fill(findDoubles)), ExternalTables: []ch.ExternalTable{joining},
			Parameters: ch.Parameters(map[string]any{"partition": partition, "before": uint64(before)}),
			Result:     proto.Results{{Name: "event", Data: &event}, {Name: "target", Data: &target}, {Name: "place", Data: &place}},
			OnResult: func(_ context.Context, block proto.Block) error {
				tokens := tokensOf(target)
				for i := range block.Rows {
					doubles = append(doubles, transform.Double{Position: answer.Position(place[i]), ID: event[i], Into: tokens[i]})
				}
				return nil
			}}
	})
	if err != nil {
		return nil, fmt.Errorf("look for events that stand twice in %s of partition %d: %w", a.table, partition, err)
	}
	return doubles, nil
}

const learnerAnswers = "SELECT learner, key_epoch, publisher, school, `group`, year_group, exercise, goal, subject, score, attempt," +
	" toUnixTimestamp64Milli(answered_at) AS at, revision, position, evidence_gradient, evidence_information FROM {db}.answers FINAL" +
	" WHERE (school, learner) IN (SELECT school, learner FROM wanted) AND source_partition = {partition:UInt16} AND position < {before:UInt64}" +
	" ORDER BY position"

// LearnerAnswers implements transform.Persistence.
func (s *Store) LearnerAnswers(ctx context.Context, partition int, learners []transform.LearnerName, before answer.Position) (*transform.ArchivedAnswers, error) {
	var rows *transform.ArchivedAnswers
	if err := s.catchUp(ctx, "answers"); err != nil {
		return nil, fmt.Errorf("read answers of %d learners: %w", len(learners), err)
	}
	var school wordColumn
	school.init()
	var token proto.ColFixedStr16
	for i := range learners {
		school.appendWord(learners[i].School)
		token = append(token, learners[i].Learner.Bytes())
	}
	wanted := ch.ExternalTable{Name: "wanted", Data: proto.Input{column("school", &school), column("learner", &token)}}
	err := s.read(ctx, func() ch.Query {
		rows = &transform.ArchivedAnswers{}
		r := newArchivedResult()
		return ch.Query{Body: s.fill(learnerAnswers), ExternalTables: []ch.ExternalTable{wanted},
			Parameters: ch.Parameters(map[string]any{"partition": partition, "before": uint64(before)}), Result: r.results(),
			OnResult: func(_ context.Context, block proto.Block) error {
				if block.Rows > 0 {
					r.appendTo(rows)
				}
				return nil
			}}
	})
	if err != nil {
		return nil, fmt.Errorf("read answers of %d learners of partition %d: %w", len(learners), partition, err)
	}
	return rows, nil
}

// archivedResult reads blocks of answers into dictionary columns.
type archivedResult struct {
	learner     proto.ColFixedStr16
	epoch       proto.ColUInt32
	words       [6]*wordResult // publisher, school, group, exercise, goal, subject
	yearGroup   proto.ColUInt8
	score       proto.ColFloat64
	attempt     proto.ColUInt16
	at          proto.ColInt64
	revision    proto.ColUInt32
	position    proto.ColUInt64
	gradient    proto.ColInt32
	information proto.ColUInt16

	known [6]map[string]int32
	codes map[answer.Token]int32
	texts []string // scratch
}

func newArchivedResult() *archivedResult {
	r := &archivedResult{}
	for i := range r.words {
		r.words[i] = newWordResult()
	}
	r.begin()
	return r
}

// begin makes what is read from now on rows of their own.
func (r *archivedResult) begin() {
	r.codes = make(map[answer.Token]int32)
	for i := range r.known {
		r.known[i] = make(map[string]int32)
	}
}

func (r *archivedResult) results() proto.Results {
	return proto.Results{{Name: "learner", Data: &r.learner}, {Name: "key_epoch", Data: &r.epoch}, {Name: "publisher", Data: r.words[0]},
		{Name: "school", Data: r.words[1]}, {Name: "group", Data: r.words[2]}, {Name: "year_group", Data: &r.yearGroup},
		{Name: "exercise", Data: r.words[3]}, {Name: "goal", Data: r.words[4]}, {Name: "subject", Data: r.words[5]},
		{Name: "score", Data: &r.score}, {Name: "attempt", Data: &r.attempt}, {Name: "at", Data: &r.at}, {Name: "revision", Data: &r.revision},
		{Name: "position", Data: &r.position}, {Name: "evidence_gradient", Data: &r.gradient}, {Name: "evidence_information", Data: &r.information}}
}

func (r *archivedResult) appendTo(rows *transform.ArchivedAnswers) {
	rows.Rows += len(r.learner)
	for i, token := range tokensOf(r.learner) {
		code, ok := r.codes[token]
		if !ok {
			code = int32(len(rows.Learner.Values))
			r.codes[token] = code
			rows.Learner.Values = append(rows.Learner.Values, token)
		}
		rows.Learner.Codes = append(rows.Learner.Codes, code)
		rows.Position = append(rows.Position, answer.Position(r.position[i]))
	}
	for k, to := range [...]*answer.Strings{&rows.Publisher, &rows.School, &rows.Group, &rows.Exercise, &rows.Goal, &rows.Subject} {
		r.texts = r.words[k].appendTo(r.texts[:0])
		for _, text := range r.texts {
			code, ok := r.known[k][text]
			if !ok {
				code = int32(len(to.Values))
				r.known[k][text] = code
				to.Values = append(to.Values, text)
			}
			to.Codes = append(to.Codes, code)
		}
	}
	rows.Epoch = append(rows.Epoch, r.epoch...)
	rows.YearGroup = append(rows.YearGroup, r.yearGroup...)
	rows.Score = append(rows.Score, r.score...)
	rows.Attempt = append(rows.Attempt, r.attempt...)
	rows.AnsweredAt = append(rows.AnsweredAt, r.at...)
	rows.Revision = append(rows.Revision, r.revision...)
	rows.Gradient = append(rows.Gradient, r.gradient...)
	rows.Information = append(rows.Information, r.information...)
}
