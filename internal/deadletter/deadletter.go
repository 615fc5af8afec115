// Package deadletter keeps what a stage can't use: the whole message, sealed for
// the operator's key, with the reason and the place it came from in headers, so
// that it can be counted without opening it and delivered again after a fix.
//
// The sealed content is
//
//	version (1 byte) · number of headers (uvarint) · headers · value
//
// where a header is key and value, each a uvarint length and bytes. Topic,
// schema and partition of the letter are bound to the seal.
//
// Invariants:
//   - No header of a letter holds anything from a record.
//   - A letter is replayed once: a message of `raw` that a replay wrote names its
//     letter, and where it may stand is durable before it is written.
//   - A repeat after a crash leaves two letters with the same origin, which
//     readers recognise by topic, partition and offset.
package deadletter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// Schema names the form of a letter.
const Schema = "dead-letter.v1"

// Headers of a letter: where the message came from, and why it stopped.
const (
	HeaderTopic     = "topic"
	HeaderPartition = "partition" // int64
	HeaderOffset    = "offset"    // int64
	HeaderStage     = "stage"
	HeaderReason    = "reason"
)

// ErrMalformed reports an opened letter that is not in the form above.
var ErrMalformed = errors.New("malformed dead letter")

// Writer writes letters. It is safe for concurrent use.
type Writer struct {
	Client *stream.Client
	Topic  string // the topic of dead letters
	Sealer *seal.Sealer
	Stage  string // name of the stage that gives up
	// Written counts letters by stage and reason; nil counts nothing.
	Written *prometheus.CounterVec
}

// NewCounter makes and registers the counter of letters that all writers of a
// process share.
func NewCounter(registry prometheus.Registerer) (*prometheus.CounterVec, error) {
	written := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "leerstroom_dead_letters_total",
		Help: "Messages that no stage could use, sealed into the dead letters."}, []string{"stage", "reason"})
	if err := registry.Register(written); err != nil {
		return nil, fmt.Errorf("register metric: %w", err)
	}
	return written, nil
}

// Write returns when the letter of a message is durable. Origin is the topic
// that the message was read from.
func (w *Writer) Write(ctx context.Context, origin string, partition int, reason string, m *stream.Message) error {
	plain := appendContent(nil, m)
	sealed := w.Sealer.Seal(nil, plain, seal.AppendContext(nil, w.Topic, Schema, partition))
	clear(plain)
	_, err := w.Client.Produce(ctx, w.Topic, partition, stream.Message{Value: sealed, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(Schema)},
		{Key: HeaderTopic, Value: []byte(origin)},
		stream.Int64Header(HeaderPartition, int64(partition)),
		stream.Int64Header(HeaderOffset, m.Offset),
		{Key: HeaderStage, Value: []byte(w.Stage)},
		{Key: HeaderReason, Value: []byte(reason)},
	}})
	if err != nil {
		return fmt.Errorf("write dead letter of %s/%d offset %d: %w", origin, partition, m.Offset, err)
	}
	if w.Written != nil {
		w.Written.WithLabelValues(w.Stage, reason).Inc()
	}
	return nil
}

const version = 1

func appendContent(dst []byte, m *stream.Message) []byte {
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, uint64(len(m.Headers)))
	for _, h := range m.Headers {
		dst = append(binary.AppendUvarint(dst, uint64(len(h.Key))), h.Key...)
		dst = append(binary.AppendUvarint(dst, uint64(len(h.Value))), h.Value...)
	}
	return append(dst, m.Value...)
}

// Open returns the message that a letter holds, with the offset that it had.
func Open(opener *seal.Opener, topic string, partition int, letter *stream.Message) (stream.Message, error) {
	plain, err := opener.Open(nil, letter.Value, seal.AppendContext(nil, topic, Schema, partition))
	if err != nil {
		return stream.Message{}, fmt.Errorf("open dead letter at offset %d: %w", letter.Offset, err)
	}
	m, err := parse(plain)
	if err != nil {
		return stream.Message{}, fmt.Errorf("read dead letter at offset %d: %w", letter.Offset, err)
	}
	if m.Offset, err = letter.Int64(HeaderOffset); err != nil {
		return stream.Message{}, fmt.Errorf("read dead letter at offset %d: %w", letter.Offset, err)
	}
	return m, nil
}

func parse(plain []byte) (stream.Message, error) {
	var m stream.Message
	if len(plain) == 0 || plain[0] != version {
		return m, fmt.Errorf("%w: unknown version", ErrMalformed)
	}
	headers, n := binary.Uvarint(plain[1:])
	if n <= 0 || headers > uint64(len(plain)) {
		return m, fmt.Errorf("%w: number of headers", ErrMalformed)
	}
	plain = plain[1+n:]
	for range headers {
		var parts [2][]byte
		for i := range parts {
			length, n := binary.Uvarint(plain)
			if n <= 0 || length > uint64(len(plain)-n) {
				return m, fmt.Errorf("%w: length of a header", ErrMalformed)
			}
			parts[i], plain = plain[n:n+int(length)], plain[n+int(length):]
		}
		m.Headers = append(m.Headers, stream.Header{Key: string(parts[0]), Value: parts[1]})
	}
	m.Value = plain
	return m, nil
}
