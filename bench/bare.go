package bench

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

// The bare limits: one thing that the pipeline does, and nothing else.

// answerColumns are the columns of the table answers in the order of
// readyColumns.values.
const answerColumns = "id, learner, key_epoch, publisher, school, `group`, year_group, exercise, goal, subject, kind, score, " +
	"attempt, response_time_ms, answered_at, revision, source_partition, position"

// values are the columns in the forms that clickhouse-go takes fastest.
func (c *readyColumns) values() []any {
	fixed := func(values [][16]byte) [][]byte {
		out := make([][]byte, len(values))
		for i := range values {
			out[i] = values[i][:]
		}
		return out
	}
	return []any{
		fixed(c.id), fixed(c.learner), c.keyEpoch, c.publisher, c.school, c.group, c.yearGroup, c.exercise, c.goal, c.subject,
		c.kind, c.score, c.attempt, c.responseTime, c.answeredAt, c.revision, c.partition, c.position,
	}
}

// inserter writes batches in one of two ways. prepare does what is not measured.
type inserter interface {
	prepare(batches []*readyColumns)
	insert(ctx context.Context, i int) error
	close()
}

// driverInserter uses clickhouse-go, column by column.
type driverInserter struct {
	conn  clickhouse.Conn
	table string
	ready [][]any
}

func newDriverInserter(options *clickhouse.Options, table string) (*driverInserter, error) {
	conn, err := clickhouse.Open(options)
	if err != nil {
		return nil, fmt.Errorf("open clickhouse: %w", err)
	}
	return &driverInserter{conn: conn, table: table}, nil
}

func (d *driverInserter) prepare(batches []*readyColumns) {
	d.ready = d.ready[:0]
	for _, b := range batches {
		d.ready = append(d.ready, b.values())
	}
}

func (d *driverInserter) insert(ctx context.Context, i int) error {
	batch, err := d.conn.PrepareBatch(ctx, "INSERT INTO "+d.table+" ("+answerColumns+")")
	if err != nil {
		return fmt.Errorf("prepare insert: %w", err)
	}
	for column, values := range d.ready[i] {
		if err := batch.Column(column).Append(values); err != nil {
			return errors.Join(fmt.Errorf("append column %d: %w", column, err), batch.Abort())
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("send insert: %w", err)
	}
	return nil
}

func (d *driverInserter) close() { d.conn.Close() }

// columnInserter uses ch-go, whose columns are Go slices that are sent as they
// are.
type columnInserter struct {
	clients chan *ch.Client
	table   string
	ready   []proto.Input
}

func newColumnInserter(ctx context.Context, options *clickhouse.Options, table string, workers int) (*columnInserter, error) {
	c := &columnInserter{clients: make(chan *ch.Client, workers), table: table}
	for range workers {
		o := ch.Options{Address: options.Addr[0], User: options.Auth.Username, Password: options.Auth.Password,
			DialTimeout: 30 * time.Second, ReadTimeout: options.ReadTimeout}
		for key, value := range options.Settings {
			o.Settings = append(o.Settings, ch.Setting{Key: key, Value: fmt.Sprint(value), Important: true})
		}
		client, err := ch.Dial(ctx, o)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("open clickhouse: %w", err)
		}
		c.clients <- client
	}
	return c, nil
}

func (c *columnInserter) prepare(batches []*readyColumns) {
	c.ready = c.ready[:0]
	for _, b := range batches {
		c.ready = append(c.ready, b.input())
	}
}

func (c *columnInserter) insert(ctx context.Context, i int) error {
	client := <-c.clients
	defer func() { c.clients <- client }()
	body := "INSERT INTO " + c.table + " " + c.ready[i].Columns() + " VALUES"
	if err := client.Do(ctx, ch.Query{Body: body, Input: c.ready[i]}); err != nil {
		return fmt.Errorf("insert: %w", err)
	}
	return nil
}

func (c *columnInserter) close() {
	close(c.clients)
	for client := range c.clients {
		client.Close()
	}
}

// insertAll inserts the answers of a workload, some batches at a time, and
// returns rows per second of inserting alone: making the columns is not counted.
func insertAll(ctx context.Context, w *Workload, into inserter, workers int) (float64, error) {
	const together = 8 // batches in memory
	var rows int
	var took time.Duration
	var batches []*readyColumns
	flush := func() error {
		into.prepare(batches)
		started := time.Now()
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(workers)
		for i := range batches {
			rows += batches[i].rows()
			group.Go(func() error { return into.insert(ctx, i) })
		}
		err := group.Wait()
		took += time.Since(started)
		batches = batches[:0]
		return err
	}
	for batch := range readyBatches(w, insertRows) {
		if batches = append(batches, batch); len(batches) == together {
			if err := flush(); err != nil {
				return 0, err
			}
		}
	}
	if err := flush(); err != nil {
		return 0, err
	}
	return float64(rows) / took.Seconds(), nil
}

// hmacAlone returns HMAC-SHA-256 digests per second of identifiers of an ECK iD's
// length, with the key schedule reused.
func hmacAlone(n, workers int) float64 {
	identifier := make([]byte, len("https://ketenid.nl/201703/")+128)
	var group errgroup.Group
	started := time.Now()
	for worker := range workers {
		group.Go(func() error {
			mac := hmac.New(sha256.New, []byte("a key of thirty-two bytes length"))
			input, sum := append([]byte(nil), identifier...), make([]byte, 0, sha256.Size)
			for i := range n / workers {
				input[i%len(input)] = byte(i ^ worker)
				mac.Reset()
				mac.Write(input)
				sum = mac.Sum(sum[:0])
			}
			return nil
		})
	}
	_ = group.Wait() // none of them can fail
	return float64(n/workers*workers) / time.Since(started).Seconds()
}

// copyTopic copies all messages of a topic to another by kafka-go's Fetch and
// Produce, partition by partition, and returns how long it took. It decodes
// nothing.
func copyTopic(ctx context.Context, brokers []string, from, to string, partitions, workers int) (time.Duration, error) {
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 30 * time.Second, Transport: transport}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	started := time.Now()
	for partition := range partitions {
		group.Go(func() error {
			if err := copyPartition(ctx, client, from, to, partition); err != nil {
				return fmt.Errorf("copy %s/%d: %w", from, partition, err)
			}
			return nil
		})
	}
	err := group.Wait()
	return time.Since(started), err
}

func copyPartition(ctx context.Context, client *kafka.Client, from, to string, partition int) error {
	for offset, end := int64(0), int64(1); offset < end; {
		response, err := client.Fetch(ctx, &kafka.FetchRequest{
			Topic: from, Partition: partition, Offset: offset, MinBytes: 1, MaxBytes: 4 << 20, MaxWait: 100 * time.Millisecond,
		})
		if err == nil {
			err = response.Error
		}
		if err != nil {
			return fmt.Errorf("fetch at offset %d: %w", offset, err)
		}
		end = response.HighWatermark
		records, next, err := readAll(response.Records, offset)
		if err != nil {
			return err
		}
		if len(records) == 0 {
			continue
		}
		offset = next
		produced, err := client.Produce(ctx, &kafka.ProduceRequest{
			Topic: to, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
		})
		if err == nil {
			err = produced.Error
		}
		if err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	return nil
}

func readAll(reader kafka.RecordReader, from int64) (records []kafka.Record, next int64, err error) {
	next = from
	for {
		record, err := reader.ReadRecord()
		if errors.Is(err, io.EOF) {
			return records, next, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read record: %w", err)
		}
		if record.Offset < from {
			continue
		}
		value, err := kafka.ReadAll(record.Value)
		if err != nil {
			return nil, 0, fmt.Errorf("read record at offset %d: %w", record.Offset, err)
		}
		records = append(records, kafka.Record{Value: kafka.NewBytes(value), Headers: record.Headers})
		next = record.Offset + 1
	}
}
