package transform

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// archiveReplay goes through archived answers of a partition in the order of
// their positions. Every answer is read against the version of the item snapshot
// that is recorded for its position; those of a learner who was learnt anew up to
// a position are read there, against the version in use there, as they were.
type archiveReplay struct {
	state     *Partition
	readings  Readings
	version   func(ctx context.Context, version uint64) (*Snapshot, error)
	until     answer.Position       // learners learnt anew beyond it are left out; 0 = nobody is
	only      map[answer.Token]bool // who is learnt; nil = everybody
	places    []answer.Position     // up to which learners were learnt anew, ascending
	waiting   map[answer.Position][]waitingRows
	batches   int64 // given to the state so far: its positions are places among them
	epochs    map[answer.Token]uint32
	rescored  []Rescored
	delta     map[sumName]evidenceSum
	deltaKeys []sumName // in the order in which they came
	sources   []source  // scratch: rows with one version
}

// sumName names the sums that an answer adds to.
type sumName struct{ publisher, exercise, goal, subject string }

// waitingRows are answers of learners who are learnt later.
type waitingRows struct {
	columns  *answer.Columns
	position []answer.Position
	before   Evidence
}

func newArchiveReplay(ctx context.Context, p Persistence, partition int, state *Partition,
	version func(ctx context.Context, version uint64) (*Snapshot, error)) (*archiveReplay, error) {
	readings, err := p.Readings(ctx, partition)
	if err != nil {
		return nil, err
	}
	r := &archiveReplay{state: state, readings: readings, version: version, waiting: make(map[answer.Position][]waitingRows),
		epochs: make(map[answer.Token]uint32), delta: make(map[sumName]evidenceSum)}
	for _, place := range readings.Relearnt {
		r.places = append(r.places, place)
	}
	slices.Sort(r.places)
	r.places = slices.Compact(r.places)
	return r, nil
}

// resume says that the state holds some learners up to a position, whom alone the
// replay is about.
func (r *archiveReplay) resume(position answer.Position, rows *SkillRows) {
	r.only = make(map[answer.Token]bool)
	for i, token := range rows.Learner {
		r.only[token] = true
		r.epochs[token] = rows.KeyEpoch[i]
	}
	r.batches = position.RawOffset()
	clear(r.readings.Relearnt) // up to positions that lie behind
	r.places = nil
}

// read takes the next answers.
func (r *archiveReplay) read(ctx context.Context, rows *ArchivedAnswers) error {
	r.sources = r.sources[:0]
	version := uint64(0)
	for row := range rows.Rows {
		position := rows.Position[row]
		now := r.versionAt(position)
		if due := len(r.places) > 0 && r.places[0] < position; due || now != version {
			if err := r.apply(ctx, rows, version); err != nil {
				return err
			}
			if err := r.learnWaiting(ctx, position); err != nil {
				return err
			}
			version = now
		}
		if !r.wait(rows, row) {
			r.sources = append(r.sources, source{position: position, learner: rows.Learner.At(row), row: int32(row)})
		}
	}
	return r.apply(ctx, rows, version)
}

// wait tells whether a row is not to be read now: nobody's, or for later.
func (r *archiveReplay) wait(rows *ArchivedAnswers, row int) bool {
	token, position := rows.Learner.At(row), rows.Position[row]
	if r.only != nil && !r.only[token] {
		return true
	}
	r.epochs[token] = rows.Epoch[row]
	place, relearnt := r.readings.Relearnt[token]
	switch {
	case !relearnt || position > place:
		return false
	case r.until > 0 && place > r.until:
		return true // the running state is newer
	}
	one := []source{{position: position, learner: token, row: int32(row)}}
	r.waiting[place] = append(r.waiting[place], waitingRows{columns: gather(one, &rows.Columns, nil), position: []answer.Position{position},
		before: Evidence{Gradient: []int32{rows.Gradient[row]}, Information: []uint16{rows.Information[row]}}})
	return true
}

// versionAt returns the version in use at a position, 0 before the first.
func (r *archiveReplay) versionAt(position answer.Position) uint64 {
	first := answer.At(position.RawOffset(), 0)
	n, exact := slices.BinarySearchFunc(r.readings.Adoptions, first, func(a Adoption, p answer.Position) int { return cmp.Compare(a.Position, p) })
	if exact {
		n++
	}
	if n == 0 {
		return 0
	}
	return r.readings.Adoptions[n-1].Version
}

// learnWaiting learns those who were learnt anew before a position.
func (r *archiveReplay) learnWaiting(ctx context.Context, before answer.Position) error {
	for len(r.places) > 0 && r.places[0] < before {
		place := r.places[0]
		r.places = r.places[1:]
		for _, w := range r.waiting[place] {
			if err := r.give(ctx, w.columns, r.versionAt(place), w.position, &w.before); err != nil {
				return err
			}
		}
		delete(r.waiting, place)
	}
	return nil
}

// finish learns those who are left.
func (r *archiveReplay) finish(ctx context.Context) error {
	return r.learnWaiting(ctx, ^answer.Position(0))
}

// apply gives the state the rows that have gathered.
func (r *archiveReplay) apply(ctx context.Context, rows *ArchivedAnswers, version uint64) error {
	if len(r.sources) == 0 {
		return nil
	}
	before := Evidence{}
	positions := make([]answer.Position, 0, len(r.sources))
	for i := range r.sources {
		s := &r.sources[i]
		positions = append(positions, s.position)
		before.Gradient = append(before.Gradient, rows.Gradient[s.row])
		before.Information = append(before.Information, rows.Information[s.row])
	}
	columns := gather(r.sources, &rows.Columns, nil)
	r.sources = r.sources[:0]
	return r.give(ctx, columns, version, positions, &before)
}

// give moves the state by rows that lie at some positions in the archive, and
// notes what they say otherwise than before.
func (r *archiveReplay) give(ctx context.Context, columns *answer.Columns, version uint64, positions []answer.Position, before *Evidence) error {
	snapshot, err := r.version(ctx, version)
	if err != nil {
		return err
	}
	r.batches++
	columns.RawOffset = r.batches
	r.state.Apply(columns, nil, snapshot)
	var said Evidence
	r.state.SwapEvidence(&said)
	for row := range columns.Rows {
		r.note(columns, row, positions[row], evidence{before.Gradient[row], before.Information[row]}, evidence{said.Gradient[row], said.Information[row]})
	}
	r.state.SwapEvidence(&said)
	return nil
}

// note takes down what an answer says now, when that is something else.
func (r *archiveReplay) note(c *answer.Columns, row int, position answer.Position, before, now evidence) {
	if before == now {
		return
	}
	r.rescored = append(r.rescored, Rescored{position, now.gradient, now.information})
	name := sumName{c.Publisher.At(row), c.Exercise.At(row), c.Goal.At(row), c.Subject.At(row)}
	sum, known := r.delta[name]
	if !known {
		for _, text := range []*string{&name.publisher, &name.exercise, &name.goal, &name.subject} {
			*text = strings.Clone(*text)
		}
		r.deltaKeys = append(r.deltaKeys, name)
	}
	score := c.Score[row]
	r.delta[name] = sum.plus(now.sum(score)).minus(before.sum(score))
}

// changes returns what the sums gain.
func (r *archiveReplay) changes() []sumChange {
	changes := make([]sumChange, 0, len(r.deltaKeys))
	for _, name := range r.deltaKeys {
		changes = append(changes, sumChange{name.publisher, name.exercise, name.goal, name.subject, r.delta[name]})
	}
	return changes
}

// skills returns all learners of the replay, as of a position.
func (r *archiveReplay) skills(position answer.Position) SkillRows {
	var tokens []answer.Token
	for token := range r.state.byToken {
		tokens = append(tokens, token)
	}
	slices.SortFunc(tokens, func(a, b answer.Token) int { x, y := a.Bytes(), b.Bytes(); return slices.Compare(x[:], y[:]) })
	layers := r.state.layersOf(tokens)
	var rows SkillRows
	var rings []uint64
	for _, token := range tokens {
		r.state.appendLayers(&rows, layers[token], &rings)
	}
	for i, token := range rows.Learner {
		rows.Position[i], rows.KeyEpoch[i] = position, r.epochs[token]
	}
	return rows
}

// versionReader hands out versions of the item snapshot that are asked for in
// about ascending order, from one pass over all of them.
type versionReader struct {
	persistence Persistence
	catalog     *Catalog
	parameters  *filter.Parameters
	changes     chan *SnapshotRows
	failed      chan error
	cancel      context.CancelFunc
	newest      *Snapshot
	kept        map[uint64]*Snapshot
}

// keptVersions is how many versions behind the newest are at hand: workers that
// take a partition over may know less than the one before.
const keptVersions = 64

func newVersionReader(ctx context.Context, p Persistence, catalog *Catalog, parameters *filter.Parameters) *versionReader {
	ctx, cancel := context.WithCancel(ctx)
	v := &versionReader{persistence: p, catalog: catalog, parameters: parameters, changes: make(chan *SnapshotRows, 64), failed: make(chan error, 1),
		cancel: cancel, newest: EmptySnapshot(parameters), kept: make(map[uint64]*Snapshot)}
	v.kept[0] = v.newest
	go func() { // ends with close, which waits for it
		err := p.SnapshotChanges(ctx, func(rows *SnapshotRows) error {
			select {
			case v.changes <- rows:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		v.failed <- err
		close(v.changes)
	}()
	return v
}

// close ends the pass.
func (v *versionReader) close() {
	v.cancel()
	for range v.changes {
		continue
	}
}

// at returns a version.
func (v *versionReader) at(ctx context.Context, version uint64) (*Snapshot, error) {
	for v.newest.version < version {
		rows, more := <-v.changes
		if !more {
			if err := <-v.failed; err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("item snapshot %d was used, but the store has only %d", version, v.newest.version)
		}
		v.newest = v.newest.With(v.catalog, rows)
		v.kept[v.newest.version] = v.newest
		delete(v.kept, v.newest.version-keptVersions)
	}
	if found := v.kept[version]; found != nil {
		return found, nil
	}
	if version == 0 {
		return EmptySnapshot(v.parameters), nil
	}
	_, rows, err := v.persistence.LoadSnapshot(ctx, version)
	if err != nil {
		return nil, err
	}
	rows.Version = version
	return EmptySnapshot(v.parameters).With(v.catalog, &rows), nil
}
