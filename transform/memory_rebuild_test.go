package transform_test

import (
	"cmp"
	"context"
	"slices"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// stagedKey names a partition of a rebuild.
type stagedKey struct {
	number    uint64
	partition int
}

func (m *memory) Readings(_ context.Context, partition int) (transform.Readings, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return transform.Readings{}, err
	}
	readings := transform.Readings{Relearnt: make(map[answer.Token]answer.Position)}
	for position, version := range m.adoptions[partition] {
		readings.Adoptions = append(readings.Adoptions, transform.Adoption{Position: position, Version: version})
	}
	slices.SortFunc(readings.Adoptions, func(a, b transform.Adoption) int { return cmp.Compare(a.Position, b.Position) })
	for token, position := range m.relearnt[partition] {
		readings.Relearnt[token] = position
	}
	return readings, nil
}

func (m *memory) PartitionAnswers(_ context.Context, partition int, from, end answer.Position, see func(*transform.ArchivedAnswers) error) error {
	m.mu.Lock()
	err := m.called()
	var rows []archivedRow
	for _, r := range m.archive[partition] {
		if !r.gone && r.position >= from && r.position < end {
			rows = append(rows, r)
		}
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	slices.SortFunc(rows, func(a, b archivedRow) int { return cmp.Compare(a.position, b.position) })
	const someAtATime = 37
	for len(rows) > 0 {
		n := min(len(rows), someAtATime)
		if err := see(archivedAnswers(rows[:n])); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

func archivedAnswers(rows []archivedRow) *transform.ArchivedAnswers {
	b, out := newColumns(0), &transform.ArchivedAnswers{}
	for _, r := range rows {
		b.add(r.row)
		out.Position, out.Epoch = append(out.Position, r.position), append(out.Epoch, r.epoch)
		out.Gradient, out.Information = append(out.Gradient, r.gradient), append(out.Information, r.information)
	}
	out.Columns = b.c
	return out
}

func (m *memory) SnapshotChanges(_ context.Context, see func(*transform.SnapshotRows) error) error {
	m.mu.Lock()
	err := m.called()
	var all []*transform.SnapshotRows
	for version := uint64(1); ; version++ {
		saved, ok := m.versions[version]
		if !ok {
			break
		}
		saved.Version = version
		all = append(all, &saved)
	}
	m.mu.Unlock()
	for _, rows := range all {
		if err == nil {
			err = see(rows)
		}
	}
	return err
}

func (m *memory) StageRebuild(_ context.Context, staged *transform.StagedRebuild) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return err
	}
	m.staged[stagedKey{staged.Number, staged.Partition}] = *staged
	return nil
}

func (m *memory) LoadRebuild(_ context.Context, number uint64, partition int) (*transform.StagedRebuild, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.called(); err != nil {
		return nil, err
	}
	staged, found := m.staged[stagedKey{number, partition}]
	if !found {
		return nil, nil
	}
	return &transform.StagedRebuild{Number: number, Partition: partition, Position: staged.Position, Skills: staged.Skills}, nil
}

func (m *memory) RescoredAnswers(_ context.Context, number uint64, partition int, see func(*transform.ArchivedAnswers, *transform.Evidence) error) error {
	m.mu.Lock()
	err := m.called()
	now := make(map[answer.Position]transform.Rescored)
	for _, r := range m.staged[stagedKey{number, partition}].Rescored {
		now[r.Position] = r
	}
	var rows []archivedRow
	var said transform.Evidence
	for _, r := range m.archive[partition] {
		if score, rescored := now[r.position]; rescored && !r.gone {
			rows = append(rows, r)
			said.Gradient, said.Information = append(said.Gradient, score.Gradient), append(said.Information, score.Information)
		}
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return see(archivedAnswers(rows), &said)
}

func (m *memory) AmendedSince(_ context.Context, partition int, from, end answer.Position) (transform.AmendedSince, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var since transform.AmendedSince
	if err := m.called(); err != nil {
		return since, err
	}
	for token, position := range m.relearnt[partition] {
		if position >= from && position < end {
			since.Relearnt = append(since.Relearnt, token)
		}
	}
	for _, d := range m.departures[partition] {
		if d.at >= from && d.at < end {
			since.Departures = append(since.Departures, transform.Departure{LearnerName: d.LearnerName, Into: d.Into})
		}
	}
	for position := range m.rebuilt[partition] {
		since.Rebuilt = since.Rebuilt || position >= from && position < end
	}
	return since, nil
}

// departed is a departure with its place in the log.
type departedAt struct {
	transform.Departure
	at answer.Position
}

// noteAmended keeps what rebuilds ask for.
func (m *memory) noteAmended(a *transform.Amendment) {
	relearnt := at(m.relearnt, a.Partition)
	for _, d := range a.Departures {
		if place, known := relearnt[d.Learner]; known && !d.Into.IsZero() {
			relearnt[d.Into] = max(relearnt[d.Into], place)
		}
		m.departures[a.Partition] = append(m.departures[a.Partition], departedAt{d, a.Position})
	}
	for _, name := range a.Learners {
		relearnt[name.Learner] = max(relearnt[name.Learner], a.Position)
	}
	if a.Rebuild != 0 {
		at(m.rebuilt, a.Partition)[a.Order] = true
	}
}
