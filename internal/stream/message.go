// Package stream is the delivery between stages over Kafka: a client that
// produces with acknowledgement of all replicas and fetches with checksums, a
// consumer that gives each assigned partition to one Handler, and a tail that
// follows a topic without a group.
//
// Invariants:
//   - Produce returns only after all in-sync replicas have the messages. A retry
//     may write them twice; readers recognise repeats by the header raw-offset.
//   - A handler sees the messages of its partition in order, in one goroutine at
//     a time, from the offset that its Start returned, without a gap.
//   - An offset is committed only after the handler has called Commit for it;
//     commits of a partition never move backwards within a generation.
//   - Bytes of a fetched message are valid until Handle returns.
//   - Message size, fetch size and the number of handlers at work are bounded.
//
// It is the only place, beside the engines and the benchmarks, that knows
// kafka-go.
package stream

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Headers of messages.
const (
	HeaderSchema    = "schema"     // name of the schema, with version
	HeaderRawOffset = "raw-offset" // int64: offset of the message in `raw` that this one was made of
	HeaderKeyEpoch  = "key-epoch"  // int64: epoch of the key that made the tokens
	HeaderSnapshot  = "snapshot"   // int64: version of the item snapshot that was used
	HeaderDigest    = "digest"     // xxHash64 of the value
	HeaderRows      = "rows"       // int64: number of rows in the message
)

// ErrDigest reports a value that differs from its digest header.
var ErrDigest = errors.New("message differs from its digest")

// Header is one header of a message.
type Header struct {
	Key   string
	Value []byte
}

// Int64Header makes a header of a big-endian integer.
func Int64Header(key string, value int64) Header {
	return Header{Key: key, Value: binary.BigEndian.AppendUint64(nil, uint64(value))}
}

// DigestHeader makes the digest header of a value.
func DigestHeader(value []byte) Header {
	return Int64Header(HeaderDigest, int64(xxhash.Sum64(value)))
}

// Message is one Kafka message. Its partition is known from the context.
type Message struct {
	Offset  int64
	Value   []byte
	Headers []Header
}

// Header returns the value of a header, or nil.
func (m *Message) Header(key string) []byte {
	for i := range m.Headers {
		if m.Headers[i].Key == key {
			return m.Headers[i].Value
		}
	}
	return nil
}

// Int64 returns an integer header.
func (m *Message) Int64(key string) (int64, error) {
	value := m.Header(key)
	if len(value) != 8 {
		return 0, fmt.Errorf("read header %s at offset %d: want 8 bytes, got %d", key, m.Offset, len(value))
	}
	return int64(binary.BigEndian.Uint64(value)), nil
}

// CheckNext reports an offset that is not the one that a log without gaps has next:
// messages are gone, or two stand at one offset. Apache Kafka may write two
// when its disk is full: it fails a request after having written its message, and
// gives the offset to the next one.
func CheckNext(offset, next int64) error {
	switch {
	case offset > next:
		return fmt.Errorf("offset %d follows %d: messages between them are gone", offset, next-1)
	case offset < next:
		return fmt.Errorf("offset %d follows %d: the log holds two messages at one offset, as a broker may write whose disk was full; restore the topic", offset, next-1)
	}
	return nil
}

// CheckDigest compares the value with its digest header. Arrow decoders must
// only see values that passed it.
func (m *Message) CheckDigest() error {
	want, err := m.Int64(HeaderDigest)
	if err != nil {
		return err
	}
	if uint64(want) != xxhash.Sum64(m.Value) {
		return fmt.Errorf("check offset %d: %w", m.Offset, ErrDigest)
	}
	return nil
}

// Topics are the names of the topics of a deployment.
type Topics struct {
	Raw, Answers, Registry, Skills, ItemSums, Items, DeadLetters string
}

// NewTopics returns the names under a prefix, which lets several deployments
// share one Kafka.
func NewTopics(prefix string) Topics {
	return Topics{
		Raw:         prefix + "raw",
		Answers:     prefix + "answers",
		Registry:    prefix + "registry",
		Skills:      prefix + "skills",
		ItemSums:    prefix + "item-sums",
		Items:       prefix + "items",
		DeadLetters: prefix + "deadletters",
	}
}
