package main

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/leerstroom/leerstroom/ingest"
)

// authorisations are what schools allow publishers and engines, as the
// configuration file says at the moment of asking: what a school withdraws ends
// without a restart. A file that can't be read, or that has a mistake in it,
// changes nothing and is reported: it is written by hand, and a slip of the pen
// must not stop what other schools have ordered.
type authorisations struct {
	path   string // empty: what the process began with, for ever
	logger *slog.Logger

	mu         sync.Mutex
	seen       fs.FileInfo // of the file that was read last
	publishers ingest.Authorisations
	engines    ingest.Authorisations
}

// authorisationsEvery is how often the file is looked at for publishers, whose
// requests do not ask.
const authorisationsEvery = time.Second

// newAuthorisations begins with what the configuration said when it was loaded.
func newAuthorisations(c *configuration, logger *slog.Logger) *authorisations {
	return &authorisations{path: c.path, logger: logger, publishers: c.Ingest.Authorisations, engines: c.EngineAuthorisations}
}

// engine tells whether a school lets an engine process its learners.
func (a *authorisations) engine(engine, school string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refresh()
	return slices.Contains(a.engines[school], engine)
}

// refresh reads the file again when it has changed. mu is held.
func (a *authorisations) refresh() {
	if a.path == "" {
		return
	}
	status, err := os.Stat(a.path)
	if err == nil && a.seen != nil && os.SameFile(status, a.seen) && status.Size() == a.seen.Size() && status.ModTime().Equal(a.seen.ModTime()) {
		return
	}
	if err != nil {
		if a.seen != nil { // said once
			a.logger.Error("the authorisations stay as they were: the configuration file is gone", "error", err)
			a.seen = nil
		}
		return
	}
	a.seen = status
	c, err := loadConfiguration(a.path)
	if err != nil {
		a.logger.Error("the authorisations stay as they were: correct the configuration file", "error", err)
		return
	}
	a.publishers, a.engines = c.Ingest.Authorisations, c.EngineAuthorisations
}

// follow hands the publishers' authorisations to set whenever they change, until
// ctx ends.
func (a *authorisations) follow(ctx context.Context, set func(ingest.Authorisations) error) error {
	tick := time.NewTicker(authorisationsEvery)
	defer tick.Stop()
	var last fs.FileInfo
	for {
		a.mu.Lock()
		a.refresh()
		seen, publishers := a.seen, a.publishers
		a.mu.Unlock()
		if seen != last {
			if err := set(publishers); err != nil {
				return err
			}
			last = seen
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
