package fault

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// restartPause is how long a supervisor waits before it starts a process again.
const restartPause = 100 * time.Millisecond

// member is one process of a stage. It is started again whenever it ends, as by
// an operator's supervisor, until stop.
type member struct {
	stage   string
	binary  string
	args    []string
	clock   string // file that says by how much the process's clock is wrong
	kafka   *link
	store   *link
	output  output
	stopped chan struct{} // closed when no process runs any more

	mu      sync.Mutex
	change  *sync.Cond
	process *os.Process // nil while none runs
	held    bool        // not to be started
	ending  bool        // not to be started ever again
	ours    bool        // the end of the process at hand is our doing
	exits   int         // ends that nobody asked for
}

func newMember(stage, binary, clock string, kafka, store *link, args ...string) *member {
	m := &member{stage: stage, binary: binary, clock: clock, args: args, kafka: kafka, store: store, stopped: make(chan struct{})}
	m.change = sync.NewCond(&m.mu)
	go m.supervise() // ends with stop, which waits for it
	return m
}

func (m *member) supervise() {
	// Linux kills the child when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(m.stopped)
	for {
		command := exec.Command(m.binary, m.args...)
		command.SysProcAttr = tied()
		command.Env = append(os.Environ(), "LEERSTROOM_FAULT_CLOCK="+m.clock)
		command.Stdout, command.Stderr = &m.output, &m.output
		if !m.begin(command) {
			return
		}
		err := command.Wait()
		m.mu.Lock()
		m.process = nil
		if !m.ours {
			m.exits++
			fmt.Fprintf(&m.output, "ended by itself: %v\n", err)
		}
		m.ours = false
		m.mu.Unlock()
		time.Sleep(restartPause)
	}
}

// begin starts the command when it may run; it returns false when it never may
// again.
func (m *member) begin(command *exec.Cmd) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.held && !m.ending {
		m.change.Wait()
	}
	if m.ending {
		return false
	}
	if err := command.Start(); err != nil {
		fmt.Fprintf(&m.output, "panic: start: %v\n", err) // no round may pass then
		m.ending = true
		return false
	}
	m.process = command.Process
	return true
}

// signal sends a signal to the process, if one runs. One that ends it is noted
// as our doing.
func (m *member) signal(s syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return
	}
	m.ours = m.ours || s == syscall.SIGKILL || s == syscall.SIGTERM
	_ = m.process.Signal(s) // one that has just ended can't be signalled
}

// id returns the number of the process, 0 when none runs.
func (m *member) id() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return 0
	}
	return m.process.Pid
}

// setClock makes the clock of the process wrong by so much, 0 right again.
func (m *member) setClock(by time.Duration) error {
	next := m.clock + ".next"
	if err := os.WriteFile(next, []byte(by.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(next, m.clock)
}

// hold keeps the process from being started again; release undoes it.
func (m *member) hold(held bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = held
	m.change.Broadcast()
}

// stop ends the process for good.
func (m *member) stop() {
	m.mu.Lock()
	m.ending = true
	m.change.Broadcast()
	m.mu.Unlock()
	m.signal(syscall.SIGKILL)
	<-m.stopped
}

func (m *member) ownExits() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exits
}

// output keeps the end of what the processes of a member print, and notices what
// must never be printed.
type output struct {
	mu    sync.Mutex
	kept  []byte
	alarm string
}

func (o *output) Write(p []byte) (int, error) {
	const limit = 64 << 10
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, p...)
	for _, bad := range []string{"panic:", "fatal error:", "DATA RACE"} {
		if o.alarm == "" && bytes.Contains(o.kept[max(0, len(o.kept)-len(p)-len(bad)):], []byte(bad)) {
			o.alarm = bad
		}
	}
	if over := len(o.kept) - limit; over > 0 && o.alarm == "" {
		o.kept = append(o.kept[:0], o.kept[over:]...)
	}
	return len(p), nil
}

// last returns the last lines.
func (o *output) last(lines int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := strings.Split(strings.TrimSpace(string(o.kept)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (o *output) alarmed() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.alarm
}
