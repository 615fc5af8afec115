package deadletter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// State is what became of a letter. It only moves on.
type State uint8

// The states, in their order.
const (
	Waiting   State = iota
	Replaying       // it is about to be delivered again, or was, and nobody has noted it yet
	Replayed
	Purged // given up: its bytes are gone, or go as soon as those before them may
)

// String returns the name of the state.
func (s State) String() string {
	switch s {
	case Waiting:
		return "waiting"
	case Replaying:
		return "replaying"
	case Replayed:
		return "replayed"
	case Purged:
		return "purged"
	}
	return "unknown"
}

// Entry is what the index knows of a letter. Nothing in it is from a record.
type Entry struct {
	LetterPartition int   // partition of the topic of dead letters
	LetterOffset    int64 // offset in it
	Topic           string
	Partition       int
	Offset          int64 // of the message in Topic
	Stage           string
	Reason          string
	Bytes           int       // size of the sealed letter
	WrittenAt       time.Time // when it was entered in the index; set by the index
	State           State
	ReplayOffset    int64 // in `raw`: from where on a replay may stand (Replaying), where it stands (Replayed); else -1
}

// Index keeps the entries. Entering one again that has moved on changes nothing.
type Index interface {
	ListDeadLetters(ctx context.Context, see func(Entry) error) error
	// IndexDeadLetters returns when the entries are durable.
	IndexDeadLetters(ctx context.Context, entries []Entry) error
}

// Errors of a replay.
var (
	// ErrGone reports a letter, or the message to deliver, that is no longer there.
	ErrGone = errors.New("no longer there")
	// ErrSettled reports a letter that was replayed or purged before.
	ErrSettled = errors.New("was replayed or purged before")
	// ErrNoOrigin reports a letter that does not say what it was made of.
	ErrNoOrigin = errors.New("does not say which message it was made of")
)

// HeaderReplayOf marks a message of `raw` that a replay wrote: partition and
// offset of the letter, 8 bytes each.
const HeaderReplayOf = "replay-of"

// Desk is where letters are looked after. Only one may replay at a time.
type Desk struct {
	Client *stream.Client
	Topics stream.Topics
	Index  Index
	Opener *seal.Opener // nil: letters stay sealed and can't be replayed

	crash func(step string) error // nil outside of tests; an error is where the process dies
}

func (d *Desk) passed(step string) error {
	if d.crash == nil {
		return nil
	}
	return d.crash(step)
}

// Open returns the message in a letter.
func (d *Desk) Open(ctx context.Context, e *Entry) (stream.Message, error) {
	letter, err := d.fetch(ctx, d.Topics.DeadLetters, e.LetterPartition, e.LetterOffset)
	if err != nil {
		return stream.Message{}, err
	}
	return Open(d.Opener, d.Topics.DeadLetters, e.LetterPartition, &letter)
}

// fetch reads one message.
func (d *Desk) fetch(ctx context.Context, topic string, partition int, offset int64) (stream.Message, error) {
	first, end, err := d.Client.Offsets(ctx, topic, partition)
	if err != nil {
		return stream.Message{}, err
	}
	if offset < first || offset >= end {
		return stream.Message{}, fmt.Errorf("message at %s/%d offset %d: %w", topic, partition, offset, ErrGone)
	}
	var batch stream.Batch
	if err := d.Client.Fetch(ctx, topic, partition, offset, 5*time.Second, &batch); err != nil {
		return stream.Message{}, err
	}
	if len(batch.Messages) == 0 || batch.Messages[0].Offset != offset {
		return stream.Message{}, fmt.Errorf("message at %s/%d offset %d: %w", topic, partition, offset, ErrGone)
	}
	return batch.Messages[0], nil
}

// Replay delivers the message of a letter again and marks the letter. The
// message goes to `raw`, the beginning of the way: a message of `raw` as it was,
// one of `answers` as the message of `raw` that it was made of. So everything
// behind follows as for any delivery, and what was stored of it before is
// recognised by the ids of its events.
//
// It is written once: where it may stand is noted before it is written, and a
// replay that was interrupted is looked for there first.
func (d *Desk) Replay(ctx context.Context, e Entry) error {
	if e.State >= Replayed {
		return fmt.Errorf("replay letter %d/%d: %w", e.LetterPartition, e.LetterOffset, ErrSettled)
	}
	if err := d.replay(ctx, &e); err != nil {
		return fmt.Errorf("replay letter %d/%d: %w", e.LetterPartition, e.LetterOffset, err)
	}
	return nil
}

func (d *Desk) replay(ctx context.Context, e *Entry) error {
	partition, message, err := d.origin(ctx, e)
	if err != nil {
		return err
	}
	if e.State == Waiting {
		if _, e.ReplayOffset, err = d.Client.Offsets(ctx, d.Topics.Raw, partition); err != nil {
			return err
		}
		e.State = Replaying
		if err := d.Index.IndexDeadLetters(ctx, []Entry{*e}); err != nil {
			return err
		}
	}
	if err := d.passed("place noted"); err != nil {
		return err
	}
	mark := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(e.LetterPartition)), uint64(e.LetterOffset))
	offset, found, err := d.find(ctx, partition, e.ReplayOffset, mark)
	if err != nil {
		return err
	}
	if !found {
		// A letter may hold a replay that failed again.
		message.Headers = slices.DeleteFunc(message.Headers, func(h stream.Header) bool { return h.Key == HeaderReplayOf })
		message.Headers = append(message.Headers, stream.Header{Key: HeaderReplayOf, Value: mark})
		if offset, err = d.Client.Produce(ctx, d.Topics.Raw, partition, message); err != nil {
			return err
		}
	}
	if err := d.passed("delivered"); err != nil {
		return err
	}
	e.State, e.ReplayOffset = Replayed, offset
	return d.Index.IndexDeadLetters(ctx, []Entry{*e})
}

// origin returns the message of `raw` that a letter goes back to.
func (d *Desk) origin(ctx context.Context, e *Entry) (partition int, message stream.Message, err error) {
	if message, err = d.Open(ctx, e); err != nil {
		return 0, message, err
	}
	if e.Partition < 0 {
		return 0, message, ErrNoOrigin
	}
	switch e.Topic {
	case d.Topics.Raw:
		return e.Partition, message, nil
	case d.Topics.Answers:
		offset, err := message.Int64(stream.HeaderRawOffset)
		if err != nil || offset < 0 {
			return 0, message, ErrNoOrigin
		}
		message, err = d.fetch(ctx, d.Topics.Raw, e.Partition, offset)
		return e.Partition, message, err
	}
	return 0, message, fmt.Errorf("%w: letters from topic %s are not delivered again", ErrNoOrigin, e.Topic)
}

// find looks in `raw` for the message that replays a letter.
func (d *Desk) find(ctx context.Context, partition int, from int64, mark []byte) (offset int64, found bool, err error) {
	first, end, err := d.Client.Offsets(ctx, d.Topics.Raw, partition)
	if err != nil {
		return 0, false, err
	}
	var batch stream.Batch
	for next := max(first, from); next < end; {
		if err := d.Client.Fetch(ctx, d.Topics.Raw, partition, next, 5*time.Second, &batch); err != nil {
			return 0, false, err
		}
		for i := range batch.Messages {
			m := &batch.Messages[i]
			if bytes.Equal(m.Header(HeaderReplayOf), mark) {
				return m.Offset, true, nil
			}
			next = m.Offset + 1
		}
		if ctx.Err() != nil {
			return 0, false, context.Cause(ctx)
		}
	}
	return 0, false, nil
}

// Purge gives letters up. Their bytes leave the topic as soon as every letter
// before them in their partition is purged too; remaining says how many of the
// purged ones still wait for that.
func (d *Desk) Purge(ctx context.Context, purge []Entry) (remaining int, err error) {
	for i := range purge {
		purge[i].State = Purged
	}
	if err := d.Index.IndexDeadLetters(ctx, purge); err != nil {
		return 0, fmt.Errorf("purge dead letters: %w", err)
	}
	if err := d.passed("purge noted"); err != nil {
		return 0, err
	}
	var all []Entry
	err = d.Index.ListDeadLetters(ctx, func(e Entry) error { all = append(all, e); return nil })
	if err != nil {
		return 0, fmt.Errorf("purge dead letters: %w", err)
	}
	bounds := purgeBounds(all)
	for partition, before := range bounds {
		first, _, err := d.Client.Offsets(ctx, d.Topics.DeadLetters, partition)
		if err == nil && before > first {
			err = d.Client.DeleteRecords(ctx, d.Topics.DeadLetters, partition, before)
		}
		if err != nil {
			return 0, fmt.Errorf("purge dead letters: %w", err)
		}
	}
	for i := range all {
		if all[i].State == Purged && all[i].LetterOffset >= bounds[all[i].LetterPartition] {
			remaining++
		}
	}
	return remaining, nil
}

// purgeBounds returns, per partition of the letters, the offset below which all
// letters are purged. What the index does not know yet is beyond it.
func purgeBounds(all []Entry) map[int]int64 {
	bounds := make(map[int]int64)
	for i := range all {
		p := all[i].LetterPartition
		bounds[p] = max(bounds[p], all[i].LetterOffset+1)
	}
	for i := range all {
		if e := &all[i]; e.State != Purged {
			bounds[e.LetterPartition] = min(bounds[e.LetterPartition], e.LetterOffset)
		}
	}
	return bounds
}
