package stream

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestReadInPieces: what does not fit in a small batch is read on in another one, and
// nothing is lost, doubled or changed on the way.
func TestReadInPieces(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic := enginetest.Topic(t, brokers, "pieces", 1)
	client, err := NewClient(Config{Brokers: brokers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	random := rand.New(rand.NewPCG(7, 7))
	var sent []Message
	for range 40 {
		value := make([]byte, random.IntN(1<<uint(4+random.IntN(10))))
		for i := range value {
			value[i] = byte(random.Uint32())
		}
		sent = append(sent, Message{Value: value, Headers: []Header{Int64Header(HeaderRawOffset, int64(len(sent)))}})
	}
	if _, err := client.Produce(t.Context(), topic, 0, sent[:25]...); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Produce(t.Context(), topic, 0, sent[25:]...); err != nil {
		t.Fatal(err)
	}
	var small, large Batch
	for attempt := range 60 {
		from, limit := random.IntN(len(sent)), random.IntN(20_000)
		f, err := client.fetch(t.Context(), topic, 0, int64(from), time.Second, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		got := &small
		whole, err := f.read(&small, limit)
		if err == nil && !whole {
			if len(small.arena) > limit {
				t.Errorf("attempt %d: %d bytes were read, want %d at most", attempt, len(small.arena), limit)
			}
			got = &large
			large.takeOver(&small)
			whole, err = f.read(&large, wholly)
		}
		if err != nil || !whole || got.HighWatermark != int64(len(sent)) {
			t.Fatalf("attempt %d: read = %v, %v, high watermark %d", attempt, whole, err, got.HighWatermark)
		}
		if err := same(got.Messages, sent, from); err != nil {
			t.Fatalf("attempt %d, from %d, %d bytes at most: %v", attempt, from, limit, err)
		}
	}
}

// same compares what was read from an offset; a fetch may end early.
func same(got, sent []Message, from int) error {
	if len(got) == 0 || len(got) > len(sent)-from {
		return fmt.Errorf("%d messages of %d", len(got), len(sent)-from)
	}
	for i := range got {
		want := &sent[from+i]
		if got[i].Offset != int64(from+i) || !bytes.Equal(got[i].Value, want.Value) || !bytes.Equal(got[i].Headers[0].Value, want.Headers[0].Value) {
			return fmt.Errorf("message %d has offset %d and %d bytes, want %d bytes", i, got[i].Offset, len(got[i].Value), len(want.Value))
		}
	}
	return nil
}
