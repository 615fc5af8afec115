package transform

import (
	"context"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// A rebuild computes the states of partitions from the archive, beside the
// running stage, and stages what comes out otherwise than it is stored: after a
// change of the model everything, else nothing. An order in the log of answers
// then puts it in the place of the running states (see run.planRebuild).

// Readings tell how archived answers were read, which the archive doesn't say.
type Readings struct {
	Adoptions []Adoption // by position
	// Relearnt says up to which position the answers of a learner were last learnt
	// anew, all against the version in use there.
	Relearnt map[answer.Token]answer.Position
}

// StagedRebuild is what a rebuild found to be otherwise in a partition.
type StagedRebuild struct {
	Number    uint64 // of the rebuild
	Partition int
	Position  answer.Position // everything up to it is in
	Skills    SkillRows       // of learners of whom anything differs, all their layers
	Rescored  []Rescored      // answers that say something else
}

// AmendedSince is what messages of a partition have amended meanwhile.
type AmendedSince struct {
	Relearnt   []answer.Token // learners who were learnt anew
	Departures []Departure    // in the order of the log; schools and key epochs are left out
	Rebuilt    bool           // whether another rebuild was switched to
}

// rebuilder is the part of Persistence that rebuilds need. Ranges of positions
// hold their first and not their end.
type rebuilder interface {
	// Readings returns how the answers of a partition were read.
	Readings(ctx context.Context, partition int) (Readings, error)
	// PartitionAnswers calls see with the answers of a partition in a range, in the
	// order of their positions, some at a time.
	PartitionAnswers(ctx context.Context, partition int, from, end answer.Position, see func(*ArchivedAnswers) error) error
	// SnapshotChanges calls see with every version of the item snapshot, ascending,
	// as the rows that it changed.
	SnapshotChanges(ctx context.Context, see func(*SnapshotRows) error) error
	// StageRebuild keeps what a rebuild computed. Staging again replaces it.
	StageRebuild(ctx context.Context, staged *StagedRebuild) error
	// LoadRebuild returns what is staged but for Rescored, nil when nothing is.
	LoadRebuild(ctx context.Context, number uint64, partition int) (*StagedRebuild, error)
	// RescoredAnswers calls see with the archived answers that say something else
	// by what is staged, and that.
	RescoredAnswers(ctx context.Context, number uint64, partition int, see func(archived *ArchivedAnswers, said *Evidence) error) error
	// AmendedSince returns what was amended by the messages in a range.
	AmendedSince(ctx context.Context, partition int, from, end answer.Position) (AmendedSince, error)
}

// RebuildConfig says what a rebuild works with.
type RebuildConfig struct {
	Persistence Persistence
	Number      uint64            // of the rebuild, never used before
	Parameters  filter.Parameters // zero value: the defaults
}

// Rebuild computes partitions from the archive.
type Rebuild struct {
	config  RebuildConfig
	catalog *Catalog
}

// NewRebuild makes one.
func NewRebuild(config RebuildConfig) *Rebuild {
	if config.Parameters == (filter.Parameters{}) {
		config.Parameters = filter.DefaultParameters()
	}
	return &Rebuild{config: config, catalog: NewCatalog()}
}

// RebuiltPartition counts what Stage found.
type RebuiltPartition struct {
	Any      bool            // whether anything of the partition is stored
	Position answer.Position // up to which it was computed
	Answers  int64           // that were read
	Learners int             // who come out otherwise
	Rescored int             // answers that say something else
}

// Stage computes a partition up to its durable position and stages what differs.
// progress is called with the number of answers read. What is amended meanwhile
// is left to the switch.
func (b *Rebuild) Stage(ctx context.Context, partition int, progress func(answers int64)) (RebuiltPartition, error) {
	p := b.config.Persistence
	restored, err := p.Restore(ctx, partition)
	if err != nil {
		return RebuiltPartition{}, fmt.Errorf("rebuild partition %d: %w", partition, err)
	}
	if restored.RawOffset < 0 {
		return RebuiltPartition{}, nil
	}
	done := RebuiltPartition{Any: true, Position: restored.Position}
	versions := newVersionReader(ctx, p, b.catalog, &b.config.Parameters)
	defer versions.close()
	replay, err := newArchiveReplay(ctx, p, partition, NewPartition(b.config.Parameters, b.catalog), versions.at)
	if err != nil {
		return done, fmt.Errorf("rebuild partition %d: %w", partition, err)
	}
	replay.until = restored.Position
	err = p.PartitionAnswers(ctx, partition, 0, restored.Position+1, func(rows *ArchivedAnswers) error {
		done.Answers += int64(rows.Rows)
		progress(done.Answers)
		return replay.read(ctx, rows)
	})
	if err == nil {
		err = replay.finish(ctx)
	}
	if err != nil {
		return done, fmt.Errorf("rebuild partition %d: %w", partition, err)
	}
	staged := &StagedRebuild{Number: b.config.Number, Partition: partition, Position: restored.Position, Rescored: replay.rescored}
	rebuilt := replay.skills(restored.Position)
	done.Learners = appendDiffering(&staged.Skills, &rebuilt, &restored.Skills)
	done.Rescored = len(staged.Rescored)
	if err := p.StageRebuild(ctx, staged); err != nil {
		return done, fmt.Errorf("rebuild partition %d: %w", partition, err)
	}
	return done, nil
}

// appendDiffering appends the rows of learners who differ from those of the same
// learner in old in anything but positions, and returns how many there are. Those
// of a learner stand together in rows.
func appendDiffering(dst, rows, old *SkillRows) (learners int) {
	index := make(map[learnerLayer]int, old.Len())
	layers := make(map[answer.Token]int)
	for i := range old.Len() {
		index[learnerLayer{old.Learner[i], old.Layer[i], old.Key[i]}] = i
		layers[old.Learner[i]]++
	}
	for first := 0; first < rows.Len(); {
		last, same := first, true
		for ; last < rows.Len() && rows.Learner[last] == rows.Learner[first]; last++ {
			k, known := index[learnerLayer{rows.Learner[last], rows.Layer[last], rows.Key[last]}]
			same = same && known && sameSkill(rows, last, old, k)
		}
		if !same || layers[rows.Learner[first]] != last-first {
			dst.AppendRange(rows, first, last)
			learners++
		}
		first = last
	}
	return learners
}

// sameSkill compares everything but positions, floats by their bits.
func sameSkill(a *SkillRows, i int, b *SkillRows, k int) bool {
	same := func(x, y []float64) bool { return math.Float64bits(x[i]) == math.Float64bits(y[k]) }
	if a.School[i] != b.School[k] || a.Group[i] != b.Group[k] || a.YearGroup[i] != b.YearGroup[k] || a.KeyEpoch[i] != b.KeyEpoch[k] ||
		a.Subject[i] != b.Subject[k] || a.Answers[i] != b.Answers[k] || a.LastAt[i] != b.LastAt[k] || len(a.Recent[i]) != len(b.Recent[k]) {
		return false
	}
	for n, hash := range a.Recent[i] {
		if b.Recent[k][n] != hash {
			return false
		}
	}
	return same(a.Mean, b.Mean) && same(a.Variance, b.Variance) && same(a.FastMean, b.FastMean) && same(a.SlowMean, b.SlowMean) &&
		same(a.LastScore, b.LastScore)
}

// OrderRebuild orders a partition to switch to what is staged of a rebuild, and
// returns the offset of the order in `raw`.
func OrderRebuild(ctx context.Context, client *stream.Client, topics stream.Topics, partition int, number uint64) (int64, error) {
	offset, err := client.Produce(ctx, topics.Raw, partition, stream.Message{Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(answer.SchemaRebuild)}, stream.Int64Header(answer.HeaderRebuild, int64(number))}})
	if err != nil {
		return 0, fmt.Errorf("order partition %d to switch to rebuild %d: %w", partition, number, err)
	}
	return offset, nil
}

// AwaitSums waits until partitions have told the reducer their sums up to some
// positions, in messages of `item-sums` from an offset on.
func AwaitSums(ctx context.Context, client *stream.Client, topic string, from int64, positions map[int]answer.Position) error {
	waiting := maps.Clone(positions)
	var batch stream.Batch
	for len(waiting) > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("await sums of %d partitions: %w", len(waiting), context.Cause(ctx))
		}
		if err := client.Fetch(ctx, topic, 0, from, time.Second, &batch); err != nil {
			return fmt.Errorf("await sums of %d partitions: %w", len(waiting), err)
		}
		for i := range batch.Messages {
			m := &batch.Messages[i]
			from = m.Offset + 1
			if m.Header(headerPartition) == nil {
				continue
			}
			partition, err := m.Int64(headerPartition)
			if err != nil {
				return fmt.Errorf("await sums: offset %d: %w", m.Offset, err)
			}
			position, err := m.Int64(headerPosition)
			if err != nil {
				return fmt.Errorf("await sums: offset %d: %w", m.Offset, err)
			}
			if want, waits := waiting[int(partition)]; waits && answer.Position(position) >= want {
				delete(waiting, int(partition))
			}
		}
	}
	return nil
}

// planRebuild makes an amendment of what is staged, brought up to the order. It
// is a function of the archive before the order: following it again, after a
// crash, leads to the same.
func (r *run) planRebuild(ctx context.Context, a *amendment) error {
	a.Rebuild = a.unit.rebuild
	staged, err := r.config.Persistence.LoadRebuild(ctx, a.unit.rebuild, r.partition)
	if err != nil || staged == nil {
		return err
	}
	since, err := r.config.Persistence.AmendedSince(ctx, r.partition, staged.Position+1, a.Order)
	if err != nil {
		return err
	}
	if since.Rebuilt {
		r.config.Logger.WarnContext(ctx, "rebuild passed over: another was switched to meanwhile", "partition", r.partition, "rebuild", a.Rebuild)
		return nil
	}
	still := since.stillStaged(&staged.Skills)
	for i, token := range still.Learner {
		still.KeyEpoch[i] = r.state.keyEpochOf(token)
	}
	state := NewPartition(r.state.parameters, r.state.catalog)
	if err := state.Restore(&Restored{Position: staged.Position, Skills: still}); err != nil {
		return err
	}
	replay, err := newArchiveReplay(ctx, r.config.Persistence, r.partition, state, r.config.Snapshots.At)
	if err != nil {
		return err
	}
	replay.resume(staged.Position, &still)
	if err := r.config.Persistence.PartitionAnswers(ctx, r.partition, staged.Position+1, a.Order, func(rows *ArchivedAnswers) error {
		return replay.read(ctx, rows)
	}); err != nil {
		return err
	}
	if err := replay.finish(ctx); err != nil {
		return err
	}
	if err := r.takeStaged(ctx, a, replay, &since); err != nil {
		return err
	}
	rebuilt := replay.skills(a.position)
	return r.exchangeRebuilt(a, &rebuilt)
}

// takeStaged gathers what answers say since the rebuild: by what is staged, less
// those of learners who have been learnt anew, and by the answers since.
func (r *run) takeStaged(ctx context.Context, a *amendment, replay *archiveReplay, since *AmendedSince) error {
	relearnt := make(map[answer.Token]bool, len(since.Relearnt))
	for _, token := range since.Relearnt {
		relearnt[token] = true
	}
	err := r.config.Persistence.RescoredAnswers(ctx, a.Rebuild, r.partition, func(archived *ArchivedAnswers, said *Evidence) error {
		for row := range archived.Rows {
			if !relearnt[archived.Learner.At(row)] {
				replay.note(&archived.Columns, row, archived.Position[row], evidence{archived.Gradient[row], archived.Information[row]},
					evidence{said.Gradient[row], said.Information[row]})
			}
		}
		return nil
	})
	a.Rescored = replay.rescored
	a.delta = replay.changes()
	return err
}

// exchangeRebuilt puts rebuilt learners in the place of those that differ.
func (r *run) exchangeRebuilt(a *amendment, rebuilt *SkillRows) error {
	var tokens []answer.Token
	for i, token := range rebuilt.Learner {
		if i == 0 || token != rebuilt.Learner[i-1] {
			tokens = append(tokens, token)
		}
	}
	var running SkillRows
	var rings []uint64
	layers := r.state.layersOf(tokens)
	for _, token := range tokens {
		r.state.appendLayers(&running, layers[token], &rings)
	}
	appendDiffering(&a.rows, rebuilt, &running)
	for i, token := range a.rows.Learner {
		if i == 0 || token != a.rows.Learner[i-1] {
			a.affected = append(a.affected, LearnerName{a.rows.School[i], token})
		}
	}
	return r.exchange(a)
}

// stillStaged returns the staged rows of learners that are still to be exchanged,
// under the tokens that they have by now.
func (s *AmendedSince) stillStaged(staged *SkillRows) SkillRows {
	now := make(map[answer.Token]answer.Token)
	for _, token := range staged.Learner {
		now[token] = token
	}
	for _, d := range s.Departures {
		for was, is := range now {
			if is == d.Learner {
				now[was] = d.Into
			}
		}
	}
	relearnt := make(map[answer.Token]bool, len(s.Relearnt))
	for _, token := range s.Relearnt {
		relearnt[token] = true
	}
	var still SkillRows
	for i, token := range staged.Learner {
		is := now[token]
		if is.IsZero() || relearnt[is] || relearnt[token] {
			continue
		}
		still.Append(staged, i)
		still.Learner[still.Len()-1] = is
	}
	return still
}

// Reestimate returns the difficulties that the sums of all partitions show by
// themselves, as scales that follow the newest one, ready to be published in
// their order: everything moves from its prior by all evidence at once. The zero
// is that of the priors, so nothing is linked. maxRows bounds the rows of one
// scale.
func Reestimate(parameters filter.Parameters, sums []ItemSumRows, newest *Scale, maxRows int) []*SnapshotRows {
	if parameters == (filter.Parameters{}) {
		parameters = filter.DefaultParameters()
	}
	parameters.MaxStep = math.Inf(1) // one step from the prior to where all evidence leads
	estimates := NewEstimates(parameters, len(sums))
	for partition := range sums {
		estimates.Fold(partition, &sums[partition])
	}
	all := estimates.News()
	next, head := uint64(1), filter.NewHead()
	if newest != nil {
		next, head = newest.Number+1, newest.Head
	}
	// What exercises share comes first, so that no version lacks it.
	var order []int
	for _, component := range []Component{ComponentGlobal, ComponentGoal, ComponentItem} {
		for i := range all.Len() {
			if all.Component[i] == component {
				order = append(order, i)
			}
		}
	}
	var scales []*SnapshotRows
	for first := 0; first < len(order); first += maxRows {
		rows := &SnapshotRows{Scale: &Scale{Number: next, Head: head}}
		for _, i := range order[first:min(first+maxRows, len(order))] {
			rows.Append(all, i)
		}
		rows.Scale.Links = plainLinks(rows)
		scales = append(scales, rows)
		next++
	}
	return scales
}

// plainLinks are those of a scale that has the zero and the unit of the one
// before, one per goal.
func plainLinks(rows *SnapshotRows) []GoalLink {
	var links []GoalLink
	place := make(map[string]int)
	for i := range rows.Len() {
		goal := rows.Goal[i]
		switch rows.Component[i] {
		case ComponentGoal:
			goal = rows.Key[i]
		case ComponentGlobal:
			continue
		case ComponentItem:
		}
		k, known := place[goal]
		if !known {
			k = len(links)
			place[goal] = k
			links = append(links, GoalLink{Goal: goal, Slope: 1})
		}
		if rows.Component[i] == ComponentItem {
			links[k].Answers += rows.Answers[i]
			links[k].Exercises++
		}
	}
	return links
}
