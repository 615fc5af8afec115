package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/audit"
)

func newAuditCommand() *cobra.Command {
	var data, from, until string
	var filter audit.Filter
	command := &cobra.Command{
		Use:   "audit [--school S] [--from DAY] [--until DAY]",
		Short: "Print who saw which learners, and who changed identities and keys",
		Long: `Prints the audit log, one JSON object per line, oldest first: every request that
turned identifiers into tokens or tokens into names, or that showed learners of a
group, every one of these that was refused, and every command that changed rosters,
erased learners or made, rotated or retired keys. With --school it is what that
school has a right to see. It holds no identifier, no name and no token.

Exits with 1 when lines are damaged, after printing all others. A crash in the
middle of a write leaves one such line; more are a reason to look closer.`,
		Example: `  leerstroom audit --school 12AB00 --from 2026-11-01 --until 2026-12-01 --data data`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) (err error) {
			if filter.School != "" && !access.ValidSchool(filter.School) {
				return fmt.Errorf("--school: want BRIN and vestiging, such as 12AB00: %w", errUsage)
			}
			if filter.From, err = day(from); err != nil {
				return fmt.Errorf("--from: %w: %w", err, errUsage)
			}
			if filter.Until, err = day(until); err != nil {
				return fmt.Errorf("--until: %w: %w", err, errUsage)
			}
			encoder := json.NewEncoder(command.OutOrStdout())
			damaged, err := audit.Read(layout{data}.audit(), filter, func(r *audit.Record) error { return encoder.Encode(r) })
			if err != nil {
				return err
			}
			if damaged > 0 {
				return fmt.Errorf("%d lines of the audit log are damaged", damaged)
			}
			return nil
		},
	}
	flags := command.Flags()
	addDataFlag(flags, &data)
	flags.StringVar(&filter.School, "school", "", "only records of this school (BRIN and vestiging)")
	flags.StringVar(&from, "from", "", "first day, such as 2026-11-01 (UTC)")
	flags.StringVar(&until, "until", "", "first day that is not wanted any more (UTC)")
	return command
}

// day reads a day; the empty text is no bound.
func day(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return t, fmt.Errorf("want a day such as 2026-11-01")
	}
	return t, nil
}
