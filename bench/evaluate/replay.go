package evaluate

import (
	"context"
	"time"
)

// replay lets a system predict and learn all answers in order. It returns the
// scored predictions and the time per answer in nanoseconds.
func replay(ctx context.Context, a *Answers, s system, progress func(done int)) ([]float64, float64, error) {
	p := make([]float64, 0, a.Len()-a.Scored)
	start := time.Now()
	for i := range a.Len() {
		if i%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return nil, 0, err
			}
			progress(i)
		}
		x := s.predict(a, i)
		if i >= a.Scored {
			p = append(p, x)
		}
		s.learn(a, i)
	}
	progress(a.Len())
	return p, float64(time.Since(start).Nanoseconds()) / float64(a.Len()), nil
}
