package engine_test

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// embedded is a broker in a process of its own whose data directory the test
// knows, whatever Kafka the other tests use.
type embedded struct {
	t       *testing.T
	dir     string
	process *engine.BrokerProcess
}

func startEmbedded(t *testing.T) *embedded {
	e := &embedded{t: t, dir: t.TempDir()}
	e.start()
	t.Cleanup(func() {
		if err := e.process.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func (e *embedded) start() {
	e.t.Helper()
	process, err := engine.StartBrokerProcess(e.t.Context(), e.dir, engine.KafkaConfig{})
	if err != nil {
		e.t.Fatal(err)
	}
	if e.process != nil && process.Address != e.process.Address {
		e.t.Errorf("address after a restart = %s, want %s", process.Address, e.process.Address)
	}
	e.process = process
}

// again stops the broker in order or kills it, and starts it.
func (e *embedded) again(kill bool) {
	e.t.Helper()
	end := e.process.Close
	if kill {
		end = e.process.Kill
	}
	if err := end(); err != nil {
		e.t.Fatal(err)
	}
	e.start()
}

func (e *embedded) client() *kafka.Client { return enginetest.Client(e.t, []string{e.process.Address}) }

func makeTopic(t *testing.T, client *kafka.Client, topic string, partitions int, config map[string]string) {
	t.Helper()
	request := kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}
	for k, v := range config {
		request.ConfigEntries = append(request.ConfigEntries, kafka.ConfigEntry{ConfigName: k, ConfigValue: v})
	}
	response, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{request}})
	if err == nil {
		err = response.Errors[topic]
	}
	if err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
}

// bounds returns the first and the next offset of a partition.
func bounds(t *testing.T, client *kafka.Client, topic string, partition int) (first, next int64) {
	t.Helper()
	response, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)},
	}})
	if err != nil {
		t.Fatalf("list offsets: %v", err)
	}
	found := response.Topics[topic][0]
	if found.Error != nil {
		t.Fatalf("list offsets: %v", found.Error)
	}
	return found.FirstOffset, found.LastOffset
}

// deleteBefore deletes the messages before an offset of partition 0. kafka-go
// can't ask for it.
func (e *embedded) deleteBefore(topic string, offset int64) {
	e.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.process.Address))
	if err != nil {
		e.t.Fatal(err)
	}
	defer client.Close()
	partition := kmsg.NewDeleteRecordsRequestTopicPartition()
	partition.Offset = offset
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.TimeoutMillis = 10_000
	request.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{partition}}}
	response, err := request.RequestWith(e.t.Context(), client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		e.t.Fatalf("delete records: %v", err)
	}
}

// TestEmptiedPartitionKeepsItsPlace: when all its messages are gone, a partition
// goes on with the offset after the last, whatever way the broker ended.
func TestEmptiedPartitionKeepsItsPlace(t *testing.T) {
	t.Parallel()
	for _, kill := range []bool{false, true} {
		t.Run("kill="+strconv.FormatBool(kill), func(t *testing.T) {
			t.Parallel()
			broker := startEmbedded(t)
			client := broker.client()
			makeTopic(t, client, "emptied", 1, nil)
			next := int64(0)
			for round := range 3 {
				if offset, err := produce(t, client, "emptied", 0, "a", "b", "c"); err != nil || offset != next {
					t.Fatalf("round %d: offset = %d, %v, want %d", round, offset, err, next)
				}
				next += 3
				broker.deleteBefore("emptied", next)
				broker.again(kill)
				client = broker.client()
				if first, got := bounds(t, client, "emptied", 0); first != next || got != next {
					t.Fatalf("round %d: offsets after restart = %d to %d, want %d to %d", round, first, got, next, next)
				}
				broker.again(kill) // with nothing written since
				client = broker.client()
			}
			if offset, err := produce(t, client, "emptied", 0, "d"); err != nil || offset != next {
				t.Errorf("offset = %d, %v, want %d", offset, err, next)
			}
		})
	}
}

// TestDeletedRecordsStayHidden: a kill must not bring back what was deleted.
func TestDeletedRecordsStayHidden(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t)
	client := broker.client()
	makeTopic(t, client, "hidden", 1, nil)
	for _, v := range []string{"a", "b", "c", "d"} {
		if _, err := produce(t, client, "hidden", 0, v); err != nil {
			t.Fatal(err)
		}
	}
	broker.deleteBefore("hidden", 2)
	broker.again(true)
	client = broker.client()
	if first, next := bounds(t, client, "hidden", 0); first != 2 || next != 4 {
		t.Errorf("offsets after kill = %d to %d, want 2 to 4", first, next)
	}
	if values, _ := fetch(t, client, "hidden", 0, 2); !slices.Equal(values, []string{"c", "d"}) {
		t.Errorf("values after kill = %q", values)
	}
}

// TestRetentionAtStart: what is past its retention period is not served after a
// start, and the partition goes on where it was.
func TestRetentionAtStart(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t)
	client := broker.client()
	makeTopic(t, client, "retained", 1, map[string]string{"retention.ms": "1"})
	makeTopic(t, client, "kept", 1, map[string]string{"retention.ms": "-1"})
	for _, topic := range []string{"retained", "kept"} {
		if _, err := produce(t, client, topic, 0, "a", "b"); err != nil {
			t.Fatal(err)
		}
	}
	broker.again(true)
	broker.again(true)
	client = broker.client()
	for topic, want := range map[string][2]int64{"retained": {2, 2}, "kept": {0, 2}} {
		if first, next := bounds(t, client, topic, 0); first != want[0] || next != want[1] {
			t.Errorf("%s: offsets = %d to %d, want %d to %d", topic, first, next, want[0], want[1])
		}
	}
}

// TestTopicMadeAnewBeginsAtZero: what was remembered of a deleted topic does not
// reach a new one of the same name.
func TestTopicMadeAnewBeginsAtZero(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t)
	client := broker.client()
	makeTopic(t, client, "anew", 1, nil)
	if _, err := produce(t, client, "anew", 0, "a", "b"); err != nil {
		t.Fatal(err)
	}
	broker.deleteBefore("anew", 1)
	if _, err := client.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{"anew"}}); err != nil {
		t.Fatal(err)
	}
	makeTopic(t, client, "anew", 1, nil)
	broker.again(true)
	if first, next := bounds(t, broker.client(), "anew", 0); first != 0 || next != 0 {
		t.Errorf("offsets of the new topic = %d to %d, want 0 to 0", first, next)
	}
}

// TestGroupsAndOffsets uses a consumer group as the stages do, on whichever
// Kafka the tests run.
func TestGroupsAndOffsets(t *testing.T) {
	t.Parallel()
	broker := enginetest.StartBroker(t)
	topic := enginetest.Topic(t, broker.Brokers(), "group", 2)
	client := enginetest.Client(t, broker.Brokers())
	if _, err := produce(t, client, topic, 1, "a", "b", "c"); err != nil {
		t.Fatal(err)
	}
	group := enginetest.UniqueName("group")
	consumer, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: group, Brokers: broker.Brokers(), Topics: []string{topic}, StartOffset: kafka.FirstOffset,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: time.Second, RebalanceTimeout: 6 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	var generation *kafka.Generation
	enginetest.Eventually(t, time.Minute, "join the group", func() (err error) {
		generation, err = consumer.Next(t.Context()) // fails while the broker makes its topic of offsets
		return err
	})
	if n := len(generation.Assignments[topic]); n != 2 {
		t.Errorf("partitions assigned = %d, want 2", n)
	}
	if err := generation.CommitOffsets(map[string]map[int]int64{topic: {1: 2}}); err != nil {
		t.Fatalf("commit: %v", err)
	}
	if err := consumer.Close(); err != nil {
		t.Errorf("leave group: %v", err)
	}
	broker.Kill()
	broker.Restart()
	client = enginetest.Client(t, broker.Brokers())
	enginetest.Eventually(t, 30*time.Second, "committed offset after a kill", func() error {
		response, err := client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0, 1}}})
		if err == nil {
			err = response.Error
		}
		if err != nil {
			return err
		}
		got := map[int]int64{}
		for _, p := range response.Topics[topic] {
			got[p.Partition] = p.CommittedOffset
		}
		if got[0] != -1 || got[1] != 2 {
			return errors.New("committed offsets differ: partition 0 " + strconv.FormatInt(got[0], 10) + ", 1 " + strconv.FormatInt(got[1], 10))
		}
		return nil
	})
	if first, next := bounds(t, client, topic, 1); first != 0 || next != 3 {
		t.Errorf("offsets = %d to %d, want 0 to 3", first, next)
	}
}

// TestUnknownTopicIsNotMade: a typing error in a topic's name shall be an error.
func TestUnknownTopicIsNotMade(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	client := enginetest.Client(t, brokers)
	name := enginetest.UniqueName("never_made")
	if _, err := produce(t, client, name, 0, "a"); err == nil {
		t.Errorf("produced to a topic that does not exist")
	}
	if _, err := net.Dial("tcp", brokers[0]); err != nil {
		t.Errorf("the broker is gone: %v", err)
	}
}
