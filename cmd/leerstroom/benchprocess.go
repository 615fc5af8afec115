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

// benchProcess is `leerstroom up` as a child, for the benchmark that kills it.
type benchProcess struct {
	data, config string
	stderr       io.Writer

	child *exec.Cmd
	ended chan struct{}
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
	return &bench.Process{PublisherKeys: publishers, Start: p.start, Kill: p.kill, ID: func() int { return p.child.Process.Pid },
		Partitions: defaultPartitions, ClickHouse: p.clickHouse}, nil
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
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	child := exec.CommandContext(ctx, program, "up", "--data", p.data, "--config", p.config)
	child.Stderr = p.stderr
	out, err := child.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := child.Start(); err != nil {
		return "", fmt.Errorf("start %s up: %w", filepath.Base(program), err)
	}
	p.child, p.ended = child, make(chan struct{})
	said := make(chan string, 1)
	go func(ended chan struct{}) { // ends with the child
		defer close(ended)
		defer close(said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, address, found := strings.Cut(lines.Text(), "listening on "); found {
				said <- address
			}
		}
	}(p.ended)
	url, ok := <-said
	if !ok {
		return "", errors.New("start the system: it ended before it listened; the lines above say why")
	}
	return url, nil
}

// kill ends the child and its engines at once, and waits for it. The engines end
// with their parent.
func (p *benchProcess) kill() error {
	if p.child == nil {
		return nil
	}
	if err := p.child.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the system: %w", err)
	}
	<-p.ended
	err := p.child.Wait()
	p.child = nil
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil // it was killed
	}
	return err
}
