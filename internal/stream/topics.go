package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// TopicSpec describes a topic to create.
type TopicSpec struct {
	Name              string
	Partitions        int
	ReplicationFactor int           // 0 means 1
	MinInsyncReplicas int           // 0 leaves the broker's setting
	Retention         time.Duration // 0 keeps for ever

	// SegmentPeriod is how long a file is written to at most, and so about how much
	// longer than it can be read a message may lie on the disk; 0 leaves the
	// broker's setting.
	SegmentPeriod time.Duration

	// Unsynced says that the last messages may be lost when power is, because
	// they can be made again: a broker that syncs otherwise leaves the topic to
	// the operating system.
	Unsynced bool
}

// EnsureTopics creates what is missing. A topic that exists with another number
// of partitions is an error: the number is fixed for the life of a deployment.
func (c *Client) EnsureTopics(ctx context.Context, specs ...TopicSpec) error {
	request := &kafka.CreateTopicsRequest{}
	for _, s := range specs {
		request.Topics = append(request.Topics, s.config())
	}
	pause := newBackoff(50*time.Millisecond, time.Second)
	for {
		response, err := c.kafka.CreateTopics(ctx, request)
		if err == nil {
			for name, e := range response.Errors {
				if e != nil && !errors.Is(e, kafka.TopicAlreadyExists) {
					err = fmt.Errorf("topic %s: %w", name, e)
				}
			}
		}
		if err == nil {
			err = c.checkPartitions(ctx, specs)
		}
		if err == nil || errors.Is(err, errPartitions) {
			return err
		}
		if !pause.wait(ctx) {
			return fmt.Errorf("create topics: %w", err)
		}
	}
}

func (s TopicSpec) config() kafka.TopicConfig {
	retention := int64(-1)
	if s.Retention > 0 {
		retention = s.Retention.Milliseconds()
	}
	entries := []kafka.ConfigEntry{
		{ConfigName: "cleanup.policy", ConfigValue: "delete"},
		{ConfigName: "retention.ms", ConfigValue: strconv.FormatInt(retention, 10)},
		{ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(MaxMessageBytes + 1<<20)},
	}
	if s.SegmentPeriod > 0 {
		entries = append(entries, kafka.ConfigEntry{ConfigName: "segment.ms", ConfigValue: strconv.FormatInt(s.SegmentPeriod.Milliseconds(), 10)})
	}
	if s.Unsynced {
		entries = append(entries, kafka.ConfigEntry{ConfigName: "flush.messages", ConfigValue: strconv.FormatInt(math.MaxInt64, 10)})
	}
	if s.MinInsyncReplicas > 0 {
		entries = append(entries, kafka.ConfigEntry{ConfigName: "min.insync.replicas", ConfigValue: strconv.Itoa(s.MinInsyncReplicas)})
	}
	return kafka.TopicConfig{Topic: s.Name, NumPartitions: s.Partitions, ReplicationFactor: max(1, s.ReplicationFactor), ConfigEntries: entries}
}

var errPartitions = errors.New("number of partitions differs")

func (c *Client) checkPartitions(ctx context.Context, specs []TopicSpec) error {
	request := &kafka.MetadataRequest{}
	for _, s := range specs {
		request.Topics = append(request.Topics, s.Name)
	}
	response, err := c.kafka.Metadata(ctx, request)
	if err != nil {
		return fmt.Errorf("read topics: %w", err)
	}
	found := make(map[string]int, len(specs))
	for _, t := range response.Topics {
		if t.Error != nil {
			return fmt.Errorf("read topic %s: %w", t.Name, t.Error)
		}
		found[t.Name] = len(t.Partitions)
	}
	for _, s := range specs {
		if found[s.Name] != s.Partitions {
			return fmt.Errorf("topic %s has %d partitions, the configuration says %d: %w and can't be changed", s.Name, found[s.Name], s.Partitions, errPartitions)
		}
	}
	return nil
}
