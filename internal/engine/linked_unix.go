//go:build unix

package engine

import (
	"io/fs"
	"syscall"
)

// linked tells whether an open file still has a name.
func linked(info fs.FileInfo) bool {
	status, ok := info.Sys().(*syscall.Stat_t)
	return ok && status.Nlink > 0
}
