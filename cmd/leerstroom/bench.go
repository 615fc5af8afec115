package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/leerstroom/leerstroom/bench"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newBenchCommand() *cobra.Command {
	var data, report, figures, library string
	var config bench.RunConfig
	var unsynced bool
	var partitions int
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure every stage, the whole line, latencies, and the bare limits beside them",
		Long: `Measures on embedded engines in a directory of its own, which is removed
afterwards: each stage alone, raw to scored and stored, the connector, next-exercise
latency under load, the delay from an answer to the served skill, tokens, the
registry, sealing and a rotation of the keys; in the same run the bare limits (a
columnar insert, HMAC alone, a Kafka copy) and ClickHouse's own Kafka engine on the
same rows; and how long the whole system needs after it was killed.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) (err error) {
			bound := boundMemory(0, nil)
			defer bound.stop()
			logger := newLogger(command.ErrOrStderr(), false)
			if data, err = os.MkdirTemp(data, "leerstroom-bench-"); err != nil {
				return fmt.Errorf("make a directory for the engines: %w", err)
			}
			defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
			environment, stop, err := bench.StartEngines(command.Context(), filepath.Join(data, "engines"), library, logger)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, stop()) }()
			bars := newProgress(command.ErrOrStderr())
			defer bars.close()
			environment.Partitions = partitions
			config.Environment, config.Progress = environment, bars.set
			config.Command = benchCommandLine(command.Flags())
			config.Serve = func(ctx context.Context, population *bench.Population) (*bench.Serving, error) {
				endRoom, endThread := bound.besideBroker(), threadForBroker()
				end := func() { endThread(); endRoom() }
				serving, err := serveForBench(ctx, filepath.Join(data, "serving"), population, unsynced, command.ErrOrStderr())
				if err != nil {
					end()
					return nil, err
				}
				stop := serving.Stop
				serving.Stop = func() error { defer end(); return stop() }
				return serving, nil
			}
			config.Process = func(_ context.Context, population *bench.Population) (*bench.Process, error) {
				return processForBench(filepath.Join(data, "recovery"), population, command.ErrOrStderr())
			}
			results, err := bench.Run(command.Context(), config)
			if err != nil {
				if results != nil { // what was measured before is of use all the same
					err = errors.Join(err, results.WriteMarkdown(command.OutOrStdout()))
				}
				return err
			}
			return errors.Join(writeFile(report, command.OutOrStdout(), results.WriteMarkdown), writeFile(figures, nil, results.WriteJSON))
		},
	}
	flags := command.Flags()
	flags.StringVar(&data, "data", "", "directory for the engines' data (default: the system's directory for temporary files)")
	flags.StringVar(&report, "report", "", "Markdown file to write (default: standard output)")
	flags.StringVar(&figures, "json", "", "JSON file to write")
	flags.StringVar(&library, "library", "", "path of libchdb (default: found by itself)")
	flags.IntVar(&config.Answers, "answers", 5_000_000, "answers in the stream")
	flags.IntVar(&config.Schools, "schools", 250, "schools")
	flags.IntVar(&config.Learners, "learners", 200, "learners per school, about")
	flags.StringSliceVar(&config.Only, "only", nil, "measures to take (default: all): "+strings.Join(bench.Measures(), ", "))
	flags.BoolVar(&unsynced, "unsynced-kafka", false, "latencies without fsync in the embedded Kafka, to tell what the disk costs")
	flags.IntSliceVar(&config.DelayRates, "delay-rates", []int{20_000, 50_000}, "answers per second at which the delay until they are served is measured")
	flags.IntVar(&config.RecoveryLearners, "recovery-learners", 1_000_000, "learners of the system that is killed and started again")
	flags.IntVar(&partitions, "partitions", 64, "partitions of the topics, except of the served system")
	flags.IntVar(&config.Workers, "workers", 0, "handlers at work in each stage (default: one per core)")
	return command
}

// benchCommandLine is what a reader has to type for the same figures: without the
// paths of this machine.
func benchCommandLine(flags *pflag.FlagSet) string {
	line := "leerstroom bench"
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "data", "library", "report", "json", "cpuprofile", "memprofile":
		default:
			line += fmt.Sprintf(" --%s=%s", f.Name, strings.Trim(f.Value.String(), "[]"))
		}
	})
	return line
}

// writeFile writes a result to a path, or to otherwise when the path is empty.
func writeFile(path string, otherwise io.Writer, write func(io.Writer) error) error {
	if path == "" {
		if otherwise == nil {
			return nil
		}
		return write(otherwise)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return errors.Join(write(file), file.Close())
}
