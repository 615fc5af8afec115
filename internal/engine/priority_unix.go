//go:build unix

package engine

import (
	"fmt"
	"syscall"
)

// enginePriority is the nice value of the embedded ClickHouse. Inserts and merges
// may take a few milliseconds more; who asks for the next exercise, or waits for
// an acknowledgement, should not.
const enginePriority = 5

// yieldToStages lowers the priority of this thread, and of those that it starts.
func yieldToStages() error {
	const itself = 0
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, itself, enginePriority); err != nil {
		return fmt.Errorf("lower priority: %w", err)
	}
	return nil
}
