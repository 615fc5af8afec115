//go:build !linux

package fault

import "syscall"

func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
