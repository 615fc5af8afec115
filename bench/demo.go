package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// Progress is told how far a named task is. A total of 0 means unknown. It is
// called concurrently.
type Progress func(task string, done, total int64)

// Stored counts what has become durable and visible: rows in the archive whose
// positions are covered by the stages' progress.
type Stored struct {
	Answers     int64 // archived and scored
	TestResults int64 // archived
}

// DemoConfig connects the demonstration with a running system. All fields
// without a default are needed.
type DemoConfig struct {
	BaseURL       string
	Population    *Population       // of DemoPopulation: the caller has authorised its publishers
	PublisherKeys map[string]string // API key of each publisher, by its id
	EngineKey     string            // API key of role engine for the schools of the population
	Answers       int               // default 200,000
	TestResults   int               // default 5,000

	// Stored reads what is durable so far.
	Stored func(ctx context.Context) (Stored, error)
	// Fsck runs the consistency check: a verdict of one line, and an error when
	// anything differs.
	Fsck func(ctx context.Context) (verdict string, err error)
	// Refit fits all difficulties anew and publishes them as a new scale: a verdict
	// of one line.
	Refit func(ctx context.Context) (verdict string, err error)
	// Export writes difficulties as Parquet and returns the path of the file.
	Export func(ctx context.Context) (path string, err error)

	Progress Progress // default: none
}

// minCorrelation is what the estimated difficulties of the demonstration must
// reach: with about 100 answers to an exercise of standard deviation 1.03 the
// information bound is near .97.
const minCorrelation = 0.9

// minJudged is the share of exercises that must have a difficulty in the API.
const minJudged = 0.9

// DemoPopulation returns the world of the demonstration: 40 schools of about 200
// learners, who begin to answer one week before now.
func DemoPopulation(now time.Time) (*Population, error) {
	return NewPopulation(PopulationConfig{Seed: 40, Schools: 40, Learners: 200, Start: beforeSchoolDays(now, 3)})
}

// beforeSchoolDays returns the date n school days before a time, so that answers
// of as many days lie in the past.
func beforeSchoolDays(now time.Time, n int) time.Time {
	day := int(now.UTC().Unix() / (24 * 60 * 60))
	for n > 0 {
		day--
		if isSchoolDay(day) {
			n--
		}
	}
	return time.Unix(int64(day)*24*60*60, 0).UTC()
}

// Demo pushes simulated answers and test results through a running system and
// checks what comes out. The report is returned also when a check fails; the
// error then names the first one.
func Demo(ctx context.Context, config DemoConfig) (*Report, error) {
	if config.Answers == 0 {
		config.Answers = 200_000
	}
	if config.TestResults == 0 {
		config.TestResults = 5_000
	}
	if config.Progress == nil {
		config.Progress = func(string, int64, int64) {}
	}
	w, err := NewWorkload(config.Population, WorkloadConfig{Answers: config.Answers, SessionAnswers: 6})
	if err != nil {
		return nil, err
	}
	d := &demo{config: &config, workload: w, report: &Report{}, api: newAPIClient(config.BaseURL, config.EngineKey)}
	for _, step := range []func(context.Context) error{
		d.push, d.await, d.refit, d.fsck, d.difficulties, d.learner, d.export,
	} {
		if err := step(ctx); err != nil {
			return d.report, fmt.Errorf("demo: %w", err)
		}
	}
	return d.report, d.report.failure()
}

type demo struct {
	config   *DemoConfig
	workload *Workload
	report   *Report
	api      *apiClient
	began    time.Time
}

// push lets all publishers send.
func (d *demo) push(ctx context.Context) error {
	d.began = time.Now()
	push := PushConfig{BaseURL: d.config.BaseURL, Keys: d.config.PublisherKeys, Encoding: Gzip, Workers: 4}
	var answers, tests PushResult
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		config := push
		config.Progress = counter(d.config.Progress, "answers acknowledged", d.config.Answers)
		answers, err = Push(ctx, d.workload, config)
		return err
	})
	group.Go(func() (err error) {
		config := push
		config.Progress = counter(d.config.Progress, "test results acknowledged", d.config.TestResults)
		tests, err = PushTestResults(ctx, d.config.Population, d.config.Population.TestResults(d.config.TestResults), config)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	d.report.Acknowledged = time.Since(d.began)
	d.report.Answers, d.report.TestResults = answers.Accepted, tests.Accepted
	d.report.check("every answer is accepted", answers.Accepted == int64(d.config.Answers) && answers.Refused == 0,
		"%d accepted, %d refused", answers.Accepted, answers.Refused)
	d.report.check("every test result is accepted", tests.Accepted == int64(d.config.TestResults) && tests.Refused == 0,
		"%d accepted, %d refused", tests.Accepted, tests.Refused)
	return nil
}

// counter adds up increments for a Progress.
func counter(progress Progress, task string, total int) func(rows int) {
	var sum tally
	progress(task, 0, int64(total))
	return func(rows int) { progress(task, sum.add(int64(rows)), int64(total)) }
}

// await waits until all that was acknowledged is stored and scored, and until
// the served state contains it.
func (d *demo) await(ctx context.Context) error {
	want := Stored{Answers: d.report.Answers, TestResults: d.report.TestResults}
	total := want.Answers + want.TestResults
	var got Stored
	err := poll(ctx, 25*time.Millisecond, func() (bool, error) {
		var err error
		got, err = d.config.Stored(ctx)
		d.config.Progress("stored and scored", min(got.Answers+got.TestResults, total), total)
		return err == nil && got.Answers >= want.Answers && got.TestResults >= want.TestResults, err
	})
	if err != nil {
		return fmt.Errorf("wait until all is stored (%d of %d answers, %d of %d test results): %w",
			got.Answers, want.Answers, got.TestResults, want.TestResults, err)
	}
	d.report.Elapsed = time.Since(d.began)
	d.report.RowsPerSecond = float64(total) / d.report.Elapsed.Seconds()
	d.report.check("every row is stored exactly once", got == want, "%d answers and %d test results stored", got.Answers, got.TestResults)
	return nil
}

// poll calls done until it is true or fails, or ctx ends.
func poll(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		if err := sleep(ctx, every); err != nil {
			return err
		}
	}
}

// refit runs before the checks, so that they judge what stands after it.
func (d *demo) refit(ctx context.Context) error {
	verdict, err := d.config.Refit(ctx)
	if err != nil {
		return fmt.Errorf("refit: %w", err)
	}
	d.report.Refit = verdict
	return nil
}

func (d *demo) fsck(ctx context.Context) error {
	verdict, err := d.config.Fsck(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("fsck: %w", err)
	}
	d.report.Fsck = verdict
	if err != nil {
		verdict = errors.Join(errors.New(verdict), err).Error()
	}
	d.report.check("fsck finds no difference", err == nil, "%s", verdict)
	return nil
}

func (d *demo) export(ctx context.Context) error {
	path, err := d.config.Export(ctx)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	d.report.Export, d.report.ExportBytes = path, info.Size()
	d.report.check("the export is a file with content", info.Mode().IsRegular() && info.Size() > 0, "%d bytes", info.Size())
	return nil
}
