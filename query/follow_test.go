package query_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
)

// skillsMessage is a message of `skills` about some learners.
func skillsMessage(t *testing.T, rawOffset, remaining int64, mean float64, learners ...int) stream.Message {
	t.Helper()
	rows := &transform.SkillRows{}
	for _, n := range learners {
		p := pupil{n: n, school: schoolA, group: "5A", yearGroup: 5, at: monday.UnixMilli(), position: answer.At(rawOffset, n)}
		one := skillRows(p, mean, 0, map[string]float64{"optellen": 0})
		rows.AppendRange(one, 0, one.Len())
	}
	value, err := transform.NewEncoder().AppendSkills(nil, rows)
	if err != nil {
		t.Fatal(err)
	}
	m := stream.Message{Value: value, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(transform.SchemaSkills)}, stream.Int64Header(stream.HeaderRawOffset, rawOffset), stream.DigestHeader(value),
	}}
	if remaining > 0 {
		m.Headers = append(m.Headers, stream.Int64Header(transform.HeaderRemaining, remaining))
	}
	return m
}

// send produces messages to partition 0 and returns the offset of the last. Those
// of `skills` expect to stand where they will, unless they say otherwise.
func (p *pipeline) send(t *testing.T, topic string, messages ...stream.Message) int64 {
	t.Helper()
	if topic == p.topics.Skills {
		_, end, err := p.client.Offsets(t.Context(), topic, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range messages {
			if messages[i].Header(transform.HeaderExpected) == nil {
				messages[i].Headers = append(messages[i].Headers, stream.Int64Header(transform.HeaderExpected, end+int64(i)))
			}
		}
	}
	base, err := p.client.Produce(t.Context(), topic, 0, messages...)
	if err != nil {
		t.Fatal(err)
	}
	return base + int64(len(messages)) - 1
}

func skillIs(m *query.ReadModel, n int, want float64) func() error {
	return func() error {
		s, ok := m.Standing(token(n))
		if !ok || s.Percentiles[0].Skill != want {
			return fmt.Errorf("learner %d = %+v, %v, want skill %v", n, s, ok, want)
		}
		return nil
	}
}

// A message that was produced twice is passed over, one that was split is read
// whole, and one that was damaged is overcome as soon as the store has what it
// held.
func TestRepeatedSplitAndDamagedMessages(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	m, _ := p.follow(t)
	astray := skillsMessage(t, 7, 0, 9, 2) // new, but its writer had lost the partition
	astray.Headers = append(astray.Headers, stream.Int64Header(transform.HeaderExpected, 0))
	p.send(t, p.topics.Skills,
		skillsMessage(t, 5, 0, 0.5, 1),
		astray,
		skillsMessage(t, 5, 0, 9, 2),       // again, by a worker that lost its place
		skillsMessage(t, 6, 1, 0.6, 3),     // split …
		skillsMessage(t, 6, 0, 0.625, 4),   // … in two
		skillsMessage(t, 6, 0, 9, 2),       // again
		skillsMessage(t, 7, 0, 0.75, 1, 5), // newer
	)
	for n, want := range map[int]float64{1: 0.75, 3: 0.6, 4: 0.625, 5: 0.75} {
		enginetest.Eventually(t, time.Minute, "states in the model", skillIs(m, n, want))
	}
	if s, ok := m.Standing(token(2)); ok {
		t.Errorf("a repeated message was applied: %+v", s)
	}
	damaged := skillsMessage(t, 8, 0, 1, 1)
	damaged.Value = append([]byte(nil), damaged.Value...)
	damaged.Value[len(damaged.Value)/2] ^= 1
	last := p.send(t, p.topics.Skills, damaged)
	p.send(t, p.topics.Skills, skillsMessage(t, 9, 0, 1.25, 6))
	enginetest.Eventually(t, time.Minute, "the damage to be noticed", func() error {
		if m.Ready() {
			return errors.New("the model says that it is ready")
		}
		return nil
	})
	if err := skillIs(m, 1, 0.75)(); err != nil {
		t.Errorf("what was known before the damage is gone: %v", err)
	}
	rows := skillRows(pupil{n: 1, school: schoolA, group: "5A", yearGroup: 5, at: monday.UnixMilli(), position: answer.At(8, 1)}, 1, 0, nil)
	durable := make(chan error, 1)
	if err := p.store.Checkpoint(t.Context(), &transform.Checkpoint{Position: answer.At(8, 1), AnswersOffset: 8, SkillsOffset: last,
		Skills: *rows, Durable: func(err error) { durable <- err }}); err != nil {
		t.Fatal(err)
	}
	if err := <-durable; err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, time.Minute, "the state of the damaged message", skillIs(m, 1, 1))
	enginetest.Eventually(t, time.Minute, "the state after the damaged message", skillIs(m, 6, 1.25))
}

// A version of the item snapshot that is missing in the topic is fetched from
// the store; a version that was written twice counts once.
func TestMissingSnapshotVersion(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	version := func(n uint64, mean float64) (*transform.SnapshotRows, stream.Message) {
		rows := &transform.SnapshotRows{Version: n}
		appendItem(rows, fmt.Sprintf("x:%d", n), "optellen", mean, 0.05, 500, 0.7)
		value, err := transform.NewEncoder().AppendItems(nil, rows)
		if err != nil {
			t.Fatal(err)
		}
		return rows, stream.Message{Value: value, Headers: []stream.Header{
			{Key: stream.HeaderSchema, Value: []byte(transform.SchemaItems)}, stream.Int64Header(stream.HeaderSnapshot, int64(n)), stream.DigestHeader(value),
		}}
	}
	save := func(n uint64, mean float64) stream.Message {
		rows, message := version(n, mean)
		if err := p.store.SaveSnapshot(t.Context(), n, rows); err != nil {
			t.Fatal(err)
		}
		return message
	}
	m, _ := p.follow(t)
	at := func(version uint64, items int) func() error {
		return func() error {
			if m.SnapshotVersion() != version || m.Items() != items {
				return fmt.Errorf("the model has version %d with %d exercises, want %d with %d", m.SnapshotVersion(), m.Items(), version, items)
			}
			return nil
		}
	}
	p.send(t, p.topics.Items, save(1, 0))
	enginetest.Eventually(t, time.Minute, "version 1", at(1, 1))
	_, again := version(1, 5)
	p.send(t, p.topics.Items, again, save(2, 0))
	enginetest.Eventually(t, time.Minute, "version 2", at(2, 2))
	save(3, 0)
	p.send(t, p.topics.Items, save(4, 0))
	enginetest.Eventually(t, time.Minute, "version 4 without 3 in the topic", at(4, 4))
}

// The service says that it is ready when its model has caught up, and not when
// something else is amiss.
func TestReadiness(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	m, stop := p.follow(t)
	amiss := make(chan error, 1)
	s := newService(t, func(c *query.HandlerConfig) {
		c.Model = m
		c.Ready = func(context.Context) error {
			select {
			case err := <-amiss:
				return err
			default:
				return nil
			}
		}
	})
	ready := func(want int) func() error {
		return func() error {
			if got := s.do(t, request{path: "/readyz"}).StatusCode; got != want {
				return fmt.Errorf("/readyz = %d, want %d", got, want)
			}
			return nil
		}
	}
	enginetest.Eventually(t, time.Minute, "readiness", ready(http.StatusOK))
	amiss <- errors.New("registry is being loaded")
	if err := ready(http.StatusServiceUnavailable)(); err != nil {
		t.Error(err)
	}
	if err := ready(http.StatusOK)(); err != nil {
		t.Error(err)
	}
	stop()
	if err := ready(http.StatusServiceUnavailable)(); err != nil {
		t.Error(err)
	}
}
