package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/segmentio/kafka-go"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// The comparison: what somebody would build of ClickHouse alone. Publishers'
// lines go to a topic as they are, the Kafka table engine reads them as
// JSONEachRow, and a materialized view computes event id and token with HMAC in
// SQL and inserts into a table like ours. It has no registry, no repeats
// dropped, no score, and its topic holds identifiers in clear.

// lineTopicRows is the number of lines of one message: many, since the format
// takes them and a message of one line would slow it down.
const lineTopicRows = 1000

// fillLineTopic writes the lines of a workload to a topic, by school, and returns
// their number.
func fillLineTopic(ctx context.Context, brokers []string, topic string, partitions int, w *Workload) (int, error) {
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 30 * time.Second, Transport: transport}
	lines := newLineWriter(w.Population)
	pending := make([]body, partitions)
	total := 0
	flush := func(partition int) error {
		b := &pending[partition]
		response, err := client.Produce(ctx, &kafka.ProduceRequest{
			Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(b.data)}),
		})
		if err == nil {
			err = response.Error
		}
		if err != nil {
			return fmt.Errorf("produce to %s/%d: %w", topic, partition, err)
		}
		total += b.rows
		b.data, b.rows = b.data[:0], 0
		return nil
	}
	for rows := range slots(w) {
		school := w.Population.Learners[rows[0].Learner].School
		partition := answer.PartitionOf(w.Population.Schools[school].Code, partitions)
		for i := range rows {
			b := &pending[partition]
			b.data = lines.appendAnswer(b.data, &rows[i])
			if b.rows++; b.rows == lineTopicRows {
				if err := flush(partition); err != nil {
					return total, err
				}
			}
		}
	}
	for partition := range pending {
		if pending[partition].rows > 0 {
			if err := flush(partition); err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

// kafkaEngine measures the Kafka table engine.
type kafkaEngine struct {
	conn     clickhouse.Conn
	database string // holds the table answers, and takes what is made here
	brokers  []string
	topic    string
	group    string
	workers  int
}

func (k *kafkaEngine) name(table string) string { return k.database + "." + table }

// run reads all rows and returns rows per second between the first and the last
// block, which leaves out the time that the consumer needs to join. A stream
// that fits one block is timed from the start.
func (k *kafkaEngine) run(ctx context.Context, rows int) (rate float64, err error) {
	defer func() { err = errors.Join(err, k.drop(context.WithoutCancel(ctx))) }()
	for _, statement := range []string{
		"CREATE TABLE " + k.name("engine_answers") + " AS " + k.name("answers"),
		k.source(),
		k.view(),
	} {
		if err := k.conn.Exec(ctx, statement); err != nil {
			return 0, fmt.Errorf("set up the kafka engine: %w", err)
		}
	}
	var first, count uint64
	created := time.Now()
	began := created
	err = poll(ctx, 20*time.Millisecond, func() (bool, error) {
		if err := k.conn.QueryRow(ctx, "SELECT count() FROM "+k.name("engine_answers")).Scan(&count); err != nil {
			return false, fmt.Errorf("count rows of the kafka engine: %w", err)
		}
		if first == 0 && count > 0 {
			first, began = count, time.Now()
		}
		return count >= uint64(rows), nil
	})
	if err != nil {
		return 0, err
	}
	if count != uint64(rows) {
		return 0, fmt.Errorf("kafka engine stored %d rows, want %d", count, rows)
	}
	if first == count {
		first, began = 0, created
	}
	return float64(count-first) / time.Since(began).Seconds(), nil
}

func (k *kafkaEngine) drop(ctx context.Context) error {
	for _, table := range []string{"engine_view", "engine_source", "engine_answers"} {
		if err := k.conn.Exec(ctx, "DROP TABLE IF EXISTS "+k.name(table)+" SYNC"); err != nil {
			return fmt.Errorf("drop table of the kafka engine: %w", err)
		}
	}
	return nil
}

func (k *kafkaEngine) source() string {
	return fmt.Sprintf("CREATE TABLE %s (id String, publisher LowCardinality(String), school LowCardinality(String), "+
		"learner Tuple(scheme LowCardinality(String), value String), `group` LowCardinality(String), year_group UInt8, "+
		"exercise LowCardinality(String), goal LowCardinality(String), subject LowCardinality(String), kind LowCardinality(String), "+
		"score Float64, attempt UInt16, response_time_ms Nullable(Int32), answered_at DateTime64(3, 'UTC'), revision UInt32) "+
		"ENGINE = Kafka SETTINGS kafka_broker_list = '%s', kafka_topic_list = '%s', kafka_group_name = '%s', kafka_format = 'JSONEachRow', "+
		"kafka_num_consumers = %d, kafka_thread_per_consumer = 1, kafka_max_block_size = 200000, kafka_poll_max_batch_size = 200000, "+
		"kafka_flush_interval_ms = 1000, date_time_input_format = 'best_effort'",
		k.name("engine_source"), strings.Join(k.brokers, ","), k.topic, k.group, k.workers)
}

func (k *kafkaEngine) view() string {
	return "CREATE MATERIALIZED VIEW " + k.name("engine_view") + " TO " + k.name("engine_answers") + " AS SELECT " +
		"CAST(substring(HMAC('sha256', concat(publisher, '|', id), 'a key of thirty-two bytes length'), 1, 16), 'FixedString(16)') AS id, " +
		"CAST(substring(HMAC('sha256', concat(school, '|', learner.scheme, '|', learner.value), 'a key of thirty-two bytes length'), 1, 16), 'FixedString(16)') AS learner, " +
		"toUInt32(1) AS key_epoch, publisher, school, `group`, year_group, exercise, goal, subject, kind, score, attempt, response_time_ms, " +
		"answered_at, revision, toUInt16(_partition) AS source_partition, bitShiftLeft(toUInt64(_offset), 20) AS position " +
		"FROM " + k.name("engine_source")
}
