package fault

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// disk is an ext4 file system of its own in a file, which can be filled and lose
// power. Nothing is written back by age (the journal's interval is minutes), so
// losing power drops all that was never synced.
type disk struct {
	image, mount string
}

// diskBytes is the size of the file system. Its file is sparse.
const diskBytes = 1 << 30

// errNoDisk reports that this process may not make file systems.
var errNoDisk = errors.New("a file system of its own needs root and mkfs.ext4")

func newDisk(dir string) (*disk, error) {
	if os.Geteuid() != 0 {
		return nil, errNoDisk
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoDisk, err)
	}
	d := &disk{image: filepath.Join(dir, "disk.img"), mount: filepath.Join(dir, "disk")}
	if err := os.MkdirAll(d.mount, 0o700); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	file, err := os.Create(d.image)
	if err == nil {
		err = errors.Join(file.Truncate(diskBytes), file.Close())
	}
	if err == nil {
		err = call("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "262144", d.image)
	}
	if err == nil {
		err = d.attach()
	}
	if err != nil {
		return nil, fmt.Errorf("make disk: %w: %w", errNoDisk, err)
	}
	return d, nil
}

func call(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

func (d *disk) attach() error { return call("mount", "-o", "loop,commit=300", d.image, d.mount) }

// losePower stops the file system at once: what was never synced is gone. Every
// process that had files open must have ended before restorePower.
func (d *disk) losePower() error {
	root, err := os.Open(d.mount)
	if err != nil {
		return fmt.Errorf("lose power: %w", err)
	}
	defer root.Close()
	// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH of the kernel's
	// include/uapi/linux/ext4.h.
	const shutdown, withoutFlush = 0x8004587d, 2
	if err := unix.IoctlSetPointerInt(int(root.Fd()), shutdown, withoutFlush); err != nil {
		return fmt.Errorf("lose power: %w", err)
	}
	return nil
}

// restorePower mounts what is on the disk, which replays its journal.
func (d *disk) restorePower() error {
	if err := call("umount", d.mount); err != nil {
		return err
	}
	return d.attach()
}

// fill leaves no free byte.
func (d *disk) fill() error {
	ballast, err := os.OpenFile(filepath.Join(d.mount, "ballast"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	defer ballast.Close()
	at := int64(0)
	for step := int64(64 << 20); step >= 4096; {
		switch err := syscall.Fallocate(int(ballast.Fd()), 0, at, step); {
		case err == nil:
			at += step
		case errors.Is(err, syscall.ENOSPC):
			step /= 2
		case !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("fill disk: %w", err)
		}
	}
	return nil
}

// empty gives the space back, for good: a loss of power must not fill the disk
// again.
func (d *disk) empty() error {
	if err := os.Remove(filepath.Join(d.mount, "ballast")); err != nil {
		return fmt.Errorf("empty disk: %w", err)
	}
	root, err := os.Open(d.mount)
	if err != nil {
		return fmt.Errorf("empty disk: %w", err)
	}
	return errors.Join(root.Sync(), root.Close())
}

func (d *disk) close() error { return call("umount", "-l", d.mount) }
