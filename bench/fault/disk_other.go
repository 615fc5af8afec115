//go:build !linux

package fault

import "errors"

// disk can be filled and lose power on Linux only.
type disk struct{ mount string }

var errNoDisk = errors.New("a file system of its own needs Linux")

func newDisk(string) (*disk, error) { return nil, errNoDisk }

func (*disk) losePower() error    { return errNoDisk }
func (*disk) restorePower() error { return errNoDisk }
func (*disk) fill() error         { return errNoDisk }
func (*disk) empty() error        { return errNoDisk }
func (*disk) close() error        { return nil }
