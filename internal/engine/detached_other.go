//go:build !linux

package engine

import "syscall"

// detached gives a child its own process group, so that an interrupt typed at a
// terminal reaches us alone and engines stop after the stages.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
