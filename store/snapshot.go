package store

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/transform"
)

// componentNone marks a version that changes nothing, so that its number is
// remembered.
const componentNone = 127

// SaveSnapshot implements transform.Persistence. A version is one block, so that
// it is there as a whole or not at all.
func (s *Store) SaveSnapshot(ctx context.Context, version uint64, rows *transform.SnapshotRows) error {
	if rows.Scale != nil {
		// First, so that no version is without the scale that it begins. One whose
		// version never comes is passed over by LoadSnapshot.
		if err := s.saveScale(ctx, version, rows.Scale); err != nil {
			return fmt.Errorf("save item snapshot %d: %w", version, err)
		}
	}
	b := newSnapshotBlock(s.config.Database)
	b.append(version, rows)
	if err := s.insert(ctx, &b.block); err != nil {
		return fmt.Errorf("save item snapshot %d: %w", version, err)
	}
	return nil
}

// insert writes a block that belongs to no batch, again and again until it is
// in, it is rejected, or ctx ends.
func (s *Store) insert(ctx context.Context, b *block) error {
	pause := newBackoff()
	for {
		err := s.pool.do(ctx, ch.Query{Body: b.body, Input: b.input})
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w (last error: %w)", context.Cause(ctx), err)
		case permanent(err):
			return fmt.Errorf("insert %d rows into %s: %w: %w", b.rows(), b.table, ErrRejected, err)
		}
		s.config.Logger.WarnContext(ctx, "insert failed, trying again", "table", b.table, "rows", b.rows(), "error", err)
		pause.wait(ctx)
	}
}

// snapshotBlock are rows of the table item_snapshots.
type snapshotBlock struct {
	block
	version                                  proto.ColUInt64
	component                                enumColumn
	key                                      proto.ColStr
	goal, subject                            wordColumn
	mean, variance                           proto.ColFloat64
	gradient, information, answers, scoreSum proto.ColInt64
}

func newSnapshotBlock(database string) *snapshotBlock {
	b := &snapshotBlock{component: enumColumn{is: typeSnapshot}}
	b.goal.init()
	b.subject.init()
	b.block = newBlock(database, "item_snapshots",
		column("version", &b.version), column("component", &b.component), column("key", &b.key), column("goal", &b.goal),
		column("subject", &b.subject), column("mean", &b.mean), column("variance", &b.variance), column("gradient", &b.gradient),
		column("information", &b.information), column("answers", &b.answers), column("score_sum", &b.scoreSum))
	return b
}

func (b *snapshotBlock) append(version uint64, r *transform.SnapshotRows) {
	if r.Len() == 0 {
		r = &transform.SnapshotRows{Component: []transform.Component{componentNone}, Key: []string{""}, Goal: []string{""}, Subject: []string{""},
			Mean: []float64{0}, Variance: []float64{0}, Gradient: []int64{0}, Information: []int64{0}, Answers: []int64{0}, ScoreSum: []int64{0}}
	}
	b.version = fill(b.version, version, r.Len())
	for i := range r.Len() {
		b.component.ColUInt8 = append(b.component.ColUInt8, uint8(r.Component[i]))
		b.key.Append(r.Key[i])
	}
	b.goal.appendWords(r.Goal)
	b.subject.appendWords(r.Subject)
	b.mean = append(b.mean, r.Mean...)
	b.variance = append(b.variance, r.Variance...)
	b.gradient = append(b.gradient, r.Gradient...)
	b.information = append(b.information, r.Information...)
	b.answers = append(b.answers, r.Answers...)
	b.scoreSum = append(b.scoreSum, r.ScoreSum...)
}

// snapshotResult reads the newest row of every component.
type snapshotResult struct {
	version                                  proto.ColUInt64
	component                                proto.ColUInt8
	key, goal, subject                       proto.ColStr
	mean, variance                           proto.ColFloat64
	gradient, information, answers, scoreSum proto.ColInt64
}

const snapshotColumns = "max(s.version) AS newest, toUInt8(s.component) AS component_number, s.key AS item_key, " +
	"argMax(toString(s.goal), s.version) AS item_goal, argMax(toString(s.subject), s.version) AS item_subject, " +
	"argMax(s.mean, s.version) AS item_mean, argMax(s.variance, s.version) AS item_variance, " +
	"argMax(s.gradient, s.version) AS total_gradient, argMax(s.information, s.version) AS total_information, " +
	"argMax(s.answers, s.version) AS total_answers, argMax(s.score_sum, s.version) AS total_score"

func (r *snapshotResult) results() proto.Results {
	return proto.Results{{Name: "newest", Data: &r.version}, {Name: "component_number", Data: &r.component}, {Name: "item_key", Data: &r.key},
		{Name: "item_goal", Data: &r.goal}, {Name: "item_subject", Data: &r.subject}, {Name: "item_mean", Data: &r.mean},
		{Name: "item_variance", Data: &r.variance}, {Name: "total_gradient", Data: &r.gradient},
		{Name: "total_information", Data: &r.information}, {Name: "total_answers", Data: &r.answers}, {Name: "total_score", Data: &r.scoreSum}}
}

func (r *snapshotResult) appendTo(rows *transform.SnapshotRows) {
	for i, component := range r.component {
		rows.Version = max(rows.Version, r.version[i])
		if component == componentNone {
			continue
		}
		rows.Component = append(rows.Component, transform.Component(component))
		rows.Key = append(rows.Key, r.key.Row(i))
		rows.Goal = append(rows.Goal, r.goal.Row(i))
		rows.Subject = append(rows.Subject, r.subject.Row(i))
		rows.Mean = append(rows.Mean, r.mean[i])
		rows.Variance = append(rows.Variance, r.variance[i])
		rows.Gradient = append(rows.Gradient, r.gradient[i])
		rows.Information = append(rows.Information, r.information[i])
		rows.Answers = append(rows.Answers, r.answers[i])
		rows.ScoreSum = append(rows.ScoreSum, r.scoreSum[i])
	}
}

// LoadSnapshot implements transform.Persistence. The rows are in the order of
// component and key.
func (s *Store) LoadSnapshot(ctx context.Context, atMost uint64) (uint64, transform.SnapshotRows, error) {
	var rows transform.SnapshotRows
	if err := s.catchUp(ctx, "item_snapshots", "scales"); err != nil {
		return 0, rows, fmt.Errorf("load item snapshot: %w", err)
	}
	err := s.read(ctx, func() ch.Query {
		rows.Reset()
		var r snapshotResult
		return ch.Query{
			Body: "SELECT " + snapshotColumns + " FROM " + s.table("item_snapshots") +
				" AS s WHERE {at_most:UInt64} = 0 OR s.version <= {at_most:UInt64} GROUP BY s.component, s.key ORDER BY component_number, item_key",
			Parameters: ch.Parameters(map[string]any{"at_most": atMost}),
			Result:     r.results(),
			OnResult: func(context.Context, proto.Block) error {
				r.appendTo(&rows)
				return nil
			},
		}
	})
	if err != nil {
		return 0, rows, fmt.Errorf("load item snapshot at most %d: %w", atMost, err)
	}
	if rows.Scale, err = s.loadScale(ctx, rows.Version); err != nil {
		return 0, rows, fmt.Errorf("load item snapshot at most %d: %w", atMost, err)
	}
	return rows.Version, rows, nil
}
