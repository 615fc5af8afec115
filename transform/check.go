package transform

import (
	"fmt"

	"github.com/leerstroom/leerstroom/internal/column"
)

// check tells whether decoded rows hold what their types promise.
func (r *SkillRows) check(rows int) error {
	if err := sameLength(rows, len(r.Learner), len(r.School), len(r.Group), len(r.YearGroup), len(r.KeyEpoch), len(r.Layer),
		len(r.Key), len(r.Subject), len(r.Mean), len(r.Variance), len(r.Answers), len(r.LastAt), len(r.FastMean),
		len(r.SlowMean), len(r.LastScore), len(r.Position), len(r.Recent)); err != nil {
		return err
	}
	for i := range r.Layer {
		if r.Layer[i] > LayerGoal {
			return fmt.Errorf("%w: unknown layer in row %d", column.ErrMalformed, i)
		}
		if len(r.Recent[i]) > MaxRecent {
			return fmt.Errorf("%w: more than %d recent exercises in row %d", column.ErrMalformed, MaxRecent, i)
		}
	}
	return nil
}

func (r *ItemSumRows) check(rows int) error {
	if err := sameLength(rows, len(r.Component), len(r.Key), len(r.Goal), len(r.Subject), len(r.Gradient),
		len(r.Information), len(r.Answers), len(r.ScoreSum), len(r.Position)); err != nil {
		return err
	}
	return checkComponents(r.Component)
}

func (r *SnapshotRows) check(rows int) error {
	if err := sameLength(rows, len(r.Component), len(r.Key), len(r.Goal), len(r.Subject), len(r.Gradient),
		len(r.Information), len(r.Answers), len(r.ScoreSum), len(r.Mean), len(r.Variance)); err != nil {
		return err
	}
	return checkComponents(r.Component)
}

func checkComponents(components []Component) error {
	for i, c := range components {
		if c > ComponentGlobal {
			return fmt.Errorf("%w: unknown component in row %d", column.ErrMalformed, i)
		}
	}
	return nil
}

func sameLength(rows int, lengths ...int) error {
	for i, n := range lengths {
		if n != rows {
			return fmt.Errorf("%w: column %d has %d rows, not %d", column.ErrMalformed, i, n, rows)
		}
	}
	return nil
}
