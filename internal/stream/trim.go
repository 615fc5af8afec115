package stream

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Trim deletes the messages of a partition below an offset, for good. Whoever
// still has to read them gets ErrOffsetOutOfRange, so the caller makes sure that
// nobody does. The broker drops whole segments; what lies in one that is still in
// use is out of reach at once and leaves the disk with it. kafka-go doesn't know
// the request, so this is the one that franz-go makes.
func (c *Client) Trim(ctx context.Context, topic string, partition int, offset int64) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.config.Brokers...), kgo.ClientID(c.config.ClientID))
	if err != nil {
		return fmt.Errorf("trim %s/%d: %w", topic, partition, err)
	}
	defer client.Close()
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.TimeoutMillis = 15_000
	ofPartition := kmsg.NewDeleteRecordsRequestTopicPartition()
	ofPartition.Partition, ofPartition.Offset = int32(partition), offset
	ofTopic := kmsg.NewDeleteRecordsRequestTopic()
	ofTopic.Topic, ofTopic.Partitions = topic, append(ofTopic.Partitions, ofPartition)
	request.Topics = append(request.Topics, ofTopic)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("trim %s/%d below offset %d: %w", topic, partition, offset, err)
	}
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("trim %s/%d below offset %d: %w", topic, partition, offset, err)
			}
		}
	}
	return nil
}
