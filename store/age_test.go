package store

import (
	"testing"
	"time"
)

// TestBatchesAge says when a batch is sent although it is not full.
func TestBatchesAge(t *testing.T) {
	t.Parallel()
	config := Config{Addresses: []string{"127.0.0.1:1"}}
	config.complete()
	now := time.Unix(1_790_000_000, 0)
	before := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		begun, entered, aged time.Time
		underWay             int
		want                 bool
	}{
		"nothing is in it":                     {aged: before(time.Hour)},
		"young":                                {begun: before(400 * time.Millisecond), entered: before(400 * time.Millisecond)},
		"quiet":                                {begun: before(500 * time.Millisecond), entered: before(500 * time.Millisecond), aged: before(600 * time.Millisecond), want: true},
		"rows keep coming":                     {begun: before(time.Second), entered: before(100 * time.Millisecond), aged: before(1900 * time.Millisecond)},
		"rows have come for long":              {begun: before(time.Second), entered: before(100 * time.Millisecond), aged: before(2 * time.Second), want: true},
		"none was sent for its age before":     {begun: before(500 * time.Millisecond), entered: now, want: true},
		"as many are under way as there may":   {begun: before(time.Minute), entered: before(time.Minute), underWay: 2},
		"fewer are under way, and it is quiet": {begun: before(time.Minute), entered: before(time.Minute), underWay: 1, want: true},
	} {
		w := &writer{config: &config, current: &batch{begun: c.begun}, entered: c.entered, aged: c.aged, underWay: c.underWay}
		if got := w.isAged(now); got != c.want {
			t.Errorf("%s: isAged = %t, want %t", name, got, c.want)
		}
	}
	if (&writer{config: &config}).isAged(now) {
		t.Error("isAged = true without a batch")
	}
}
