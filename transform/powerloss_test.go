package transform_test

import (
	"fmt"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// adopted returns the version that the store says a message was applied with.
func (w *world) adopted(partition int, rawOffset int64) (version uint64) {
	newest := answer.Position(0)
	for position, adopted := range w.store.adoptions[partition] {
		if position >= newest && position.RawOffset() <= rawOffset {
			newest, version = position, adopted
		}
	}
	return version
}

// losePower makes everything end at once. The log of skills, which is not synced,
// loses any number of messages at its end: what is left is put under another name.
func (c *crew) losePower() {
	w := c.w
	w.t.Helper()
	w.store.advance(w.random.IntN(12))
	w.store.crash()
	w.cuts++
	next := w.topics
	next.Skills = fmt.Sprintf("%s-%d", w.topics.Skills, w.cuts)
	if err := w.client.EnsureTopics(w.t.Context(), stream.TopicSpec{Name: next.Skills, Partitions: w.partitions}); err != nil {
		w.t.Fatal(err)
	}
	for partition := range w.partitions {
		left := w.readAll(w.topics.Skills, partition)
		if lost := w.random.IntN(12); lost < len(left) {
			left = left[:len(left)-lost]
		}
		for i := range left {
			if _, err := w.client.Produce(w.t.Context(), next.Skills, partition, stream.Message{Value: left[i].Value, Headers: left[i].Headers}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	w.topics = next
	c.restart()
}

// TestPowerLossOfSkills: what an interrupted checkpoint has left in the store is
// not mixed with another choice of versions when the log of skills has lost its
// end.
func TestPowerLossOfSkills(t *testing.T) {
	t.Parallel()
	for round := range 6 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, newRandom(t), 2)
			next, loads := make([]int64, w.partitions), make([]*workload, w.partitions)
			for partition := range loads {
				loads[partition] = newWorkload(w.random, 30, 60)
			}
			c := w.crew()
			for range 6 {
				for partition := range w.partitions {
					for range 8 {
						w.sendNext(partition, loads[partition], next[partition], w.random.IntN(50))
						next[partition]++
					}
				}
				c.disturb(60)
				c.losePower()
			}
			c.settle()
			w.verify()
		})
	}
}
