package transform

import (
	"context"
	"fmt"
	"time"

	"github.com/leerstroom/leerstroom/internal/stream"
)

// HeaderRemaining tells how many further messages of `skills` with the same raw
// offset follow; 0 and absence mean none. Only a message that would be too large
// is split.
const HeaderRemaining = "remaining"

// requestBytes is how many bytes of values go into one produce request, unless
// one alone is larger.
const requestBytes = 4 << 20

// recorded is what the log of `skills` says about a message of `answers`.
type recorded struct {
	rawOffset int64
	version   uint64
	offset    int64
	digest    uint64
	complete  bool // all its messages are there
}

// readSkills reads the messages of `skills` after the durable state. Of several
// for a raw offset the first counts, as for every reader.
func (r *run) readSkills(ctx context.Context) error {
	topic := r.config.Topics.Skills
	first, end, err := r.config.Client.Offsets(ctx, topic, r.partition)
	if err != nil {
		return err
	}
	next := max(first, r.skillsOffset+1)
	if next > end {
		return fmt.Errorf("read %s/%d: the store has offset %d, the log ends at %d: the topic was made anew", topic, r.partition, r.skillsOffset, end)
	}
	var batch stream.Batch
	for next < end {
		if err := r.config.Client.Fetch(ctx, topic, r.partition, next, 5*time.Second, &batch); err != nil {
			return err
		}
		for i := range batch.Messages {
			if err := r.record(&batch.Messages[i]); err != nil {
				return err
			}
			next = batch.Messages[i].Offset + 1
		}
	}
	r.skillsNext = next
	return nil
}

func (r *run) record(m *stream.Message) error {
	rawOffset, err := m.Int64(stream.HeaderRawOffset)
	if err != nil {
		return err
	}
	version, err := m.Int64(stream.HeaderSnapshot)
	if err != nil {
		return err
	}
	digest, err := m.Int64(stream.HeaderDigest)
	if err != nil {
		return err
	}
	remaining, err := remainingOf(m)
	if err != nil {
		return err
	}
	last := r.mark
	if n := len(r.recorded); n > 0 {
		if newest := &r.recorded[n-1]; newest.rawOffset == rawOffset && !newest.complete {
			newest.complete, newest.offset = remaining == 0, m.Offset
			return nil
		}
		last = r.recorded[n-1].rawOffset
	}
	if rawOffset > last {
		r.recorded = append(r.recorded, recorded{rawOffset: rawOffset, version: uint64(version), offset: m.Offset,
			digest: uint64(digest), complete: remaining == 0})
	}
	return nil
}

func remainingOf(m *stream.Message) (int64, error) {
	if m.Header(HeaderRemaining) == nil {
		return 0, nil
	}
	return m.Int64(HeaderRemaining)
}

// produce writes messages of `skills`, in as few requests as their size allows.
func (r *run) produce(ctx context.Context, w *workspace, produced []outgoing) error {
	for first := 0; first < len(produced); {
		end, bytes := first, 0
		for end < len(produced) && (end == first || bytes+produced[end].end-produced[end].begin <= requestBytes) {
			bytes += produced[end].end - produced[end].begin
			end++
		}
		messages := make([]stream.Message, 0, end-first)
		for _, o := range produced[first:end] {
			messages = append(messages, o.message(w.out))
		}
		if err := r.send(ctx, messages); err != nil {
			return err
		}
		first = end
	}
	return nil
}

func (o *outgoing) message(out []byte) stream.Message {
	value := out[o.begin:o.end]
	m := stream.Message{Value: value, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(SchemaSkills)},
		stream.Int64Header(stream.HeaderRawOffset, o.unit.rawOffset),
		stream.Int64Header(stream.HeaderSnapshot, int64(o.unit.snapshot.Version())),
		stream.DigestHeader(value),
	}}
	if o.remaining > 0 {
		m.Headers = append(m.Headers, stream.Int64Header(HeaderRemaining, o.remaining))
	}
	return m
}

// send writes one request and makes sure that nobody else wrote in between. What
// is written after a raw offset was passed is dropped by every reader; a copy of
// these very messages is the first attempt of a retry.
func (r *run) send(ctx context.Context, messages []stream.Message) error {
	topic := r.config.Topics.Skills
	base, err := r.config.Client.Produce(ctx, topic, r.partition, messages...)
	if err != nil {
		return err
	}
	if base != r.skillsNext {
		if err := r.inspect(ctx, base, messages); err != nil {
			return fmt.Errorf("produce to %s/%d: offset %d instead of %d: %w", topic, r.partition, base, r.skillsNext, err)
		}
	}
	r.skillsNext = base + int64(len(messages))
	r.skillsOffset = r.skillsNext - 1
	return nil
}

// inspect reads what others wrote before the messages at base.
func (r *run) inspect(ctx context.Context, base int64, messages []stream.Message) error {
	if base < r.skillsNext {
		return fmt.Errorf("the topic was made anew: %w", errOvertaken)
	}
	ours := make(map[[2]int64]*stream.Message, len(messages))
	oldest, err := messages[0].Int64(stream.HeaderRawOffset)
	if err != nil {
		return err
	}
	for i := range messages {
		key, err := placeOf(&messages[i])
		if err != nil {
			return err
		}
		ours[key] = &messages[i]
	}
	var batch stream.Batch
	for next := r.skillsNext; next < base; {
		if err := r.config.Client.Fetch(ctx, r.config.Topics.Skills, r.partition, next, 5*time.Second, &batch); err != nil {
			return err
		}
		for i := range batch.Messages {
			m := &batch.Messages[i]
			if next = m.Offset + 1; m.Offset >= base {
				break
			}
			key, err := placeOf(m)
			if err != nil {
				return err
			}
			if key[0] >= oldest && !sameMessage(ours[key], m) {
				return errOvertaken
			}
		}
	}
	return nil
}

// placeOf returns the raw offset and the number of messages that remain for it.
func placeOf(m *stream.Message) (place [2]int64, err error) {
	if place[0], err = m.Int64(stream.HeaderRawOffset); err != nil {
		return place, err
	}
	place[1], err = remainingOf(m)
	return place, err
}

// sameMessage tells whether b repeats a, by digest and snapshot.
func sameMessage(a, b *stream.Message) bool {
	if a == nil {
		return false
	}
	for _, key := range []string{stream.HeaderDigest, stream.HeaderSnapshot} {
		if string(a.Header(key)) != string(b.Header(key)) {
			return false
		}
	}
	return true
}
