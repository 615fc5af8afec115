package pseudonymize_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// TestRotationUnderLoad rotates the keys while messages flow and the process
// dies now and then: nothing is lost or doubled, and one learner's tokens of both
// epochs lead to one learner.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	l := d.push(t, r, thePart, 40)
	handled, rotated := 0, false
	drain := func() {
		for attempt := 0; ; attempt++ {
			s := d.stage(t)
			s.SetCrash(func(step string) error {
				if step == "answers written" {
					if handled++; handled >= 3 && !rotated {
						rotated = true
						if _, err := d.ring.Rotate(); err != nil {
							return err
						}
					}
				}
				if attempt < 12 && r.IntN(8) == 0 {
					return errCrash
				}
				return nil
			})
			err := work(t.Context(), d, s, thePart, r)
			if err == nil {
				return
			}
			if !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
		}
	}
	drain()
	if !rotated { // few steps sufficed for all messages
		rotated = true
		_, err := d.ring.Rotate()
		must(t, err)
	}
	// Whatever the steps were, some messages come after the rotation.
	later := d.push(t, r, thePart, 10)
	for i := range later.n {
		if a, ok := later.answers[i]; ok {
			l.answers[l.n+i] = a
		} else {
			l.results[l.n+i] = later.results[i]
		}
	}
	l.n += later.n
	drain()
	messages := d.read(t, d.topics.Answers, thePart)
	d.checkAnswers(t, l, messages, 1, 2)
	// The place of the change is recorded, and the topic agrees with it.
	registry, err := d.vault(t).Open(t.Context(), thePart, vault.Follow)
	must(t, err)
	_, from := registry.State().Adopted()
	newest := int64(0)
	for _, m := range d.dropRepeats(t, messages) {
		epoch, err := m.Int64(stream.HeaderKeyEpoch)
		must(t, err)
		offset, err := m.Int64(stream.HeaderRawOffset)
		must(t, err)
		if epoch < newest {
			t.Errorf("raw offset %d is back at epoch %d", offset, epoch)
		}
		if epoch == 2 && newest == 1 && registry.State().Epoch() == 2 && offset > from {
			t.Errorf("epoch 2 begins at raw offset %d, adopted was %d", offset, from)
		}
		newest = epoch
	}
	if newest != 2 {
		t.Errorf("the last message is of epoch %d, want 2", newest)
	}
	owner, err := d.vault(t).Open(t.Context(), thePart, vault.Own)
	must(t, err)
	must(t, owner.Rekey(t.Context()))
	must(t, owner.Purge(t.Context()))
	needs, err := d.vault(t).Needs(t.Context(), thePart)
	if err != nil || needs.Oldest() != 2 {
		t.Errorf("the vault needs epoch %d (%v), want 2: no row is left on the old one", needs.Oldest(), err)
	}
}

// TestClickHouseAway: the log is enough to go on with; the table follows when
// ClickHouse is back.
func TestClickHouseAway(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	server := enginetest.StartClickHouse(t)
	connection := server.Database()
	d := deployOn(t, connection, connection.Database)
	h := d.stage(t).Handler(thePart)
	defer h.Stop()
	next, err := h.Start(t.Context(), &stream.Assignment{Topic: d.topics.Raw, Partition: thePart, Committed: -1})
	must(t, err)
	server.Kill()
	l := d.push(t, r, thePart, 10)
	var batch stream.Batch
	for next < int64(l.n) {
		must(t, d.client.Fetch(t.Context(), d.topics.Raw, thePart, next, time.Second, &batch))
		must(t, h.Handle(t.Context(), batch.Messages))
		next = batch.Messages[len(batch.Messages)-1].Offset + 1
	}
	must(t, h.Idle(t.Context()))
	server.Restart()
	enginetest.Eventually(t, time.Minute, "write the table", func() error {
		if err := h.Idle(t.Context()); err != nil {
			return err
		}
		var rows uint64
		if err := d.conn.QueryRow(t.Context(), "SELECT count() FROM "+d.database+".identities WHERE kind = 'alias'").Scan(&rows); err != nil {
			return err
		}
		if rows == 0 {
			return errors.New("no alias in the table")
		}
		return nil
	})
	d.checkAnswers(t, l, d.read(t, d.topics.Answers, thePart))
	if !bytes.Contains(d.logs.bytes(), []byte("writing the vault's table failed")) {
		t.Error("nothing was logged while ClickHouse was away")
	}
}

// TestWorkersMakeNoDifference runs the stage in a consumer group over all
// partitions with 1, 2 and 8 workers, in two processes' worth of consumers: the
// bytes of answers are the same.
func TestWorkersMakeNoDifference(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	d.mint = mintOf
	const each = 12
	for p := range partitions {
		d.push(t, r, p, each)
	}
	source := d
	var want [partitions][][]byte
	for _, workers := range []int{1, 2, 8} {
		// A table of its own: what a worker that was stopped still writes may come late.
		d := deploy(t)
		d.ring, d.key, d.mint, d.topics.Raw = source.ring, source.key, source.mint, source.topics.Raw
		d.consume(t, workers, each)
		for p := range partitions {
			var values [][]byte
			for _, m := range d.dropRepeats(t, d.read(t, d.topics.Answers, p)) {
				values = append(values, m.Value)
			}
			if want[p] == nil {
				want[p] = values
			} else if !slices.EqualFunc(values, want[p], bytes.Equal) {
				t.Errorf("%d workers: answers of partition %d differ from those of 1 worker", workers, p)
			}
		}
	}
}

// consume runs two consumers of one group until all partitions are done.
func (d *deployment) consume(t *testing.T, workers, messages int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group := enginetest.UniqueName("pseudonymize")
	done := make(chan error, 2)
	for range 2 {
		consumer, err := stream.NewConsumer(d.client, stream.ConsumerConfig{Group: group, Topic: d.topics.Raw, Workers: workers,
			IdleInterval: 50 * time.Millisecond, NewHandler: d.stage(t).Handler})
		must(t, err)
		go func() { done <- consumer.Run(ctx) }()
	}
	enginetest.Eventually(t, 2*time.Minute, "pseudonymize all partitions", func() error {
		for p := range partitions {
			last, found, err := d.client.Last(ctx, d.topics.Answers, p)
			if err != nil {
				return err
			}
			if offset, err := last.Int64(stream.HeaderRawOffset); !found || err != nil || offset < int64(messages-1) {
				return fmt.Errorf("partition %d is not done", p)
			}
		}
		return nil
	})
	cancel()
	for range 2 {
		must(t, <-done)
	}
}
