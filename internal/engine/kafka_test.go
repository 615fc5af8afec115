package engine_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// produce writes values in one request and returns the offset of the first.
func produce(t *testing.T, client *kafka.Client, topic string, partition int, values ...string) (int64, error) {
	records := make([]kafka.Record, len(values))
	for i, v := range values {
		records[i] = kafka.Record{Value: kafka.NewBytes([]byte(v)), Time: time.Now()}
	}
	response, err := client.Produce(t.Context(), &kafka.ProduceRequest{
		Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err == nil {
		err = response.Error
	}
	if err != nil {
		return 0, err
	}
	return response.BaseOffset, nil
}

// fetch reads what a partition holds from an offset on, with the offsets.
func fetch(t *testing.T, client *kafka.Client, topic string, partition int, from int64) (values []string, offsets []int64) {
	t.Helper()
	for {
		response, err := client.Fetch(t.Context(), &kafka.FetchRequest{
			Topic: topic, Partition: partition, Offset: from, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond,
		})
		if err == nil {
			err = response.Error
		}
		if err != nil {
			t.Fatalf("fetch %s/%d at %d: %v", topic, partition, from, err)
		}
		for {
			record, err := response.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("read record: %v", err)
			}
			var value bytes.Buffer
			if _, err := value.ReadFrom(record.Value); err != nil {
				t.Fatal(err)
			}
			if record.Offset >= from {
				values, offsets = append(values, value.String()), append(offsets, record.Offset)
				from = record.Offset + 1
			}
		}
		if from >= response.HighWatermark {
			return values, offsets
		}
	}
}

func TestProduceAndFetch(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic := enginetest.Topic(t, brokers, "produce", 2)
	client := enginetest.Client(t, brokers)
	for i, want := range []int64{0, 2} {
		if got, err := produce(t, client, topic, 1, "a"+strconv.Itoa(i), "b"+strconv.Itoa(i)); got != want || err != nil {
			t.Errorf("base offset = %d, %v, want %d", got, err, want)
		}
	}
	if values, _ := fetch(t, client, topic, 1, 1); !slices.Equal(values, []string{"b0", "a1", "b1"}) {
		t.Errorf("fetched %q from offset 1", values)
	}
	if values, _ := fetch(t, client, topic, 0, 0); len(values) != 0 {
		t.Errorf("fetched %q from the other partition", values)
	}
}

// TestBrokerKilledWhileProducing kills the broker again and again while messages
// are produced; each acknowledged one has to be there, once, in order.
func TestBrokerKilledWhileProducing(t *testing.T) {
	t.Parallel()
	broker := enginetest.StartBroker(t)
	topic := enginetest.Topic(t, broker.Brokers(), "killed", 1)
	acknowledged := map[int64]string{}
	for round := range 3 {
		client := enginetest.Client(t, broker.Brokers())
		results := make(chan struct {
			offset int64
			value  string
		})
		go func() {
			defer close(results)
			for i := 0; ; i++ {
				value := strconv.Itoa(round) + "/" + strconv.Itoa(i)
				offset, err := produce(t, client, topic, 0, value)
				if err != nil {
					return // killed
				}
				results <- struct {
					offset int64
					value  string
				}{offset, value}
			}
		}()
		seen := 0
		for r := range results {
			acknowledged[r.offset] = r.value
			if seen++; seen == 50 {
				go broker.Kill()
			}
		}
		broker.AwaitEnd()
		broker.Restart()
	}
	values, offsets := fetch(t, enginetest.Client(t, broker.Brokers()), topic, 0, 0)
	found := make(map[int64]string, len(values))
	for i, o := range offsets {
		found[o] = values[i]
	}
	for o, v := range acknowledged {
		if found[o] != v {
			t.Errorf("offset %d holds %q after the kills, want %q", o, found[o], v)
		}
	}
	if len(acknowledged) < 150 {
		t.Errorf("only %d messages acknowledged", len(acknowledged))
	}
}
