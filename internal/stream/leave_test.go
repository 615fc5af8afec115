package stream

import (
	"context"
	"errors"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestLeaveHearsWhatTheBrokerSays: a refusal of the whole request is not taken for
// success, although kafka-go reads this reply in the wrong order.
func TestLeaveHearsWhatTheBrokerSays(t *testing.T) {
	t.Parallel()
	client, err := NewClient(Config{Brokers: enginetest.Kafka(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	group := enginetest.UniqueName("group")
	if err := client.leave(t.Context(), group, "nobody"); err != nil {
		t.Errorf("one who is in no group: %v", err)
	}
	if err := client.leaveOnce(t.Context(), group, "nobody"); !errors.Is(err, kafka.GroupIdNotFound) && !errors.Is(err, kafka.UnknownMemberId) {
		t.Errorf("leaving a group that is not there = %v, want that it is not", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := client.leave(ended, group, "nobody"); err == nil {
		t.Error("leave did not say that nobody was asked")
	}
}
