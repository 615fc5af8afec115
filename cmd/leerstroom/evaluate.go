package main

import (
	"fmt"

	"github.com/leerstroom/leerstroom/bench/evaluate"
	"github.com/spf13/cobra"
)

func newEvaluateCommand() *cobra.Command {
	var config evaluate.Config
	command := &cobra.Command{
		Use:   "evaluate --answers FILE [--train FILE] [--skills FILE] [--persons FILE]",
		Short: "Judge the measurement against baselines on a data set",
		Long: `Reads answers (learner, item, timestamp, correct, skill; separator and names from
the header; gzipped or not), predicts each one before learning from it, and prints
the same table for Leerstroom and the baselines: AUC, log-loss, RMSE, calibration;
with --persons also skill and percentiles against plausible values. With --train
the learners of that file teach first and only --answers is scored.`,
		Example: `  leerstroom evaluate --answers test.csv.gz --train train.csv.gz --json`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			if err := config.Validate(); err != nil {
				return fmt.Errorf("%w: %w", err, errUsage)
			}
			bars := newProgress(command.ErrOrStderr())
			defer bars.close()
			config.Progress = func(stage string, done, total int) { bars.set(stage, int64(done), int64(total)) }
			return evaluate.Run(command.Context(), config, command.OutOrStdout())
		},
	}
	flags := command.Flags()
	flags.StringVar(&config.Answers, "answers", "", "file of answers (needed)")
	flags.StringVar(&config.Train, "train", "", "file of answers that only teach")
	flags.StringVar(&config.Skills, "skills", "", "file of items and their skills")
	flags.StringVar(&config.Persons, "persons", "", "file of persons with plausible values")
	flags.StringVar(&config.Order, "order", "", "order of the answers: time (default) or file")
	flags.StringVar(&config.Plots, "plots", "", "directory that gets plots as SVG")
	flags.BoolVar(&config.JSON, "json", false, "print JSON")
	return command
}
