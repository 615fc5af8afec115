package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// stageFlags are those of every command that runs stages.
type stageFlags struct {
	data, config, listen string
	verbose              bool
}

func (f *stageFlags) add(command *cobra.Command) {
	flags := command.Flags()
	addDataFlag(flags, &f.data)
	flags.StringVar(&f.config, "config", "", "configuration file (YAML)")
	flags.StringVar(&f.listen, "listen", "", "host:port of the HTTP interface (default 127.0.0.1:8080; pseudonymize and transform alone: nowhere)")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log more than warnings")
}

func (f *stageFlags) configuration() (*configuration, error) {
	config, err := loadConfiguration(f.config)
	if err != nil {
		return nil, err
	}
	if f.listen != "" {
		config.Listen = f.listen
	}
	return config, nil
}

func newUpCommand() *cobra.Command {
	var flags stageFlags
	command := &cobra.Command{
		Use:   "up [--data DIR] [--listen ADDR] [--config FILE]",
		Short: "Run every stage in one process until interrupted",
		Long: `Runs ingest, pseudonymize, transform and serve in one process, on the embedded
Kafka and ClickHouse unless the configuration names others. Everything is kept in
one directory and is there again after a restart. Missing keys are created.`,
		Example: `  leerstroom up --data data --listen 127.0.0.1:8080`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := flags.configuration()
			if err != nil {
				return err
			}
			return runProcess(command, &flags, config, true, []string{stageIngest, stagePseudonymize, stageTransform, stageServe})
		},
	}
	flags.add(command)
	return command
}

// newStageCommand makes the command that runs one stage as a process of its own.
func newStageCommand(stage string) *cobra.Command {
	about := map[string]string{
		stageIngest:       "Run the connectors: validate, authorise, seal (holds a public key only)",
		stagePseudonymize: "Run the stage that opens raw and writes tokens",
		stageTransform:    "Run scoring and the archive",
		stageServe:        "Run the query service",
	}
	var flags stageFlags
	command := &cobra.Command{
		Use:   stage + " --config FILE [--data DIR]",
		Short: about[stage],
		Long: about[stage] + `.

The configuration must name a Kafka and a ClickHouse: an embedded engine belongs
to one process, which is what "leerstroom up" is for. The data directory holds the
keys that this stage needs; a missing key stops it. Every stage serves /metrics and
/healthz where it listens; pseudonymize and transform do so only when told where, by
--listen or metrics_listen.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := flags.configuration()
			if err != nil {
				return err
			}
			if stage == stagePseudonymize || stage == stageTransform { // nobody else speaks to them
				config.MetricsListen = cmp.Or(flags.listen, config.MetricsListen)
			}
			if config.Engine.Embedded() {
				return fmt.Errorf("stage %s alone needs engine.kafka.brokers and engine.clickhouse.addresses in the configuration", stage)
			}
			return runProcess(command, &flags, config, false, []string{stage})
		},
	}
	flags.add(command)
	return command
}

// mergesHeld is how long after its start the embedded ClickHouse puts off merges
// at most, while states are read back.
const mergesHeld = time.Minute

// runProcess opens the deployment and runs the stages until the command's
// context ends.
func runProcess(command *cobra.Command, flags *stageFlags, config *configuration, createKeys bool, stages []string) (err error) {
	reading := new(readings)
	bound := boundMemory(config.MemoryLimitMiB, reading)
	defer bound.stop()
	if len(config.Engine.Kafka.Brokers) == 0 {
		defer bound.besideBroker()()
		defer threadForBroker()()
	}
	config.Engine.ClickHouse.HoldMerges = mergesHeld
	ctx, paths := command.Context(), layout{flags.data}
	d, err := openDeployment(ctx, config, paths, newLogger(command.ErrOrStderr(), flags.verbose))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	d.readings = reading
	if createKeys {
		if err := d.createKeys(); err != nil {
			return err
		}
	}
	err = d.runStages(ctx, stages, func(address string) { announce(command.OutOrStdout(), stages, address) })
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func announce(out io.Writer, stages []string, address string) {
	if address == "" {
		fmt.Fprintf(out, "running %v\n", stages)
		return
	}
	fmt.Fprintf(out, "running %v, listening on http://%s\n", stages, address)
}
