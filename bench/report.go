package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
)

// tally is a sum that several goroutines add to.
type tally struct{ n atomic.Int64 }

func (t *tally) add(n int64) int64 { return t.n.Add(n) }

// Check is one thing that the demonstration looked at.
type Check struct {
	What string
	OK   bool
	Got  string
}

// PercentileLine is a learner's standing in one goal, subject or overall.
type PercentileLine struct {
	Layer      string
	Key        string
	Answers    int64
	Skill      float64 // logits
	Percentile float64
	Low, High  float64 // 90 % band
	Learners   int64   // in the norm group

	// TruePercentile is that of the simulator's true skill among all learners of
	// the year group.
	TruePercentile float64
}

// Report is what the demonstration saw.
type Report struct {
	Answers, TestResults int64
	Acknowledged         time.Duration // until the last acknowledgement
	Elapsed              time.Duration // until all was stored and scored
	RowsPerSecond        float64       // end to end
	Refit                string
	Fsck                 string
	Correlation          float64 // of estimated with true difficulty
	Exercises            int     // that the correlation is about
	Token                string  // of the learner that is shown
	Percentiles          []PercentileLine
	Next                 NextExercise
	Export               string
	ExportBytes          int64
	Checks               []Check
}

// check notes one outcome.
func (r *Report) check(what string, ok bool, got string, args ...any) {
	r.Checks = append(r.Checks, Check{What: what, OK: ok, Got: fmt.Sprintf(got, args...)})
}

// failure joins the checks that failed.
func (r *Report) failure() error {
	var failed []error
	for _, c := range r.Checks {
		if !c.OK {
			failed = append(failed, fmt.Errorf("check failed: %s: %s", c.What, c.Got))
		}
	}
	return errors.Join(failed...)
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "end to end    %s rows/s: %s answers and %s test results in %.2f s (acknowledged after %.2f s)\n",
		grouped(r.RowsPerSecond), grouped(float64(r.Answers)), grouped(float64(r.TestResults)), r.Elapsed.Seconds(), r.Acknowledged.Seconds())
	fmt.Fprintf(b, "refit         %s\n", r.Refit)
	fmt.Fprintf(b, "fsck          %s\n", strings.ReplaceAll(strings.TrimSpace(r.Fsck), "\n", "\n              "))
	fmt.Fprintf(b, "difficulty    r = %.3f between estimated and true difficulty of %d exercises\n", r.Correlation, r.Exercises)
	fmt.Fprintf(b, "learner       %s\n", r.Token)
	for _, p := range r.Percentiles {
		name := p.Layer
		if p.Key != "" {
			name += " " + p.Key
		}
		fmt.Fprintf(b, "  %-34s percentile %5.1f (90%% band %5.1f to %5.1f; true %5.1f), skill %+.2f, %d answers, %d learners\n",
			name, p.Percentile, p.Low, p.High, p.TruePercentile, p.Skill, p.Answers, p.Learners)
	}
	fmt.Fprintf(b, "next exercise %s, goal %s, expected success %.2f, because: %s\n", r.Next.Exercise, r.Next.Goal, r.Next.Expected, r.Next.Reason)
	fmt.Fprintf(b, "export        %s (%s bytes)\n", r.Export, grouped(float64(r.ExportBytes)))
	for _, c := range r.Checks {
		mark := "ok    "
		if !c.OK {
			mark = "FAILED"
		}
		fmt.Fprintf(b, "%s %s: %s\n", mark, c.What, c.Got)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
