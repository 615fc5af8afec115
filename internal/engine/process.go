package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	readyPoll  = 10 * time.Millisecond
	readyLimit = 3 * time.Minute // loading many parts after a crash takes long
)

// errEnded marks a child that ended before it answered.
var errEnded = errors.New("ended before it was ready")

// process is a child that stops when its standard input is closed, which the
// death of this process does too.
type process struct {
	command *exec.Cmd
	stdin   io.Closer
	output  *tail
	grace   time.Duration // how long it may take to stop

	done chan struct{} // closed when the child has ended
	err  error         // how; read it after done
}

// startProcess starts a child. Its output is kept in part, for the error
// message when it ends too early.
func startProcess(command *exec.Cmd, grace time.Duration) (*process, error) {
	p := &process{command: command, output: &tail{limit: 8 << 10}, grace: grace, done: make(chan struct{})}
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Path, err)
	}
	p.stdin = stdin
	command.Stdout, command.Stderr = p.output, p.output
	started := make(chan error, 1)
	// Owned by the process: it ends when the child does, which close and kill
	// wait for. The thread stays with it because Linux delivers the signal for
	// the death of a parent when the thread that started the child ends.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = command.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Path, errors.Join(err, stdin.Close()))
	}
	return p, nil
}

// ended tells whether the child has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// whileAlive returns a context that ends with ctx, after the limit, and when the
// child ends. The caller calls stop.
func (p *process) whileAlive(ctx context.Context, limit time.Duration) (alive context.Context, stop func()) {
	alive, cancel := context.WithTimeout(ctx, limit)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-p.done:
			cancel()
		case <-alive.Done():
		}
	})
	return alive, func() {
		cancel()
		watch.Wait()
	}
}

// await calls try until it returns nil: then the child is ready.
func (p *process) await(ctx context.Context, try func(context.Context) error) error {
	alive, stop := p.whileAlive(ctx, readyLimit)
	defer stop()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		err := try(alive)
		if p.ended() { // who answered was somebody else
			return fmt.Errorf("%w: %w", errEnded, p.reason())
		}
		if err == nil {
			return nil
		}
		select {
		case <-alive.Done():
			if !p.ended() {
				return fmt.Errorf("wait until it answers: %w (last: %w)", context.Cause(alive), err)
			}
		case <-poll.C:
		}
	}
}

// reason tells why the child ended, with the end of what it printed.
func (p *process) reason() error {
	state := p.command.ProcessState.String()
	if text := p.output.String(); text != "" {
		return fmt.Errorf("%s: %s", state, text)
	}
	return errors.New(state)
}

// close asks the child to stop and waits for its end; one that takes longer than
// the grace period is killed, which is an error.
func (p *process) close() error {
	if err := p.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return errors.Join(fmt.Errorf("stop %s: %w", p.command.Path, err), p.kill())
	}
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("stop %s: %w", p.command.Path, p.reason())
		}
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("stop %s: still running after %s, killed", p.command.Path, p.grace), p.kill())
	}
}

// terminate asks a child that does not watch its standard input to stop, by
// SIGTERM, and waits for its end like close. How it ended is not an error: a JVM
// that was asked to stop exits with 143.
func (p *process) terminate() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(fmt.Errorf("stop %s: %w", p.command.Path, err), p.kill())
	}
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.kill() // closes the pipe
	case <-timer.C:
		return errors.Join(fmt.Errorf("stop %s: still running after %s, killed", p.command.Path, p.grace), p.kill())
	}
}

// kill ends the child with SIGKILL and waits for its end.
func (p *process) kill() error {
	err := p.command.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-p.done
	if closeErr := p.stdin.Close(); !errors.Is(closeErr, os.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	if err != nil {
		return fmt.Errorf("kill %s: %w", p.command.Path, err)
	}
	return nil
}

// tail keeps the last bytes that were written to it.
type tail struct {
	mu    sync.Mutex
	kept  []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}
