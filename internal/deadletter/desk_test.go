package deadletter_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leerstroom/leerstroom/internal/deadletter"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// office is a Kafka with the topics around dead letters, and an index in memory:
// that in ClickHouse is tested where it is.
type office struct {
	t       *testing.T
	client  *stream.Client
	topics  stream.Topics
	key     *seal.PrivateKey
	entries []deadletter.Entry
	metrics *prometheus.Registry
	written *prometheus.CounterVec
}

const offices = 2 // partitions

func newOffice(t *testing.T) *office {
	t.Helper()
	brokers := enginetest.Kafka(t)
	client, err := stream.NewClient(stream.Config{Brokers: brokers})
	must(t, err)
	t.Cleanup(client.Close)
	o := &office{t: t, client: client, topics: stream.NewTopics(enginetest.UniqueName("letters") + "-")}
	for _, name := range []*string{&o.topics.Raw, &o.topics.Answers, &o.topics.DeadLetters} {
		*name = enginetest.Topic(t, brokers, "letters", offices)
	}
	o.key, err = seal.GenerateKey()
	must(t, err)
	o.metrics = prometheus.NewRegistry()
	o.written, err = deadletter.NewCounter(o.metrics)
	must(t, err)
	return o
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ListDeadLetters implements deadletter.Index.
func (o *office) ListDeadLetters(_ context.Context, see func(deadletter.Entry) error) error {
	for _, e := range o.entries {
		if err := see(e); err != nil {
			return err
		}
	}
	return nil
}

// IndexDeadLetters implements deadletter.Index.
func (o *office) IndexDeadLetters(_ context.Context, entries []deadletter.Entry) error {
	for _, e := range entries {
		at := slices.IndexFunc(o.entries, func(x deadletter.Entry) bool {
			return x.LetterPartition == e.LetterPartition && x.LetterOffset == e.LetterOffset
		})
		switch {
		case at < 0:
			o.entries = append(o.entries, e)
		case e.State >= o.entries[at].State:
			o.entries[at] = e
		}
	}
	return nil
}

func (o *office) desk() *deadletter.Desk {
	opener, err := seal.NewOpener(o.key)
	must(o.t, err)
	return &deadletter.Desk{Client: o.client, Topics: o.topics, Index: o, Opener: opener}
}

// bury produces a message to a topic and makes it a dead letter.
func (o *office) bury(topic string, partition int, reason string, m stream.Message) deadletter.Entry {
	o.t.Helper()
	var err error
	m.Offset, err = o.client.Produce(o.t.Context(), topic, partition, m)
	must(o.t, err)
	_, at, err := o.client.Offsets(o.t.Context(), o.topics.DeadLetters, partition)
	must(o.t, err)
	sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: o.key.Public()})
	must(o.t, err)
	w := &deadletter.Writer{Client: o.client, Topic: o.topics.DeadLetters, Sealer: sealer, Stage: "stage", Written: o.written}
	must(o.t, w.Write(o.t.Context(), topic, partition, reason, &m))
	e := deadletter.Entry{LetterPartition: partition, LetterOffset: at, Topic: topic, Partition: partition, Offset: m.Offset, Stage: "stage", Reason: reason, ReplayOffset: -1}
	must(o.t, o.IndexDeadLetters(o.t.Context(), []deadletter.Entry{e}))
	return e
}

// raw reads a partition of raw.
func (o *office) raw(partition int) []stream.Message {
	o.t.Helper()
	first, end, err := o.client.Offsets(o.t.Context(), o.topics.Raw, partition)
	must(o.t, err)
	var all []stream.Message
	for next := first; next < end; {
		var batch stream.Batch
		must(o.t, o.client.Fetch(o.t.Context(), o.topics.Raw, partition, next, time.Second, &batch))
		for _, m := range batch.Messages {
			all, next = append(all, m), m.Offset+1
		}
	}
	return all
}

func (o *office) entry(of deadletter.Entry) deadletter.Entry {
	for _, e := range o.entries {
		if e.LetterPartition == of.LetterPartition && e.LetterOffset == of.LetterOffset {
			return e
		}
	}
	o.t.Fatal("the entry is gone")
	return of
}

var errKilled = errors.New("killed")

// TestReplayOnce kills a replay after every step, also several times, and calls
// it again: the message stands in raw once more and not twice.
func TestReplayOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	steps := []string{"place noted", "delivered"}
	for _, kills := range [][]string{{}, steps[:1], steps[1:], steps, {steps[1], steps[1]}, {steps[0], steps[0], steps[1]}} {
		original := stream.Message{Value: []byte("sealed bytes"), Headers: []stream.Header{{Key: stream.HeaderSchema, Value: []byte("raw-answers.v1")}, stream.Int64Header(stream.HeaderRows, 3)}}
		letter := o.bury(o.topics.Raw, 1, "malformed", original)
		before := len(o.raw(1))
		for _, step := range kills {
			desk := o.desk()
			desk.SetCrash(func(passed string) error {
				if passed == step {
					return errKilled
				}
				return nil
			})
			if err := desk.Replay(t.Context(), o.entry(letter)); !errors.Is(err, errKilled) {
				t.Fatalf("killed after %q: %v", step, err)
			}
			// Somebody else's deliveries go on.
			_, err := o.client.Produce(t.Context(), o.topics.Raw, 1, stream.Message{Value: []byte("another")})
			must(t, err)
		}
		must(t, o.desk().Replay(t.Context(), o.entry(letter)))
		again := slices.DeleteFunc(o.raw(1)[before:], func(m stream.Message) bool { return string(m.Value) == "another" })
		if len(again) != 1 {
			t.Fatalf("kills %q: raw holds %d replays, want 1", kills, len(again))
		}
		m, e := &again[0], o.entry(letter)
		if !bytes.Equal(m.Value, original.Value) || string(m.Header(stream.HeaderSchema)) != "raw-answers.v1" || len(m.Headers) != 3 {
			t.Errorf("kills %q: the replay is another message", kills)
		}
		if e.State != deadletter.Replayed || e.ReplayOffset != m.Offset {
			t.Errorf("kills %q: entry is %s at %d, want replayed at %d", kills, e.State, e.ReplayOffset, m.Offset)
		}
		if err := o.desk().Replay(t.Context(), e); !errors.Is(err, deadletter.ErrSettled) {
			t.Errorf("replay of a replayed letter: %v, want %v", err, deadletter.ErrSettled)
		}
	}
	families, err := o.metrics.Gather()
	must(t, err)
	if len(families) != 1 || families[0].GetMetric()[0].GetCounter().GetValue() != 6 {
		t.Errorf("the metrics are %v, want 6 letters", families)
	}
}

// TestReplayOfAnswers makes a damaged message of answers anew from raw.
func TestReplayOfAnswers(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	rawOffset, err := o.client.Produce(t.Context(), o.topics.Raw, 0, stream.Message{Value: []byte("whole")})
	must(t, err)
	letter := o.bury(o.topics.Answers, 0, "digest", stream.Message{Value: []byte("damaged"), Headers: []stream.Header{stream.Int64Header(stream.HeaderRawOffset, rawOffset)}})
	must(t, o.desk().Replay(t.Context(), letter))
	all := o.raw(0)
	if len(all) != 2 || string(all[1].Value) != "whole" || all[1].Header(deadletter.HeaderReplayOf) == nil {
		t.Errorf("raw holds %d messages, want the original and its replay", len(all))
	}
	// The replay fails again, and its letter is replayed: one mark, the new one's.
	second := o.bury(o.topics.Raw, 0, "malformed", all[1])
	must(t, o.desk().Replay(t.Context(), second))
	all = o.raw(0)
	last := &all[len(all)-1]
	marks := slices.DeleteFunc(slices.Clone(last.Headers), func(h stream.Header) bool { return h.Key != deadletter.HeaderReplayOf })
	if len(marks) != 1 || bytes.Equal(marks[0].Value, all[1].Header(deadletter.HeaderReplayOf)) {
		t.Error("the second replay does not name the second letter alone")
	}
}

func TestReplayRefuses(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	without := o.bury(o.topics.Answers, 0, "headers", stream.Message{Value: []byte("x")})
	beyond := o.bury(o.topics.Answers, 0, "digest", stream.Message{Value: []byte("x"), Headers: []stream.Header{stream.Int64Header(stream.HeaderRawOffset, 900)}})
	gone := without
	gone.LetterOffset = 900
	elsewhere := without
	elsewhere.Topic = "skills"
	for name, c := range map[string]struct {
		letter deadletter.Entry
		want   error
	}{
		"no raw offset": {without, deadletter.ErrNoOrigin}, "raw is gone": {beyond, deadletter.ErrGone},
		"letter is gone": {gone, deadletter.ErrGone}, "another topic": {elsewhere, deadletter.ErrNoOrigin},
	} {
		if err := o.desk().Replay(t.Context(), c.letter); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	other, err := seal.GenerateKey()
	must(t, err)
	opener, err := seal.NewOpener(other)
	must(t, err)
	desk := o.desk()
	desk.Opener = opener
	if err := desk.Replay(t.Context(), without); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("with another key: %v, want %v", err, seal.ErrOpen)
	}
	if n := len(o.raw(0)); n != 0 {
		t.Errorf("refused replays wrote %d messages", n)
	}
}

// TestPurge deletes what lies before the first letter that is kept, and says
// what remains behind it.
func TestPurge(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	var letters []deadletter.Entry
	for range 5 {
		letters = append(letters, o.bury(o.topics.Raw, 1, "malformed", stream.Message{Value: []byte("x")}))
	}
	kept := o.bury(o.topics.Raw, 0, "malformed", stream.Message{Value: []byte("x")})
	first := func(partition int) int64 {
		first, _, err := o.client.Offsets(t.Context(), o.topics.DeadLetters, partition)
		must(t, err)
		return first
	}
	desk := o.desk()
	desk.SetCrash(func(string) error { return errKilled })
	if _, err := desk.Purge(t.Context(), []deadletter.Entry{letters[0]}); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	for _, c := range []struct {
		purge     []deadletter.Entry
		first     int64
		remaining int
	}{{[]deadletter.Entry{letters[1], letters[3]}, 2, 1}, {nil, 2, 1}, {[]deadletter.Entry{letters[2]}, 4, 0}, {[]deadletter.Entry{letters[4]}, 5, 0}} {
		remaining, err := o.desk().Purge(t.Context(), c.purge)
		must(t, err)
		if first(1) != c.first || remaining != c.remaining {
			t.Errorf("the topic begins at %d and %d remain, want %d and %d", first(1), remaining, c.first, c.remaining)
		}
	}
	var batch stream.Batch
	if err := o.client.Fetch(t.Context(), o.topics.DeadLetters, 1, 0, time.Second, &batch); !errors.Is(err, stream.ErrOffsetOutOfRange) {
		t.Errorf("a purged letter can still be read: %v", err)
	}
	if first(0) != 0 || o.entry(kept).State != deadletter.Waiting {
		t.Error("a letter that nobody purged was touched")
	}
	if err := o.desk().Replay(t.Context(), o.entry(letters[0])); !errors.Is(err, deadletter.ErrSettled) {
		t.Errorf("replay of a purged letter: %v, want %v", err, deadletter.ErrSettled)
	}
}
