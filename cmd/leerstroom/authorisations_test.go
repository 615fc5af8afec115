package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/ingest"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// What the file says counts from the next question on; a file with a mistake
// changes nothing.
func TestAuthorisationsFollowTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		// Replaced, as an editor does, so that the time of the file system's clock
		// doesn't matter.
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	write("engine_authorisations: {12AB00: [rekentuin]}\ningest: {authorisations: {12AB00: [bingel]}}\n")
	config, err := loadConfiguration(path)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	a := newAuthorisations(config, slog.New(slog.NewTextHandler(&log, nil)))
	var mu sync.Mutex
	var publishers ingest.Authorisations
	following, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { // ends with stop
		ended <- a.follow(following, func(p ingest.Authorisations) error {
			mu.Lock()
			defer mu.Unlock()
			publishers = p
			return nil
		})
	}()
	follows := func(want string) {
		t.Helper()
		enginetest.Eventually(t, time.Minute, "the publishers of the file", func() error {
			mu.Lock()
			defer mu.Unlock()
			if got := fmt.Sprint(publishers); got != want {
				return fmt.Errorf("%s, want %s", got, want)
			}
			return nil
		})
	}
	allowed := func(want bool) {
		t.Helper()
		if got := a.engine("rekentuin", "12AB00"); got != want {
			t.Errorf("engine allowed = %v, want %v", got, want)
		}
	}
	allowed(true)
	follows("map[12AB00:[bingel]]")
	write("engine_authorisations: {12AB00: []}\n")
	allowed(false)
	follows("map[]")
	write("engine_authorisations: {12AB00: [rekentuin]}\n")
	allowed(true)
	write("engine_authorisations: {12AB00: [}\n")
	allowed(true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	allowed(true)
	allowed(true)
	write("engine_authorisations: {}\n")
	allowed(false)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("follow = %v", err)
	}
	if text := log.String(); strings.Count(text, "is gone") != 1 || strings.Count(text, "correct the configuration file") != 1 {
		t.Errorf("log = %s, want a line about the mistake and one about the file", text)
	}
}
