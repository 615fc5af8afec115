package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/store"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func newFsckCommand() *cobra.Command {
	var flags stageFlags
	var wait time.Duration
	command := &cobra.Command{
		Use:   "fsck [--data DIR] [--config FILE]",
		Short: "Prove that everything acknowledged is stored exactly once",
		Long: `Compares what Kafka acknowledged with the topics after it, the archive and the
dead letters; sums and norms with the archive; tokens with the registry. Prints a
line per check and exits with 1 on any difference.

With embedded engines it uses those of a running "leerstroom up" on the same
directory. When none runs, it starts them and the stages that finish what was
under way.`,
		Example: `  leerstroom fsck --data data`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return withDeployment(command, &flags, func(ctx context.Context, d *deployment) error {
				return d.fsck(ctx, wait, command.OutOrStdout())
			})
		},
	}
	flags.add(command)
	command.Flags().DurationVar(&wait, "wait", time.Minute, "how long what was acknowledged may take to pass all stages")
	return command
}

// withDeployment opens the deployment of a command that is no stage, beside a
// running one if there is one. Without one, the stages that finish work under
// way run beside the command.
func withDeployment(command *cobra.Command, flags *stageFlags, work func(ctx context.Context, d *deployment) error) (err error) {
	config, err := flags.configuration()
	if err != nil {
		return err
	}
	config.MetricsListen = "" // nobody watches a command, and a stage may have that port
	d, err := attachDeployment(command.Context(), config, layout{flags.data}, newLogger(command.ErrOrStderr(), flags.verbose))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if !d.engines.Started() {
		return work(command.Context(), d)
	}
	ctx, stop := context.WithCancel(command.Context())
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := d.runStages(ctx, []string{stagePseudonymize, stageTransform}, nil)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // the work was over before they had started
		}
		return err
	})
	group.Go(func() error {
		defer stop()
		return work(ctx, d)
	})
	return group.Wait()
}

// fsck runs the checks and prints a line for each.
func (d *deployment) fsck(ctx context.Context, wait time.Duration, out io.Writer) error {
	return d.compare(ctx, wait, func(line store.Line) {
		verdict := "ok  "
		if !line.OK {
			verdict = "DIFF"
		}
		fmt.Fprintf(out, "%s  %-34s %s\n", verdict, line.Check, line.Detail)
	})
}

// fsckVerdict runs the checks and sums them up in a line.
func (d *deployment) fsckVerdict(ctx context.Context) (string, error) {
	checks, differences := 0, ""
	err := d.compare(ctx, time.Minute, func(line store.Line) {
		checks++
		if !line.OK {
			differences += "; " + line.Check + ": " + line.Detail
		}
	})
	if err != nil {
		return fmt.Sprintf("%d checks%s", checks, differences), err
	}
	return fmt.Sprintf("%d checks, no difference", checks), nil
}

func (d *deployment) compare(ctx context.Context, wait time.Duration, report func(store.Line)) (err error) {
	persistence, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	defer closeStore(ctx, persistence, &err)
	identities, ring, err := d.openVault()
	if err != nil {
		return err
	}
	resolver, err := pseudonymize.NewResolver(pseudonymize.ResolverConfig{Ring: ring, Vault: identities, Partitions: d.config.Topics.Partitions, Logger: d.logger})
	if err != nil {
		return err
	}
	checking, stop := context.WithCancel(ctx)
	group, checking := errgroup.WithContext(checking)
	group.Go(func() error { return resolver.Run(checking) })
	group.Go(func() error {
		defer stop()
		return persistence.Check(checking, store.Sources{Client: d.client, Topics: d.names, Partitions: d.config.Topics.Partitions, Wait: wait,
			UnknownTokens: unknownTokens(resolver)}, report)
	})
	err = group.Wait()
	if err != nil && !errors.Is(err, store.ErrDifference) {
		return err
	}
	return errors.Join(err, d.erasedStayAway(ctx, identities, report))
}

// unknownTokens counts tokens that no learner in the registry has.
func unknownTokens(resolver *pseudonymize.Resolver) func(context.Context, int, []answer.Token) (int, error) {
	return func(ctx context.Context, _ int, tokens []answer.Token) (int, error) {
		select {
		case <-resolver.Ready():
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		present, err := resolver.Present(keyring.Analytics, tokens)
		unknown := 0
		for i := range present {
			if present[i].IsZero() {
				unknown++
			}
		}
		return unknown, err
	}
}
