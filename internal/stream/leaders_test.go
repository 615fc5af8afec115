package stream_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// cluster is a Kafka of three brokers in this process, on the library that the
// embedded broker stands on: only there can a test say who leads.
type cluster struct {
	*kfake.Cluster
	t     *testing.T
	topic string
}

func startCluster(t *testing.T, partitions int) cluster {
	t.Helper()
	c := cluster{t: t, topic: "led"}
	var err error
	if c.Cluster, err = kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(int32(partitions), c.topic)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// move gives a partition to the next broker.
func (c cluster) move(partition int) {
	if err := c.MoveTopicPartition(c.topic, int32(partition), (c.LeaderFor(c.topic, int32(partition))+1)%3); err != nil {
		c.t.Errorf("move partition %d: %v", partition, err)
	}
}

// lines counts what is logged.
type lines struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(p)
}

func (l *lines) count() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return bytes.Count(l.text.Bytes(), []byte("\n"))
}

// TestNewLeaderIsFoundAtOnce: a broker that no longer leads refuses once; the
// next attempt goes to the one that does.
func TestNewLeaderIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	c, log := startCluster(t, 1), &lines{}
	client, err := stream.NewClient(stream.Config{Brokers: c.ListenAddrs(), Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	produce(t, client, c.topic, 0, 0, 1)
	before := log.count()
	c.move(0)
	produce(t, client, c.topic, 0, 1, 2)
	if n := log.count() - before; n != 1 {
		t.Errorf("%d attempts failed after the leader moved, want one", n)
	}
}

// durableHandler goes on from where the recorder says that it was.
type durableHandler struct{ recordingHandler }

func (h *durableHandler) Start(_ context.Context, a *stream.Assignment) (int64, error) {
	h.assignment = a
	h.recorder.mutex.Lock()
	defer h.recorder.mutex.Unlock()
	return h.recorder.durable[h.partition], nil
}

// TestLeadersMove produces to partitions one message after the other, consumes
// and follows them, while they are given from one broker to another in the
// middle of it. Every message is in the log once, at the offset that Produce
// returned, and everybody sees all of them in order, once.
func TestLeadersMove(t *testing.T) {
	t.Parallel()
	const partitions, each = 3, 150
	random := rand.New(rand.NewPCG(22, 1))
	c := startCluster(t, partitions)
	client := newClient(t, c.ListenAddrs())

	consumed := &recorder{seen: make(map[int][]int64), durable: make(map[int]int64), fail: func(int, int64) error { return nil }}
	followed := &recorder{seen: make(map[int][]int64), durable: make(map[int]int64)}
	consumer, err := stream.NewConsumer(client, stream.ConsumerConfig{Group: "leaders", Topic: c.topic, CommitInterval: 20 * time.Millisecond,
		NewHandler: func(p int) stream.Handler {
			return &durableHandler{recordingHandler{recorder: consumed, partition: p}}
		}})
	if err != nil {
		t.Fatal(err)
	}
	tail := stream.NewTail(client, c.topic, make([]int64, partitions), func(_ context.Context, p int, messages []stream.Message) error {
		followed.mutex.Lock()
		defer followed.mutex.Unlock()
		for i := range messages {
			followed.seen[p] = append(followed.seen[p], int64(binary.BigEndian.Uint64(messages[i].Value)))
			followed.durable[p] = messages[i].Offset + 1
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 2)
	go func() { done <- consumer.Run(ctx) }()
	go func() { done <- tail.Run(ctx) }()

	var producing, moving sync.WaitGroup
	moves := make(chan int, partitions*each)
	moving.Go(func() {
		for p := range moves {
			c.move(p)
		}
	})
	for p := range partitions {
		own := rand.New(rand.NewPCG(random.Uint64(), 1))
		producing.Go(func() {
			for n := range int64(each) {
				if own.IntN(20) == 0 {
					moves <- p // while the message is on its way
				}
				if base, err := client.Produce(ctx, c.topic, p, numbered(n)); err != nil || base != n {
					t.Errorf("Produce of message %d to partition %d = %d, %v", n, p, base, err)
					return
				}
			}
		})
	}
	producing.Wait()
	close(moves)
	moving.Wait()
	for name, r := range map[string]*recorder{"consume": consumed, "follow": followed} {
		enginetest.Eventually(t, 2*time.Minute, name+" everything", func() error {
			r.mutex.Lock()
			defer r.mutex.Unlock()
			for p := range partitions {
				if r.durable[p] < each {
					return fmt.Errorf("partition %d at %d", p, r.durable[p])
				}
			}
			return nil
		})
	}
	cancel()
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*recorder{"consumed": consumed, "followed": followed} {
		for p := range partitions {
			if len(r.seen[p]) != each {
				t.Errorf("%s %d messages of partition %d, want %d", name, len(r.seen[p]), p, each)
			}
			for i, n := range r.seen[p] {
				if n != int64(i) {
					t.Fatalf("%s: message %d of partition %d has number %d", name, i, p, n)
				}
			}
		}
	}
}
