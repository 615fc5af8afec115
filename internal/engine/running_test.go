package engine

import (
	"errors"
	"syscall"
	"testing"
)

// TestDirectoryLock: one process at a time, and given back at once even while a
// child that is being started still holds a copy of the descriptor.
func TestDirectoryLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lock, err := lockDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDirectory(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("second lock = %v, want ErrInUse", err)
	}
	inherited, err := syscall.Dup(int(lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(inherited)
	if err := unlockDirectory(lock); err != nil {
		t.Fatal(err)
	}
	again, err := lockDirectory(dir)
	if err != nil {
		t.Fatalf("lock after it was given back = %v", err)
	}
	if err := unlockDirectory(again); err != nil {
		t.Error(err)
	}
}
