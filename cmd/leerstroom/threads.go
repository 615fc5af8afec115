package main

import (
	"os"
	"runtime"
)

// threadForBroker lets one thread more than there are cores run Go's code, until
// the returned function is called. The embedded broker waits for the disk in
// system calls, and a thread that is in one keeps its place from the others until
// the runtime has noticed, which may take milliseconds. GOMAXPROCS, when set, holds.
// Until end, the runtime does not follow a limit of processors that changes meanwhile.
func threadForBroker() (end func()) {
	if os.Getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	return runtime.SetDefaultGOMAXPROCS
}
