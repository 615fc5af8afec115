package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/leerstroom/leerstroom/bench"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// asProgram in the environment makes the test binary the program itself, so that
// tests can kill real processes.
const asProgram = "LEERSTROOM_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	engine.RunIfChild()
	if os.Getenv(asProgram) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	enginetest.Main(m)
}

// system is a `leerstroom up` in a process of its own, with the keys of
// simulated publishers.
type system struct {
	t          *testing.T
	population *bench.Population
	directory  string
	address    string
	publishers map[string]string
	engineKey  string

	mutex   sync.Mutex
	process *exec.Cmd
	ended   chan error
	output  bytes.Buffer // of all processes, standard output and error
}

func newSystem(t *testing.T, population *bench.Population, more ...string) *system {
	t.Helper()
	if _, err := engine.FindLibrary(""); err != nil {
		enginetest.Missing(t, err)
	}
	s := &system{t: t, population: population, directory: t.TempDir(), publishers: make(map[string]string)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	engines := make(map[string][]string)
	for school := range population.Authorisations() {
		engines[school] = []string{"tutor"}
	}
	text, err := yaml.Marshal(map[string]any{"listen": s.address, "engine_authorisations": engines, "topics": map[string]any{"partitions": 8},
		"identities": map[string]any{"provisional": true}, "ingest": map[string]any{"authorisations": population.Authorisations()}})
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, strings.Join(more, "\n")...)
	if err := os.WriteFile(s.config(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range population.Publishers {
		s.publishers[p.ID] = strings.TrimSpace(s.must("apikey", "create", "--role", "publisher", "--publisher", p.ID, "--data", s.data()))
	}
	s.engineKey = strings.TrimSpace(s.must("apikey", "create", "--role", "engine", "--engine", "tutor", "--data", s.data()))
	t.Cleanup(s.kill)
	return s
}

func (s *system) config() string { return filepath.Join(s.directory, "config.yaml") }
func (s *system) data() string   { return filepath.Join(s.directory, "data") }
func (s *system) url() string    { return "http://" + s.address }

// command prepares the program with arguments.
func (s *system) command(args ...string) *exec.Cmd {
	executable, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	c := exec.Command(executable, args...)
	c.Env = append(os.Environ(), asProgram+"=1")
	return c
}

// must runs the program and returns what it printed on standard output.
func (s *system) must(args ...string) string {
	s.t.Helper()
	var out, errs bytes.Buffer
	c := s.command(args...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		s.t.Fatalf("leerstroom %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.output.Write(errs.Bytes())
	return out.String()
}

// up starts the process and waits until it listens.
func (s *system) up() {
	s.t.Helper()
	c := s.command("up", "--data", s.data(), "--config", s.config(), "--verbose")
	// A process group of its own: kill takes the embedded ClickHouse with it.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	reader, writer := io.Pipe()
	c.Stdout, c.Stderr = writer, writer
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended, listening := make(chan error, 1), make(chan struct{})
	go s.read(reader, listening)
	go func() { // ends with the process
		err := c.Wait()
		ended <- err
		_ = writer.Close()
	}()
	s.mutex.Lock()
	s.process, s.ended = c, ended
	s.mutex.Unlock()
	select {
	case <-listening:
	case err := <-ended:
		s.t.Fatalf("leerstroom up ended: %v\n%s", err, s.printed())
	case <-time.After(2 * time.Minute):
		s.t.Fatalf("leerstroom up does not listen\n%s", s.printed())
	}
}

func (s *system) read(reader io.Reader, listening chan struct{}) {
	lines := bufio.NewScanner(reader)
	lines.Buffer(nil, 1<<20)
	var once sync.Once
	for lines.Scan() {
		s.mutex.Lock()
		s.output.WriteString(lines.Text() + "\n")
		s.mutex.Unlock()
		if strings.Contains(lines.Text(), "listening on") {
			once.Do(func() { close(listening) })
		}
	}
}

func (s *system) printed() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.output.String()
}

// kill ends the process and its children with SIGKILL, at whatever instruction
// they are.
func (s *system) kill() {
	s.mutex.Lock()
	process, ended := s.process, s.ended
	s.process = nil
	s.mutex.Unlock()
	if process == nil {
		return
	}
	if err := syscall.Kill(-process.Process.Pid, syscall.SIGKILL); err != nil {
		s.t.Logf("kill: %v", err)
	}
	<-ended
}

// terminate ends the process in order and reports how it ended.
func (s *system) terminate() {
	s.t.Helper()
	s.mutex.Lock()
	process, ended := s.process, s.ended
	s.process = nil
	s.mutex.Unlock()
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			s.t.Errorf("leerstroom up after SIGTERM: %v\n%s", err, s.printed())
		}
	case <-time.After(time.Minute):
		s.t.Errorf("leerstroom up does not end after SIGTERM\n%s", s.printed())
	}
}

// push sends the answers of a workload; what is refused fails the test.
func (s *system) push(ctx context.Context, w *bench.Workload, progress func(rows int)) error {
	result, err := bench.Push(ctx, w, bench.PushConfig{BaseURL: s.url(), Keys: s.publishers, Workers: 4, BodyRows: 500, Progress: progress})
	if err != nil {
		return err
	}
	if result.Refused != 0 {
		return fmt.Errorf("%d answers refused", result.Refused)
	}
	return nil
}

func newPopulation(t *testing.T, schools, learners int) *bench.Population {
	t.Helper()
	p, err := bench.NewPopulation(bench.PopulationConfig{Seed: 7, Schools: schools, Learners: learners})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newWorkload(t *testing.T, p *bench.Population, config bench.WorkloadConfig) *bench.Workload {
	t.Helper()
	w, err := bench.NewWorkload(p, config)
	if err != nil {
		t.Fatal(err)
	}
	return w
}
