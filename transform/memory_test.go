package transform_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

var errInjected = errors.New("injected failure")

// memory is a transform.Persistence that keeps what a store would, makes it
// durable step by step when told, and can lose what is not.
type memory struct {
	mu    sync.Mutex
	queue []step // not durable yet, in order
	calls int
	fail  map[int]bool // numbers of calls that fail

	archive   map[int]map[answerKey]archivedRow
	departed  map[int]map[answer.Token]answer.Position
	vacated   map[int]map[answer.Token]int64
	purges    int
	tests     map[int]map[answerKey]archivedTest
	skills    map[int]map[layerName]stored
	sums      map[int]map[componentName]oracleSum
	norms     map[int]map[normName]storedNorm
	progress  map[int]transform.Restored
	adoptions map[int]map[answer.Position]uint64
	versions  map[uint64]transform.SnapshotRows

	relearnt   map[int]map[answer.Token]answer.Position
	departures map[int][]departedAt
	rebuilt    map[int]map[answer.Position]bool
	staged     map[stagedKey]transform.StagedRebuild
}

type stored struct {
	rows transform.SkillRows // one row
}

type storedNorm struct {
	bins     map[uint16]int64
	position answer.Position
}

// step is the smallest thing that becomes durable by itself.
type step func(m *memory)

func newMemory() *memory {
	return &memory{fail: make(map[int]bool), archive: make(map[int]map[answerKey]archivedRow), departed: make(map[int]map[answer.Token]answer.Position), vacated: make(map[int]map[answer.Token]int64),
		tests: make(map[int]map[answerKey]archivedTest), skills: make(map[int]map[layerName]stored), sums: make(map[int]map[componentName]oracleSum),
		norms: make(map[int]map[normName]storedNorm), progress: make(map[int]transform.Restored),
		adoptions: make(map[int]map[answer.Position]uint64), versions: make(map[uint64]transform.SnapshotRows),
		relearnt: make(map[int]map[answer.Token]answer.Position), departures: make(map[int][]departedAt),
		rebuilt: make(map[int]map[answer.Position]bool), staged: make(map[stagedKey]transform.StagedRebuild)}
}

func at[K comparable, V any](m map[int]map[K]V, partition int) map[K]V {
	if m[partition] == nil {
		m[partition] = make(map[K]V)
	}
	return m[partition]
}

// called counts a call and tells whether it is to fail.
func (m *memory) called() error {
	m.calls++
	if m.fail[m.calls] {
		return fmt.Errorf("call %d: %w", m.calls, errInjected)
	}
	return nil
}

// advance makes up to n steps durable, all when n < 0.
func (m *memory) advance(n int) {
	m.mu.Lock()
	for ; n != 0 && len(m.queue) > 0; n-- {
		next := m.queue[0]
		m.queue = m.queue[1:]
		next(m)
	}
	m.mu.Unlock()
}

// crash loses what is not durable.
func (m *memory) crash() {
	m.mu.Lock()
	m.queue = nil
	m.mu.Unlock()
}

func (m *memory) Archive(_ context.Context, partition int, c *answer.Columns, skip []bool, said *transform.Evidence) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return err
	}
	rows := freshRows(c, skip, said)
	m.queue = append(m.queue, func(m *memory) { m.put(partition, rows) })
	return nil
}

func (m *memory) ArchiveTestResults(_ context.Context, partition int, c *answer.TestResults, skip []bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return err
	}
	rows := freshTests(c, skip)
	m.queue = append(m.queue, func(m *memory) { m.putTests(partition, rows) })
	return nil
}

func (m *memory) Known(_ context.Context, which transform.Archive, rows []transform.Lookup) (map[answer.EventID]answer.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return nil, err
	}
	known := make(map[answer.EventID]answer.Position)
	note := func(id answer.EventID, position answer.Position) {
		if old, ok := known[id]; !ok || position < old {
			known[id] = position
		}
	}
	for _, r := range rows {
		key := answerKey{r.School, r.Learner, r.Moment, r.ID}
		for partition := range m.archive {
			if found, ok := m.archive[partition][key]; ok && which == transform.AnswersArchive {
				note(r.ID, found.position)
			}
		}
		for partition := range m.tests {
			if found, ok := m.tests[partition][key]; ok && which == transform.TestResultsArchive {
				note(r.ID, found.position)
			}
		}
	}
	return known, nil
}

func (m *memory) Checkpoint(_ context.Context, c *transform.Checkpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return err
	}
	c = copied(c)
	m.queue = append(m.queue, func(m *memory) { m.putAdoptions(c) }, func(m *memory) { m.putSums(c) }, func(m *memory) { m.putNorms(c) })
	for first := 0; first < c.Skills.Len(); {
		begin, end := first, first+1
		for end < c.Skills.Len() && (end-first < 20 || c.Skills.Learner[end] == c.Skills.Learner[end-1]) {
			end++
		}
		m.queue = append(m.queue, func(m *memory) { m.putSkills(c, begin, end) })
		first = end
	}
	m.queue = append(m.queue, func(m *memory) {
		m.putProgress(c)
		c.Durable(nil)
	})
	for c.Urgent && len(m.queue) > 0 {
		next := m.queue[0]
		m.queue = m.queue[1:]
		next(m)
	}
	return nil
}

// copied returns a checkpoint that shares no memory with the original.
func copied(c *transform.Checkpoint) *transform.Checkpoint {
	own := transform.Checkpoint{Partition: c.Partition, Generation: c.Generation, Position: c.Position, AnswersOffset: c.AnswersOffset,
		SkillsOffset: c.SkillsOffset, SnapshotVersion: c.SnapshotVersion, Adoptions: slices.Clone(c.Adoptions), Durable: c.Durable, Urgent: c.Urgent}
	own.Skills.AppendRange(&c.Skills, 0, c.Skills.Len())
	for i, ring := range own.Skills.Recent {
		own.Skills.Recent[i] = slices.Clone(ring)
	}
	own.Sums.AppendRange(&c.Sums, 0, c.Sums.Len())
	own.Norms.AppendRange(&c.Norms, 0, c.Norms.Len())
	for i := range own.Norms.Bins {
		own.Norms.Bins[i], own.Norms.Counts[i] = slices.Clone(own.Norms.Bins[i]), slices.Clone(own.Norms.Counts[i])
	}
	return &own
}

func (m *memory) putAdoptions(c *transform.Checkpoint) {
	for _, a := range c.Adoptions {
		at(m.adoptions, c.Partition)[a.Position] = a.Version
	}
}

func (m *memory) putProgress(c *transform.Checkpoint) {
	if old, ok := m.progress[c.Partition]; !ok || c.Position > old.Position {
		m.progress[c.Partition] = transform.Restored{Position: c.Position, RawOffset: c.Position.RawOffset(), AnswersOffset: c.AnswersOffset,
			SkillsOffset: c.SkillsOffset, SnapshotVersion: c.SnapshotVersion}
	}
}

func (m *memory) putSums(c *transform.Checkpoint) {
	sums := at(m.sums, c.Partition)
	for name, row := range sumRowsOf(&c.Sums) {
		if old, ok := sums[name]; !ok || row.position > old.position {
			sums[name] = row
		}
	}
}

func (m *memory) putNorms(c *transform.Checkpoint) {
	for i := range c.Norms.Len() {
		bins := make(map[uint16]int64)
		for n, bin := range c.Norms.Bins[i] {
			bins[bin] = c.Norms.Counts[i][n]
		}
		name, norms := normName{c.Norms.Layer[i], c.Norms.Key[i], c.Norms.YearGroup[i]}, at(m.norms, c.Partition)
		if old, ok := norms[name]; !ok || c.Norms.Position[i] >= old.position {
			norms[name] = storedNorm{bins, c.Norms.Position[i]}
		}
	}
}

func (m *memory) putSkills(c *transform.Checkpoint, first, end int) {
	skills := at(m.skills, c.Partition)
	for i := first; i < end; i++ {
		name := layerName{c.Skills.Learner[i], c.Skills.Layer[i], c.Skills.Key[i]}
		if old, ok := skills[name]; !ok || c.Skills.Position[i] > old.rows.Position[0] {
			var row stored
			row.rows.Append(&c.Skills, i)
			skills[name] = row
		}
	}
}

func (m *memory) Restore(_ context.Context, partition int) (transform.Restored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.progress[partition]
	if !ok {
		r = transform.Restored{RawOffset: -1, AnswersOffset: -1, SkillsOffset: -1}
	}
	for _, s := range m.skills[partition] {
		if s.rows.Answers[0] > 0 {
			r.Skills.Append(&s.rows, 0)
		}
	}
	r.Sums = m.loadSums(partition)
	for position, version := range m.adoptions[partition] {
		if position.RawOffset() > r.RawOffset {
			r.Adoptions = append(r.Adoptions, transform.Adoption{Position: position, Version: version})
		}
	}
	slices.SortFunc(r.Adoptions, func(a, b transform.Adoption) int { return cmp.Compare(a.Position, b.Position) })
	for token, position := range m.departed[partition] {
		r.Departed = append(r.Departed, transform.Departed{Learner: token, Position: position})
	}
	for token, at := range m.vacated[partition] {
		r.Vacated = append(r.Vacated, transform.Vacated{Learner: token, AnsweredAt: at})
	}
	return r, nil
}

func (m *memory) loadSums(partition int) (rows transform.ItemSumRows) {
	for name, s := range m.sums[partition] {
		rows.Component = append(rows.Component, name.component)
		rows.Key = append(rows.Key, name.key)
		rows.Goal = append(rows.Goal, s.goal)
		rows.Subject = append(rows.Subject, s.subject)
		rows.Gradient = append(rows.Gradient, s.gradient)
		rows.Information = append(rows.Information, s.information)
		rows.Answers = append(rows.Answers, s.answers)
		rows.ScoreSum = append(rows.ScoreSum, s.scoreSum)
		rows.Position = append(rows.Position, s.position)
	}
	return rows
}

func (m *memory) LoadSums(_ context.Context, first, partitions int) ([]transform.ItemSumRows, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := make([]transform.ItemSumRows, partitions)
	for i := range rows {
		rows[i] = m.loadSums(first + i)
	}
	return rows, nil
}

func (m *memory) SaveSnapshot(_ context.Context, version uint64, rows *transform.SnapshotRows) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return err
	}
	var copied transform.SnapshotRows
	copied.AppendRange(rows, 0, rows.Len())
	for i := range copied.Key { // they may point into a message
		copied.Key[i], copied.Goal[i], copied.Subject[i] = strings.Clone(copied.Key[i]), strings.Clone(copied.Goal[i]), strings.Clone(copied.Subject[i])
	}
	copied.Scale = rows.Scale
	m.versions[version] = copied
	return nil
}

func (m *memory) LoadSnapshot(_ context.Context, atMost uint64) (version uint64, rows transform.SnapshotRows, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for v := uint64(1); atMost == 0 || v <= atMost; v++ {
		saved, ok := m.versions[v]
		if !ok {
			break
		}
		version = v
		// Later rows of a component come later: With and load take the last.
		rows.AppendRange(&saved, 0, saved.Len())
		if saved.Scale != nil {
			rows.Scale = saved.Scale
		}
	}
	return version, rows, nil
}
