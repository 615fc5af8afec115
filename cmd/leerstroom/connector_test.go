package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// TestConnectorHoldsNoSecret runs the connector as a process of its own on a
// machine that has the public key and nothing else: it takes in what only the
// holder of the private key reads, and the stage that needs secrets refuses to
// start there.
func TestConnectorHoldsNoSecret(t *testing.T) {
	t.Parallel()
	const school, canary = "12AB00", "canary-l-4711"
	brokers := enginetest.Kafka(t)
	connection, database := enginetest.ClickHouse(t)
	owner, machine, prefix := t.TempDir(), t.TempDir(), enginetest.UniqueName("connector")
	write := func(path string, content []byte, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, mode)); err != nil {
			t.Fatal(err)
		}
	}
	password, config := filepath.Join(owner, "password"), filepath.Join(owner, "config.yaml")
	write(password, []byte(connection.Password), 0o600)
	text, err := yaml.Marshal(map[string]any{"listen": "127.0.0.1:0", "topics": map[string]any{"partitions": 2, "prefix": prefix + "-"},
		"engine": map[string]any{"kafka": map[string]any{"brokers": brokers},
			"clickhouse": map[string]any{"addresses": connection.Addresses, "database": database, "user": connection.User, "password_file": password}},
		"ingest": map[string]any{"authorisations": map[string][]string{school: {"bingel"}}}})
	if err != nil {
		t.Fatal(err)
	}
	write(config, text, 0o600)
	if code, _, errs := called(t, "", "keys", "create", "--data", owner); code != 0 {
		t.Fatal(errs)
	}
	code, apiKey, errs := called(t, "", "apikey", "create", "--role", "publisher", "--publisher", "bingel", "--data", machine)
	if code != 0 {
		t.Fatal(errs)
	}
	public, err := os.ReadFile(layout{owner}.public(sealRaw))
	if err != nil {
		t.Fatal(err)
	}
	write(layout{machine}.public(sealRaw), public, 0o644)

	s := &system{t: t, directory: machine}
	if code, _, errs := called(t, "", "pseudonymize", "--data", machine, "--config", config); code != 1 || !strings.Contains(errs, "key") {
		t.Errorf("pseudonymize without a private key = %d, %s; want 1 and why", code, errs)
	}
	address := s.stage(t, "ingest", "--data", machine, "--config", config)
	line := fmt.Sprintf(`{"id":"b-1","publisher":"bingel","school":%q,"learner":{"scheme":"las","value":%q},"exercise":"o-1","kind":"practice","score":1,"answered_at":"2026-09-20T10:15:00+02:00"}`, school, canary)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/v1/answers", strings.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(apiKey))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("deliver: status %s, %v", response.Status, err)
	}

	client, err := stream.NewClient(stream.Config{Brokers: brokers})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topic, partition := stream.NewTopics(prefix+"-").Raw, answer.PartitionOf(school, 2)
	var batch stream.Batch
	if err := client.Fetch(t.Context(), topic, partition, 0, 10*time.Second, &batch); err != nil || len(batch.Messages) != 1 {
		t.Fatalf("%d messages of raw, %v", len(batch.Messages), err)
	}
	sealed := batch.Messages[0].Value
	if bytes.Contains(sealed, []byte(canary)) {
		t.Error("the identifier can be read in raw")
	}
	private, err := seal.LoadPrivateKey(layout{owner}.private(sealRaw))
	if err != nil {
		t.Fatal(err)
	}
	opener, err := seal.NewOpener(private)
	if err != nil {
		t.Fatal(err)
	}
	var answers raw.Answers
	if err := raw.NewReader(opener, topic).Read(raw.SchemaAnswers, partition, sealed, &answers, nil); err != nil || answers.Identity.Values[0].Value != canary {
		t.Errorf("the holder of the private key does not read what was sealed (%v)", err)
	}
	for _, secret := range []string{layout{machine}.tokenKeys(), layout{machine}.private(sealRaw)} {
		if fileExists(secret) {
			t.Errorf("%s is on the connector's machine", filepath.Base(secret))
		}
	}
}

// stage runs a stage in a process of its own until the test ends and returns the
// URL at which it listens.
func (s *system) stage(t *testing.T, args ...string) string {
	t.Helper()
	c := s.command(args...)
	var output lockedBuffer
	c.Stdout, c.Stderr = &output, &output
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("%s after SIGTERM: %v\n%s", args[0], err, output.String())
		}
	})
	var address string
	enginetest.Eventually(t, 2*time.Minute, "the stage listens", func() error {
		_, after, found := strings.Cut(output.String(), "listening on ")
		if address, _, _ = strings.Cut(after, "\n"); !found || address == "" {
			return errors.New(output.String())
		}
		return nil
	})
	return address
}

// lockedBuffer collects what a process prints, for readers meanwhile.
type lockedBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.String()
}
