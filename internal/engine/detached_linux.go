package engine

import "syscall"

// detached gives a child its own process group, so that an interrupt typed at a
// terminal reaches us alone and engines stop after the stages. Linux also kills
// it when the thread that started it ends, should the pipe ever be held open by
// somebody else.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
