package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// errUsage marks a command line that can't be understood.
var errUsage = errors.New("see --help")

func newRoot() *cobra.Command {
	var profile profiles
	root := &cobra.Command{
		Use:   "leerstroom",
		Short: "Results of learners: ingested once, without identity, scored within milliseconds",
		Long: `Leerstroom takes in the answers and test results that publishers of learning
material deliver, swaps every identifier for a keyed token, computes the
difficulty of exercises and the skill and percentiles of learners, and serves
adaptive engines, analysts, teachers and researchers.

  leerstroom demo                 see the whole line work on simulated schools
  leerstroom up --data DIR        run every stage in one process
  leerstroom apikey create …      let a publisher, engine, analyst or school in`,
		PersistentPreRunE:  func(*cobra.Command, []string) error { return profile.start() },
		PersistentPostRunE: func(*cobra.Command, []string) error { return profile.stop() },
		SilenceUsage:       true,
		SilenceErrors:      true,
	}
	root.PersistentFlags().StringVar(&profile.cpuPath, "cpuprofile", "", "write a CPU profile of this process to a file")
	root.PersistentFlags().StringVar(&profile.memoryPath, "memprofile", "", "write what this process allocated, and holds at the end, to a file")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", err, errUsage) })
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "tend", Title: "Tend:"},
		&cobra.Group{ID: "measure", Title: "Measure:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"run": {newDemoCommand(), newUpCommand(), newStageCommand("ingest"), newStageCommand("pseudonymize"), newStageCommand("transform"), newStageCommand("serve")},
		"tend": {
			newAPIKeyCommand(),
			newRosterCommand(),
			newEraseCommand(),
			newKeysCommand(),
			newImportCommand(),
			newExportCommand(),
			newNormsCommand(),
			newRefitCommand(),
			newRebuildCommand(),
			newFsckCommand(),
			newDeadLetterCommand(),
			newMigrateCommand(),
			newAuditCommand(),
		},
		"measure": {newBenchCommand(), newEvaluateCommand()},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	return root
}

// arguments refuses a wrong number of arguments as wrong usage.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if err := check(command, args); err != nil {
			return fmt.Errorf("%w: %w", err, errUsage)
		}
		return nil
	}
}
