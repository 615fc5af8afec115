package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// Limits of one message and one fetch; a larger message still comes whole. A
// partition that waits for messages asks for few: what it gets lies in memory
// until a worker is free, and more is fetched then.
const (
	MaxMessageBytes = 8 << 20
	maxFetchBytes   = 1 << 20
	waitFetchBytes  = 64 << 10
)

// ErrOffsetOutOfRange reports that a wanted offset is no longer, or not yet, in
// the log. Reading on elsewhere would lose messages, so nobody does.
var ErrOffsetOutOfRange = errors.New("offset out of range")

// Config says how to reach Kafka.
type Config struct {
	Brokers  []string
	ClientID string
	Logger   *slog.Logger
}

// Client produces and fetches. It is safe for concurrent use.
type Client struct {
	kafka     kafka.Client
	transport *kafka.Transport
	stop      context.CancelFunc
	config    Config

	mu    sync.Mutex
	asked time.Time // when somebody last asked for the leaders
}

// NewClient makes a client. It connects when first used.
func NewClient(config Config) (*Client, error) {
	if len(config.Brokers) == 0 {
		return nil, errors.New("connect to kafka: no brokers configured")
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	transport := &kafka.Transport{
		ClientID:    config.ClientID,
		DialTimeout: 5 * time.Second,
		MetadataTTL: 5 * time.Second,
		Context:     ctx,
		Dial:        (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}
	return &Client{
		kafka:     kafka.Client{Addr: kafka.TCP(config.Brokers...), Timeout: 15 * time.Second, Transport: transport},
		transport: transport,
		stop:      stop,
		config:    config,
	}, nil
}

// Close drops the connections. Calls under way fail.
func (c *Client) Close() {
	c.stop()
	c.transport.CloseIdleConnections()
}

// Produce writes messages to a partition in one request and returns the offset
// of the first. It retries until ctx ends, so a message may be written twice;
// the returned offset is that of the last attempt. Values are not copied.
func (c *Client) Produce(ctx context.Context, topic string, partition int, messages ...Message) (baseOffset int64, err error) {
	for i := range messages {
		if len(messages[i].Value) > MaxMessageBytes {
			return 0, fmt.Errorf("produce to %s/%d: message of %d bytes, at most %d", topic, partition, len(messages[i].Value), MaxMessageBytes)
		}
	}
	pause := newBackoff(10*time.Millisecond, time.Second)
	for {
		response, err := c.kafka.Produce(ctx, &kafka.ProduceRequest{
			Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: records(messages),
		})
		if err == nil {
			err = response.Error
		}
		if err == nil {
			return response.BaseOffset, nil
		}
		if permanent(err) {
			return 0, fmt.Errorf("produce to %s/%d: %w", topic, partition, err)
		}
		if ledElsewhere(err) {
			c.askForLeaders()
		}
		c.config.Logger.WarnContext(ctx, "kafka produce failed, trying again", "topic", topic, "partition", partition, "error", err)
		if !pause.wait(ctx) {
			return 0, fmt.Errorf("produce to %s/%d: %w (last error: %w)", topic, partition, context.Cause(ctx), err)
		}
	}
}

func records(messages []Message) kafka.RecordReader {
	out := make([]kafka.Record, len(messages))
	for i := range messages {
		out[i].Value = kafka.NewBytes(messages[i].Value)
		for _, h := range messages[i].Headers {
			out[i].Headers = append(out[i].Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
	}
	return kafka.NewRecordReader(out...)
}

// permanent tells whether another attempt can't succeed.
func permanent(err error) bool {
	for _, e := range []kafka.Error{kafka.MessageSizeTooLarge, kafka.InvalidMessage, kafka.InvalidTopic, kafka.TopicAuthorizationFailed,
		kafka.InvalidRequiredAcks, kafka.UnsupportedForMessageFormat, kafka.RecordListTooLarge} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// LongestWait is how long a follower lets the broker wait for messages: less than
// the time limit of a request.
const LongestWait = 5 * time.Second

// Batch is what one fetch brought. Its bytes are reused by the next fetch with
// the same batch.
type Batch struct {
	Messages      []Message
	HighWatermark int64 // offset that the next produced message will get

	arena []byte
	cuts  []int
}

// Fetch reads messages from an offset into the batch. It waits up to maxWait for
// the first one; none is no error. Every record batch is checked against its
// CRC.
func (c *Client) Fetch(ctx context.Context, topic string, partition int, offset int64, maxWait time.Duration, batch *Batch) error {
	fetched, err := c.fetch(ctx, topic, partition, offset, maxWait, maxFetchBytes)
	if err != nil {
		return err
	}
	_, err = fetched.read(batch, wholly)
	return err
}

// fetched is what one fetch brought, as kafka-go has it: in pages that it uses
// again when they were read.
type fetched struct {
	response  *kafka.FetchResponse
	topic     string
	partition int
	offset    int64         // that was asked for
	next      *kafka.Record // that was looked at and did not fit
}

func (c *Client) fetch(ctx context.Context, topic string, partition int, offset int64, maxWait time.Duration, maxBytes int64) (fetched, error) {
	// kafka-go takes 0 for "not set" and would wait for ten seconds.
	maxWait = max(maxWait, time.Millisecond)
	var response *kafka.FetchResponse
	err := c.whileMoving(ctx, func() (err error) {
		response, err = c.kafka.Fetch(ctx, &kafka.FetchRequest{
			Topic: topic, Partition: partition, Offset: offset, MinBytes: 1, MaxBytes: maxBytes, MaxWait: maxWait,
		})
		if err == nil {
			err = response.Error
		}
		return err
	})
	if errors.Is(err, kafka.OffsetOutOfRange) {
		return fetched{}, fmt.Errorf("fetch %s/%d at offset %d: %w: the log was cut by retention or the topic made anew; restore it or rebuild", topic, partition, offset, ErrOffsetOutOfRange)
	}
	if err != nil {
		return fetched{}, fmt.Errorf("fetch %s/%d at offset %d: %w", topic, partition, offset, err)
	}
	return fetched{response: response, topic: topic, partition: partition, offset: offset}, nil
}

// wholly is for read: everything, whatever its size.
const wholly = math.MaxInt

// read puts what was fetched in a batch, up to a record that would make it larger than
// so many bytes; whole is false then, and read goes on in the same batch, or in one that
// has taken it over.
func (f *fetched) read(batch *Batch, maxBytes int) (whole bool, err error) {
	if f.next == nil {
		batch.Messages, batch.arena, batch.cuts = batch.Messages[:0], batch.arena[:0], batch.cuts[:0]
		batch.HighWatermark = f.response.HighWatermark
	}
	if whole, err = f.readOn(batch, maxBytes); err != nil {
		return false, fmt.Errorf("fetch %s/%d at offset %d: %w", f.topic, f.partition, f.offset, err)
	}
	if whole {
		for i := range batch.Messages {
			batch.Messages[i].Value = batch.arena[batch.cuts[2*i]:batch.cuts[2*i+1]:batch.cuts[2*i+1]]
		}
	}
	return whole, nil
}

// readOn copies records into the arena. A record batch may begin before the asked
// offset; those records are skipped.
func (f *fetched) readOn(b *Batch, maxBytes int) (whole bool, err error) {
	for {
		record := f.next
		if record == nil {
			if record, err = f.response.Records.ReadRecord(); errors.Is(err, io.EOF) {
				return true, nil
			}
			if err != nil {
				return false, fmt.Errorf("read record: %w", err)
			}
		}
		if record.Offset >= f.offset {
			if record.Value != nil && record.Value.Len() > maxBytes-len(b.arena) {
				f.next = record
				return false, nil
			}
			if err := b.add(record); err != nil {
				return false, err
			}
		}
		f.next = nil
		closeBytes(record.Key)
		closeBytes(record.Value)
	}
}

// takeOver copies what another batch has read so far; it goes on in this one.
func (b *Batch) takeOver(other *Batch) {
	b.Messages, b.arena, b.cuts = append(b.Messages[:0], other.Messages...), append(b.arena[:0], other.arena...), append(b.cuts[:0], other.cuts...)
	b.HighWatermark = other.HighWatermark
}

func (b *Batch) add(record *kafka.Record) error {
	start := len(b.arena)
	if record.Value != nil {
		end := start + record.Value.Len()
		if cap(b.arena) < end {
			grown := make([]byte, start, max(end, 2*cap(b.arena)))
			copy(grown, b.arena)
			b.arena = grown
		}
		b.arena = b.arena[:end]
		if _, err := io.ReadFull(record.Value, b.arena[start:end]); err != nil {
			return fmt.Errorf("read record at offset %d: %w", record.Offset, err)
		}
	}
	b.cuts = append(b.cuts, start, len(b.arena))
	m := Message{Offset: record.Offset}
	for _, h := range record.Headers {
		m.Headers = append(m.Headers, Header{Key: h.Key, Value: h.Value})
	}
	b.Messages = append(b.Messages, m)
	return nil
}

func closeBytes(b kafka.Bytes) {
	if b != nil {
		// Closing returns pooled pages; it can't fail in a way that matters here.
		_ = b.Close()
	}
}

// Offsets returns the first offset of a partition and the one after its last.
func (c *Client) Offsets(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	err = c.whileMoving(ctx, func() error {
		first, end, err = c.listOffsets(ctx, topic, partition)
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("list offsets of %s/%d: %w", topic, partition, err)
	}
	return first, end, nil
}

func (c *Client) listOffsets(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	response, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)}}})
	if err != nil {
		return 0, 0, err
	}
	for _, p := range response.Topics[topic] {
		if p.Partition == partition {
			return p.FirstOffset, p.LastOffset, p.Error
		}
	}
	return 0, 0, errors.New("partition not in the reply")
}

// moving is how long a partition may have no leader, or one that doesn't know it
// yet, before that is an error: after a topic was made or a broker went away.
const moving = 10 * time.Second

// whileMoving repeats a request while the broker says that the partition is led
// elsewhere.
func (c *Client) whileMoving(ctx context.Context, request func() error) error {
	pause, began := newBackoff(20*time.Millisecond, 500*time.Millisecond), time.Now()
	for {
		err := request()
		if !ledElsewhere(err) || time.Since(began) > moving {
			return err
		}
		c.askForLeaders()
		if !pause.wait(ctx) {
			return err
		}
	}
}

// ledElsewhere tells whether an error says that the broker asked is not the
// leader, or not yet.
func ledElsewhere(err error) bool {
	return errors.Is(err, kafka.NotLeaderForPartition) || errors.Is(err, kafka.LeaderNotAvailable) || errors.Is(err, kafka.UnknownTopicOrPartition)
}

// askPeriod bounds how often leaders are asked for because somebody was refused:
// many partitions move together when a broker goes.
const askPeriod = 250 * time.Millisecond

// askForLeaders makes the requests that follow learn anew who leads what. The
// transport asks every few seconds only, and at once when it has no connections.
// Requests under way keep theirs.
func (c *Client) askForLeaders() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.asked) >= askPeriod {
		c.asked = time.Now()
		c.transport.CloseIdleConnections()
	}
}

// Last reads the last message of a partition; found is false when it is empty.
func (c *Client) Last(ctx context.Context, topic string, partition int) (message Message, found bool, err error) {
	first, end, err := c.Offsets(ctx, topic, partition)
	if err != nil || first == end {
		return Message{}, false, err
	}
	var batch Batch
	if err := c.Fetch(ctx, topic, partition, end-1, 5*time.Second, &batch); err != nil {
		return Message{}, false, err
	}
	if len(batch.Messages) == 0 {
		return Message{}, false, fmt.Errorf("read the last message of %s/%d: offset %d has none", topic, partition, end-1)
	}
	return batch.Messages[len(batch.Messages)-1], true, nil
}

// backoff waits ever longer between attempts.
type backoff struct{ next, longest time.Duration }

func newBackoff(first, longest time.Duration) *backoff {
	return &backoff{next: first, longest: longest}
}

// wait returns false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	b.next = min(2*b.next, b.longest)
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
