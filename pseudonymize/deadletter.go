package pseudonymize

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/column"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// SchemaDeadLetter names the form of the dead letters of this stage. A letter is
// sealed for the holder of the key that opens `raw`, with topic, schema and
// partition as associated data, and holds the whole message, so that it can be
// delivered again after a fix:
//
//	version (1) · number of headers (uvarint) · headers · value
//
// where a header is key and value, each a uvarint length and bytes.
const SchemaDeadLetter = "dead-letter.v1"

// Headers of a dead letter: where the message came from, and why it stopped.
const (
	HeaderTopic     = "topic"
	HeaderPartition = "partition" // int64
	HeaderOffset    = "offset"    // int64
	HeaderStage     = "stage"
	HeaderReason    = "reason"
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

const letterVersion = 1

func appendLetter(dst []byte, m *stream.Message) []byte {
	dst = append(dst, letterVersion)
	dst = binary.AppendUvarint(dst, uint64(len(m.Headers)))
	for _, h := range m.Headers {
		dst = append(binary.AppendUvarint(dst, uint64(len(h.Key))), h.Key...)
		dst = append(binary.AppendUvarint(dst, uint64(len(h.Value))), h.Value...)
	}
	return append(dst, m.Value...)
}

// OpenDeadLetter returns the message that a dead letter of this stage holds,
// with the offset that it had.
func OpenDeadLetter(opener *seal.Opener, topic string, partition int, letter *stream.Message) (stream.Message, error) {
	plain, err := opener.Open(nil, letter.Value, seal.AppendContext(nil, topic, SchemaDeadLetter, partition))
	if err != nil {
		return stream.Message{}, fmt.Errorf("open dead letter at offset %d: %w", letter.Offset, err)
	}
	m, err := readLetter(plain)
	if err != nil {
		return stream.Message{}, fmt.Errorf("read dead letter at offset %d: %w", letter.Offset, err)
	}
	if m.Offset, err = letter.Int64(HeaderOffset); err != nil {
		return stream.Message{}, fmt.Errorf("read dead letter at offset %d: %w", letter.Offset, err)
	}
	return m, nil
}

var errLetter = errors.New("malformed dead letter")

func readLetter(plain []byte) (stream.Message, error) {
	var m stream.Message
	if len(plain) == 0 || plain[0] != letterVersion {
		return m, fmt.Errorf("%w: unknown version", errLetter)
	}
	headers, n := binary.Uvarint(plain[1:])
	if n <= 0 || headers > uint64(len(plain)) {
		return m, fmt.Errorf("%w: number of headers", errLetter)
	}
	plain = plain[1+n:]
	for range headers {
		var parts [2][]byte
		for i := range parts {
			length, n := binary.Uvarint(plain)
			if n <= 0 || length > uint64(len(plain)-n) {
				return m, fmt.Errorf("%w: length of a header", errLetter)
			}
			parts[i], plain = plain[n:n+int(length)], plain[n+int(length):]
		}
		m.Headers = append(m.Headers, stream.Header{Key: string(parts[0]), Value: parts[1]})
	}
	m.Value = plain
	return m, nil
}

// bury seals a message into the dead letters. A repeat after a crash leaves two
// letters with the same origin.
func (w *worker) bury(ctx context.Context, m *stream.Message, why *poison) error {
	s := w.stage
	plain := appendLetter(nil, m)
	sealed := s.letters.Seal(nil, plain, seal.AppendContext(nil, s.config.Topics.DeadLetters, SchemaDeadLetter, w.partition))
	clear(plain)
	_, err := s.config.Client.Produce(ctx, s.config.Topics.DeadLetters, w.partition, stream.Message{Value: sealed, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(SchemaDeadLetter)},
		{Key: HeaderTopic, Value: []byte(s.config.Topics.Raw)},
		stream.Int64Header(HeaderPartition, int64(w.partition)),
		stream.Int64Header(HeaderOffset, m.Offset),
		{Key: HeaderStage, Value: []byte(stageName)},
		{Key: HeaderReason, Value: []byte(why.reason)},
	}})
	if err != nil {
		return fmt.Errorf("write dead letter: %w", err)
	}
	s.counters.deadLetters.Add(1)
	s.config.Logger.ErrorContext(ctx, "message became a dead letter", "topic", s.config.Topics.Raw, "partition", w.partition,
		"offset", m.Offset, "reason", why.reason)
	return nil
}
