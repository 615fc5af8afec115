package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// tied makes a child die with the thread that started it.
func tied() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// standStill stops processes and returns when none of their threads will run
// code of its own any more: each has stopped, has ended, or will stop when it
// comes back from the kernel. Number 0 stands for none.
func standStill(ctx context.Context, pids []int) error {
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid <= 0 })
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for _, pid := range pids {
		for running(pid) {
			select {
			case <-look.C:
			case <-ctx.Done():
				return fmt.Errorf("wait until process %d has stopped: %w", pid, context.Cause(ctx))
			}
		}
	}
	return nil
}

// running tells whether a thread of a process runs, or may.
func running(pid int) bool {
	// A process that has ended has no threads.
	paths, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "stat"))
	if err != nil {
		return false
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		// "number (name) state …": the name may hold anything.
		rest := content[bytes.LastIndexByte(content, ')')+1:]
		if state := bytes.TrimSpace(rest); len(state) > 0 && (state[0] == 'R' || state[0] == 'S') {
			return true
		}
	}
	return false
}
