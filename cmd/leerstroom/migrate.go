package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func newMigrateCommand() *cobra.Command {
	var flags stageFlags
	command := &cobra.Command{
		Use:   "migrate [--config FILE] [--data DIR]",
		Short: "Make topics and bring the databases to the newest version of their schema",
		Long: `Makes the topics that are missing and runs the migrations of both databases. Every
stage does so when it starts; this command is for accounts that may not.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return withDeployment(command, &flags, func(context.Context, *deployment) error {
				_, err := fmt.Fprintln(command.OutOrStdout(), "topics and databases are up to date")
				return err
			})
		},
	}
	flags.add(command)
	return command
}
