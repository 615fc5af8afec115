package store

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// Readings implements transform.Persistence.
func (s *Store) Readings(ctx context.Context, partition int) (transform.Readings, error) {
	readings := transform.Readings{Relearnt: make(map[answer.Token]answer.Position)}
	if err := s.catchUp(ctx, "adoptions", "relearnt", "answers"); err != nil {
		return readings, fmt.Errorf("load readings of partition %d: %w", partition, err)
	}
	var err error
	if readings.Adoptions, err = s.adoptions(ctx, partition, 0); err != nil {
		return readings, err
	}
	return readings, s.relearnt(ctx, partition, 0, ^answer.Position(0), readings.Relearnt)
}

// adoptions returns those of a partition from a raw offset on, by position.
func (s *Store) adoptions(ctx context.Context, partition int, fromRaw int64) ([]transform.Adoption, error) {
	var adoptions []transform.Adoption
	err := s.read(ctx, func() ch.Query {
		adoptions = nil
		var position, version proto.ColUInt64
		return ch.Query{
			Body: s.fill("SELECT position, version FROM {db}.adoptions WHERE partition = {partition:UInt16} AND position >= {from:UInt64}" +
				" GROUP BY position, version ORDER BY position, version"),
			Parameters: ch.Parameters(parameters{"partition": partition, "from": uint64(answer.At(fromRaw, 0))}),
			Result:     proto.Results{{Name: "position", Data: &position}, {Name: "version", Data: &version}},
			OnResult: func(context.Context, proto.Block) error {
				for i := range position {
					adoptions = append(adoptions, transform.Adoption{Position: answer.Position(position[i]), Version: version[i]})
				}
				return nil
			},
		}
	})
	if err != nil {
		return nil, fmt.Errorf("load adoptions of partition %d: %w", partition, err)
	}
	return adoptions, nil
}

// relearnt reads which learners were learnt anew by messages in a range.
func (s *Store) relearnt(ctx context.Context, partition int, from, end answer.Position, into map[answer.Token]answer.Position) error {
	err := s.read(ctx, func() ch.Query {
		clear(into)
		var learner proto.ColFixedStr16
		var position proto.ColUInt64
		return ch.Query{
			Body: s.fill("SELECT learner, position FROM {db}.relearnt FINAL WHERE partition = {partition:UInt16}" +
				" AND position >= {from:UInt64} AND position < {end:UInt64}"),
			Parameters: rangeOf(partition, from, end),
			Result:     proto.Results{{Name: "learner", Data: &learner}, {Name: "position", Data: &position}},
			OnResult: func(context.Context, proto.Block) error {
				for i, token := range tokensOf(learner) {
					into[token] = answer.Position(position[i])
				}
				return nil
			},
		}
	})
	if err != nil {
		return fmt.Errorf("load learners of partition %d who were learnt anew: %w", partition, err)
	}
	return nil
}

func rangeOf(partition int, from, end answer.Position) []proto.Parameter {
	return ch.Parameters(parameters{"partition": partition, "from": uint64(from), "end": uint64(end)})
}

// AmendedSince implements transform.Persistence.
func (s *Store) AmendedSince(ctx context.Context, partition int, from, end answer.Position) (transform.AmendedSince, error) {
	var since transform.AmendedSince
	relearnt := make(map[answer.Token]answer.Position)
	if err := s.relearnt(ctx, partition, from, end, relearnt); err != nil {
		return since, err
	}
	for token := range relearnt {
		since.Relearnt = append(since.Relearnt, token)
	}
	rebuilt, err := s.integers(ctx, 1, s.fill("SELECT toInt64(count()) AS c0 FROM {db}.raw_ledger WHERE partition = {partition:UInt16} AND content = 'rebuild'"+
		" AND bitShiftLeft(raw_offset, 20) >= {from:UInt64} AND bitShiftLeft(raw_offset, 20) < {end:UInt64}"),
		parameters{"partition": partition, "from": uint64(from), "end": uint64(end)})
	if err != nil {
		return since, err
	}
	since.Rebuilt = rebuilt[0][0] > 0
	err = s.read(ctx, func() ch.Query {
		since.Departures = nil
		var learner, into proto.ColFixedStr16
		var position proto.ColUInt64
		return ch.Query{
			Body: s.fill("SELECT learner, into, position FROM {db}.departed FINAL WHERE partition = {partition:UInt16}" +
				" AND position >= {from:UInt64} AND position < {end:UInt64} ORDER BY position, learner"),
			Parameters: rangeOf(partition, from, end),
			Result:     proto.Results{{Name: "learner", Data: &learner}, {Name: "into", Data: &into}, {Name: "position", Data: &position}},
			OnResult: func(context.Context, proto.Block) error {
				target := tokensOf(into)
				for i, token := range tokensOf(learner) {
					since.Departures = append(since.Departures, transform.Departure{LearnerName: transform.LearnerName{Learner: token}, Into: target[i]})
				}
				return nil
			},
		}
	})
	if err != nil {
		return since, fmt.Errorf("load tokens that have left partition %d: %w", partition, err)
	}
	return since, nil
}

// sortSettings let the server sort more than fits in its memory.
var sortSettings = []ch.Setting{{Key: "max_bytes_before_external_sort", Value: "400000000", Important: true}}

// Schools come first in the primary key: naming them keeps FINAL from merging the
// rows of all others.
const partitionAnswers = "SELECT learner, key_epoch, publisher, school, `group`, year_group, exercise, goal, subject, score, attempt," +
	" toUnixTimestamp64Milli(answered_at) AS at, revision, position, evidence_gradient, evidence_information FROM {db}.answers FINAL" +
	" WHERE school IN (SELECT DISTINCT school FROM {db}.skills WHERE partition = {partition:UInt16}) AND source_partition = {partition:UInt16}" +
	" AND position >= {from:UInt64} AND position < {end:UInt64} ORDER BY position"

// PartitionAnswers implements transform.Persistence. A failure of the connection
// ends it.
func (s *Store) PartitionAnswers(ctx context.Context, partition int, from, end answer.Position, see func(*transform.ArchivedAnswers) error) error {
	r := newArchivedResult()
	err := s.pool.do(ctx, ch.Query{Body: s.fill(partitionAnswers), Parameters: rangeOf(partition, from, end), Settings: sortSettings, Result: r.results(),
		OnResult: func(_ context.Context, block proto.Block) error {
			if block.Rows == 0 {
				return nil
			}
			rows := &transform.ArchivedAnswers{}
			r.begin()
			r.appendTo(rows)
			return see(rows)
		}})
	if err != nil {
		return fmt.Errorf("read answers of partition %d: %w", partition, err)
	}
	return nil
}

const snapshotChanges = `SELECT version, toInt8(component) AS component_number, key, mean, variance FROM {db}.item_snapshots ORDER BY version, component, key`

// SnapshotChanges implements transform.Persistence. Rows carry keys and values
// only. A failure of the connection ends it.
func (s *Store) SnapshotChanges(ctx context.Context, see func(*transform.SnapshotRows) error) error {
	if err := s.catchUp(ctx, "item_snapshots"); err != nil {
		return fmt.Errorf("read item snapshots: %w", err)
	}
	var version proto.ColUInt64
	var component proto.ColInt8
	var key proto.ColStr
	var mean, variance proto.ColFloat64
	rows := &transform.SnapshotRows{}
	next := func() error {
		done := rows
		rows = &transform.SnapshotRows{}
		if done.Version == 0 {
			return nil
		}
		return see(done)
	}
	err := s.pool.do(ctx, ch.Query{Body: s.fill(snapshotChanges), Settings: sortSettings,
		Result: proto.Results{{Name: "version", Data: &version}, {Name: "component_number", Data: &component}, {Name: "key", Data: &key},
			{Name: "mean", Data: &mean}, {Name: "variance", Data: &variance}},
		OnResult: func(context.Context, proto.Block) error {
			for i := range version {
				if version[i] != rows.Version {
					if err := next(); err != nil {
						return err
					}
					rows.Version = version[i]
				}
				if component[i] == componentNone {
					continue
				}
				rows.Component = append(rows.Component, transform.Component(component[i]))
				rows.Key = append(rows.Key, key.Row(i))
				rows.Mean, rows.Variance = append(rows.Mean, mean[i]), append(rows.Variance, variance[i])
			}
			return nil
		}})
	if err == nil {
		err = next()
	}
	if err != nil {
		return fmt.Errorf("read item snapshots: %w", err)
	}
	return nil
}

// CountAnswers returns about how many answers the archive holds.
func (s *Store) CountAnswers(ctx context.Context) (int64, error) {
	rows, err := s.integers(ctx, 1, s.fill("SELECT toInt64(count()) AS c0 FROM {db}.answers"), nil)
	if err != nil {
		return 0, fmt.Errorf("count answers: %w", err)
	}
	return rows[0][0], nil
}

// rebuiltRows is how many rows one insert of a rebuild has at most.
const rebuiltRows = 200_000

// StageRebuild implements transform.Persistence.
func (s *Store) StageRebuild(ctx context.Context, staged *transform.StagedRebuild) error {
	database := s.config.Database
	for first := 0; first < staged.Skills.Len(); {
		last := cut(&staged.Skills, first, rebuiltRows)
		b := newRebuiltSkillsBlock(database)
		b.append(staged, first, last)
		if err := s.insert(ctx, &b.block); err != nil {
			return fmt.Errorf("stage skills: %w", err)
		}
		first = last
	}
	for first := 0; first < len(staged.Rescored); first += rebuiltRows {
		b := newRebuiltScoresBlock(database)
		b.append(staged, staged.Rescored[first:min(first+rebuiltRows, len(staged.Rescored))])
		if err := s.insert(ctx, &b.block); err != nil {
			return fmt.Errorf("stage what answers say: %w", err)
		}
	}
	var number, position proto.ColUInt64
	var partition proto.ColUInt16
	number.Append(staged.Number)
	position.Append(uint64(staged.Position))
	partition.Append(uint16(staged.Partition))
	b := newBlock(database, "rebuilds", column("rebuild", &number), column("partition", &partition), column("position", &position))
	if err := s.insert(ctx, &b); err != nil {
		return fmt.Errorf("stage partition %d: %w", staged.Partition, err)
	}
	return nil
}

// LoadRebuild implements transform.Persistence.
func (s *Store) LoadRebuild(ctx context.Context, number uint64, partition int) (*transform.StagedRebuild, error) {
	if err := s.catchUp(ctx, "rebuilds", "rebuilt_skills", "rebuilt_scores"); err != nil {
		return nil, fmt.Errorf("load rebuild %d of partition %d: %w", number, partition, err)
	}
	header, err := s.integers(ctx, 1, s.fill("SELECT toInt64(position) AS c0 FROM {db}.rebuilds WHERE rebuild = {rebuild:UInt64} AND partition = {partition:UInt16}"),
		parameters{"rebuild": number, "partition": partition})
	if err != nil || len(header) == 0 {
		return nil, err
	}
	staged := &transform.StagedRebuild{Number: number, Partition: partition, Position: answer.Position(header[0][0])}
	err = s.read(ctx, func() ch.Query {
		staged.Skills.Reset()
		var r skillsResult
		return ch.Query{
			Body: s.fill("SELECT " + skillsColumns + " FROM {db}.rebuilt_skills FINAL WHERE rebuild = {rebuild:UInt64} AND partition = {partition:UInt16}" +
				" ORDER BY learner, layer, key"),
			Parameters: ch.Parameters(parameters{"rebuild": number, "partition": partition}), Settings: sortSettings,
			Result: r.results(),
			OnResult: func(_ context.Context, block proto.Block) error {
				if block.Rows > 0 {
					r.appendTo(&staged.Skills)
				}
				return nil
			},
		}
	})
	if err != nil {
		return nil, fmt.Errorf("load rebuild %d of partition %d: %w", number, partition, err)
	}
	return staged, nil
}

const rescoredAnswers = "SELECT learner, key_epoch, publisher, school, `group`, year_group, exercise, goal, subject, score, attempt," +
	" toUnixTimestamp64Milli(answered_at) AS at, revision, a.position AS position, evidence_gradient, evidence_information, p.gradient AS now_gradient," +
	" p.information AS now_information FROM (SELECT * FROM {db}.answers FINAL" +
	" WHERE school IN (SELECT DISTINCT school FROM {db}.skills WHERE partition = {partition:UInt16}) AND source_partition = {partition:UInt16}) AS a" +
	" ANY INNER JOIN (SELECT position, gradient, information FROM {db}.rebuilt_scores WHERE rebuild = {rebuild:UInt64} AND partition = {partition:UInt16}) AS p" +
	" ON p.position = a.position"

// RescoredAnswers implements transform.Persistence. A failure of the connection
// ends it.
func (s *Store) RescoredAnswers(ctx context.Context, number uint64, partition int, see func(*transform.ArchivedAnswers, *transform.Evidence) error) error {
	named := parameters{"rebuild": number, "partition": partition}
	any, err := s.integers(ctx, 1, s.fill("SELECT toInt64(count()) AS c0 FROM {db}.rebuilt_scores WHERE rebuild = {rebuild:UInt64} AND partition = {partition:UInt16}"), named)
	if err != nil || any[0][0] == 0 {
		return err
	}
	r := newArchivedResult()
	var gradient proto.ColInt32
	var information proto.ColUInt16
	results := append(r.results(), proto.ResultColumn{Name: "now_gradient", Data: &gradient}, proto.ResultColumn{Name: "now_information", Data: &information})
	err = s.pool.do(ctx, ch.Query{Body: s.fill(rescoredAnswers), Parameters: ch.Parameters(named), Result: results,
		OnResult: func(_ context.Context, block proto.Block) error {
			if block.Rows == 0 {
				return nil
			}
			rows := &transform.ArchivedAnswers{}
			r.begin()
			r.appendTo(rows)
			return see(rows, &transform.Evidence{Gradient: gradient, Information: information})
		}})
	if err != nil {
		return fmt.Errorf("read answers of partition %d that say something else: %w", partition, err)
	}
	return nil
}

// DropRebuilds takes away what is staged of a rebuild and of those before it. No
// partition may still have to switch to one of them.
func (s *Store) DropRebuilds(ctx context.Context, upTo uint64) error {
	for _, table := range []string{"rebuilt_skills", "rebuilt_scores"} {
		found, err := s.integers(ctx, 1, "SELECT DISTINCT toInt64(partition) AS c0 FROM system.parts WHERE database = {database:String}"+
			" AND table = {table:String} AND active AND toUInt64(partition) <= {rebuild:UInt64}",
			parameters{"database": s.config.Database, "table": table, "rebuild": upTo})
		if err != nil {
			return fmt.Errorf("drop what is staged of rebuilds: %w", err)
		}
		for _, row := range found {
			if err := s.statement(ctx, fmt.Sprintf("ALTER TABLE {db}.%s DROP PARTITION %d", table, row[0])); err != nil {
				return fmt.Errorf("drop what is staged of rebuild %d: %w", row[0], err)
			}
		}
	}
	return nil
}

// rescoreAnswers writes answers anew that say something else.
const rescoreAnswers = `INSERT INTO {db}.answers (id, learner, key_epoch, publisher, school, ` + "`group`" + `, year_group, exercise, goal, subject, kind, score,
	attempt, response_time_ms, answered_at, revision, source_partition, position, evidence_gradient, evidence_information, corrected, changed)
SELECT a.id, a.learner, a.key_epoch, a.publisher, a.school, a.` + "`group`" + `, a.year_group, a.exercise, a.goal, a.subject, a.kind, a.score,
	a.attempt, a.response_time_ms, a.answered_at, a.revision, a.source_partition, a.position, p.gradient, p.information, a.corrected, {order:UInt64}
FROM (SELECT * FROM {db}.answers FINAL WHERE school IN (SELECT DISTINCT school FROM {db}.skills WHERE partition = {partition:UInt16})
	AND source_partition = {partition:UInt16} AND changed < {order:UInt64}) AS a
ANY INNER JOIN scores AS p ON p.place = a.position`

// rescoredAtOnce is how many answers one statement writes anew at most.
const rescoredAtOnce = 1_000_000

// arriveRebuilt writes answers anew that say something else by a rebuild.
func (m *amending) arriveRebuilt(ctx context.Context, ledger *ledgerBlock) error {
	a := m.a
	ledger.append(a.Partition, a.RawOffset, contentRebuild, nil, nil)
	if err := m.insert(ctx, &ledger.block); err != nil {
		return err
	}
	for rest := a.Rescored; len(rest) > 0; {
		n := min(len(rest), rescoredAtOnce)
		some := *a
		some.Rescored = rest[:n]
		rest = rest[n:]
		if err := (&amending{store: m.store, a: &some}).run(ctx, rescoreAnswers); err != nil {
			return err
		}
	}
	return nil
}

// rebuiltSkillsBlock are rows of the table rebuilt_skills.
type rebuiltSkillsBlock struct {
	*skillsBlock
	number proto.ColUInt64
}

func newRebuiltSkillsBlock(database string) *rebuiltSkillsBlock {
	b := &rebuiltSkillsBlock{skillsBlock: newSkillsBlock(database)}
	b.block = newBlock(database, "rebuilt_skills", append(b.skillsColumns(), column("rebuild", &b.number))...)
	return b
}

func (b *rebuiltSkillsBlock) append(staged *transform.StagedRebuild, first, last int) {
	b.skillsBlock.append(staged.Partition, &staged.Skills, first, last)
	b.number = fill(b.number, staged.Number, last-first)
}

// rebuiltScoresBlock are rows of the table rebuilt_scores.
type rebuiltScoresBlock struct {
	block
	number, position proto.ColUInt64
	partition        proto.ColUInt16
	gradient         proto.ColInt32
	information      proto.ColUInt16
}

func newRebuiltScoresBlock(database string) *rebuiltScoresBlock {
	b := &rebuiltScoresBlock{}
	b.block = newBlock(database, "rebuilt_scores", column("rebuild", &b.number), column("partition", &b.partition), column("position", &b.position),
		column("gradient", &b.gradient), column("information", &b.information))
	return b
}

func (b *rebuiltScoresBlock) append(staged *transform.StagedRebuild, rescored []transform.Rescored) {
	b.number, b.partition = fill(b.number, staged.Number, len(rescored)), fill(b.partition, uint16(staged.Partition), len(rescored))
	for _, r := range rescored {
		b.position = append(b.position, uint64(r.Position))
		b.gradient, b.information = append(b.gradient, r.Gradient), append(b.information, r.Information)
	}
}
