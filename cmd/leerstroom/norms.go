package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
	"github.com/spf13/cobra"
)

func newNormsCommand() *cobra.Command {
	command := &cobra.Command{Use: "norms", Short: "Freeze and list the norms that percentiles compare with"}
	command.AddCommand(newNormsFreezeCommand(), newNormsListCommand())
	return command
}

func newNormsFreezeCommand() *cobra.Command {
	var flags stageFlags
	var again bool
	command := &cobra.Command{
		Use:   "freeze [SCHOOLYEAR-MOMENT]",
		Short: "Freeze the norm of a moment of the school year",
		Long: `Keeps how skill is spread in every year group, per goal, per subject and overall,
as it was at the end of a moment, and what learners who began alike had reached
some weeks later. Groups under 10 learners are left out. Without an argument it is
the newest moment that has begun; while the moment lasts, the norm tells how it is
today.

A frozen norm never changes. Freezing again changes nothing, unless --again is
given and the history has changed since: then the norm gets its next version.
Running services take a new norm in within half a minute.`,
		Example: `  leerstroom norms freeze 2026-2027-M --data data`,
		Args:    arguments(cobra.MaximumNArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			return withDeployment(command, &flags, func(ctx context.Context, d *deployment) error {
				occasion, asOf, err := d.occasion(args, time.Now())
				if err != nil {
					return err
				}
				return d.freezeNorm(ctx, occasion, asOf, again, command.OutOrStdout(), command.ErrOrStderr())
			})
		},
	}
	flags.add(command)
	command.Flags().BoolVar(&again, "again", false, "make a new version when the history has changed since the last")
	return command
}

// occasion returns the occasion to freeze and the day up to which its history
// goes.
func (d *deployment) occasion(args []string, now time.Time) (transform.Occasion, transform.Day, error) {
	calendar := d.config.Norms.calendar()
	today := calendar.Today(now)
	if len(args) == 0 {
		o := calendar.Begun(today, 1)[0]
		return o, min(o.To, today), nil
	}
	o, err := calendar.Occasion(args[0])
	if err != nil {
		return o, 0, fmt.Errorf("norm: %w: %w", err, errUsage)
	}
	if o.From > today {
		return o, 0, fmt.Errorf("norm %s: the moment begins on %s; freeze it then", o.Name(), o.From)
	}
	return o, min(o.To, today), nil
}

func (d *deployment) freezeNorm(ctx context.Context, occasion transform.Occasion, asOf transform.Day, again bool, out, progressOut io.Writer) (err error) {
	persistence, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	defer closeStore(ctx, persistence, &err)
	bars := newProgress(progressOut)
	defer bars.close()
	version, made, err := persistence.FreezeNorm(ctx, &store.Freeze{Occasion: occasion, AsOf: asOf, Parameters: filter.DefaultParameters(),
		TakenAt: time.Now(), Again: again, Progress: func(done, total int64) { bars.set("history", done, total) }})
	if err != nil {
		return err
	}
	state := "frozen"
	if !made {
		state = "unchanged"
	}
	fmt.Fprintf(out, "%s version %d: %s, as of %s, %d learners, %d norm groups, %d cells of growth\n",
		version.Name, version.Version, state, version.AsOf, version.Learners, version.GroupCount, version.CellCount)
	return nil
}

func newNormsListCommand() *cobra.Command {
	var flags stageFlags
	command := &cobra.Command{
		Use:     "list",
		Short:   "List the frozen norms",
		Example: `  leerstroom norms list --data data`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return withDeployment(command, &flags, func(ctx context.Context, d *deployment) error {
				return d.listNorms(ctx, command.OutOrStdout())
			})
		},
	}
	flags.add(command)
	return command
}

func (d *deployment) listNorms(ctx context.Context, out io.Writer) (err error) {
	persistence, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	defer closeStore(ctx, persistence, &err)
	versions, err := persistence.NormVersions(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NORM\tVERSION\tAS OF\tTAKEN\tLEARNERS\tGROUPS\tGROWTH CELLS")
	for _, v := range versions {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%d\t%d\t%d\n", v.Name, v.Version, v.AsOf, v.TakenAt.Format(time.RFC3339), v.Learners, v.GroupCount, v.CellCount)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	return nil
}
