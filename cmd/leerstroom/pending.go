package main
import ("context";"github.com/spf13/cobra")
func pend(n string) *cobra.Command { return &cobra.Command{Use:n, Run: func(*cobra.Command, []string){}} }
func newImportCommand() *cobra.Command { return pend("import") }
func newExportCommand() *cobra.Command { return pend("export") }
func newFsckCommand() *cobra.Command { return pend("fsck") }
func newMigrateCommand() *cobra.Command { return pend("migrate") }
func newBenchCommand() *cobra.Command { return pend("bench") }
func newEvaluateCommand() *cobra.Command { return pend("evaluate") }
func (d *deployment) fsckVerdict(ctx context.Context) (string, error) { return "pending", nil }
func (d *deployment) exportDifficulty(ctx context.Context, dir string) (string, error) { return "go.mod", nil }
