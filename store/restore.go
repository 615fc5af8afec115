package store

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// Restore implements transform.Persistence. The partition may write again when
// it had to stop because of ErrRejected.
//
// The order of reading matters when another process is still writing: skills may
// be newer than progress, and sums must not be older than skills.
func (s *Store) Restore(ctx context.Context, partition int) (transform.Restored, error) {
	s.writer.join(partition)
	restored, err := s.restoreSkills(ctx, partition, "progress", "skills", "item_sums", "adoptions")
	if err != nil {
		return restored, err
	}
	if restored.Vacated, err = s.loadVacated(ctx, partition); err != nil {
		return restored, fmt.Errorf("restore partition %d: vacated moments: %w", partition, err)
	}
	if err := s.catchUp(ctx, "item_sums", "adoptions"); err != nil { // again: skills may have come meanwhile
		return restored, fmt.Errorf("restore partition %d: %w", partition, err)
	}
	var sums [1]transform.ItemSumRows
	if err := s.readSums(ctx, partition, sums[:]); err != nil {
		return restored, fmt.Errorf("restore partition %d: sums: %w", partition, err)
	}
	restored.Sums = sums[0]
	if restored.Adoptions, err = s.adoptions(ctx, partition, restored.RawOffset+1); err != nil { // last: they come before what was computed with them
		return restored, fmt.Errorf("restore partition %d: %w", partition, err)
	}
	return restored, nil
}

// RestoreSkills is Restore for who serves skills: without vacated moments, sums and
// adoptions, which a stage alone needs.
func (s *Store) RestoreSkills(ctx context.Context, partition int) (transform.Restored, error) {
	return s.restoreSkills(ctx, partition, "progress", "skills")
}

func (s *Store) restoreSkills(ctx context.Context, partition int, tables ...string) (transform.Restored, error) {
	restored := transform.Restored{RawOffset: -1, AnswersOffset: -1, SkillsOffset: -1}
	if err := s.catchUp(ctx, tables...); err != nil {
		return restored, fmt.Errorf("restore partition %d: %w", partition, err)
	}
	if err := s.loadProgress(ctx, partition, &restored); err != nil {
		return restored, fmt.Errorf("restore partition %d: progress: %w", partition, err)
	}
	if err := s.loadSkills(ctx, partition, &restored.Skills); err != nil {
		return restored, fmt.Errorf("restore partition %d: skills: %w", partition, err)
	}
	departed, err := s.loadDeparted(ctx, partition)
	if err != nil {
		return restored, fmt.Errorf("restore partition %d: departed tokens: %w", partition, err)
	}
	restored.Departed = departed
	newestSkills(&restored.Skills, departed)
	return restored, nil
}

// catchUp waits until the replica that is read has what was acknowledged.
func (s *Store) catchUp(ctx context.Context, tables ...string) error {
	if !s.config.Replicated {
		return nil
	}
	for _, t := range tables {
		if err := s.read(ctx, func() ch.Query { return ch.Query{Body: "SYSTEM SYNC REPLICA " + s.table(t)} }); err != nil {
			return fmt.Errorf("sync replica of %s: %w", t, err)
		}
	}
	return nil
}

// read runs a query, again when the connection or the server fails in a way that
// passes, until ctx ends. prepare makes the query anew for each attempt and
// empties what it fills.
func (s *Store) read(ctx context.Context, prepare func() ch.Query) error {
	pause := newBackoff()
	for {
		err := s.pool.do(ctx, prepare())
		if err == nil || permanent(err) || ctx.Err() != nil {
			return err
		}
		s.config.Logger.WarnContext(ctx, "query failed, trying again", "error", err)
		if !pause.wait(ctx) {
			return fmt.Errorf("%w (last error: %w)", context.Cause(ctx), err)
		}
	}
}

func ofPartition(partition int) []proto.Parameter {
	return ch.Parameters(map[string]any{"partition": partition})
}

func (s *Store) loadProgress(ctx context.Context, partition int, r *transform.Restored) error {
	var position, version proto.ColUInt64
	var raw, answers, skills proto.ColInt64
	err := s.read(ctx, func() ch.Query {
		return ch.Query{
			Body: "SELECT position, raw_offset, answers_offset, skills_offset, snapshot_version FROM " + s.table("progress") +
				" FINAL WHERE partition = {partition:UInt16}",
			Parameters: ofPartition(partition),
			Result: proto.Results{{Name: "position", Data: &position}, {Name: "raw_offset", Data: &raw},
				{Name: "answers_offset", Data: &answers}, {Name: "skills_offset", Data: &skills}, {Name: "snapshot_version", Data: &version}},
			OnResult: func(_ context.Context, block proto.Block) error {
				for i := range block.Rows {
					r.Position, r.RawOffset = answer.Position(position[i]), raw[i]
					r.AnswersOffset, r.SkillsOffset, r.SnapshotVersion = answers[i], skills[i], version[i]
				}
				return nil
			},
		}
	})
	return err
}

// wordResult reads LowCardinality(String). Equal words of all blocks share their
// memory.
type wordResult struct {
	proto.ColLowCardinalityRaw
	index proto.ColStr
	known map[string]string
	words []string // of the block
}

func newWordResult() *wordResult {
	w := &wordResult{known: make(map[string]string)}
	w.Index = &w.index
	return w
}

// appendTo adds the rows of a block.
func (w *wordResult) appendTo(rows []string) []string {
	w.words = w.words[:0]
	for i := range w.index.Rows() {
		text := w.index.RowBytes(i)
		word, ok := w.known[string(text)]
		if !ok {
			word = string(text)
			w.known[word] = word
		}
		w.words = append(w.words, word)
	}
	switch w.Key {
	case proto.KeyUInt8:
		return lookUp(rows, w.words, w.Keys8)
	case proto.KeyUInt16:
		return lookUp(rows, w.words, w.Keys16)
	case proto.KeyUInt32:
		return lookUp(rows, w.words, w.Keys32)
	}
	return lookUp(rows, w.words, w.Keys64)
}

func lookUp[K uint8 | uint16 | uint32 | uint64](rows, words []string, keys []K) []string {
	for _, k := range keys {
		rows = append(rows, words[k])
	}
	return rows
}

// skillsResult reads blocks of skills.
type skillsResult struct {
	learner                       proto.ColFixedStr16
	layer, yearGroup              proto.ColUInt8
	key, subject, school, group   *wordResult
	keyEpoch, answers             proto.ColUInt32
	mean, variance                proto.ColFloat64
	lastAt                        proto.ColInt64
	fastMean, slowMean, lastScore proto.ColFloat64
	position, recentValues        proto.ColUInt64
	recent                        proto.ColArr[uint64]
}

const skillsColumns = "learner, toUInt8(layer) AS layer_number, key, subject, school, `group`, year_group, key_epoch, mean, variance, answers, " +
	"toUnixTimestamp64Milli(last_at) AS last_ms, fast_mean, slow_mean, last_score, position, recent"

func (r *skillsResult) results() proto.Results {
	r.key, r.subject, r.school, r.group = newWordResult(), newWordResult(), newWordResult(), newWordResult()
	r.recent.Data = &r.recentValues
	return proto.Results{{Name: "learner", Data: &r.learner}, {Name: "layer_number", Data: &r.layer}, {Name: "key", Data: r.key},
		{Name: "subject", Data: r.subject}, {Name: "school", Data: r.school}, {Name: "group", Data: r.group},
		{Name: "year_group", Data: &r.yearGroup}, {Name: "key_epoch", Data: &r.keyEpoch}, {Name: "mean", Data: &r.mean},
		{Name: "variance", Data: &r.variance}, {Name: "answers", Data: &r.answers}, {Name: "last_ms", Data: &r.lastAt},
		{Name: "fast_mean", Data: &r.fastMean}, {Name: "slow_mean", Data: &r.slowMean}, {Name: "last_score", Data: &r.lastScore},
		{Name: "position", Data: &r.position}, {Name: "recent", Data: &r.recent}}
}

func (r *skillsResult) appendTo(rows *transform.SkillRows) {
	if n := rows.Len() + len(r.learner); n > cap(rows.Learner) {
		rows.Grow(max(n, 2*rows.Len())) // append alone would copy large columns many times
	}
	recent := append([]uint64(nil), r.recentValues...) // one piece of memory for the rings of a block
	begin := uint64(0)
	for i := range r.learner {
		rows.Learner = append(rows.Learner, answer.MintToken(r.learner[i]))
		rows.Layer = append(rows.Layer, transform.Layer(r.layer[i]))
		rows.Position = append(rows.Position, answer.Position(r.position[i]))
		end := r.recent.Offsets[i]
		rows.Recent = append(rows.Recent, recent[begin:end:end])
		begin = end
	}
	rows.Key, rows.Subject = r.key.appendTo(rows.Key), r.subject.appendTo(rows.Subject)
	rows.School, rows.Group = r.school.appendTo(rows.School), r.group.appendTo(rows.Group)
	rows.YearGroup = append(rows.YearGroup, r.yearGroup...)
	rows.KeyEpoch = append(rows.KeyEpoch, r.keyEpoch...)
	rows.Mean = append(rows.Mean, r.mean...)
	rows.Variance = append(rows.Variance, r.variance...)
	rows.Answers = append(rows.Answers, r.answers...)
	rows.LastAt = append(rows.LastAt, r.lastAt...)
	rows.FastMean = append(rows.FastMean, r.fastMean...)
	rows.SlowMean = append(rows.SlowMean, r.slowMean...)
	rows.LastScore = append(rows.LastScore, r.lastScore...)
}

// loadSkills reads all rows of a partition, also those that newer ones replace.
func (s *Store) loadSkills(ctx context.Context, partition int, rows *transform.SkillRows) error {
	rows.Grow(int(s.skillRows.Load()))
	err := s.read(ctx, func() ch.Query {
		rows.Reset()
		var r skillsResult
		return ch.Query{
			Body:       "SELECT " + skillsColumns + " FROM " + s.table("skills") + " WHERE partition = {partition:UInt16}",
			Parameters: ofPartition(partition),
			Result:     r.results(),
			OnResult: func(_ context.Context, block proto.Block) error {
				if block.Rows > 0 {
					r.appendTo(rows)
				}
				return nil
			},
		}
	})
	s.skillRows.Store(int64(rows.Len()))
	return err
}

// LoadSums implements transform.Persistence. It is one query, which costs about
// as much as that for one partition.
func (s *Store) LoadSums(ctx context.Context, first, partitions int) ([]transform.ItemSumRows, error) {
	rows := make([]transform.ItemSumRows, partitions)
	err := s.catchUp(ctx, "item_sums")
	if err == nil {
		err = s.readSums(ctx, first, rows)
	}
	if err != nil {
		return nil, fmt.Errorf("load sums of partitions %d to %d: %w", first, first+partitions-1, err)
	}
	return rows, nil
}

// readSums reads the newest sums of partitions from a first one on.
func (s *Store) readSums(ctx context.Context, first int, of []transform.ItemSumRows) error {
	return s.read(ctx, func() ch.Query {
		for i := range of {
			of[i].Reset()
		}
		var r sumsResult
		return ch.Query{
			Body:       "SELECT " + sumsColumns + " FROM " + s.table("item_sums") + " FINAL WHERE partition BETWEEN {first:UInt16} AND {last:UInt16}",
			Parameters: ch.Parameters(map[string]any{"first": first, "last": first + len(of) - 1}),
			Result:     r.results(),
			OnResult: func(_ context.Context, block proto.Block) error {
				if block.Rows > 0 {
					r.appendTo(first, of)
				}
				return nil
			},
		}
	})
}

// sumsResult reads blocks of item_sums.
type sumsResult struct {
	partition                                proto.ColUInt16
	component                                proto.ColUInt8
	key                                      proto.ColStr
	goal, subject                            *wordResult
	gradient, information, answers, scoreSum proto.ColInt64
	position                                 proto.ColUInt64
	goals, subjects                          []string // of the block
}

const sumsColumns = "partition, toUInt8(component) AS component_number, key, goal, subject, gradient, information, answers, score_sum, position"

func (r *sumsResult) results() proto.Results {
	r.goal, r.subject = newWordResult(), newWordResult()
	return proto.Results{{Name: "partition", Data: &r.partition}, {Name: "component_number", Data: &r.component}, {Name: "key", Data: &r.key},
		{Name: "goal", Data: r.goal}, {Name: "subject", Data: r.subject}, {Name: "gradient", Data: &r.gradient},
		{Name: "information", Data: &r.information}, {Name: "answers", Data: &r.answers}, {Name: "score_sum", Data: &r.scoreSum},
		{Name: "position", Data: &r.position}}
}

func (r *sumsResult) appendTo(first int, of []transform.ItemSumRows) {
	r.goals, r.subjects = r.goal.appendTo(r.goals[:0]), r.subject.appendTo(r.subjects[:0])
	for i, partition := range r.partition {
		rows := &of[int(partition)-first]
		rows.Component = append(rows.Component, transform.Component(r.component[i]))
		rows.Key = append(rows.Key, r.key.Row(i))
		rows.Goal = append(rows.Goal, r.goals[i])
		rows.Subject = append(rows.Subject, r.subjects[i])
		rows.Gradient = append(rows.Gradient, r.gradient[i])
		rows.Information = append(rows.Information, r.information[i])
		rows.Answers = append(rows.Answers, r.answers[i])
		rows.ScoreSum = append(rows.ScoreSum, r.scoreSum[i])
		rows.Position = append(rows.Position, answer.Position(r.position[i]))
	}
}

// tokensOf reads tokens that this package has written.
func tokensOf(column proto.ColFixedStr16) []answer.Token {
	tokens := make([]answer.Token, len(column))
	for i := range column {
		tokens[i] = answer.MintToken(column[i])
	}
	return tokens
}
