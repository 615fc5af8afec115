package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

func newKeysCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "keys", Short: "Create, list, rotate and retire the keys of tokens and seals",
		Long: `The keyset (keys/tokens.json) makes tokens and seals the registry of identities;
it has epochs. The sealing keys (keys/raw*.private, keys/raw.public) close what
connectors write; they have ids. Whoever loses the keyset loses every identity:
back it up, apart from the data.`,
	}
	command.AddCommand(newKeysCreateCommand(), newKeysListCommand(), newKeysRotateCommand(), newKeysStatusCommand(), newKeysRetireCommand())
	return command
}

// keyFlags are those of commands that touch nothing but keys.
type keyFlags struct{ data, config string }

func (f *keyFlags) add(command *cobra.Command) {
	addDataFlag(command.Flags(), &f.data)
	command.Flags().StringVar(&f.config, "config", "", "configuration file (YAML), which may name a key service")
}

// deployment is one without engines.
func (f *keyFlags) deployment() (*deployment, error) {
	config, err := loadConfiguration(f.config)
	if err != nil {
		return nil, err
	}
	return &deployment{config: config, layout: layout{f.data}}, nil
}

func newKeysCreateCommand() *cobra.Command {
	var flags keyFlags
	command := &cobra.Command{
		Use: "create", Short: "Make the keys of a new deployment", Args: arguments(cobra.NoArgs),
		Long: `Makes the keyset and the sealing keys that are missing. It is for a deployment
without data: a new keyset in the place of a lost one opens nothing of the old.`,
		RunE: func(command *cobra.Command, _ []string) error {
			d, err := flags.deployment()
			if err != nil {
				return err
			}
			if err := d.layout.prepare(); err != nil {
				return err
			}
			if err := d.createKeys(); err != nil {
				return err
			}
			return d.listKeys(command.OutOrStdout())
		},
	}
	flags.add(command)
	return command
}

func newKeysListCommand() *cobra.Command {
	var flags keyFlags
	command := &cobra.Command{
		Use: "list", Short: "List the keys, without their secrets", Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			d, err := flags.deployment()
			if err != nil {
				return err
			}
			return d.listKeys(command.OutOrStdout())
		},
	}
	flags.add(command)
	return command
}

func (d *deployment) listKeys(out io.Writer) error {
	ring, err := d.loadKeyset()
	if err != nil {
		return err
	}
	sealing, err := loadSealingKeys(d.layout)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KIND\tNAME\tSTATE\tFINGERPRINT")
	for _, e := range ring.Epochs() {
		fingerprint := ""
		if e.State != keyring.StateRetired {
			fingerprint = e.Fingerprint.String()
		}
		fmt.Fprintf(table, "tokens\tepoch %d\t%s\t%s\n", e.Epoch, e.State, fingerprint)
	}
	for i, k := range sealing {
		state := "opens"
		if i == 0 {
			state = "seals and opens"
		}
		fmt.Fprintf(table, "seal\t%s\t%s\t\n", k.Public().ID(), state)
	}
	return table.Flush()
}

func newKeysRotateCommand() *cobra.Command {
	var flags stageFlags
	var sealing, detach bool
	command := &cobra.Command{
		Use:   "rotate [--seal]",
		Short: "Begin a new key epoch, or a new sealing key",
		Long: `Adds an epoch to the keyset. Running stages move to it within a second, at a
position that is recorded; what is stored under tokens of the former epoch moves
in the background, and the registry is digested and sealed anew. The command shows
how far that is and may be interrupted: the stages go on.

With --seal it adds a sealing key instead. Stages that run open with every key
that is there, connectors seal with the newest within some seconds.

The former key stays until "leerstroom keys retire" destroys it.`,
		Example: `  leerstroom keys rotate --data data`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			if sealing {
				d, err := (&keyFlags{flags.data, flags.config}).deployment()
				if err != nil {
					return err
				}
				return d.rotateSealingKey(command.OutOrStdout())
			}
			return withDeployment(command, &flags, func(ctx context.Context, d *deployment) error {
				return d.rotateKeys(ctx, detach, command.OutOrStdout(), command.ErrOrStderr())
			})
		},
	}
	flags.add(command)
	command.Flags().BoolVar(&sealing, "seal", false, "rotate the sealing key, not the keyset of the tokens")
	command.Flags().BoolVar(&detach, "detach", false, "do not wait until everything has moved")
	return command
}

// errUnfinished reports a rotation that is still under way.
var errUnfinished = errors.New("a rotation is under way")

func (d *deployment) rotateKeys(ctx context.Context, detach bool, out, progressTo io.Writer) error {
	s, err := d.newSurvey(ctx)
	if err != nil {
		return err
	}
	bars := newProgress(progressTo)
	defer bars.close()
	left, err := s.left(ctx, s.ring.Primary())
	if err == nil && len(left) > 0 {
		if detach {
			return fmt.Errorf("%w: %s; wait for it (leerstroom keys status)", errUnfinished, left[0])
		}
		err = s.await(ctx, s.ring.Primary(), bars) // orders of before come first
	}
	if err != nil {
		return err
	}
	var epoch uint32
	err = d.audited(audit.Record{Action: audit.ActionKeysRotate}, func(r *audit.Record) (err error) {
		epoch, err = s.ring.Rotate()
		r.Subject = fmt.Sprint("epoch ", epoch)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "epoch %d is primary\n", epoch)
	if detach {
		return nil
	}
	if err := s.await(ctx, epoch, bars); err != nil {
		return err
	}
	fmt.Fprintf(out, "nothing is left on epoch %d or older: leerstroom keys retire %d\n", epoch-1, epoch-1)
	return nil
}

func newKeysStatusCommand() *cobra.Command {
	var flags stageFlags
	var prove bool
	command := &cobra.Command{
		Use:   "status [--prove]",
		Short: "Tell what depends on which key epoch",
		Long: `Counts what depends on key epochs before the primary one: rows and log messages of
the registry, learners whose rows were not ordered to move, partitions that have
not followed, rows of the archive and of skills. With --prove it exits with 1 when
there is anything.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return withDeployment(command, &flags, func(ctx context.Context, d *deployment) error {
				return d.keyStatus(ctx, prove, command.OutOrStdout())
			})
		},
	}
	flags.add(command)
	command.Flags().BoolVar(&prove, "prove", false, "exit with 1 when anything depends on a former epoch")
	return command
}

// errDepends reports that a key is still needed.
var errDepends = errors.New("the key is still needed")

func (d *deployment) keyStatus(ctx context.Context, prove bool, out io.Writer) error {
	s, err := d.newSurvey(ctx)
	if err != nil {
		return err
	}
	if err := d.listKeys(out); err != nil {
		return err
	}
	left, err := s.left(ctx, s.ring.Primary())
	if err != nil {
		return err
	}
	for _, line := range left {
		fmt.Fprintln(out, "left:", line)
	}
	if len(left) == 0 {
		fmt.Fprintf(out, "nothing depends on an epoch before %d\n", s.ring.Primary())
	} else if prove {
		return fmt.Errorf("%w: %d things depend on epochs before %d", errDepends, len(left), s.ring.Primary())
	}
	return nil
}

func newKeysRetireCommand() *cobra.Command {
	var flags stageFlags
	var sealing bool
	command := &cobra.Command{
		Use:   "retire EPOCH | --seal KEY",
		Short: "Destroy a former key once nothing needs it",
		Long: `Proves that nothing depends on the epoch (or, with --seal, that no message is left
that only this sealing key opens; connectors on other machines must have the new
public key), deletes the part of the registry's log that the table contains, and
destroys the secret. Backups of the registry that were made
under it can't be read any more; that is what it is for.`,
		Example: `  leerstroom keys retire 1 --data data`,
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			return withDeployment(command, &flags, func(ctx context.Context, d *deployment) error {
				if sealing {
					return d.retireSealingKey(ctx, args[0], command.OutOrStdout())
				}
				epoch, err := strconv.ParseUint(args[0], 10, 31)
				if err != nil || epoch == 0 {
					return fmt.Errorf("epoch: want a number from 1: %w", errUsage)
				}
				return d.retireEpoch(ctx, uint32(epoch), command.OutOrStdout())
			})
		},
	}
	flags.add(command)
	command.Flags().BoolVar(&sealing, "seal", false, "retire a sealing key, not an epoch")
	return command
}

func (d *deployment) retireEpoch(ctx context.Context, epoch uint32, out io.Writer) error {
	s, err := d.newSurvey(ctx)
	if err != nil {
		return err
	}
	if epoch >= s.ring.Primary() {
		return fmt.Errorf("retire epoch %d: %w: it is the primary one, rotate first", epoch, keyring.ErrInUse)
	}
	if err := s.purge(ctx); err != nil {
		return err
	}
	left, err := s.left(ctx, epoch+1)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("retire epoch %d: %w: %s (%d such things)", epoch, errDepends, left[0], len(left))
	}
	for partition := range d.config.Topics.Partitions {
		if _, err := s.identities.TrimLog(ctx, partition); err != nil {
			return err
		}
	}
	record := audit.Record{Action: audit.ActionKeysRetire, Subject: fmt.Sprint("epoch ", epoch)}
	if err := d.audited(record, func(*audit.Record) error { return s.ring.Retire(epoch) }); err != nil {
		return err
	}
	fmt.Fprintf(out, "epoch %d is retired, its secret is destroyed\n", epoch)
	return nil
}

// surveyInterval is the pause between two looks at how far a rotation is.
const surveyInterval = 500 * time.Millisecond

// fileExists tells whether there is a file; any other failure counts as one.
func fileExists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}
