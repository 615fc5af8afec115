package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

// refitConfig says when difficulties are refitted without being asked.
type refitConfig struct {
	// Off leaves it to `leerstroom refit`.
	Off bool `yaml:"off"`
	// Every is the time between refits, counted from three at night, Dutch time
	// (default 24h).
	Every time.Duration `yaml:"every"`
	// Answers is about how many answers a refit reads at most (default 20,000,000,
	// some 500 MB of memory): a sample of the learners when there are more.
	Answers int64 `yaml:"answers"`
}

func (c *refitConfig) setDefaults() {
	if c.Every == 0 {
		c.Every = 24 * time.Hour
	}
	if c.Answers == 0 {
		c.Answers = refitAnswers
	}
}

func (c *refitConfig) validate() error {
	switch {
	case c.Every < time.Second || c.Every > 7*24*time.Hour:
		return errors.New("every: between 1s and 168h")
	case c.Answers < 1000:
		return errors.New("answers: at least 1000")
	}
	return nil
}

// quietHour is when a school day's answers are in and nobody waits for a reply.
const quietHour = 3

// next returns the first moment after now at which a refit is due.
func (c *refitConfig) next(now time.Time) time.Time {
	due := time.Date(now.Year(), now.Month(), now.Day(), quietHour, 0, 0, 0, now.Location())
	if due.After(now) {
		due = due.AddDate(0, 0, -1)
	}
	return due.Add((now.Sub(due)/c.Every + 1) * c.Every)
}

// refitSchedule refits while its process makes the versions of the difficulties:
// one process of a deployment does. What it hands over goes through the log, like
// that of the command, so a replay meets the same scales at the same places.
type refitSchedule struct {
	stream.Handler // of the reducer
	deployment     *deployment
	store          *store.Store
	stop           context.CancelFunc
	ended          sync.WaitGroup
}

// Start begins the schedule with the reducer.
func (s *refitSchedule) Start(ctx context.Context, assignment *stream.Assignment) (int64, error) {
	next, err := s.Handler.Start(ctx, assignment)
	if err != nil || s.deployment.config.Refit.Off {
		return next, err
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.ended.Go(func() { s.run(ctx) })
	return next, nil
}

// Stop ends the schedule; a refit that is under way is given up.
func (s *refitSchedule) Stop() {
	if s.stop != nil {
		s.stop()
	}
	s.ended.Wait()
	s.Handler.Stop()
}

func (s *refitSchedule) run(ctx context.Context) {
	calendar := s.deployment.config.Norms.calendar()
	var last []answer.Position
	for {
		now := time.Now().In(calendar.Location)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(s.deployment.config.Refit.next(now))):
		}
		upTo, err := s.refit(ctx, last)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.deployment.logger.WarnContext(ctx, "refit failed; the difficulties stay as they are until the next one, or run leerstroom refit", "error", err)
		default:
			last = upTo
		}
	}
}

// refit hands new scales over, unless nothing was answered since the last time.
func (s *refitSchedule) refit(ctx context.Context, last []answer.Position) ([]answer.Position, error) {
	d := s.deployment
	source, config, err := d.refitSource(ctx, s.store, d.config.Refit.Answers)
	if err != nil || slices.Equal(source.UpTo, last) {
		return source.UpTo, err
	}
	scales, err := d.fitScales(ctx, s.store, source, config, func(int, int) {})
	if err != nil {
		return nil, err
	}
	for _, rows := range scales {
		if err := transform.PublishScale(ctx, d.client, d.names, rows); err != nil {
			return nil, err
		}
		d.logger.InfoContext(ctx, "difficulties were refitted", "scale", rows.Scale.Number, "goals", len(rows.Scale.Links))
	}
	return source.UpTo, nil
}
