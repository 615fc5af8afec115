package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/leerstroom/leerstroom/bench"
	"github.com/leerstroom/leerstroom/ingest"
	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

type demoFlags struct {
	data                 string
	answers, testResults int
	verbose              bool
}

func newDemoCommand() *cobra.Command {
	var flags demoFlags
	command := &cobra.Command{
		Use:   "demo",
		Short: "See the whole line work: simulated publishers push answers through every stage",
		Long: `Starts every stage on an embedded Kafka and ClickHouse in a directory of its own,
lets simulated publishers push answers and test results of 40 schools through the
HTTP connector, waits until all is stored and scored, and checks the result: every
row exactly once, difficulties against the true ones, one learner's percentiles and
next exercise, an export. Exits with 0 only when every check holds.

The directory is emptied first, so that every run starts clean.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			bound := boundMemory(0, nil)
			defer bound.stop()
			defer bound.besideBroker()()
			defer threadForBroker()()
			return runDemo(command.Context(), &flags, command.OutOrStdout(), command.ErrOrStderr())
		},
	}
	f := command.Flags()
	f.StringVar(&flags.data, "data", filepath.Join("data", "demo"), "directory of the demo; it is emptied first")
	f.IntVar(&flags.answers, "answers", 200_000, "number of answers")
	f.IntVar(&flags.testResults, "test-results", 5_000, "number of test results")
	f.BoolVarP(&flags.verbose, "verbose", "v", false, "log more than warnings")
	return command
}

// demoEngine is the adaptive engine of the demo, which all its schools authorise.
const demoEngine = "demo"

// demoMark is in every directory that the demo made: it empties no other.
const demoMark = "made-by-leerstroom-demo"

func runDemo(ctx context.Context, flags *demoFlags, stdout, stderr io.Writer) (err error) {
	if err := emptyDemoDirectory(flags.data); err != nil {
		return err
	}
	population, err := bench.DemoPopulation(time.Now())
	if err != nil {
		return err
	}
	d, err := openSimulation(ctx, layout{flags.data}, population, false, newLogger(stderr, flags.verbose))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return d.demo(ctx, flags, population, stdout, stderr)
}

// openSimulation opens a deployment on embedded engines whose simulated schools
// have authorised their publishers.
func openSimulation(ctx context.Context, paths layout, population *bench.Population, unsynced bool, logger *slog.Logger) (*deployment, error) {
	config, err := loadConfiguration("")
	if err != nil {
		return nil, err
	}
	config.Listen = "127.0.0.1:0"
	config.Engine.Kafka.UnsyncedWrites = unsynced
	config.Ingest.Authorisations = population.Authorisations()
	config.Identities.Provisional = true // simulated schools send no rosters
	config.EngineAuthorisations = make(ingest.Authorisations)
	for school := range config.Ingest.Authorisations {
		config.EngineAuthorisations[school] = []string{demoEngine}
	}
	d, err := openDeployment(ctx, config, paths, logger)
	if err != nil {
		return nil, err
	}
	if err := d.createKeys(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// serveForBench runs the whole system for the benchmarks that speak HTTP.
func serveForBench(ctx context.Context, data string, population *bench.Population, unsynced bool, stderr io.Writer) (*bench.Serving, error) {
	d, err := openSimulation(ctx, layout{data}, population, unsynced, newLogger(stderr, false))
	if err != nil {
		return nil, err
	}
	publishers, engine, err := d.demoKeys(population)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	ctx, stop := context.WithCancel(ctx)
	ended, address := make(chan error, 1), make(chan string, 1)
	go func() { // ends with Stop, which waits for it
		ended <- d.runStages(ctx, []string{stageIngest, stagePseudonymize, stageTransform, stageServe}, func(a string) { address <- a })
	}()
	finish := func() error {
		stop()
		err := <-ended
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		return errors.Join(err, d.close())
	}
	select {
	case a := <-address:
		return &bench.Serving{BaseURL: "http://" + a, PublisherKeys: publishers, EngineKey: engine, Stop: finish}, nil
	case err := <-ended:
		stop()
		return nil, errors.Join(err, d.close())
	}
}

// demo runs the stages and, beside them, the simulated publishers and checks.
func (d *deployment) demo(ctx context.Context, flags *demoFlags, population *bench.Population, stdout, stderr io.Writer) error {
	publisherKeys, engineKey, err := d.demoKeys(population)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	address := make(chan string, 1)
	group.Go(func() error {
		return d.runStages(ctx, []string{stageIngest, stagePseudonymize, stageTransform, stageServe}, func(a string) { address <- a })
	})
	group.Go(func() error {
		defer stop()
		select {
		case a := <-address:
			return d.check(ctx, flags, bench.DemoConfig{BaseURL: "http://" + a, Population: population, PublisherKeys: publisherKeys, EngineKey: engineKey}, stdout, stderr)
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

// check pushes the workload and prints what came out.
func (d *deployment) check(ctx context.Context, flags *demoFlags, config bench.DemoConfig, stdout, stderr io.Writer) error {
	archive, err := d.openArchiveCounts()
	if err != nil {
		return err
	}
	bars := newProgress(stderr)
	config.Answers, config.TestResults, config.Progress = flags.answers, flags.testResults, bars.set
	config.Stored, config.Fsck = archive.stored, d.fsckVerdict
	config.Refit = func(ctx context.Context) (string, error) {
		var out strings.Builder
		if err := d.refit(ctx, refitAnswers, time.Minute, func(int, int) {}, &out); err != nil {
			return "", err
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return fmt.Sprintf("%d goals; %s", len(lines)-2, lines[len(lines)-1]), nil
	}
	config.Export = func(ctx context.Context) (string, error) {
		return d.exportDifficulty(ctx, d.layout.path("exports", "difficulty"))
	}
	report, err := bench.Demo(ctx, config)
	bars.close()
	if report == nil {
		return err
	}
	return errors.Join(err, report.WriteText(stdout))
}

// demoKeys creates a key for each publisher and one for an adaptive engine.
func (d *deployment) demoKeys(population *bench.Population) (publishers map[string]string, engine string, err error) {
	keys, err := access.Open(d.layout.apiKeys())
	if err != nil {
		return nil, "", err
	}
	publishers = make(map[string]string)
	for _, p := range population.Publishers {
		if publishers[p.ID], _, err = keys.Create(access.Scope{Role: access.RolePublisher, Publisher: p.ID}); err != nil {
			return nil, "", err
		}
	}
	engine, _, err = keys.Create(access.Scope{Role: access.RoleEngine, Engine: demoEngine})
	return publishers, engine, err
}

// emptyDemoDirectory makes the directory anew. One that the demo did not make is
// left alone.
func emptyDemoDirectory(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("prepare demo directory: %w", err)
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(path, demoMark)); err != nil {
			return fmt.Errorf("prepare demo directory: %s is not empty and was not made by the demo; give another with --data", path)
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("prepare demo directory: %w", err)
		}
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("prepare demo directory: %w", err)
	}
	return os.WriteFile(filepath.Join(path, demoMark), nil, 0o600)
}
