package main

import (
	"fmt"

	"github.com/leerstroom/leerstroom/ingest/file"
	"github.com/spf13/cobra"
)

func newImportCommand() *cobra.Command {
	var mapping, keyFile string
	var config file.Config
	command := &cobra.Command{
		Use:   "import FILE --mapping FILE --key-file FILE [--to URL]",
		Short: "Load a CSV, NDJSON or Parquet file through a running server",
		Long: `Sends the rows of a file (also gzipped; NDJSON also as zstd) to a running server,
over the same connector that publishers use. A mapping in YAML says how columns
become fields. After each acknowledged chunk a state file says how far the import
came: run it again after an interruption and it goes on there. Rows that are sent
twice change nothing.`,
		Example: `  leerstroom import answers.csv.gz --mapping mapping.yaml --key-file publisher.key`,
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) (err error) {
			config.Path = args[0]
			if config.Mapping, err = file.LoadMapping(mapping); err != nil {
				return err
			}
			if config.Key, err = file.ReadKey(keyFile); err != nil {
				return err
			}
			bars := newProgress(command.ErrOrStderr())
			config.Progress = func(p file.Progress) { bars.set("imported", p.Read, p.Total) }
			config.Refused = func(r file.Refusal) {
				fmt.Fprintf(command.ErrOrStderr(), "row %d refused: %s: %s\n", r.Row, r.Field, r.Rule)
			}
			done, err := file.Run(command.Context(), config)
			bars.close()
			fmt.Fprintf(command.OutOrStdout(), "%d rows: %d accepted, %d refused\n", done.Rows, done.Accepted, done.Refused)
			return err
		},
	}
	flags := command.Flags()
	flags.StringVar(&mapping, "mapping", "", "YAML file that says how columns become fields (needed)")
	flags.StringVar(&keyFile, "key-file", "", "file with the publisher's API key, readable by its owner only (needed)")
	flags.StringVar(&config.BaseURL, "to", "http://127.0.0.1:8080", "address of the server")
	flags.StringVar(&config.StatePath, "state", "", "state file (default FILE.import.json)")
	flags.IntVar(&config.ChunkRows, "chunk-rows", 5000, "rows of a request")
	_ = command.MarkFlagRequired("mapping")
	_ = command.MarkFlagRequired("key-file")
	return command
}
