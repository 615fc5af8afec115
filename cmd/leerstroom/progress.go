package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress shows how far long work is: bars on a terminal, a plain line every
// few seconds elsewhere.
type progress struct {
	out  io.Writer
	bars *mpb.Progress // nil when out is no terminal

	mutex sync.Mutex
	tasks map[string]*task
}

type task struct {
	bar         *mpb.Bar
	done, total int64
	began       time.Time
	printed     time.Time
}

// plainInterval is the pause between two plain lines of the same task.
const plainInterval = 2 * time.Second

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, tasks: make(map[string]*task)}
	if file, ok := out.(*os.File); ok && isTerminal(file) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40), mpb.WithRefreshRate(150*time.Millisecond))
	}
	return p
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// set reports that done of total units of a named task are finished. A total of
// 0 means that it isn't known.
func (p *progress) set(name string, done, total int64) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	t := p.tasks[name]
	if t == nil {
		t = &task{began: time.Now()}
		if p.bars != nil {
			t.bar = p.bars.AddBar(total, mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersNoUnit("%d / %d", decor.WCSyncSpace)),
				mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Name(" "), decor.EwmaETA(decor.ET_STYLE_GO, 30)))
		}
		p.tasks[name] = t
	}
	finished := total > 0 && done >= total && t.done < total
	t.done, t.total = done, total
	if t.bar != nil {
		t.bar.SetTotal(total, false)
		t.bar.EwmaSetCurrent(done, time.Since(t.began))
		if finished {
			t.bar.SetTotal(total, true)
		}
		return
	}
	if finished || time.Since(t.printed) >= plainInterval {
		t.printed = time.Now()
		p.printLine(name, t)
	}
}

func (p *progress) printLine(name string, t *task) {
	if t.total > 0 {
		fmt.Fprintf(p.out, "%s: %d of %d (%d %%), %.0f s\n", name, t.done, t.total, 100*t.done/t.total, time.Since(t.began).Seconds())
		return
	}
	fmt.Fprintf(p.out, "%s: %d, %.0f s\n", name, t.done, time.Since(t.began).Seconds())
}

// close leaves the bars as they are and waits until they are drawn.
func (p *progress) close() {
	p.mutex.Lock()
	for _, t := range p.tasks {
		if t.bar != nil && !t.bar.Completed() {
			t.bar.Abort(false)
		}
	}
	p.mutex.Unlock()
	if p.bars != nil {
		p.bars.Wait()
	}
}
