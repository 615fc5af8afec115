package pseudonymize

import (
	"context"
	"errors"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/column"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// Reason is the code of why a message became a dead letter.
type Reason string

// The reasons.
const (
	ReasonSchema    Reason = "unknown-schema"
	ReasonSeal      Reason = "seal-broken"
	ReasonMalformed Reason = "malformed"
	ReasonIdentity  Reason = "identity-malformed"
	ReasonPartition Reason = "wrong-partition"
	ReasonSize      Reason = "too-large"
)

// stageName is what dead letters call this stage.
const stageName = "pseudonymize"

// poison is an error of one message that must not stop the others.
type poison struct {
	reason Reason
	cause  error
}

func (p *poison) Error() string { return string(p.reason) + ": " + p.cause.Error() }
func (p *poison) Unwrap() error { return p.cause }

// classify turns an error of reading a message into poison; other errors are
// returned as they are.
func classify(err error) error {
	switch {
	case errors.Is(err, raw.ErrSchema):
		return &poison{ReasonSchema, err}
	case errors.Is(err, seal.ErrOpen):
		return &poison{ReasonSeal, err}
	case errors.Is(err, column.ErrMalformed):
		return &poison{ReasonMalformed, err}
	}
	return err
}

// bury seals a message into the dead letters. A repeat after a crash leaves two
// letters with the same origin.
func (w *worker) bury(ctx context.Context, m *stream.Message, why *poison) error {
	s := w.stage
	if err := s.letters.Write(ctx, s.config.Topics.Raw, w.partition, string(why.reason), m); err != nil {
		return err
	}
	s.counters.deadLetters.Add(1)
	s.config.Logger.ErrorContext(ctx, "message became a dead letter", "topic", s.config.Topics.Raw, "partition", w.partition,
		"offset", m.Offset, "reason", why.reason)
	return nil
}
