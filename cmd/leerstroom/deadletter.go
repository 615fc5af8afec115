package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/deadletter"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/store"
	"github.com/spf13/cobra"
)

func newDeadLetterCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "deadletter",
		Short: "Count, deliver again or give up messages that no stage could use",
		Long: `A message that a stage can't use is kept whole and sealed, with the reason and its
place, and does not stop the others. These commands look after such letters; none
of them prints anything from a record.`,
	}
	command.AddCommand(newDeadLetterListCommand(), newDeadLetterShowCommand(), newDeadLetterReplayCommand(), newDeadLetterPurgeCommand())
	return command
}

// letterSelection chooses letters.
type letterSelection struct {
	reason, stage string
	partition     int
	olderThan     time.Duration
	all           bool
}

func (s *letterSelection) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&s.reason, "reason", "", "letters with this reason")
	flags.StringVar(&s.stage, "stage", "", "letters of this stage")
	flags.IntVar(&s.partition, "partition", -1, "letters whose message was in this partition")
	flags.DurationVar(&s.olderThan, "older-than", 0, "letters that were entered at least so long ago, such as 720h")
}

// chosen tells whether anything was asked for.
func (s *letterSelection) chosen() bool {
	return s.all || s.reason != "" || s.stage != "" || s.partition >= 0 || s.olderThan > 0
}

func (s *letterSelection) holds(e *deadletter.Entry, now time.Time) bool {
	return (s.reason == "" || e.Reason == s.reason) && (s.stage == "" || e.Stage == s.stage) &&
		(s.partition < 0 || e.Partition == s.partition) && now.Sub(e.WrittenAt) >= s.olderThan
}

// withDesk runs work beside a running deployment, or on its own when none runs.
func withDesk(command *cobra.Command, flags *stageFlags, open bool, work func(ctx context.Context, desk *deadletter.Desk, entries []deadletter.Entry) error) error {
	return withDeployment(command, flags, func(ctx context.Context, d *deployment) (err error) {
		persistence, err := d.openStore(ctx)
		if err != nil {
			return err
		}
		defer closeStore(ctx, persistence, &err)
		desk := &deadletter.Desk{Client: d.client, Topics: d.names, Index: persistence}
		if open {
			if desk.Opener, err = d.letterOpener(); err != nil {
				return err
			}
		}
		entries, err := listLetters(ctx, persistence)
		if err != nil {
			return err
		}
		return work(ctx, desk, entries)
	})
}

func listLetters(ctx context.Context, persistence *store.Store) (entries []deadletter.Entry, err error) {
	err = persistence.ListDeadLetters(ctx, func(e deadletter.Entry) error {
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

// letterOpener loads the key that opens letters.
func (d *deployment) letterOpener() (*seal.Opener, error) {
	private, err := loadSealingKeys(d.layout)
	if err != nil {
		return nil, fmt.Errorf("letters stay sealed without the private key: %w", err)
	}
	return seal.NewOpener(private...)
}

// lockLetters keeps two commands from replaying at the same time.
func lockLetters(data string) (unlock func() error, err error) {
	file, err := os.OpenFile(layout{data}.path("deadletter.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock dead letters: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock dead letters: another replay or purge is at work: %w", err), file.Close())
	}
	return func() error { return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close()) }, nil
}

func newDeadLetterListCommand() *cobra.Command {
	var flags stageFlags
	selection, each := letterSelection{partition: -1}, false
	command := &cobra.Command{
		Use:   "list [--data DIR] [--config FILE]",
		Short: "Count letters by reason, stage, partition and state",
		Example: `  leerstroom deadletter list --data data
  leerstroom deadletter list --reason seal-broken --each --data data`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return withDesk(command, &flags, false, func(_ context.Context, _ *deadletter.Desk, entries []deadletter.Entry) error {
				now := time.Now()
				entries = slices.DeleteFunc(entries, func(e deadletter.Entry) bool { return !selection.holds(&e, now) })
				if each {
					return printLetters(command.OutOrStdout(), entries, now)
				}
				return printCounts(command.OutOrStdout(), entries, now)
			})
		},
	}
	flags.add(command)
	selection.add(command)
	command.Flags().BoolVar(&each, "each", false, "a line per letter")
	return command
}

// letterGroup is what letters are counted by.
type letterGroup struct {
	stage, reason, topic string
	partition            int
	state                deadletter.State
}

func printCounts(out io.Writer, entries []deadletter.Entry, now time.Time) error {
	type count struct {
		letters, bytes int
		oldest         time.Time
	}
	counts := make(map[letterGroup]*count)
	for i := range entries {
		e := &entries[i]
		g := letterGroup{e.Stage, e.Reason, e.Topic, e.Partition, e.State}
		if counts[g] == nil {
			counts[g] = &count{oldest: e.WrittenAt}
		}
		c := counts[g]
		c.letters++
		c.bytes += e.Bytes
		if e.WrittenAt.Before(c.oldest) {
			c.oldest = e.WrittenAt
		}
	}
	groups := make([]letterGroup, 0, len(counts))
	for g := range counts {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b letterGroup) int {
		return cmp.Or(strings.Compare(a.stage, b.stage), strings.Compare(a.reason, b.reason), strings.Compare(a.topic, b.topic),
			cmp.Compare(a.partition, b.partition), cmp.Compare(a.state, b.state))
	})
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STAGE\tREASON\tTOPIC\tPARTITION\tSTATE\tLETTERS\tBYTES\tOLDEST")
	for _, g := range groups {
		c := counts[g]
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%d\t%d\t%s\n", g.stage, g.reason, g.topic, g.partition, g.state, c.letters, c.bytes, age(now, c.oldest))
	}
	return table.Flush()
}

func printLetters(out io.Writer, entries []deadletter.Entry, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LETTER\tSTAGE\tREASON\tMESSAGE\tSTATE\tBYTES\tAGE")
	for i := range entries {
		e := &entries[i]
		fmt.Fprintf(table, "%d/%d\t%s\t%s\t%s/%d/%d\t%s\t%d\t%s\n", e.LetterPartition, e.LetterOffset, e.Stage, e.Reason, e.Topic, e.Partition, e.Offset, e.State, e.Bytes, age(now, e.WrittenAt))
	}
	return table.Flush()
}

func age(now, then time.Time) string { return now.Sub(then).Round(time.Second).String() }

// findLetter finds the letter that an argument such as 3/17 names.
func findLetter(entries []deadletter.Entry, argument string) (*deadletter.Entry, error) {
	for i := range entries {
		if fmt.Sprintf("%d/%d", entries[i].LetterPartition, entries[i].LetterOffset) == argument {
			return &entries[i], nil
		}
	}
	return nil, fmt.Errorf("no letter is called %q; `leerstroom deadletter list --each` shows their names", argument)
}

func newDeadLetterShowCommand() *cobra.Command {
	var flags stageFlags
	command := &cobra.Command{
		Use:   "show PARTITION/OFFSET [--data DIR] [--config FILE]",
		Short: "Describe one letter without its content (needs the private key)",
		Long: `Opens a letter and says what is in it: the sizes of its headers and of its value,
the schema if it is a known one, the number of rows, and whether the value is what
its digest says. No value of a record is printed.`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			return withDesk(command, &flags, true, func(ctx context.Context, desk *deadletter.Desk, entries []deadletter.Entry) error {
				e, err := findLetter(entries, args[0])
				if err != nil {
					return err
				}
				if err := printLetters(command.OutOrStdout(), []deadletter.Entry{*e}, time.Now()); err != nil {
					return err
				}
				m, err := desk.Open(ctx, e)
				if err != nil {
					return err
				}
				describe(command.OutOrStdout(), &m)
				return nil
			})
		},
	}
	flags.add(command)
	return command
}

var knownSchemas = []string{raw.SchemaAnswers, raw.SchemaTestResults, answer.SchemaAnswers, answer.SchemaTestResults, answer.SchemaCommands, answer.SchemaRebuild}

// describe prints what a message is like. Headers that the stages make are
// numbers; others may hold anything.
func describe(out io.Writer, m *stream.Message) {
	numbers := []string{stream.HeaderRawOffset, stream.HeaderKeyEpoch, stream.HeaderRows, stream.HeaderDigest}
	for _, h := range m.Headers {
		shown := strconv.Itoa(len(h.Value)) + " bytes"
		if n, err := m.Int64(h.Key); err == nil && slices.Contains(numbers, h.Key) {
			shown = strconv.FormatInt(n, 10)
		}
		if h.Key == stream.HeaderSchema && slices.Contains(knownSchemas, string(h.Value)) {
			shown = string(h.Value)
		}
		fmt.Fprintf(out, "header %-12s %s\n", headerName(h.Key), shown)
	}
	fmt.Fprintf(out, "value  %d bytes", len(m.Value))
	if m.Header(stream.HeaderDigest) != nil {
		fmt.Fprintf(out, ", as its digest says: %v", m.CheckDigest() == nil)
	}
	fmt.Fprintln(out)
}

// headerName returns a name that a stage gives, or says that it is another.
func headerName(key string) string {
	known := []string{stream.HeaderSchema, stream.HeaderRawOffset, stream.HeaderKeyEpoch, stream.HeaderRows, stream.HeaderDigest, deadletter.HeaderReplayOf}
	if slices.Contains(known, key) {
		return key
	}
	return "(unknown)"
}

func newDeadLetterReplayCommand() *cobra.Command {
	var flags stageFlags
	selection := letterSelection{partition: -1}
	command := &cobra.Command{
		Use:   "replay [PARTITION/OFFSET…] [--reason R] [--all] [--data DIR] [--config FILE]",
		Short: "Deliver letters again after what stopped them was mended (needs the private key)",
		Long: `Writes the message of each chosen letter to raw again, once, and marks the letter.
What was stored of it before is recognised by the ids of its events and stays as it
is. A letter of the topic answers is made anew from its message in raw. Interrupt
it at any time and call it again.`,
		Example: `  leerstroom deadletter replay --reason malformed --data data
  leerstroom deadletter replay 3/17 --data data`,
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 && !selection.chosen() {
				return fmt.Errorf("name letters, or choose them by --reason, --stage, --partition, --older-than or --all: %w", errUsage)
			}
			return withDesk(command, &flags, true, func(ctx context.Context, desk *deadletter.Desk, entries []deadletter.Entry) (err error) {
				unlock, err := lockLetters(flags.data)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, unlock()) }()
				chosen, err := choose(entries, args, &selection, deadletter.Replaying)
				if err != nil {
					return err
				}
				return replayLetters(ctx, desk, chosen, command.OutOrStdout())
			})
		},
	}
	flags.add(command)
	selection.add(command)
	command.Flags().BoolVar(&selection.all, "all", false, "every letter that waits")
	return command
}

// choose returns the named letters, or those of a selection whose state is at
// most the given one.
func choose(entries []deadletter.Entry, names []string, selection *letterSelection, atMost deadletter.State) ([]deadletter.Entry, error) {
	var chosen []deadletter.Entry
	for _, name := range names {
		e, err := findLetter(entries, name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, *e)
	}
	if len(names) > 0 {
		return chosen, nil
	}
	for i, now := 0, time.Now(); i < len(entries); i++ {
		if entries[i].State <= atMost && selection.holds(&entries[i], now) {
			chosen = append(chosen, entries[i])
		}
	}
	return chosen, nil
}

// replayLetters goes on after a letter that can't be replayed, and fails in the
// end.
func replayLetters(ctx context.Context, desk *deadletter.Desk, chosen []deadletter.Entry, out io.Writer) error {
	replayed, failed := 0, []error(nil)
	for i := range chosen {
		err := desk.Replay(ctx, chosen[i])
		if err == nil {
			replayed++
			continue
		}
		if failed = append(failed, err); ctx.Err() != nil {
			break
		}
	}
	fmt.Fprintf(out, "replayed %d of %d letters\n", replayed, len(chosen))
	return errors.Join(failed...)
}

func newDeadLetterPurgeCommand() *cobra.Command {
	var flags stageFlags
	selection := letterSelection{partition: -1}
	command := &cobra.Command{
		Use:   "purge [PARTITION/OFFSET…] [--reason R] [--older-than D] [--all] [--data DIR] [--config FILE]",
		Short: "Give letters up for ever",
		Long: `Marks the chosen letters as purged and deletes them from their topic. Kafka deletes
from the beginning of a partition only: a letter behind one that is kept goes when
that one does, or when the topic's retention ends. What remains is said. The index
keeps their places, so that fsck can account for them.`,
		Example: `  leerstroom deadletter purge --older-than 720h --data data`,
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 && !selection.chosen() {
				return fmt.Errorf("name letters, or choose them by --reason, --stage, --partition, --older-than or --all: %w", errUsage)
			}
			return withDesk(command, &flags, false, func(ctx context.Context, desk *deadletter.Desk, entries []deadletter.Entry) (err error) {
				unlock, err := lockLetters(flags.data)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, unlock()) }()
				chosen, err := choose(entries, args, &selection, deadletter.Purged)
				if err != nil {
					return err
				}
				remaining, err := desk.Purge(ctx, chosen)
				if err != nil {
					return err
				}
				fmt.Fprintf(command.OutOrStdout(), "purged %d letters; %d purged ones remain in the topic behind kept ones\n", len(chosen), remaining)
				return nil
			})
		},
	}
	flags.add(command)
	selection.add(command)
	command.Flags().BoolVar(&selection.all, "all", false, "every letter")
	return command
}
