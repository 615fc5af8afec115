package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// The library has no request to delete records; it takes further ones, before
// the first connection is made.
var _ = registered(&deleteRecordsRequest{}, &deleteRecordsResponse{})

func registered(request, response protocol.Message) bool {
	protocol.Register(request, response)
	return true
}

type deleteRecordsRequest struct {
	Topics    []deleteRecordsTopic `kafka:"min=v0,max=v1"`
	TimeoutMs int32                `kafka:"min=v0,max=v1"`
}

type deleteRecordsTopic struct {
	Name       string                   `kafka:"min=v0,max=v1"`
	Partitions []deleteRecordsPartition `kafka:"min=v0,max=v1"`
}

type deleteRecordsPartition struct {
	Partition int32 `kafka:"min=v0,max=v1"`
	Offset    int64 `kafka:"min=v0,max=v1"`
}

type deleteRecordsResponse struct {
	ThrottleTimeMs int32                 `kafka:"min=v0,max=v1"`
	Topics         []deletedRecordsTopic `kafka:"min=v0,max=v1"`
}

type deletedRecordsTopic struct {
	Name       string                    `kafka:"min=v0,max=v1"`
	Partitions []deletedRecordsPartition `kafka:"min=v0,max=v1"`
}

type deletedRecordsPartition struct {
	Partition    int32 `kafka:"min=v0,max=v1"`
	LowWatermark int64 `kafka:"min=v0,max=v1"`
	ErrorCode    int16 `kafka:"min=v0,max=v1"`
}

// ApiKey implements protocol.Message.
func (*deleteRecordsRequest) ApiKey() protocol.ApiKey { return protocol.DeleteRecords }

// ApiKey implements protocol.Message.
func (*deleteRecordsResponse) ApiKey() protocol.ApiKey { return protocol.DeleteRecords }

// Broker implements protocol.BrokerMessage: the leader of the partition deletes.
func (r *deleteRecordsRequest) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	t := &r.Topics[0]
	partition, ok := cluster.Topics[t.Name].Partitions[t.Partitions[0].Partition]
	if !ok {
		return protocol.Broker{ID: -1}, kafka.UnknownTopicOrPartition
	}
	broker, ok := cluster.Brokers[partition.Leader]
	if !ok {
		return protocol.Broker{ID: -1}, kafka.LeaderNotAvailable
	}
	return broker, nil
}

// DeleteRecords removes all messages of a partition below an offset, for good.
// Whoever still has to read them gets ErrOffsetOutOfRange, so the caller makes sure
// that nobody does. Their bytes go with the segments that hold nothing else: see
// TopicSpec.SegmentPeriod.
func (c *Client) DeleteRecords(ctx context.Context, topic string, partition int, before int64) error {
	request := &deleteRecordsRequest{TimeoutMs: int32(c.kafka.Timeout.Milliseconds()),
		Topics: []deleteRecordsTopic{{Name: topic, Partitions: []deleteRecordsPartition{{Partition: int32(partition), Offset: before}}}}}
	err := c.whileMoving(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, c.kafka.Timeout)
		defer cancel()
		reply, err := c.transport.RoundTrip(ctx, c.kafka.Addr, request)
		if err != nil {
			return err
		}
		topics := reply.(*deleteRecordsResponse).Topics
		if len(topics) != 1 || len(topics[0].Partitions) != 1 {
			return errors.New("partition not in the reply")
		}
		if code := topics[0].Partitions[0].ErrorCode; code != 0 {
			return kafka.Error(code)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete records of %s/%d below offset %d: %w", topic, partition, before, err)
	}
	return nil
}
