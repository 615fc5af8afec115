package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/spf13/cobra"
)

// headAnswers is about how many answers the head is trained on: more would not
// move its few weights.
const headAnswers = 1_000_000

// refitAnswers is about how many answers a refit reads unless told otherwise: they
// fit in some 500 MB.
const refitAnswers = 20_000_000

func newRefitCommand() *cobra.Command {
	var flags stageFlags
	var answers int64
	var wait time.Duration
	command := &cobra.Command{
		Use:   "refit [--data DIR] [--config FILE]",
		Short: "Refit all difficulties and publish them as a new scale",
		Long: `Reads the archive, fits the difficulties of the exercises of every goal by marginal
maximum likelihood, trains the weights that correct predictions, and publishes both
as a new scale: a version of the difficulties that says so, with the constants that
link it to the one before. Skills keep their zero and their unit. Answers that come
in meanwhile are not lost: the versions after the scale take them in.

The transform stage does the same every night (refit in the configuration): the
estimates between two refits are those of a fast filter, which adaptive choice of
exercises slowly bends. Run it after much was imported.`,
		Example: `  leerstroom refit --data data`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return withDeployment(command, &flags, func(ctx context.Context, d *deployment) error {
				bars := newProgress(command.ErrOrStderr())
				defer bars.close()
				return d.refit(ctx, answers, wait, func(done, goals int) { bars.set("goals", int64(done), int64(goals)) }, command.OutOrStdout())
			})
		},
	}
	flags.add(command)
	command.Flags().Int64Var(&answers, "answers", refitAnswers, "read at most about so many answers: a sample of the learners when there are more")
	command.Flags().DurationVar(&wait, "wait", time.Minute, "how long the transform stage may take to publish")
	return command
}

// refit makes new scales of the archive, hands them over and waits until they are
// published.
func (d *deployment) refit(ctx context.Context, answers int64, wait time.Duration, progress func(done, goals int), out io.Writer) (err error) {
	persistence, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	defer closeStore(ctx, persistence, &err)
	source, config, err := d.refitSource(ctx, persistence, answers)
	if err != nil {
		return err
	}
	scales, err := d.fitScales(ctx, persistence, source, config, progress)
	if err != nil {
		return err
	}
	if len(scales) == 0 {
		fmt.Fprintln(out, "no goal has enough answers for a refit; nothing was published")
		return nil
	}
	for _, rows := range scales {
		if err := transform.PublishScale(ctx, d.client, d.names, rows); err != nil {
			return err
		}
	}
	if err := writeScales(out, scales); err != nil {
		return err
	}
	last := scales[len(scales)-1].Scale.Number
	version, err := awaitScale(ctx, persistence, last, wait)
	if err == nil {
		fmt.Fprintf(out, "scale %d is published, in version %d of the difficulties at the latest\n", last, version)
	}
	return err
}

// refitSource reads the sums of every partition, which say what a refit may read:
// what the archive holds beyond them is left out, so that no answer counts twice.
func (d *deployment) refitSource(ctx context.Context, persistence *store.Store, answers int64) (store.RefitSource, transform.RefitConfig, error) {
	config := transform.RefitConfig{}
	source := store.RefitSource{Answers: answers, UpTo: make([]answer.Position, d.config.Topics.Partitions)}
	var err error
	if config.Sums, err = persistence.LoadSums(ctx, 0, d.config.Topics.Partitions); err != nil {
		return source, config, err
	}
	for partition := range source.UpTo {
		for _, position := range config.Sums[partition].Position {
			source.UpTo[partition] = max(source.UpTo[partition], position)
		}
	}
	return source, config, nil
}

// fitScales fits what the source holds.
func (d *deployment) fitScales(ctx context.Context, persistence *store.Store, source store.RefitSource, config transform.RefitConfig,
	progress func(done, goals int)) ([]*transform.SnapshotRows, error) {
	_, current, err := persistence.LoadSnapshot(ctx, 0)
	if err != nil {
		return nil, err
	}
	config.Current = &current
	count, err := persistence.CountRefitAnswers(ctx, source)
	if err != nil {
		return nil, err
	}
	config.HeadShare = min(1, headAnswers/float64(max(1, min(count, source.Answers))))
	refit, err := transform.NewRefit(config)
	if err != nil {
		return nil, err
	}
	if err := persistence.RefitAnswers(ctx, source, count, refit.Add); err != nil {
		return nil, err
	}
	return refit.Fit(ctx, progress)
}

// writeScales prints the constants of every goal.
func writeScales(out io.Writer, scales []*transform.SnapshotRows) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "scale\tgoal\tanswers\texercises\tshift\tits error\tslope") // Flush returns the first error
	for _, rows := range scales {
		for _, link := range rows.Scale.Links {
			fmt.Fprintf(table, "%d\t%s\t%d\t%d\t%.3f\t%.3f\t%.3f\n", rows.Scale.Number, link.Goal, link.Answers, link.Exercises, link.Shift, link.ShiftError, link.Slope)
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write scales: %w", err)
	}
	return nil
}

// awaitScale waits until the store has a scale and returns its newest version.
func awaitScale(ctx context.Context, persistence *store.Store, number uint64, wait time.Duration) (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("scale %d was handed over but is not published after %s: is the transform stage running?", number, wait))
	defer cancel()
	for {
		version, rows, err := persistence.LoadSnapshot(ctx, 0)
		if err != nil {
			return 0, err
		}
		if rows.Scale != nil && rows.Scale.Number >= number {
			return version, nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
