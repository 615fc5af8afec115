package fault

import (
	"bytes"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// TestFlippedBitIsNotRead flips a bit of a message between the broker and its
// client: the checksum of the record batch finds it, and nothing is handed on.
func TestFlippedBitIsNotRead(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic := enginetest.Topic(t, brokers, "flipped", 1)
	l, err := newLink(brokers[0], true)
	if err != nil {
		t.Fatal(err)
	}
	client, err := stream.NewClient(stream.Config{Brokers: []string{l.address()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	value := bytes.Repeat([]byte("marked value "), 100)
	if _, err := client.Produce(t.Context(), topic, 0, stream.Message{Value: value}); err != nil {
		t.Fatal(err)
	}
	flipped := 0
	l.mu.Lock()
	l.spoil = func(reply []byte) {
		if at := bytes.Index(reply, value); at >= 0 {
			reply[at+500] ^= 0x04
			flipped++
		}
	}
	l.mu.Unlock()
	var batch stream.Batch
	if err := client.Fetch(t.Context(), topic, 0, 0, time.Second, &batch); err == nil {
		t.Errorf("Fetch of a damaged message returned %d messages and no error", len(batch.Messages))
	}
	if flipped == 0 {
		t.Fatal("no reply was damaged")
	}
	l.mu.Lock()
	l.spoil = nil
	l.mu.Unlock()
	if err := client.Fetch(t.Context(), topic, 0, 0, 5*time.Second, &batch); err != nil || len(batch.Messages) != 1 || !bytes.Equal(batch.Messages[0].Value, value) {
		t.Errorf("Fetch afterwards = %d messages, %v, want the one that was sent", len(batch.Messages), err)
	}
}
