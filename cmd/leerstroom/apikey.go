package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/spf13/cobra"
)

func newAPIKeyCommand() *cobra.Command {
	command := &cobra.Command{Use: "apikey", Short: "Create, list and revoke API keys"}
	command.AddCommand(newAPIKeyCreateCommand(), newAPIKeyListCommand(), newAPIKeyRevokeCommand())
	return command
}

func newAPIKeyCreateCommand() *cobra.Command {
	var data string
	var role string
	var scope access.Scope
	command := &cobra.Command{
		Use:   "create --role ROLE [--publisher P] [--engine E] [--school S]…",
		Short: "Print a new API key, once",
		Long: `Prints a new API key on standard output. Only its hash is kept, so this is the
only time that it can be seen. A running server knows it within a second.

Roles: publisher delivers results under one publisher's name; engine asks for the
next exercise with tokens of its own; analyst reads statistics; school reads the
data of its own schools.`,
		Example: `  leerstroom apikey create --role publisher --publisher bingel --data data
  leerstroom apikey create --role engine --engine rekentuin --school 12AB00 --data data`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			scope.Role = access.Role(role)
			if err := scope.Validate(); err != nil {
				return fmt.Errorf("%w: %w", err, errUsage)
			}
			paths := layout{data}
			if err := paths.prepare(); err != nil {
				return err
			}
			keys, err := access.Open(paths.apiKeys())
			if err != nil {
				return err
			}
			text, key, err := keys.Create(scope)
			if err != nil {
				return err
			}
			fmt.Fprintln(command.OutOrStdout(), text)
			fmt.Fprintln(command.ErrOrStderr(), "created", key.ID, "- the key above is not shown again")
			return nil
		},
	}
	flags := command.Flags()
	addDataFlag(flags, &data)
	flags.StringVar(&role, "role", "", "publisher, engine, analyst or school (needed)")
	flags.StringVar(&scope.Publisher, "publisher", "", "name of the publisher, for role publisher")
	flags.StringVar(&scope.Engine, "engine", "", "name of the adaptive engine, for role engine")
	flags.StringArrayVar(&scope.Schools, "school", nil, "school that the key is limited to, such as 12AB00; may be repeated")
	_ = command.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"publisher", "engine", "analyst", "school"}, cobra.ShellCompDirectiveNoFileComp))
	return command
}

func newAPIKeyListCommand() *cobra.Command {
	var data string
	command := &cobra.Command{
		Use: "list", Short: "List the API keys, without what makes them work", Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			keys, err := access.Open(layout{data}.apiKeys())
			if err != nil {
				return err
			}
			list, err := keys.List()
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(command.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "ID\tROLE\tFOR\tSCHOOLS\tCREATED")
			for _, k := range list {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", k.ID, k.Role, k.Publisher+k.Engine, strings.Join(k.Schools, " "), k.CreatedAt.Format(time.RFC3339))
			}
			return table.Flush()
		},
	}
	addDataFlag(command.Flags(), &data)
	return command
}

func newAPIKeyRevokeCommand() *cobra.Command {
	var data string
	command := &cobra.Command{
		Use: "revoke ID", Short: "Stop an API key from working", Args: arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			keys, err := access.Open(layout{data}.apiKeys())
			if err != nil {
				return err
			}
			if err := keys.Revoke(args[0]); err != nil {
				return err
			}
			fmt.Fprintln(command.OutOrStdout(), "revoked", args[0])
			return nil
		},
	}
	addDataFlag(command.Flags(), &data)
	return command
}
