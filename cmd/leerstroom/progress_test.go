package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

// TestProgressWithoutTerminal: a line when a task begins, every two seconds, and
// when it ends, with its share where the whole is known.
func TestProgressWithoutTerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out)
		for done := range int64(40) {
			p.set("answers", done, 40)
			time.Sleep(100 * time.Millisecond)
		}
		p.set("answers", 40, 40)
		p.set("answers", 40, 40) // an end is told once
		p.set("rows", 7, 0)
		p.close()
		const want = "answers: 0 of 40 (0 %), 0 s\nanswers: 20 of 40 (50 %), 2 s\nanswers: 40 of 40 (100 %), 4 s\nrows: 7, 0 s\n"
		if out.String() != want {
			t.Errorf("without a terminal:\n%swant\n%s", out.String(), want)
		}
	})
}
