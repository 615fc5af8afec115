package engine_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestMemberThatEndsWhileItJoins: what is assigned to a member whose connection
// ended before its join was answered goes back to the others.
func TestMemberThatEndsWhileItJoins(t *testing.T) {
	t.Parallel()
	brokers := enginetest.StartBroker(t).Brokers()
	topic := enginetest.Topic(t, brokers, "leaving", 2)
	group := enginetest.UniqueName("group")
	consumer, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: group, Brokers: brokers, Topics: []string{topic}, StartOffset: kafka.FirstOffset,
		SessionTimeout: time.Second, HeartbeatInterval: 100 * time.Millisecond, RebalanceTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := consumer.Close(); err != nil {
			t.Error(err)
		}
	})
	next := func(all bool) {
		t.Helper()
		enginetest.Eventually(t, time.Minute, fmt.Sprintf("assignment of all partitions: %v", all), func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			generation, err := consumer.Next(ctx)
			if err != nil {
				return err
			}
			if n := len(generation.Assignments[topic]); (n == 2) != all {
				return fmt.Errorf("%d partitions are assigned", n)
			}
			return nil
		})
	}
	next(true)
	for range 6 { // of two connections that have ended, the embedded broker notices one before it replies
		joinAndEnd(t, brokers[0], group, topic)
		next(false)
		next(true)
	}
}

// joinAndEnd asks to join a group, and ends the connection before the reply. The
// reply waits for the other members, who learn of it with their next heartbeat.
func joinAndEnd(t *testing.T, address, group, topic string) {
	t.Helper()
	metadata := kmsg.NewConsumerMemberMetadata()
	metadata.Topics = []string{topic}
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = kafka.RangeGroupBalancer{}.ProtocolName(), metadata.AppendTo(nil)
	request := kmsg.NewPtrJoinGroupRequest()
	request.Version, request.Group, request.ProtocolType = 1, group, "consumer"
	request.SessionTimeoutMillis, request.RebalanceTimeoutMillis = 1000, 1000
	request.Protocols = append(request.Protocols, protocol)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("leaving")).AppendRequest(nil, request, 1)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}
