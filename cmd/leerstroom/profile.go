package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
)

// cpuProfile records where a command spends its time, when a path is given.
type cpuProfile struct {
	path string
	file *os.File
}

func (p *cpuProfile) start() (err error) {
	if p.path == "" {
		return nil
	}
	if p.file, err = os.Create(p.path); err != nil {
		return fmt.Errorf("write CPU profile: %w", err)
	}
	return pprof.StartCPUProfile(p.file)
}

func (p *cpuProfile) stop() error {
	if p.file == nil {
		return nil
	}
	pprof.StopCPUProfile()
	return errors.Join(p.file.Close())
}
