package transform

import (
	"context"
	"fmt"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// Headers of messages of `skills`.
const (
	// HeaderExpected is the offset at which its writer expected a message to land.
	HeaderExpected = "expected-offset"
	// HeaderRemaining tells how many further messages with the same raw offset
	// follow; absence means none. Only what would be too large is split.
	HeaderRemaining = "remaining"
)

// Stands tells whether a message of `skills` counts. It does when it landed where
// its writer expected it: then the writer knew everything before it. One that
// landed elsewhere is the second attempt of a retry, or comes from a worker that
// had lost the partition and may have computed it from a state that no longer
// holds. All readers must drop it. So appending to the log is a compare-and-swap,
// without a coordinator.
func Stands(m *stream.Message) (bool, error) {
	expected, err := m.Int64(HeaderExpected)
	return expected == m.Offset, err
}

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

// lost are the versions that an interrupted checkpoint was computed with. After a
// loss of power the log of `skills`, which is not synced, may not have them; what
// is in the store of that checkpoint must not be mixed with another choice.
type lost struct {
	any       bool
	until     answer.Position // the newest that anything in the store reflects
	first     uint64          // version in use at the durable position
	adoptions []Adoption
}

func lostVersions(restored *Restored) lost {
	l := lost{until: restored.Position, first: restored.SnapshotVersion, adoptions: restored.Adoptions}
	see := func(position answer.Position) {
		if position > restored.Position || restored.RawOffset < 0 {
			l.any, l.until = true, max(l.until, position)
		}
	}
	for _, a := range restored.Adoptions {
		see(a.Position)
	}
	for _, position := range restored.Sums.Position {
		see(position)
	}
	for _, position := range restored.Skills.Position {
		see(position)
	}
	return l
}

// version returns the version that a message after the durable position was
// applied with, when the store has anything of it. Between adoptions that it has
// and those that it never got, any choice is as good.
func (l *lost) version(rawOffset int64) (version uint64, known bool) {
	position := answer.At(rawOffset, 0)
	if !l.any || position > l.until {
		return 0, false
	}
	version = l.first
	for _, a := range l.adoptions {
		if a.Position <= position {
			version = a.Version
		}
	}
	return version, true
}

// SkillsFrom returns the offset of `skills` to read a partition from after its
// durable state was restored, and where the log ends. Messages before it say
// nothing that is newer.
//
// It is what follows the offset in the state. But `skills` is not synced: after a
// loss of power the log may end before that offset, and go on from there with
// messages that are newer than the state. Then it is further back.
func SkillsFrom(ctx context.Context, client *stream.Client, topic string, partition int, restored *Restored) (from, end int64, err error) {
	first, end, err := client.Offsets(ctx, topic, partition)
	if err != nil {
		return 0, 0, err
	}
	from = max(first, min(restored.SkillsOffset+1, end))
	var batch stream.Batch
	for step := int64(1); from > first; step *= 2 {
		if err := client.Fetch(ctx, topic, partition, from-1, 5*time.Second, &batch); err != nil {
			return 0, 0, err
		}
		if len(batch.Messages) == 0 {
			return 0, 0, fmt.Errorf("read %s/%d: nothing at offset %d, before the end", topic, partition, from-1)
		}
		rawOffset, err := batch.Messages[0].Int64(stream.HeaderRawOffset)
		if err != nil {
			return 0, 0, err
		}
		if rawOffset <= restored.RawOffset {
			break
		}
		from = max(first, from-step)
	}
	return from, end, nil
}

// readSkills reads the messages of `skills` after the durable state.
func (r *run) readSkills(ctx context.Context, restored *Restored) error {
	topic := r.config.Topics.Skills
	next, end, err := SkillsFrom(ctx, r.config.Client, topic, r.partition, restored)
	if err != nil {
		return err
	}
	if end <= r.skillsOffset {
		r.config.Logger.WarnContext(ctx, "the log ends before what the store has of it: power was lost or the topic made anew; going on from the store",
			"topic", topic, "partition", r.partition, "end", end, "stored", r.skillsOffset)
		r.skillsOffset = end - 1
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
	if stands, err := Stands(m); err != nil || !stands {
		return err
	}
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
		{}, // expected offset
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

// send writes one request, again until it stands or somebody else is at work.
func (r *run) send(ctx context.Context, messages []stream.Message) error {
	topic, count := r.config.Topics.Skills, int64(len(messages))
	for {
		for i := range messages {
			messages[i].Headers[0] = stream.Int64Header(HeaderExpected, r.skillsNext+int64(i))
		}
		base, err := r.config.Client.Produce(ctx, topic, r.partition, messages...)
		if err != nil {
			return err
		}
		expected := r.skillsNext
		stands := base == expected
		if !stands {
			if stands, err = r.inspect(ctx, base, messages); err != nil {
				return fmt.Errorf("produce to %s/%d: offset %d instead of %d: %w", topic, r.partition, base, expected, err)
			}
		}
		r.skillsNext = base + count
		if stands {
			r.skillsOffset = expected + count - 1
			return nil
		}
	}
}

// inspect reads what lies between the expected offset and base. It tells whether
// the messages stand there: written by the first attempt of a retry, or by
// another worker that knew and did the very same. Anything else that stands
// means that the partition is no longer ours. What doesn't stand is in nobody's
// way, and the messages have to be sent again.
func (r *run) inspect(ctx context.Context, base int64, messages []stream.Message) (stand bool, err error) {
	if base < r.skillsNext {
		return false, fmt.Errorf("the topic was made anew: %w", errOvertaken)
	}
	found := 0
	var batch stream.Batch
	for next := r.skillsNext; next < base; {
		if err := r.config.Client.Fetch(ctx, r.config.Topics.Skills, r.partition, next, 5*time.Second, &batch); err != nil {
			return false, err
		}
		for i := range batch.Messages {
			m := &batch.Messages[i]
			if next = m.Offset + 1; m.Offset >= base {
				break
			}
			stands, err := Stands(m)
			if err != nil {
				return false, err
			}
			if !stands {
				continue
			}
			place := m.Offset - r.skillsNext
			if place >= int64(len(messages)) || !sameMessage(&messages[place], m) {
				return false, errOvertaken
			}
			found++
		}
	}
	if found > 0 && found < len(messages) {
		return false, errOvertaken
	}
	return found > 0, nil
}

// sameMessage tells whether two messages say the same of the same raw offset.
func sameMessage(a, b *stream.Message) bool {
	for _, key := range []string{stream.HeaderRawOffset, stream.HeaderDigest, stream.HeaderSnapshot, HeaderRemaining} {
		if string(a.Header(key)) != string(b.Header(key)) {
			return false
		}
	}
	return true
}
