package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
)

// profiles record where a command spends its time and what it allocates, when
// paths are given.
type profiles struct {
	cpuPath, memoryPath string
	cpu                 *os.File
}

// allocationSample is how many bytes are allocated between two samples of the
// memory profile: finer than Go's own, since what matters is few per row.
const allocationSample = 16 << 10

func (p *profiles) start() (err error) {
	if p.memoryPath != "" {
		runtime.MemProfileRate = allocationSample
	}
	if p.cpuPath == "" {
		return nil
	}
	if p.cpu, err = os.Create(p.cpuPath); err != nil {
		return fmt.Errorf("write CPU profile: %w", err)
	}
	return pprof.StartCPUProfile(p.cpu)
}

func (p *profiles) stop() error {
	var errs []error
	if p.cpu != nil {
		pprof.StopCPUProfile()
		errs = append(errs, p.cpu.Close())
	}
	if p.memoryPath != "" {
		errs = append(errs, writeMemoryProfile(p.memoryPath))
	}
	return errors.Join(errs...)
}

func writeMemoryProfile(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write memory profile: %w", err)
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(file, 0), file.Close())
}
