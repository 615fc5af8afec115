package ingest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// onKafka gives a rig a connector that writes to a real topic.
func (r *rig) onKafka(brokers []string, config Config) (client *stream.Client, topic string) {
	r.t.Helper()
	topic = enginetest.Topic(r.t, brokers, "raw", testPartitions)
	client, err := stream.NewClient(stream.Config{Brokers: brokers})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(client.Close)
	config.Authorisations = Authorisations{"12AB00": {"bingel"}, "12AB01": {"bingel"}, "34CD00": {"bingel"}}
	connector, err := New(config, Parts{Client: client, Topic: topic, Partitions: testPartitions, Sealer: r.sealer, Keys: r.keys})
	if err != nil {
		r.t.Fatal(err)
	}
	mux := http.NewServeMux()
	connector.Register(mux)
	server := httptest.NewServer(mux)
	r.server = server
	r.t.Cleanup(func() {
		server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		connector.Close(ctx)
	})
	return client, topic
}

// fetchAll reads every message of the topic into the rig.
func (r *rig) fetchAll(client *stream.Client, topic string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r.topicName = topic
	for partition := range testPartitions {
		next, end, err := client.Offsets(ctx, topic, partition)
		if err != nil {
			r.t.Fatal(err)
		}
		var batch stream.Batch
		for next < end {
			if err := client.Fetch(ctx, topic, partition, next, time.Second, &batch); err != nil {
				r.t.Fatal(err)
			}
			for i := range batch.Messages {
				m := &batch.Messages[i]
				if rows, err := m.Int64(stream.HeaderRows); err != nil || rows < 1 {
					r.t.Errorf("header rows = %d, %v", rows, err)
				}
				r.topic.messages = append(r.topic.messages, memoryMessage{partition, string(m.Header(stream.HeaderSchema)), bytes.Clone(m.Value)})
				next = m.Offset + 1
			}
		}
	}
}

func TestAcknowledgedLinesAreInKafka(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	client, topic := r.onKafka(enginetest.Kafka(t), Config{MaxBatchRows: 100})
	schools := []string{"12AB00", "12AB01", "34CD00"}
	want := make(map[string]bool)
	var mu sync.Mutex
	var senders sync.WaitGroup
	for sender := range 4 {
		senders.Go(func() {
			for body := range 3 {
				var text strings.Builder
				for i := range 300 {
					id := fmt.Sprintf("b-%d-%d-%d", sender, body, i)
					text.WriteString(answerLine(id, schools[(i+sender)%3]))
					if i%50 == 7 {
						text.WriteString("x\n")
					}
					mu.Lock()
					want[id] = true
					mu.Unlock()
				}
				if got := r.post("/v1/answers", bytes.NewReader(gzipped(t, text.String())), "Content-Encoding", "gzip"); got.Accepted != 300 || got.RefusedCount != 6 {
					t.Errorf("reply = %+v", got)
				}
			}
		})
	}
	senders.Wait()
	if got := r.post("/v1/test-results", strings.NewReader(resultLine)); got.Accepted != 1 {
		t.Errorf("test results: reply = %+v", got)
	}
	r.fetchAll(client, topic)
	answers, results := r.rows()
	got := make(map[string]bool)
	for _, row := range answers {
		id, rest, _ := strings.Cut(row, " ")
		got[id] = true
		if !strings.Contains(rest, hexDigits) || !strings.HasSuffix(rest, " 5A 5 wig5-b3-l2-o7 optellen-tot-1000 rekenen 1 1 1 8200 1795425300000 0") {
			t.Errorf("row of %s differs", id)
		}
	}
	if len(answers) != len(want) || !maps.Equal(got, want) {
		t.Errorf("%d rows with %d ids in kafka, want %d", len(answers), len(got), len(want))
	}
	if len(results) != 1 || !strings.HasPrefix(results[0], "t-0001 ") {
		t.Errorf("%d test results in kafka, want 1", len(results))
	}
	if most := len(want) / len(r.topic.messages); most < 5 {
		t.Errorf("%d rows a message: the batcher does not gather", most)
	}
	if bytes.Contains(slices.Concat(values(r.topic.messages)...), []byte(hexDigits[:16])) {
		t.Error("an identifier is readable in the topic")
	}
}

func values(messages []memoryMessage) [][]byte {
	var out [][]byte
	for _, m := range messages {
		out = append(out, m.value)
	}
	return out
}

// Whatever happens to Kafka, a line that was reported as accepted is there. A
// line that was not may be there too, once or twice.
func TestKilledBrokerLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	broker := enginetest.StartBroker(t)
	r := newRig(t, Config{})
	client, topic := r.onKafka(broker.Brokers(), Config{})
	acknowledged := make(map[string]bool)
	killed := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for body := range 40 {
			if body == 10 {
				close(killed)
			}
			var text strings.Builder
			var ids []string
			for i := range 20 {
				ids = append(ids, fmt.Sprintf("b-%d-%d", body, i))
				text.WriteString(answerLine(ids[i], []string{"12AB00", "34CD00"}[i%2]))
			}
			switch got := r.post("/v1/answers", strings.NewReader(text.String())); {
			case got.Status == 200 && got.Accepted == 20:
				for _, id := range ids {
					acknowledged[id] = true
				}
			case got.Status != 503 || got.Header.Get("Retry-After") == "":
				t.Errorf("reply = %+v, want 20 accepted or 503 with Retry-After", got)
			}
		}
	})
	<-killed
	broker.Kill()
	broker.Restart()
	sender.Wait()
	if len(acknowledged) < 15*20 {
		t.Errorf("only %d lines were acknowledged: the connector did not recover", len(acknowledged))
	}
	r.fetchAll(client, topic)
	answers, _ := r.rows()
	for _, row := range answers {
		id, _, _ := strings.Cut(row, " ")
		delete(acknowledged, id)
	}
	if len(acknowledged) != 0 {
		t.Errorf("%d acknowledged lines are not in kafka", len(acknowledged))
	}
}
