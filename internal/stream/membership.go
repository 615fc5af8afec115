package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"
)

// membership is a file that says which member of a group this process is. The
// process holds its lock, so that a file whose lock is free is of a process that
// died: the next one makes that member leave, where the group would wait for its
// session to time out. A process that is stopped, or very slow, keeps its lock.
//
// A member that is made to leave by mistake joins again; its generation is over as in any
// rebalance. One that is killed while it joins for the first time has no name in its file
// yet, and is waited for. A nil membership keeps nothing.
type membership struct {
	file *os.File
	said string
}

// errNotHeld reports that another process took the file first.
var errNotHeld = errors.New("membership file: taken by another process")

// openMembership makes the file of this process for a group.
func openMembership(directory, group string) (*membership, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	const attempts = 10 // who looks for the dead may take a file before it is locked
	for attempt := 1; ; attempt++ {
		file, err := os.CreateTemp(directory, group+".*")
		if err != nil {
			return nil, err
		}
		err = hold(file)
		if err == nil {
			return &membership{file: file}, nil
		}
		left := os.Remove(file.Name()) // nobody holds it
		if errors.Is(left, fs.ErrNotExist) {
			left = nil
		}
		if left = errors.Join(left, file.Close()); left != nil || !errors.Is(err, errNotHeld) || attempt == attempts {
			return nil, errors.Join(err, left)
		}
	}
}

// hold locks a file that is still the one of its name.
func hold(file *os.File) error {
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return errNotHeld
		}
		return fmt.Errorf("lock %s: %w", filepath.Base(file.Name()), err)
	}
	open, err := file.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(file.Name())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(open, named) {
		return errNotHeld
	}
	return err
}

// say notes the member that the broker has named.
func (m *membership) say(member string) error {
	if m == nil || member == m.said {
		return nil
	}
	if _, err := m.file.WriteAt([]byte(member), 0); err != nil {
		return err
	}
	if err := m.file.Truncate(int64(len(member))); err != nil {
		return err
	}
	m.said = member
	return nil
}

// end gives the file to the next process: the broker may not have heard that this one
// leaves.
func (m *membership) end() error {
	if m == nil {
		return nil
	}
	return m.file.Close()
}

// isOf tells whether a file of this name is of a member of the group.
func isOf(name, group string) bool {
	number, found := strings.CutPrefix(name, group+".")
	return found && !strings.Contains(number, ".")
}

// buryDead makes the members of a group leave whose processes have died, and
// removes their files.
func (c *Client) buryDead(ctx context.Context, directory, group string) error {
	files, err := os.ReadDir(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		if !isOf(file.Name(), group) {
			continue
		}
		if err := c.buryOne(ctx, filepath.Join(directory, file.Name()), group); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotHeld) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *Client) buryOne(ctx context.Context, name, group string) (err error) {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := hold(file); err != nil {
		return err
	}
	member, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	if len(member) > 0 { // it died after it had joined
		if err := c.leave(ctx, group, string(member)); err != nil {
			return fmt.Errorf("make the member of a process that died leave group %s: %w", group, err)
		}
	}
	return os.Remove(name)
}

// leave takes a member out of its group. One that the group does not know has left.
// Until ctx ends, it tries again while the broker is away or does not know yet who leads
// the group.
func (c *Client) leave(ctx context.Context, group, member string) error {
	pause := newBackoff(50*time.Millisecond, time.Second)
	for {
		err := c.leaveOnce(ctx, group, member)
		if errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.GroupIdNotFound) {
			return nil
		}
		var refusal kafka.Error
		if err == nil || errors.As(err, &refusal) && !refusal.Temporary() {
			return err
		}
		if !pause.wait(ctx) {
			return err
		}
	}
}

func (c *Client) leaveOnce(ctx context.Context, group, member string) error {
	response, err := c.kafka.LeaveGroup(ctx, &kafka.LeaveGroupRequest{GroupID: group, Members: []kafka.LeaveGroupRequestMember{{ID: member}}})
	if err != nil {
		return err
	}
	// kafka-go reads the two numbers that this reply begins with in the wrong order:
	// the lower half of what it takes for milliseconds is the error of the request.
	if code := int16(response.Throttle / time.Millisecond); code != 0 {
		return kafka.Error(code)
	}
	for i := range response.Members {
		err = errors.Join(err, response.Members[i].Error)
	}
	return err
}
