package store

import (
	"context"
	"fmt"
	"time"

	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// Freeze says which norm is frozen.
type Freeze struct {
	Occasion   transform.Occasion
	AsOf       transform.Day // the skills are those at the end of this day
	Parameters filter.Parameters
	TakenAt    time.Time
	// Again makes a new version when there is one and the history has changed
	// since: answers came in late, or learners were erased.
	Again bool
	// Progress is told how many rows of the history have been read. May be nil.
	Progress func(done, total int64)
}

// progressRows is how many rows lie between two reports of progress.
const progressRows = 100_000

// FreezeNorm freezes a norm from the history of all learners. When there is a
// version already, or what it would write is in the newest version, nothing is
// written, that version is returned and made is false.
func (s *Store) FreezeNorm(ctx context.Context, f *Freeze) (version transform.NormVersion, made bool, err error) {
	fail := func(err error) (transform.NormVersion, bool, error) {
		return transform.NormVersion{}, false, fmt.Errorf("freeze norm %s: %w", f.Occasion.Name(), err)
	}
	versions, err := s.NormVersions(ctx)
	if err != nil {
		return fail(err)
	}
	var newest transform.NormVersion // the list is in order
	for _, v := range versions {
		if v.Name == f.Occasion.Name() {
			newest = v
		}
	}
	if newest.Version > 0 && !f.Again {
		return newest, false, nil
	}
	norm, err := s.freeze(ctx, f)
	if err != nil {
		return fail(err)
	}
	if norm.Digest == newest.Digest {
		return newest, false, nil
	}
	norm.Version, norm.TakenAt = newest.Version+1, f.TakenAt.UTC().Truncate(time.Millisecond)
	if err := s.SaveNorm(ctx, norm); err != nil {
		return fail(err)
	}
	return norm.NormVersion, true, nil
}

// freeze goes through the history.
func (s *Store) freeze(ctx context.Context, f *Freeze) (*transform.FrozenNorm, error) {
	from := transform.FreezeFrom(f.AsOf)
	total, err := s.CountHistory(ctx, from, f.AsOf)
	if err != nil {
		return nil, err
	}
	freezer := transform.NewFreezer(f.Parameters, f.Occasion, f.AsOf)
	done, told := int64(0), int64(0)
	err = s.History(ctx, from, f.AsOf, func(rows []transform.DailySkill) error {
		freezer.Add(rows)
		done += int64(len(rows))
		if f.Progress != nil && done-told >= progressRows {
			told = done
			f.Progress(done, total)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	if f.Progress != nil {
		f.Progress(done, done)
	}
	return freezer.Freeze()
}
