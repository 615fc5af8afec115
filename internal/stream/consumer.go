package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// ConsumerConfig says what to consume and how.
type ConsumerConfig struct {
	Group          string
	Topic          string
	Workers        int           // handlers at work at the same time, and three times as many on at most 64 KiB each; 0 means 2
	IdleInterval   time.Duration // how long nothing arrives before Idle, and before it again; 0 means 250 ms
	CommitInterval time.Duration // how often durable offsets are told to the group; 0 means 500 ms
	SessionTimeout time.Duration // 0 means 10 s
	Members        string        // directory where processes keep which members they are, so that one that starts again need not wait for that timeout; empty = nowhere
	NewHandler     func(partition int) Handler
}

// Consumer gives the partitions of a topic to handlers, one each, together with
// the other members of its group.
type Consumer struct {
	client *Client
	config ConsumerConfig

	slots    chan *Batch   // of idle workers, each with what it reads into
	light    chan *Batch   // of those who do little
	catching chan struct{} // bounds the fetches of partitions that lag
}

// NewConsumer makes a consumer; Run does the work.
func NewConsumer(client *Client, config ConsumerConfig) (*Consumer, error) {
	if config.Group == "" || config.Topic == "" || config.NewHandler == nil {
		return nil, errors.New("consume: group, topic and handler are needed")
	}
	config.Workers = orDefault(config.Workers, 2)
	config.IdleInterval = orDefault(config.IdleInterval, 250*time.Millisecond)
	config.CommitInterval = orDefault(config.CommitInterval, 500*time.Millisecond)
	config.SessionTimeout = orDefault(config.SessionTimeout, 10*time.Second)
	return &Consumer{client: client, config: config, slots: newSlots(config.Workers), light: newSlots(lightPerWorker * config.Workers),
		catching: make(chan struct{}, 2*config.Workers+2)}, nil
}

// lightPerWorker is how many handlers may be at work on little beside each worker.
// They hold little memory and mostly wait for the broker's disk.
const lightPerWorker = 3

func newSlots(n int) chan *Batch {
	slots := make(chan *Batch, n)
	for range n {
		slots <- new(Batch)
	}
	return slots
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// Run consumes until ctx ends; it then waits for every handler to stop. It
// returns nil at the end of ctx.
func (c *Consumer) Run(ctx context.Context) error {
	membership := c.register(ctx)
	defer func() {
		if err := membership.end(); err != nil {
			c.warnOfWaiting(ctx, err)
		}
	}()
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                    c.config.Group,
		Brokers:               c.client.config.Brokers,
		Topics:                []string{c.config.Topic},
		GroupBalancers:        []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		HeartbeatInterval:     c.config.SessionTimeout / 6,
		SessionTimeout:        c.config.SessionTimeout,
		RebalanceTimeout:      2 * c.config.SessionTimeout,
		JoinGroupBackoff:      200 * time.Millisecond,
		StartOffset:           kafka.FirstOffset,
		WatchPartitionChanges: false,
	})
	if err != nil {
		return fmt.Errorf("join group %s: %w", c.config.Group, err)
	}
	defer group.Close()
	pause := newBackoff(50*time.Millisecond, time.Second)
	for {
		generation, err := group.Next(ctx)
		if ctx.Err() != nil || errors.Is(err, kafka.ErrGroupClosed) {
			return nil
		}
		if err != nil {
			c.client.config.Logger.WarnContext(ctx, "joining the consumer group failed, trying again", "group", c.config.Group, "error", err)
			pause.wait(ctx)
			continue
		}
		pause = newBackoff(50*time.Millisecond, time.Second)
		if err := membership.say(generation.MemberID); err != nil {
			c.warnOfWaiting(ctx, err)
		}
		c.runGeneration(ctx, generation)
	}
}

// register makes members leave whose processes have died, and opens the file of this
// one. Where that fails, the group waits, as it does when there is nowhere to keep it.
func (c *Consumer) register(ctx context.Context) *membership {
	if c.config.Members == "" {
		return nil
	}
	soon, cancel := context.WithTimeout(ctx, c.config.SessionTimeout) // later they have timed out
	defer cancel()
	if err := c.client.buryDead(soon, c.config.Members, c.config.Group); err != nil {
		c.warnOfWaiting(ctx, err)
	}
	m, err := openMembership(c.config.Members, c.config.Group)
	if err != nil {
		c.warnOfWaiting(ctx, err)
	}
	return m
}

func (c *Consumer) warnOfWaiting(ctx context.Context, err error) {
	c.client.config.Logger.WarnContext(ctx, "after a crash the consumer group waits until the session of who died has timed out", "group", c.config.Group, "error", err)
}

// runGeneration starts a delivery per assigned partition. They end with the
// generation or with ctx; the group waits for them before it joins again.
func (c *Consumer) runGeneration(ctx context.Context, generation *kafka.Generation) {
	var assignments []*Assignment
	var deliveries sync.WaitGroup
	for _, p := range generation.Assignments[c.config.Topic] {
		a := &Assignment{Topic: c.config.Topic, Partition: p.ID, Generation: generation.ID, Committed: p.Offset}
		if p.Offset < 0 {
			a.Committed = -1
		}
		a.committed.Store(a.Committed)
		assignments = append(assignments, a)
		deliveries.Add(1)
		generation.Start(func(generationContext context.Context) {
			defer deliveries.Done()
			both, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(generationContext, cancel)()
			d := delivery{client: c.client, assignment: a, handler: c.config.NewHandler(a.Partition), slots: c.slots, light: c.light, catching: c.catching, idle: c.config.IdleInterval}
			d.run(both)
		})
	}
	generation.Start(func(generationContext context.Context) {
		c.commitLoop(ctx, generationContext, generation, assignments, &deliveries)
	})
}

// commitLoop tells the group what became durable. It does so a last time after
// the deliveries have stopped; the coordinator refuses it when the generation is
// over, which loses nothing.
func (c *Consumer) commitLoop(ctx, generationContext context.Context, generation *kafka.Generation, assignments []*Assignment, deliveries *sync.WaitGroup) {
	told := make(map[int]int64, len(assignments))
	for _, a := range assignments {
		told[a.Partition] = a.Committed
	}
	ticker := time.NewTicker(c.config.CommitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := c.commit(generation, assignments, told); err != nil {
				c.client.config.Logger.WarnContext(ctx, "committing offsets failed, trying again", "group", c.config.Group, "error", err)
			}
		case <-ctx.Done():
			deliveries.Wait()
			c.lastCommit(ctx, generation, assignments, told)
			return
		case <-generationContext.Done():
			deliveries.Wait()
			c.lastCommit(ctx, generation, assignments, told)
			return
		}
	}
}

func (c *Consumer) lastCommit(ctx context.Context, generation *kafka.Generation, assignments []*Assignment, told map[int]int64) {
	if err := c.commit(generation, assignments, told); err != nil && !errors.Is(err, io.EOF) {
		c.client.config.Logger.DebugContext(ctx, "last commit of a generation refused", "group", c.config.Group, "error", err)
	}
}

func (c *Consumer) commit(generation *kafka.Generation, assignments []*Assignment, told map[int]int64) error {
	offsets := make(map[int]int64)
	for _, a := range assignments {
		if offset := a.committed.Load(); offset > told[a.Partition] {
			offsets[a.Partition] = offset
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	if err := generation.CommitOffsets(map[string]map[int]int64{c.config.Topic: offsets}); err != nil {
		return fmt.Errorf("commit offsets of group %s: %w", c.config.Group, err)
	}
	for partition, offset := range offsets {
		told[partition] = offset
	}
	return nil
}
