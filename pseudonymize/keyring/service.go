package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// KeyService keeps the keyset closed while it lies on a disk: a cloud KMS, an
// HSM, a vault. What it wraps stands in the keyset file, and the keys are in the
// memory of the process alone. Errors hold nothing of what a method was given.
type KeyService interface {
	Wrap(keyset []byte) (wrapped []byte, err error)
	Unwrap(wrapped []byte) (keyset []byte, err error)
}

// ErrService reports a key service that did not do its work.
var ErrService = errors.New("the key service failed")

// Unwrapped is the service of a deployment without one: the file holds the keyset
// as it is, and only its mode keeps it from others.
type Unwrapped struct{}

// Wrap returns a copy.
func (Unwrapped) Wrap(keyset []byte) ([]byte, error) { return bytes.Clone(keyset), nil }

// Unwrap returns a copy.
func (Unwrapped) Unwrap(wrapped []byte) ([]byte, error) { return bytes.Clone(wrapped), nil }

// Command reaches a key service through its own program, such as age, sops, or
// the command line of a cloud: it reads from standard input and writes to
// standard output. What it says on standard error goes nowhere, because nobody
// knows what is in it.
type Command struct {
	// UnwrapCommand is a program with its arguments; every process that needs the
	// keyset runs it, once for every content of the file.
	UnwrapCommand []string `yaml:"unwrap_command"`
	// WrapCommand does the opposite; needed by the commands that change the keyset.
	WrapCommand []string `yaml:"wrap_command"`
	// Timeout is how long either may take (default 30s).
	Timeout time.Duration `yaml:"timeout"`
}

const defaultTimeout = 30 * time.Second

// Service returns the service that a configuration names: the file alone when it
// names none.
func (c Command) Service() KeyService {
	if len(c.UnwrapCommand) == 0 {
		return Unwrapped{}
	}
	return c
}

// Validate names the field that is wrong.
func (c *Command) Validate() error {
	switch {
	case len(c.WrapCommand) > 0 && len(c.UnwrapCommand) == 0:
		return errors.New("unwrap_command: needed beside wrap_command, or nobody opens what it closes")
	case len(c.UnwrapCommand) > 0 && c.UnwrapCommand[0] == "":
		return errors.New("unwrap_command: the program has no name")
	case len(c.WrapCommand) > 0 && c.WrapCommand[0] == "":
		return errors.New("wrap_command: the program has no name")
	case c.Timeout < 0:
		return errors.New("timeout: want more than 0")
	}
	return nil
}

// Wrap runs the wrapping program.
func (c Command) Wrap(keyset []byte) ([]byte, error) {
	if len(c.WrapCommand) == 0 {
		return nil, fmt.Errorf("%w: keys.wrap_command is not configured, and the keyset must not be written without it", ErrService)
	}
	return c.run("keys.wrap_command", c.WrapCommand, keyset)
}

// Unwrap runs the unwrapping program.
func (c Command) Unwrap(wrapped []byte) ([]byte, error) {
	return c.run("keys.unwrap_command", c.UnwrapCommand, wrapped)
}

// run never repeats what the program wrote: not on success, not in an error.
func (c Command) run(field string, command []string, input []byte) ([]byte, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	output := boundedOutput{limit: maxFileBytes}
	process := exec.CommandContext(ctx, command[0], command[1:]...)
	process.Stdin, process.Stdout = bytes.NewReader(input), &output
	process.WaitDelay = time.Second // a child that outlives it holds the pipes no longer
	err := process.Run()
	name, exit := filepath.Base(command[0]), (*exec.ExitError)(nil)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %s (%s) was not done within %s", ErrService, field, name, timeout)
	case output.full:
		return nil, fmt.Errorf("%w: %s (%s) wrote more than %d bytes", ErrService, field, name, maxFileBytes)
	case errors.As(err, &exit):
		return nil, fmt.Errorf("%w: %s (%s): %s; run it by hand to see why", ErrService, field, name, exit.ProcessState)
	case err != nil:
		return nil, fmt.Errorf("%w: %s (%s): %w", ErrService, field, name, err)
	case len(output.content) == 0:
		return nil, fmt.Errorf("%w: %s (%s) wrote nothing", ErrService, field, name)
	}
	return output.content, nil
}

// boundedOutput takes so many bytes and then ends the program that writes.
type boundedOutput struct {
	content []byte
	limit   int
	full    bool
}

var errFull = errors.New("too much output")

func (o *boundedOutput) Write(p []byte) (int, error) {
	if len(o.content)+len(p) > o.limit {
		o.full = true
		return 0, errFull
	}
	o.content = append(o.content, p...)
	return len(p), nil
}
