package enginetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leerstroom/leerstroom/internal/engine"
)

// KafkaVariable chooses the Kafka of the tests: empty or "embedded", or "apache".
const KafkaVariable = "LEERSTROOM_TEST_KAFKA"

func apache(t testing.TB) bool {
	switch v := os.Getenv(KafkaVariable); v {
	case "", "embedded":
		return false
	case "apache":
		return true
	default:
		t.Fatalf("%s=%s, want embedded or apache", KafkaVariable, v)
		return false
	}
}

// Kafka returns the brokers that the tests of this binary share.
func Kafka(t testing.TB) []string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.brokers == nil && shared.brokerErr == nil {
		shared.brokers, shared.broker, shared.brokerErr = startShared(t)
	}
	if shared.brokerErr != nil {
		Missing(t, shared.brokerErr)
	}
	return shared.brokers
}

func startShared(t testing.TB) ([]string, stopper, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	process, err := startBroker(t, ctx, sharedDir(t, "kafka"), engine.KafkaConfig{UnsyncedWrites: true})
	if err != nil {
		return nil, nil, err
	}
	return []string{process.Address}, process, nil
}

func startBroker(t testing.TB, ctx context.Context, dir string, config engine.KafkaConfig) (*engine.BrokerProcess, error) {
	if apache(t) {
		return engine.StartApacheKafka(ctx, engine.ApacheKafkaConfig{Dir: dir, Port: config.Port, Synced: !config.UnsyncedWrites, ShortLived: true})
	}
	return engine.StartBrokerProcess(ctx, dir, config)
}

// Topic makes a topic with a name of its own that begins with prefix, and
// deletes it when the test ends.
func Topic(t testing.TB, brokers []string, prefix string, partitions int) string {
	t.Helper()
	name := UniqueName(prefix)
	client := Client(t, brokers)
	ctx := within(t, 30*time.Second)
	create := func() error {
		response, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
			Topic: name, NumPartitions: partitions, ReplicationFactor: 1,
			ConfigEntries: []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(16 << 20)}},
		}}})
		if err == nil {
			err = response.Errors[name]
		}
		if errors.Is(err, kafka.TopicAlreadyExists) { // of an attempt whose answer was lost
			err = nil
		}
		return err
	}
	Eventually(t, 30*time.Second, "create topic "+name, create)
	Eventually(t, 30*time.Second, "see leaders of topic "+name, func() error { return led(ctx, client, name, partitions) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		request := &kafka.DeleteTopicsRequest{Topics: []string{name}}
		_, err := client.DeleteTopics(ctx, request)
		if err != nil { // on a connection to a broker that was restarted since
			_, err = client.DeleteTopics(ctx, request)
		}
		if err != nil { // a test may have stopped the broker
			t.Logf("delete topic %s: %v", name, err)
		}
	})
	return name
}

// led tells whether each partition has a leader that knows that it is one: a
// topic is in the metadata a moment earlier.
func led(ctx context.Context, client *kafka.Client, topic string, partitions int) error {
	var asked []kafka.OffsetRequest
	for p := range partitions {
		asked = append(asked, kafka.LastOffsetOf(p))
	}
	response, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: asked}})
	if err != nil {
		return err
	}
	answered := response.Topics[topic]
	for _, p := range answered {
		if p.Error != nil {
			return fmt.Errorf("partition %d: %w", p.Partition, p.Error)
		}
	}
	if len(answered) != partitions {
		return fmt.Errorf("%d partitions, want %d", len(answered), partitions)
	}
	return nil
}

// Client returns a Kafka client that is closed when the test ends.
func Client(t testing.TB, brokers []string) *kafka.Client {
	ctx, cancel := context.WithCancel(context.Background())
	transport := &kafka.Transport{
		DialTimeout: 5 * time.Second, MetadataTTL: 200 * time.Millisecond, Context: ctx,
		Dial: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}
	t.Cleanup(func() {
		cancel()
		transport.CloseIdleConnections()
	})
	return &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 15 * time.Second, Transport: transport}
}

// UniqueName returns prefix and a suffix that no other call in any test process
// on this machine returns. It fits topics, groups and databases.
func UniqueName(prefix string) string {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.topicCount++
	return strings.Join([]string{prefix, strconv.Itoa(os.Getpid()), strconv.Itoa(shared.topicCount)}, "_")
}

// Eventually calls try until it returns nil and fails the test when that takes
// longer than the limit.
func Eventually(t testing.TB, limit time.Duration, what string, try func() error) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		case <-poll.C:
		}
	}
}

// Broker is a Kafka of one test, which may kill it.
type Broker struct {
	t       testing.TB
	dir     string
	port    int
	process *engine.BrokerProcess
}

// StartBroker starts a broker for this test alone, in a process of its own. It is
// stopped when the test ends.
func StartBroker(t testing.TB) *Broker {
	t.Helper()
	b := &Broker{t: t, dir: t.TempDir()}
	b.Restart()
	t.Cleanup(b.Stop)
	return b
}

// Brokers returns the addresses; they stay when the broker is restarted.
func (b *Broker) Brokers() []string {
	return []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port))}
}

// Kill ends the broker with SIGKILL.
func (b *Broker) Kill() {
	b.t.Helper()
	if err := b.process.Kill(); err != nil {
		b.t.Fatalf("kill broker: %v", err)
	}
}

// Stop stops the broker in order; it does nothing when it does not run.
func (b *Broker) Stop() {
	b.t.Helper()
	if err := b.process.Close(); err != nil {
		b.t.Errorf("stop broker: %v", err)
	}
}

// Restart starts the broker again on the same data and port.
func (b *Broker) Restart() {
	b.t.Helper()
	process, err := startBroker(b.t, within(b.t, startLimit), b.dir, engine.KafkaConfig{Port: b.port})
	if err != nil {
		Missing(b.t, err)
	}
	b.process = process
	_, port, err := net.SplitHostPort(process.Address)
	if err == nil {
		b.port, err = strconv.Atoi(port)
	}
	if err != nil {
		b.t.Fatalf("address of the broker: %v", err)
	}
}

// AwaitEnd returns when the broker has ended.
func (b *Broker) AwaitEnd() { <-b.process.Done() }
