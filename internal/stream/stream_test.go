package stream_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

func newClient(t *testing.T, brokers []string) *stream.Client {
	t.Helper()
	client, err := stream.NewClient(stream.Config{Brokers: brokers, ClientID: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func numbered(n int64) stream.Message {
	value := binary.BigEndian.AppendUint64(nil, uint64(n))
	return stream.Message{Value: value, Headers: []stream.Header{stream.Int64Header(stream.HeaderRawOffset, n), stream.DigestHeader(value)}}
}

func produce(t *testing.T, client *stream.Client, topic string, partition int, first, last int64) {
	t.Helper()
	var messages []stream.Message
	for n := first; n < last; n++ {
		messages = append(messages, numbered(n))
	}
	if _, err := client.Produce(t.Context(), topic, partition, messages...); err != nil {
		t.Fatal(err)
	}
}

func TestFetchReturnsWhatWasProduced(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "fetch", 2), newClient(t, brokers)
	produce(t, client, topic, 1, 0, 10)
	base, err := client.Produce(t.Context(), topic, 1, numbered(10))
	if err != nil || base != 10 {
		t.Fatalf("Produce = %d, %v, want offset 10", base, err)
	}
	var batch stream.Batch
	// From the middle of a record batch: what lies before must be skipped.
	if err := client.Fetch(t.Context(), topic, 1, 4, 5*time.Second, &batch); err != nil {
		t.Fatal(err)
	}
	if len(batch.Messages) == 0 || batch.Messages[0].Offset != 4 || batch.HighWatermark != 11 {
		t.Fatalf("Fetch from 4 = %d messages, first %+v, high watermark %d", len(batch.Messages), batch.Messages[0].Offset, batch.HighWatermark)
	}
	for i := range batch.Messages {
		m := &batch.Messages[i]
		if raw, err := m.Int64(stream.HeaderRawOffset); err != nil || raw != m.Offset || m.CheckDigest() != nil {
			t.Errorf("message at %d: raw-offset %d, %v, digest %v", m.Offset, raw, err, m.CheckDigest())
		}
	}
	last, found, err := client.Last(t.Context(), topic, 1)
	if err != nil || !found || last.Offset != 10 {
		t.Errorf("Last = %d, %v, %v, want offset 10", last.Offset, found, err)
	}
	if _, found, err := client.Last(t.Context(), topic, 0); found || err != nil {
		t.Errorf("Last of an empty partition = %v, %v", found, err)
	}
}

func TestFetchWithoutWaitReturnsAtOnce(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "nowait", 1), newClient(t, brokers)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second) // kafka-go's own default is 10 s
	defer cancel()
	var batch stream.Batch
	if err := client.Fetch(ctx, topic, 0, 0, 0, &batch); err != nil || len(batch.Messages) != 0 {
		t.Errorf("Fetch of an empty partition without wait = %d messages, %v", len(batch.Messages), err)
	}
}

func TestFetchBeyondTheLogIsAnErrorNotASkip(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "range", 1), newClient(t, brokers)
	produce(t, client, topic, 0, 0, 3)
	var batch stream.Batch
	if err := client.Fetch(t.Context(), topic, 0, 99, time.Second, &batch); !errors.Is(err, stream.ErrOffsetOutOfRange) {
		t.Errorf("Fetch at 99 of 3 = %v, want ErrOffsetOutOfRange", err)
	}
}

func TestProduceRefusesWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "large", 1), newClient(t, brokers)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := client.Produce(ctx, topic, 0, stream.Message{Value: make([]byte, stream.MaxMessageBytes+1)}); err == nil || ctx.Err() != nil {
		t.Errorf("Produce of too much = %v, want an error at once", err)
	}
}

func TestDigestFindsAFlippedBit(t *testing.T) {
	t.Parallel()
	m := numbered(7)
	if err := m.CheckDigest(); err != nil {
		t.Fatal(err)
	}
	m.Value[3] ^= 0x10
	if err := m.CheckDigest(); !errors.Is(err, stream.ErrDigest) {
		t.Errorf("CheckDigest after a flipped bit = %v, want ErrDigest", err)
	}
	if err := (&stream.Message{}).CheckDigest(); err == nil {
		t.Error("CheckDigest without a digest = nil")
	}
}

func TestEnsureTopicsKeepsTheNumberOfPartitions(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	client, name := newClient(t, brokers), enginetest.UniqueName("ensure")
	for range 2 { // the second time nothing is missing
		if err := client.EnsureTopics(t.Context(), stream.TopicSpec{Name: name, Partitions: 3, Retention: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.EnsureTopics(t.Context(), stream.TopicSpec{Name: name, Partitions: 4}); err == nil {
		t.Error("EnsureTopics with another number of partitions = nil, want an error")
	}
}

// recorder notes what a handler saw, across restarts of the partition.
type recorder struct {
	mutex   sync.Mutex
	seen    map[int][]int64
	durable map[int]int64
	fail    func(partition int, n int64) error
}

type recordingHandler struct {
	recorder   *recorder
	partition  int
	assignment *stream.Assignment
}

func (h *recordingHandler) Start(_ context.Context, a *stream.Assignment) (int64, error) {
	h.assignment = a
	return max(0, a.Committed), nil
}

func (h *recordingHandler) Handle(_ context.Context, messages []stream.Message) error {
	r := h.recorder
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for i := range messages {
		n := int64(binary.BigEndian.Uint64(messages[i].Value))
		if err := r.fail(h.partition, n); err != nil {
			return err
		}
		r.seen[h.partition] = append(r.seen[h.partition], n)
		r.durable[h.partition] = messages[i].Offset + 1
		h.assignment.Commit(messages[i].Offset + 1)
	}
	return nil
}

func (h *recordingHandler) Idle(context.Context) error { return nil }
func (h *recordingHandler) Stop()                      {}

// TestConsumerDeliversEverythingInOrder lets handlers fail at random places. A
// partition must then be delivered again from what was committed, never with a
// gap.
func TestConsumerDeliversEverythingInOrder(t *testing.T) {
	t.Parallel()
	const partitions, perPartition = 4, 300
	random := rand.New(rand.NewPCG(1, 1))
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "consume", partitions), newClient(t, brokers)
	for p := range partitions {
		produce(t, client, topic, p, 0, perPartition)
	}
	failures := 0
	r := &recorder{seen: make(map[int][]int64), durable: make(map[int]int64), fail: func(int, int64) error {
		if failures < 6 && random.IntN(150) == 0 {
			failures++
			return errors.New("injected")
		}
		return nil
	}}
	consumer, err := stream.NewConsumer(client, stream.ConsumerConfig{Group: enginetest.UniqueName("group"), Topic: topic,
		CommitInterval: 20 * time.Millisecond, NewHandler: func(p int) stream.Handler { return &recordingHandler{recorder: r, partition: p} }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	enginetest.Eventually(t, time.Minute, "all messages handled", func() error {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		for p := range partitions {
			if r.durable[p] < perPartition {
				return fmt.Errorf("partition %d at %d", p, r.durable[p])
			}
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for p := range partitions {
		high := int64(-1)
		for _, n := range r.seen[p] {
			if n > high+1 {
				t.Fatalf("partition %d: %d follows %d: a gap", p, n, high)
			}
			high = max(high, n)
		}
	}
}

// TestCommittedOffsetsSurviveTheGroup makes a second consumer go on where the
// first one stopped.
func TestCommittedOffsetsSurviveTheGroup(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client, group := enginetest.Topic(t, brokers, "resume", 1), newClient(t, brokers), enginetest.UniqueName("group")
	consume := func(until int64) *recorder {
		r := &recorder{seen: make(map[int][]int64), durable: make(map[int]int64), fail: func(int, int64) error { return nil }}
		consumer, err := stream.NewConsumer(client, stream.ConsumerConfig{Group: group, Topic: topic, CommitInterval: 10 * time.Millisecond,
			NewHandler: func(p int) stream.Handler { return &recordingHandler{recorder: r, partition: p} }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- consumer.Run(ctx) }()
		enginetest.Eventually(t, time.Minute, "messages handled", func() error {
			r.mutex.Lock()
			defer r.mutex.Unlock()
			if r.durable[0] < until {
				return fmt.Errorf("at %d of %d", r.durable[0], until)
			}
			return nil
		})
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return r
	}
	produce(t, client, topic, 0, 0, 50)
	consume(50)
	produce(t, client, topic, 0, 50, 80)
	second := consume(80)
	if first := second.seen[0][0]; first != 50 {
		t.Errorf("the second consumer began at %d, want 50", first)
	}
}

func TestTailFollowsAndTellsWhenItHasCaughtUp(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "tail", 2), newClient(t, brokers)
	produce(t, client, topic, 0, 0, 20)
	var mutex sync.Mutex
	seen := make(map[int]int64)
	tail := stream.NewTail(client, topic, []int64{5, 0}, func(_ context.Context, partition int, messages []stream.Message) error {
		mutex.Lock()
		defer mutex.Unlock()
		seen[partition] += int64(len(messages))
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tail.Run(ctx) }()
	select {
	case <-tail.CaughtUp():
	case <-time.After(time.Minute):
		t.Fatal("the tail never caught up")
	}
	mutex.Lock()
	got := seen[0]
	mutex.Unlock()
	if got != 15 {
		t.Errorf("messages seen when caught up = %d, want 15", got)
	}
	produce(t, client, topic, 1, 0, 3)
	enginetest.Eventually(t, time.Minute, "new messages seen", func() error {
		mutex.Lock()
		defer mutex.Unlock()
		if seen[1] != 3 {
			return fmt.Errorf("saw %d", seen[1])
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestTailEndsWithTheErrorOfItsHandler(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "tailerror", 1), newClient(t, brokers)
	produce(t, client, topic, 0, 0, 1)
	injected := errors.New("injected")
	tail := stream.NewTail(client, topic, []int64{0}, func(context.Context, int, []stream.Message) error { return injected })
	if err := tail.Run(t.Context()); !errors.Is(err, injected) {
		t.Errorf("Run = %v, want the handler's error", err)
	}
}

// TestSlowHandlerKeepsItsPlace blocks a handler for several sessions, as a store
// that is away does: the group does not take the partition from it.
func TestSlowHandlerKeepsItsPlace(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "slow", 1), newClient(t, brokers)
	produce(t, client, topic, 0, 0, 3)
	h := &stalling{session: time.Second, done: make(chan struct{})}
	consumer, err := stream.NewConsumer(client, stream.ConsumerConfig{Group: enginetest.UniqueName("slow"), Topic: topic, SessionTimeout: h.session,
		NewHandler: func(int) stream.Handler { return h }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	<-h.done
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(h.generations) != 1 {
		t.Errorf("the handler was started in generations %v, want one", h.generations)
	}
}

// stalling takes four sessions for its first messages.
type stalling struct {
	session     time.Duration
	generations []int32
	done        chan struct{}
	handled     bool
}

func (h *stalling) Start(_ context.Context, a *stream.Assignment) (int64, error) {
	h.generations = append(h.generations, a.Generation)
	return 0, nil
}

func (h *stalling) Handle(ctx context.Context, _ []stream.Message) error {
	select {
	case <-time.After(4 * h.session):
	case <-ctx.Done(): // the partition was taken away
		return context.Cause(ctx)
	}
	if !h.handled {
		h.handled = true
		close(h.done)
	}
	return nil
}

func (h *stalling) Idle(context.Context) error { return nil }
func (h *stalling) Stop()                      {}

// TestCommitsOnlyMoveOn tells offsets out of order: the group keeps the furthest.
func TestCommitsOnlyMoveOn(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client, group := enginetest.Topic(t, brokers, "commits", 1), newClient(t, brokers), enginetest.UniqueName("commits")
	produce(t, client, topic, 0, 0, 9)
	for _, want := range []int64{-1, 7} {
		ctx, cancel := context.WithCancel(t.Context())
		committed := make(chan int64, 1)
		consumer, err := stream.NewConsumer(client, stream.ConsumerConfig{Group: group, Topic: topic, CommitInterval: 10 * time.Millisecond,
			NewHandler: func(int) stream.Handler { return &committing{committed: committed} }})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- consumer.Run(ctx) }()
		if got := <-committed; got != want {
			t.Errorf("the group has offset %d, want %d", got, want)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// committing commits 7 and then lower offsets.
type committing struct{ committed chan int64 }

func (c *committing) Start(_ context.Context, a *stream.Assignment) (int64, error) {
	for _, offset := range []int64{7, 3, 0} {
		a.Commit(offset)
	}
	select {
	case c.committed <- a.Committed:
	default:
	}
	return 9, nil
}

func (c *committing) Handle(context.Context, []stream.Message) error { return nil }
func (c *committing) Idle(context.Context) error                     { return nil }
func (c *committing) Stop()                                          {}

// TestDeletedRecordsAreGone deletes the beginning of a partition.
func TestDeletedRecordsAreGone(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic, client := enginetest.Topic(t, brokers, "deleted", 2), newClient(t, brokers)
	produce(t, client, topic, 1, 0, 5)
	if err := client.DeleteRecords(t.Context(), topic, 1, 3); err != nil {
		t.Fatal(err)
	}
	if first, end, err := client.Offsets(t.Context(), topic, 1); err != nil || first != 3 || end != 5 {
		t.Errorf("Offsets = %d to %d, %v, want 3 to 5", first, end, err)
	}
	var batch stream.Batch
	if err := client.Fetch(t.Context(), topic, 1, 2, time.Second, &batch); !errors.Is(err, stream.ErrOffsetOutOfRange) {
		t.Errorf("Fetch of a deleted record = %v, want ErrOffsetOutOfRange", err)
	}
	if err := client.DeleteRecords(t.Context(), topic, 1, 99); err == nil {
		t.Error("DeleteRecords beyond the end = nil, want an error")
	}
}

// TestCheckNext: a gap and two messages at one offset are told apart, and what to
// do.
func TestCheckNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		offset, next int64
		says         string
	}{{3, 3, ""}, {5, 3, "offset 5 follows 2: messages between them are gone"}, {2, 3, "offset 2 follows 2: the log holds two messages at one offset"}} {
		err := stream.CheckNext(c.offset, c.next)
		if (err == nil) != (c.says == "") || err != nil && !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("CheckNext(%d, %d) = %v, want %q", c.offset, c.next, err, c.says)
		}
	}
}

// TestLittleIsHandledBesideWorkers: handlers wait for each other until as many are at
// work as there may be on little; on much, never more are than there are workers.
func TestLittleIsHandledBesideWorkers(t *testing.T) {
	t.Parallel()
	const workers, partitions, together = 1, 6, 3
	for name, c := range map[string]struct {
		bytes, gather, most int
		patience            time.Duration // of a handler that waits for others
	}{
		"little": {100, together, workers + together, time.Minute},
		"much":   {200_000, workers + 1, workers, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			brokers := enginetest.Kafka(t)
			topic, client := enginetest.Topic(t, brokers, "light", partitions), newClient(t, brokers)
			gathering := &gathering{gather: c.gather, patience: c.patience, gathered: make(chan struct{}), waits: make(chan struct{}, partitions), handled: make(chan struct{}, partitions)}
			consumer, err := stream.NewConsumer(client, stream.ConsumerConfig{Group: enginetest.UniqueName("light"), Topic: topic, Workers: workers,
				IdleInterval: 20 * time.Millisecond, NewHandler: func(int) stream.Handler { return &gatherer{gathering: gathering} }})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- consumer.Run(ctx) }()
			for range partitions {
				<-gathering.waits
			}
			for partition := range partitions {
				if _, err := client.Produce(t.Context(), topic, partition, stream.Message{Value: make([]byte, c.bytes)}); err != nil {
					t.Fatal(err)
				}
			}
			for range partitions {
				<-gathering.handled
			}
			cancel()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			least := min(c.gather, c.most)
			if most := int(gathering.most.Load()); most < least || most > c.most {
				t.Errorf("%d handlers were at work at the same time, want %d to %d", most, least, c.most)
			}
		})
	}
}

// gathering counts the handlers of several partitions that are at work.
type gathering struct {
	gather         int           // that wait for each other …
	patience       time.Duration // … so long
	gathered       chan struct{} // closed when so many are at work
	waits, handled chan struct{}
	atWork, most   atomic.Int64
	once           sync.Once
}

type gatherer struct {
	*gathering
	waited bool
}

func (h *gatherer) Start(context.Context, *stream.Assignment) (int64, error) { return 0, nil }

func (h *gatherer) Handle(ctx context.Context, _ []stream.Message) error {
	n := h.atWork.Add(1)
	defer h.atWork.Add(-1)
	for most := h.most.Load(); n > most && !h.most.CompareAndSwap(most, n); most = h.most.Load() {
	}
	if int(n) >= h.gather {
		h.once.Do(func() { close(h.gathered) })
	}
	select {
	case <-h.gathered:
	case <-time.After(h.patience):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case h.handled <- struct{}{}:
	case <-ctx.Done():
	}
	return nil
}

func (h *gatherer) Idle(context.Context) error {
	if !h.waited {
		h.waited = true
		h.waits <- struct{}{}
	}
	return nil
}

func (h *gatherer) Stop() {}
