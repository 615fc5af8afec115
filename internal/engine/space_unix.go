//go:build linux || darwin

package engine

import "golang.org/x/sys/unix"

// freeBytes is what the file system of a directory has left for us.
func freeBytes(dir string) (bytes int64, known bool) {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
