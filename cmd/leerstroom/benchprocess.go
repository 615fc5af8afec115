package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/leerstroom/leerstroom/bench"
	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/engine"
)

// benchProcess is `leerstroom up` as a child, for the benchmark that kills it, and
// afterwards stages in processes of their own.
type benchProcess struct {
	data, config string
	stderr       io.Writer

	child *childProcess // nil when none runs
}

// processForBench makes the configuration and the keys of a system whose
// publishers are authorised for all schools of the population.
func processForBench(directory string, population *bench.Population, stderr io.Writer) (*bench.Process, error) {
	p := &benchProcess{data: filepath.Join(directory, "data"), config: filepath.Join(directory, "config.yaml"), stderr: stderr}
	if err := os.MkdirAll(p.data, 0o700); err != nil {
		return nil, fmt.Errorf("prepare the system: %w", err)
	}
	text, err := yaml.Marshal(map[string]any{"listen": "127.0.0.1:0", "identities": map[string]any{"provisional": true},
		"ingest": map[string]any{"authorisations": population.Authorisations()}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.config, text, 0o600); err != nil {
		return nil, fmt.Errorf("prepare the system: %w", err)
	}
	keys, err := access.Open(layout{p.data}.apiKeys())
	if err != nil {
		return nil, err
	}
	publishers := make(map[string]string)
	for _, publisher := range population.Publishers {
		if publishers[publisher.ID], _, err = keys.Create(access.Scope{Role: access.RolePublisher, Publisher: publisher.ID}); err != nil {
			return nil, err
		}
	}
	return &bench.Process{PublisherKeys: publishers, Start: p.start, Kill: p.kill, ID: func() int { return p.child.command.Process.Pid },
		Partitions: defaultPartitions, ClickHouse: p.clickHouse, Apart: p.apart}, nil
}

// clickHouse returns the running child's.
func (p *benchProcess) clickHouse() (engine.ClickHouse, error) {
	engines, err := engine.Attach(engine.Config{DataDir: p.data})
	if err != nil {
		return engine.ClickHouse{}, err
	}
	return engines.ClickHouse, nil
}

// start returns the URL that the child says it listens on.
func (p *benchProcess) start(ctx context.Context) (url string, err error) {
	p.child, url, err = startChild(ctx, p.stderr, "up", "--data", p.data, "--config", p.config)
	return url, err
}

// kill ends the child and its engines at once, and waits for it. The engines end
// with their parent.
func (p *benchProcess) kill() error {
	if p.child == nil {
		return nil
	}
	err := p.child.kill()
	p.child = nil
	return err
}

// apart starts engines on the data of the child, which must not run, for stages in
// processes of their own.
func (p *benchProcess) apart(ctx context.Context) (stages *bench.Stages, err error) {
	broker, err := engine.StartBrokerProcess(ctx, p.data, engine.KafkaConfig{})
	if err != nil {
		return nil, err
	}
	engines, err := engine.Start(ctx, engine.Config{DataDir: p.data, Kafka: engine.KafkaConfig{Brokers: []string{broker.Address}}}, newLogger(p.stderr, false))
	if err != nil {
		return nil, errors.Join(err, broker.Close())
	}
	stop := func() error { return errors.Join(engines.Close(), broker.Close()) }
	text, err := yaml.Marshal(map[string]any{"engine": map[string]any{
		"kafka": map[string]any{"brokers": engines.Brokers},
		"clickhouse": map[string]any{"addresses": engines.ClickHouse.Addresses, "user": engines.ClickHouse.User,
			"password_file": filepath.Join(p.data, "clickhouse", "password")},
	}})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	config := filepath.Join(filepath.Dir(p.config), "apart.yaml")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the stages: %w", err), stop())
	}
	return &bench.Stages{Stop: stop, Start: func(ctx context.Context, stage string) (url string, kill func() error, err error) {
		child, url, err := startChild(ctx, p.stderr, stage, "--data", p.data, "--config", config, "--listen", "127.0.0.1:0")
		if err != nil {
			return "", nil, err
		}
		return url, child.kill, nil
	}}, nil
}

// childProcess is this program, once more.
type childProcess struct {
	command *exec.Cmd
	ended   chan struct{} // when it says nothing any more
}

// startChild returns the URL that the child says it listens on.
func startChild(ctx context.Context, stderr io.Writer, arguments ...string) (c *childProcess, url string, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	c = &childProcess{command: exec.CommandContext(ctx, program, arguments...), ended: make(chan struct{})}
	c.command.Stderr = stderr
	out, err := c.command.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := c.command.Start(); err != nil {
		return nil, "", fmt.Errorf("start %s %s: %w", filepath.Base(program), arguments[0], err)
	}
	said := make(chan string, 1)
	go func() { // ends with the child
		defer close(c.ended)
		defer close(said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, address, found := strings.Cut(lines.Text(), "listening on "); found {
				said <- address
			}
		}
	}()
	url, listens := <-said
	if !listens {
		return nil, "", errors.Join(fmt.Errorf("start %s: it ended before it listened; the lines above say why", arguments[0]), c.kill())
	}
	return c, url, nil
}

// kill ends the child at once, and waits for it.
func (c *childProcess) kill() error {
	if err := c.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", c.command.Args[1], err)
	}
	<-c.ended
	err := c.command.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil // it was killed
	}
	return err
}
