package engine

import (
	"context"
	"testing"
)

// TestAwaitingSpaceEnds: who tries again until it works must not go on when the
// server is stopped and there is space.
func TestAwaitingSpaceEnds(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	end()
	for name, c := range map[string]struct {
		free  int64
		known bool
		ctx   context.Context
		want  bool
	}{
		"space":              {1 << 40, true, t.Context(), true},
		"nobody knows":       {0, false, t.Context(), true},
		"ended, with space":  {1 << 40, true, ended, false},
		"ended, not known":   {0, false, ended, false},
		"ended, with little": {spaceFloor, true, ended, false},
	} {
		s := &space{free: func() (int64, bool) { return c.free, c.known }}
		if got := s.await(c.ctx); got != c.want {
			t.Errorf("%s: await = %t, want %t", name, got, c.want)
		}
	}
}
