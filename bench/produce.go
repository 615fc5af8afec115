package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/leerstroom/leerstroom/internal/stream"
)

// produceMessages is how many messages of `answers` the producers are compared
// with: about five million rows.
const produceMessages = 300

// produce compares three ways of writing the same messages with acknowledgement
// of all replicas: the product's, which repeats after a lost acknowledgement and
// lets readers drop repeats; kafka-go's own Writer; and an idempotent producer,
// which the broker keeps from repeating.
func (r *runner) produce(ctx context.Context, p *pipeline) error {
	messages, rows, err := someMessages(ctx, p, produceMessages)
	if err != nil {
		return err
	}
	for _, way := range []struct {
		figure, what string
		run          func(ctx context.Context, brokers []string, to target, messages []stream.Message) error
	}{
		{figureProduce, "the same messages of `answers` again, by the product's own produce path over kafka-go", produceByClient(p.client)},
		{figureWriter, "by kafka-go's Writer, acks of all replicas, one message a batch", produceByWriter},
		{figureIdem, "by an idempotent producer (franz-go, with its default of one request in flight per broker and acks of all)", produceIdempotent},
	} {
		topic, err := p.extraTopic(ctx, way.figure)
		if err != nil {
			return err
		}
		started := time.Now()
		if err := way.run(ctx, r.config.Environment.Brokers, target{topic, p.partitions, r.config.Workers}, messages); err != nil {
			return fmt.Errorf("%s: %w", way.figure, err)
		}
		r.results.add(way.figure, float64(rows)/time.Since(started).Seconds(), "rows/s", way.what)
	}
	r.results.compare(figureProduce, figureWriter)
	r.results.compare(figureIdem, figureProduce)
	return nil
}

// target is where producers write, and how many at the same time.
type target struct {
	topic               string
	partitions, workers int
}

// someMessages reads messages of `answers`, round the partitions.
func someMessages(ctx context.Context, p *pipeline, n int) (messages []stream.Message, rows int64, err error) {
	for partition := 0; partition < p.partitions && len(messages) < n; partition++ {
		_, end, err := p.client.Offsets(ctx, p.topics.Answers, partition)
		if err != nil {
			return nil, 0, err
		}
		for offset := int64(0); offset < end && len(messages) < n; {
			var batch stream.Batch // its memory is kept
			if err := p.client.Fetch(ctx, p.topics.Answers, partition, offset, time.Second, &batch); err != nil {
				return nil, 0, err
			}
			for i := range batch.Messages {
				held, err := batch.Messages[i].Int64(stream.HeaderRows)
				if err != nil {
					return nil, 0, err
				}
				rows += held
				messages = append(messages, batch.Messages[i])
				offset = batch.Messages[i].Offset + 1
			}
		}
	}
	if len(messages) == 0 {
		return nil, 0, fmt.Errorf("read %s: no messages", p.topics.Answers)
	}
	return messages, rows, nil
}

func produceByClient(client *stream.Client) func(context.Context, []string, target, []stream.Message) error {
	return func(ctx context.Context, _ []string, to target, messages []stream.Message) error {
		return eachPartition(ctx, to, messages, func(ctx context.Context, partition int, m *stream.Message) error {
			_, err := client.Produce(ctx, to.topic, partition, *m)
			return err
		})
	}
}

// eachPartition gives message i to partition i modulo their number; a partition
// has one message under way.
func eachPartition(ctx context.Context, to target, messages []stream.Message, produce func(ctx context.Context, partition int, m *stream.Message) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(to.workers)
	for partition := range to.partitions {
		group.Go(func() error {
			for i := partition; i < len(messages); i += to.partitions {
				if err := produce(ctx, partition, &messages[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func produceByWriter(ctx context.Context, brokers []string, to target, messages []stream.Message) error {
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	writer := &kafka.Writer{
		Addr: kafka.TCP(brokers...), Topic: to.topic, RequiredAcks: kafka.RequireAll, BatchSize: 1, BatchBytes: stream.MaxMessageBytes,
		BatchTimeout: time.Millisecond, Transport: transport,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return int(m.Key[0]) }),
	}
	err := eachPartition(ctx, to, messages, func(ctx context.Context, partition int, m *stream.Message) error {
		return writer.WriteMessages(ctx, kafka.Message{Key: []byte{byte(partition)}, Value: m.Value})
	})
	if closeErr := writer.Close(); err == nil {
		err = closeErr
	}
	return err
}

func produceIdempotent(ctx context.Context, brokers []string, to target, messages []stream.Message) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchMaxBytes(stream.MaxMessageBytes),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	if err != nil {
		return fmt.Errorf("make idempotent producer: %w", err)
	}
	defer client.Close()
	return eachPartition(ctx, to, messages, func(ctx context.Context, partition int, m *stream.Message) error {
		return client.ProduceSync(ctx, &kgo.Record{Topic: to.topic, Partition: int32(partition), Value: m.Value}).FirstErr()
	})
}
