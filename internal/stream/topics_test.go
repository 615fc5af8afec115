package stream_test

import (
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// TestTopicsKeepTheirPeriods: how long messages, and their bytes, stay is what the
// broker says it is.
func TestTopicsKeepTheirPeriods(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	client, topic := newClient(t, brokers), enginetest.UniqueName("periods")
	spec := stream.TopicSpec{Name: topic, Partitions: 1, Retention: 70 * time.Hour, SegmentPeriod: 10 * time.Hour}
	if err := client.EnsureTopics(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	response, err := enginetest.Client(t, brokers).DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"retention.ms": "252000000", "segment.ms": "36000000", "cleanup.policy": "delete"}
	for _, entry := range response.Resources[0].ConfigEntries {
		if value, ok := want[entry.ConfigName]; ok && entry.ConfigValue == value {
			delete(want, entry.ConfigName)
		}
	}
	if len(want) > 0 {
		t.Errorf("the broker does not say %v", want)
	}
}
