// Command leerstroom is the whole pipeline in one binary: every stage, the
// tools to look after it, the demo and the benchmarks. Each subcommand has its
// file; the work itself is in the packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/leerstroom/leerstroom/internal/engine"
)

func main() {
	engine.RunIfChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command and returns the exit code: 0 when it did what was
// asked, 1 when it failed or a check did not hold, 2 when it was called wrongly.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "leerstroom:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}
