package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/pseudonymize/roster"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// errRoster says that a roster was taken in but for some lines.
var errRoster = errors.New("lines of the roster were left out")

func newRosterCommand() *cobra.Command {
	command := &cobra.Command{Use: "roster", Short: "Teach the registry which identifiers belong to one learner"}
	command.AddCommand(newRosterImportCommand(), newRosterMergeCommand(), newRosterReassignCommand())
	return command
}

// schoolFlags are those of commands about learners of one school.
type schoolFlags struct {
	stageFlags
	school string
}

func (f *schoolFlags) add(command *cobra.Command) {
	f.stageFlags.add(command)
	command.Flags().StringVar(&f.school, "school", "", "BRIN and vestiging, such as 12AB00 (needed)")
	_ = command.MarkFlagRequired("school")
}

// registryOf opens the registry of a school's partition for reading and for
// appending to its log; the stage that owns the partition follows.
func (d *deployment) registryOf(ctx context.Context, school string) (*vault.Partition, error) {
	identities, _, err := d.openVault()
	if err != nil {
		return nil, err
	}
	return identities.Open(ctx, answer.PartitionOf(school, d.config.Topics.Partitions), vault.Follow)
}

func newRosterImportCommand() *cobra.Command {
	var flags schoolFlags
	var dry bool
	command := &cobra.Command{
		Use:   "import FILE --school SCHOOL",
		Short: "Take in a school's roster",
		Long: `Reads a CSV file with a header: eckid, basispoort, las and publisher:NAME are
identifiers; first_name, name_prefix, last_name, group and year_group are for a
teacher's screen. Prints what became of every line:

  created    a new learner
  linked     further identifiers of a learner, or one known from answers alone
  merged     learners that were several are one; their answers are joined
  renamed    only the name or the group is new
  unchanged  all of it was known
  conflict   the line claims identifiers of two learners that rosters know:
             nothing was done; decide with "roster reassign" or "roster merge"
  invalid    refused, with column and rule

No value of a line is printed. Importing a roster again changes nothing. Exits
with 1 when lines were left out (conflict or invalid); the others are taken in.`,
		Example: `  leerstroom roster import roster.csv --school 12AB00 --data data`,
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			return withDeployment(command, &flags.stageFlags, func(ctx context.Context, d *deployment) error {
				action := audit.ActionRosterImport
				if dry {
					action = audit.ActionRosterPlan
				}
				return d.audited(audit.Record{Action: action, School: flags.school}, func(r *audit.Record) (err error) {
					r.Asked, r.Given, err = d.importRoster(ctx, args[0], flags.school, dry, command.OutOrStdout(), command.ErrOrStderr())
					return err
				})
			})
		},
	}
	flags.add(command)
	command.Flags().BoolVar(&dry, "dry-run", false, "print what would become of every line and change nothing")
	return command
}

// rosterChunk is the number of lines between two reports of progress.
const rosterChunk = 256

// importRoster returns how many lines there are and how many of them were taken.
func (d *deployment) importRoster(ctx context.Context, path, school string, dry bool, out, progressTo io.Writer) (all, taken int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("open roster: %w", err)
	}
	defer file.Close()
	lines, err := roster.Read(file, roster.Config{School: school, TestIdentifiers: d.config.Ingest.TestIdentifiers})
	if err != nil {
		return 0, 0, err
	}
	registry, err := d.registryOf(ctx, school)
	if err != nil {
		return 0, 0, err
	}
	take := registry.ImportRoster
	if dry {
		take = registry.PlanRoster
	}
	bars := newProgress(progressTo)
	defer bars.close()
	counts := make(map[vault.Outcome]int)
	for start := 0; start < len(lines); start += rosterChunk {
		part := lines[start:min(len(lines), start+rosterChunk)]
		if err := takeLines(ctx, part, take, out, counts); err != nil {
			return len(lines), start, err
		}
		bars.set("lines", int64(start+len(part)), int64(len(lines)))
	}
	var words []string
	for o := vault.OutcomeUnchanged; o <= vault.OutcomeInvalid; o++ {
		words = append(words, fmt.Sprintf("%d %s", counts[o], o))
	}
	fmt.Fprintf(out, "%d lines: %s\n", len(lines), strings.Join(words, ", "))
	left := counts[vault.OutcomeConflict] + counts[vault.OutcomeInvalid]
	if left > 0 {
		err = fmt.Errorf("%w: %d of %d", errRoster, left, len(lines))
	}
	return len(lines), len(lines) - left, err
}

// takeLines hands the good lines on and prints an outcome for each.
func takeLines(ctx context.Context, lines []roster.Line, take func(context.Context, []vault.RosterLine) ([]vault.Outcome, error), out io.Writer, counts map[vault.Outcome]int) error {
	var good []vault.RosterLine
	for i := range lines {
		if lines[i].Rule == "" {
			good = append(good, lines[i].RosterLine)
		}
	}
	outcomes, err := take(ctx, good)
	if err != nil {
		return err
	}
	for i := range lines {
		outcome, why := vault.OutcomeInvalid, ""
		if lines[i].Rule == "" {
			outcome, outcomes = outcomes[0], outcomes[1:]
		} else {
			why = strings.TrimSpace(": " + strings.TrimSpace(lines[i].Column+" "+string(lines[i].Rule)))
		}
		counts[outcome]++
		fmt.Fprintf(out, "line %d: %s%s\n", lines[i].Number, outcome, why)
	}
	return nil
}

// aliasUsage explains how commands take identifiers.
const aliasUsage = `An identifier is SCHEME:VALUE with scheme eckid, basispoort or las, or
publisher:NAME:VALUE. @FILE reads it from a file and - from standard input, so
that it need not stand in the history of a shell.`

// readAlias reads an identifier from the command line, a file or standard input.
func (d *deployment) readAlias(command *cobra.Command, school, text string) (vault.Alias, error) {
	const maxBytes = 4096
	source, name := io.Reader(nil), ""
	if text == "-" {
		source, name = command.InOrStdin(), "standard input"
	} else if path, ok := strings.CutPrefix(text, "@"); ok {
		file, err := os.Open(path)
		if err != nil {
			return vault.Alias{}, fmt.Errorf("read identifier: %w", err)
		}
		defer file.Close()
		source, name = file, "the file"
	}
	if source != nil {
		content, err := io.ReadAll(io.LimitReader(source, maxBytes))
		if err != nil {
			return vault.Alias{}, fmt.Errorf("read identifier from %s: %w", name, err)
		}
		text = string(content)
	}
	a, err := roster.ParseAlias(roster.Config{School: school, TestIdentifiers: d.config.Ingest.TestIdentifiers}, text)
	if err != nil {
		return a, fmt.Errorf("%w: %w", err, errUsage)
	}
	return a, nil
}

// readAliases reads identifiers from a file, one a line; - is standard input.
func (d *deployment) readAliases(command *cobra.Command, school, path string) (all []vault.Alias, err error) {
	source := command.InOrStdin()
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read identifiers: %w", err)
		}
		defer file.Close()
		source = file
	}
	lines := bufio.NewScanner(source)
	for line := 1; lines.Scan(); line++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		a, err := roster.ParseAlias(roster.Config{School: school, TestIdentifiers: d.config.Ingest.TestIdentifiers}, lines.Text())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", line, err, errUsage)
		}
		all = append(all, a)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read identifiers: %w", err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the file of identifiers is empty: %w", errUsage)
	}
	return all, nil
}

func newRosterMergeCommand() *cobra.Command {
	var flags schoolFlags
	var from, into string
	command := &cobra.Command{
		Use:   "merge --school SCHOOL --from IDENTIFIER --into IDENTIFIER",
		Short: "Make two learners one: a person's decision on a conflict",
		Long: `Everything stored of the first learner belongs to the second from here on, and
skills are computed anew from the answers of both. This can't be undone.

` + aliasUsage,
		Example: `  leerstroom roster merge --school 12AB00 --from las:4711 --into las:4712 --data data`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return withDeployment(command, &flags.stageFlags, func(ctx context.Context, d *deployment) error {
				gone, err := d.readAlias(command, flags.school, from)
				if err != nil {
					return err
				}
				stays, err := d.readAlias(command, flags.school, into)
				if err != nil {
					return err
				}
				registry, err := d.registryOf(ctx, flags.school)
				if err != nil {
					return err
				}
				record := audit.Record{Action: audit.ActionRosterMerge, School: flags.school, Asked: 1}
				err = d.audited(record, func(r *audit.Record) error {
					err := registry.Merge(ctx, gone, stays)
					if err == nil {
						r.Given = 1
					}
					return err
				})
				if err != nil {
					return err
				}
				fmt.Fprintln(command.OutOrStdout(), "merged")
				return nil
			})
		},
	}
	flags.add(command)
	command.Flags().StringVar(&from, "from", "", "identifier of the learner that goes (needed)")
	command.Flags().StringVar(&into, "into", "", "identifier of the learner that stays (needed)")
	_ = command.MarkFlagRequired("from")
	_ = command.MarkFlagRequired("into")
	return command
}

func newRosterReassignCommand() *cobra.Command {
	var flags schoolFlags
	var aliases, learners []string
	command := &cobra.Command{
		Use:   "reassign --school SCHOOL --alias IDENTIFIER --to IDENTIFIER [--alias … --to …]",
		Short: "Give identifiers to another learner: a person's decision on a conflict",
		Long: `The identifier of --alias belongs to the learner that the identifier of --to leads
to, from here on; answers that came before stay where they are. Several pairs are
changed at once, so that twins whose keys were swapped are never one learner in
between.

` + aliasUsage,
		Example: `  leerstroom roster reassign --school 12AB00 --alias @eckid-anna --to las:1 --alias @eckid-bram --to las:2 --data data`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			if len(aliases) != len(learners) {
				return fmt.Errorf("as many --alias as --to are needed: %w", errUsage)
			}
			return withDeployment(command, &flags.stageFlags, func(ctx context.Context, d *deployment) error {
				moves := make([]vault.Reassignment, len(aliases))
				for i := range moves {
					var err error
					if moves[i].Alias, err = d.readAlias(command, flags.school, aliases[i]); err != nil {
						return err
					}
					if moves[i].Learner, err = d.readAlias(command, flags.school, learners[i]); err != nil {
						return err
					}
				}
				registry, err := d.registryOf(ctx, flags.school)
				if err != nil {
					return err
				}
				record := audit.Record{Action: audit.ActionRosterReassign, School: flags.school, Asked: len(moves)}
				err = d.audited(record, func(r *audit.Record) error {
					err := registry.Reassign(ctx, moves)
					if err == nil {
						r.Given = len(moves)
					}
					return err
				})
				if err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "reassigned %d identifiers\n", len(moves))
				return nil
			})
		},
	}
	flags.add(command)
	command.Flags().StringArrayVar(&aliases, "alias", nil, "identifier that moves (needed)")
	command.Flags().StringArrayVar(&learners, "to", nil, "identifier of the learner that gets it (needed)")
	_ = command.MarkFlagRequired("alias")
	_ = command.MarkFlagRequired("to")
	return command
}
