//go:build !linux

package fault

import (
	"context"
	"syscall"
)

func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// standStill has nothing to do: only Linux has the disk that can lose power.
func standStill(context.Context, []int) error { return nil }
