package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/leerstroom/leerstroom/store/export"
	"github.com/spf13/cobra"
)

func newExportCommand() *cobra.Command {
	command := &cobra.Command{Use: "export", Short: "Write anonymous releases as Parquet"}
	command.AddCommand(newExportDifficultyCommand())
	return command
}

func newExportDifficultyCommand() *cobra.Command {
	var flags stageFlags
	var out string
	command := &cobra.Command{
		Use:   "difficulty --out DIR",
		Short: "Write the difficulty of every exercise that enough learners have answered",
		Long: fmt.Sprintf(`Writes a new directory below DIR with a Parquet file (difficulty, standard error
and counts per exercise), a data dictionary in Dutch and English, a manifest and
checksums. An exercise is left out unless at least %d learners of at least %d schools
have answered it; proportions are capped at %.0f and %.0f %%. A row stays as in the release
before until as many learners of as many schools are new to the exercise. Make one
release at a time.`,
			export.MinLearners, export.MinSchools, 100*export.Cap, 100*(1-export.Cap)),
		Example: `  leerstroom export difficulty --out exports --data data`,
		Args:    arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return withDeployment(command, &flags, func(ctx context.Context, d *deployment) error {
				path, err := d.exportDifficulty(ctx, out)
				if err == nil {
					fmt.Fprintln(command.OutOrStdout(), path)
				}
				return err
			})
		},
	}
	flags.add(command)
	command.Flags().StringVar(&out, "out", "", "directory that gets the release (needed)")
	_ = command.MarkFlagRequired("out")
	return command
}

// exportDifficulty writes a release and returns the path of its Parquet file.
func (d *deployment) exportDifficulty(ctx context.Context, out string) (path string, err error) {
	persistence, err := d.openStore(ctx)
	if err != nil {
		return "", err
	}
	defer closeStore(ctx, persistence, &err)
	directory, err := export.WriteDifficulty(ctx, persistence, out, time.Now())
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(directory, "*.parquet"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("find the release in %s: %d Parquet files: %w", directory, len(files), err)
	}
	return files[0], nil
}
