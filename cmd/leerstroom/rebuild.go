package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
	"github.com/spf13/cobra"
)

func newRebuildCommand() *cobra.Command {
	var flags stageFlags
	var wait time.Duration
	command := &cobra.Command{
		Use:   "rebuild [--data DIR] [--config FILE]",
		Short: "Compute skills, difficulties and norms again from the archive",
		Long: `Replays the archive of every partition under the model of this program, beside the
running system, and orders all partitions to switch to what comes out otherwise.
Every answer is read against the version of the difficulties that was in use at its
place, so that under an unchanged model nothing comes out otherwise. Answers,
corrections and orders that come in meanwhile are taken along. When answers say
something else of their exercises, the difficulties that they show together are
published as a new scale.

Run it after an update that changes the model, once all transform stages run the
new program. A run that was interrupted is begun again. When it was interrupted
between the switch and the new scale, "leerstroom refit" makes one.`,
		Example: `  leerstroom rebuild --data data`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return withDeployment(command, &flags, func(ctx context.Context, d *deployment) (err error) {
				persistence, err := d.openStore(ctx)
				if err != nil {
					return err
				}
				defer closeStore(ctx, persistence, &err)
				bars := newProgress(command.ErrOrStderr())
				defer bars.close()
				r := &rebuild{deployment: d, store: persistence, bars: bars, out: command.OutOrStdout(), wait: wait,
					number: uint64(time.Now().UnixMilli())} // no two runs begin in the same millisecond
				return r.run(ctx)
			})
		},
	}
	flags.add(command)
	command.Flags().DurationVar(&wait, "wait", 10*time.Minute, "how long the stages may take to switch")
	return command
}

// rebuild is one under way.
type rebuild struct {
	*deployment
	store    *store.Store
	bars     *progress
	out      io.Writer
	wait     time.Duration
	number   uint64
	staged   map[int]answer.Position // partitions of which anything differs, and up to where they were computed
	rescored int
}

func (r *rebuild) run(ctx context.Context) error {
	if err := r.stage(ctx); err != nil {
		return err
	}
	if len(r.staged) == 0 {
		fmt.Fprintln(r.out, "nothing differs from what is stored; nothing was switched")
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.wait, fmt.Errorf("not every partition has switched after %s: is the transform stage running? They switch when it does; then run this command again", r.wait))
	defer cancel()
	orders, sumsFrom, err := r.order(ctx)
	if err != nil {
		return err
	}
	if err := r.awaitSwitch(ctx, orders); err != nil {
		return err
	}
	if r.rescored > 0 {
		if err := transform.AwaitSums(ctx, r.client, r.names.ItemSums, sumsFrom, positionsOf(orders)); err != nil {
			return err
		}
		if err := r.publish(ctx); err != nil {
			return err
		}
	}
	return r.store.DropRebuilds(ctx, r.number)
}

// stage computes every partition.
func (r *rebuild) stage(ctx context.Context) error {
	total, err := r.store.CountAnswers(ctx)
	if err != nil {
		return err
	}
	r.staged = make(map[int]answer.Position)
	computing := transform.NewRebuild(transform.RebuildConfig{Persistence: r.store, Number: r.number})
	read, learners := int64(0), 0
	for partition := range r.config.Topics.Partitions {
		done, err := computing.Stage(ctx, partition, func(answers int64) { r.bars.set("answers", read+answers, max(total, read+answers)) })
		if err != nil {
			return err
		}
		read, learners, r.rescored = read+done.Answers, learners+done.Learners, r.rescored+done.Rescored
		if done.Learners > 0 || done.Rescored > 0 {
			r.staged[partition] = done.Position
		}
	}
	r.bars.set("answers", read, read)
	fmt.Fprintf(r.out, "%d answers read; %d learners come out otherwise, %d answers say something else of their exercise\n", read, learners, r.rescored)
	return nil
}

// order orders all staged partitions to switch, and tells where the topic of sums
// ended before.
func (r *rebuild) order(ctx context.Context) (orders map[int]int64, sumsFrom int64, err error) {
	if _, sumsFrom, err = r.client.Offsets(ctx, r.names.ItemSums, 0); err != nil {
		return nil, 0, err
	}
	orders = make(map[int]int64, len(r.staged))
	for partition := range r.staged {
		if orders[partition], err = transform.OrderRebuild(ctx, r.client, r.names, partition, r.number); err != nil {
			return nil, 0, err
		}
	}
	return orders, sumsFrom, nil
}

func positionsOf(orders map[int]int64) map[int]answer.Position {
	positions := make(map[int]answer.Position, len(orders))
	for partition, offset := range orders {
		positions[partition] = answer.At(offset, 0)
	}
	return positions
}

// awaitSwitch waits until every partition has passed its order.
func (r *rebuild) awaitSwitch(ctx context.Context, orders map[int]int64) error {
	for {
		reached, err := r.store.Progress(ctx)
		if err != nil {
			return err
		}
		switched := int64(0)
		for partition, offset := range orders {
			if at, any := reached[partition]; any && at.Raw >= offset {
				switched++
			}
		}
		r.bars.set("partitions switched", switched, int64(len(orders)))
		if int(switched) == len(orders) {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
	for partition, offset := range orders {
		since, err := r.store.AmendedSince(ctx, partition, r.staged[partition]+1, answer.At(offset, 0))
		if err != nil {
			return err
		}
		if since.Rebuilt {
			return fmt.Errorf("partition %d was switched to another rebuild meanwhile: run this command again, and no other beside it", partition)
		}
	}
	fmt.Fprintf(r.out, "%d partitions have switched\n", len(orders))
	return nil
}

// maxScaleRows is how many components one version of the new scales has at most.
const maxScaleRows = 20_000

// publish hands the difficulties that the sums show over as new scales.
func (r *rebuild) publish(ctx context.Context) error {
	sums, err := r.store.LoadSums(ctx, 0, r.config.Topics.Partitions)
	if err != nil {
		return err
	}
	_, current, err := r.store.LoadSnapshot(ctx, 0)
	if err != nil {
		return err
	}
	scales := transform.Reestimate(filter.Parameters{}, sums, current.Scale, maxScaleRows)
	for _, rows := range scales {
		if err := transform.PublishScale(ctx, r.client, r.names, rows); err != nil {
			return err
		}
	}
	if len(scales) == 0 {
		return nil
	}
	last := scales[len(scales)-1].Scale.Number
	version, err := awaitScale(ctx, r.store, last, r.wait)
	if err == nil {
		fmt.Fprintf(r.out, "scale %d is published, in version %d of the difficulties at the latest\n", last, version)
	}
	return err
}
