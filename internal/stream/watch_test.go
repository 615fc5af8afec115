package stream_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
)

func TestWatchTellsNews(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "watch", 2), newClient(t, brokers)
	produce(t, client, topic, 1, 0, 3)
	watch := stream.NewWatch(client, topic, 1)
	defer watch.Close()
	if !watch.News(0) {
		t.Error("News at the first call = false, but nobody has read yet")
	}
	if !watch.News(3) {
		t.Error("News after the offset has moved = false")
	}
	await(t, "no news at the end", func() bool { return !watch.News(3) })
	produce(t, client, topic, 0, 0, 1)
	if watch.News(3) {
		t.Error("News after a message in another partition = true")
	}
	produce(t, client, topic, 1, 3, 4)
	await(t, "news", func() bool { return watch.News(3) })
	await(t, "no news at the new end", func() bool { return !watch.News(4) })
}

func TestWatchWithoutBrokerSaysSo(t *testing.T) {
	t.Parallel()
	client := newClient(t, []string{"127.0.0.1:1"})
	watch := stream.NewWatch(client, "nowhere", 0)
	watch.News(0)
	// Whoever reads then gets the error.
	await(t, "news", func() bool { return watch.News(0) })
	watch.Close()
}

// await repeats a look until it is true.
func await(t *testing.T, what string, look func() bool) {
	t.Helper()
	enginetest.Eventually(t, time.Minute, what, func() error {
		if !look() {
			return errors.New("not yet")
		}
		return nil
	})
}

// idles counts calls of Idle and hands over what is handled.
type idles struct {
	idle    chan struct{}
	handled chan int64
	fail    error // of the second call of Idle
	calls   int
}

func (h *idles) Start(context.Context, *stream.Assignment) (int64, error) { return 0, nil }

func (h *idles) Handle(_ context.Context, messages []stream.Message) error {
	for i := range messages {
		h.handled <- messages[i].Offset
	}
	return nil
}

func (h *idles) Idle(ctx context.Context) error {
	h.calls++
	if h.calls == 2 && h.fail != nil {
		return h.fail
	}
	select {
	case h.idle <- struct{}{}:
	case <-ctx.Done():
	}
	return nil
}

func (h *idles) Stop() {}

// TestIdleWhileTheBrokerIsWaiting: the handler hears that nothing comes again and
// again within one long wait of the broker, and a message still comes at once.
func TestIdleWhileTheBrokerIsWaiting(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "idle", 1), newClient(t, brokers)
	h := &idles{idle: make(chan struct{}), handled: make(chan int64, 1)}
	runConsumer(t, client, topic, h)
	for range 3 {
		<-h.idle
	}
	produce(t, client, topic, 0, 0, 1)
	for {
		select {
		case <-h.idle: // the handler must be free
			continue
		case offset := <-h.handled:
			if offset != 0 {
				t.Errorf("handled offset %d first, want 0", offset)
			}
		case <-time.After(time.Minute):
			t.Error("the message was not handled within a minute")
		}
		return
	}
}

// TestFailedIdleStartsAgain: an error of Idle starts the partition again, and
// messages are handled in order afterwards.
func TestFailedIdleStartsAgain(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "idlefails", 1), newClient(t, brokers)
	h := &idles{idle: make(chan struct{}, 100), handled: make(chan int64, 10), fail: errors.New("on purpose")}
	runConsumer(t, client, topic, h)
	await(t, "an idle moment after the failure", func() bool { return len(h.idle) >= 2 })
	produce(t, client, topic, 0, 0, 2)
	for want := range int64(2) {
		if got := <-h.handled; got != want {
			t.Errorf("handled offset %d, want %d", got, want)
		}
	}
}

func runConsumer(t *testing.T, client *stream.Client, topic string, h stream.Handler) {
	t.Helper()
	consumer, err := stream.NewConsumer(client, stream.ConsumerConfig{Group: topic, Topic: topic, IdleInterval: 5 * time.Millisecond,
		NewHandler: func(int) stream.Handler { return h }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
