package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Limits and periods of the embedded broker.
const (
	maxBatchBytes = 64 << 20 // a topic may set less
	segmentBytes  = 16 << 20

	// A segment goes when its last message does. Topics with a retention period
	// get small ones, so that little stays longer.
	segmentBytesRetained = 1 << 20

	retentionPeriod = time.Minute
	silencePeriod   = time.Second // between looks for members that are gone
)

// Files of the embedded broker below the data directory.
const (
	kafkaDir       = "kafka"
	kafkaPortFile  = "kafka-port"
	watermarksFile = "kafka-watermarks.json"
)

// Broker is the embedded broker, in this process.
type Broker struct {
	Address string // host:port

	cluster *kfake.Cluster
	members *members
	dir     string
	marks   string // file of the watermarks
	logger  *slog.Logger

	mu      sync.Mutex         // guards the file
	stop    context.CancelFunc // of keep
	keeping sync.WaitGroup
}

func startBroker(config Config, logger *slog.Logger) (*Broker, error) {
	b := &Broker{
		dir: filepath.Join(config.DataDir, kafkaDir), marks: filepath.Join(config.DataDir, watermarksFile),
		logger: logger,
	}
	if err := b.begin(config); err != nil {
		return nil, fmt.Errorf("start embedded kafka: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.keeping.Go(func() { b.keep(ctx) })
	logger.Info("embedded kafka is up", "address", b.Address)
	return b, nil
}

func (b *Broker) begin(config Config) error {
	if err := privateDir(b.dir); err != nil {
		return err
	}
	marks := watermarks{}
	if err := readJSON(b.marks, &marks); err != nil {
		return err
	}
	if err := marks.shed(b.dir); err != nil {
		return err
	}
	if err := mendTorn(config.DataDir, b.logger); err != nil {
		return err
	}
	if err := marks.restore(b.dir); err != nil {
		return err
	}
	remembered := filepath.Join(config.DataDir, kafkaPortFile)
	last, err := readPorts(remembered)
	if err != nil {
		return err
	}
	listener, err := listen(config.Kafka.Port, last.Native)
	if err != nil {
		return err
	}
	b.Address = listener.Addr().String()
	if err := writePorts(remembered, ports{Native: portOf(listener)}); err != nil {
		return errors.Join(err, listener.Close())
	}
	held := newHeldListener(listener, nil)
	if !config.Kafka.UnsyncedWrites {
		held.disk = newDisk(b.dir, config.Kafka.sync, b.logger)
	}
	if b.cluster, err = kfake.NewCluster(brokerOptions(config, held, b.logger)...); err != nil {
		return err // it has closed the listener
	}
	b.cluster.ControlKey(int16(kmsg.DeleteRecords), b.beforeDelete)
	b.cluster.ControlKey(int16(kmsg.CreateTopics), smallSegments)
	b.members = watchMembers(b.cluster, b.Address)
	if err := b.retain(marks); err != nil {
		b.cluster.Close()
		return err
	}
	close(held.open)
	return nil
}

func brokerOptions(config Config, listener net.Listener, logger *slog.Logger) []kfake.Opt {
	return []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.DataDir(filepath.Join(config.DataDir, kafkaDir)),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return listener, nil }),
		kfake.DefaultNumPartitions(1),
		kfake.WithLogger(brokerLogger{logger}),
		kfake.BrokerConfigs(map[string]string{
			"message.max.bytes": strconv.Itoa(maxBatchBytes),
			"log.segment.bytes": strconv.Itoa(segmentBytes),
			// Kept for ever unless the topic says otherwise.
			"log.retention.ms": "-1",
			// Retention is ours to start, see watermarks.
			"log.cleaner.backoff.ms":       strconv.FormatInt((365 * 24 * time.Hour).Milliseconds(), 10),
			"group.min.session.timeout.ms": "1000",
			// A group that pauses for the summer keeps its place.
			"offsets.retention.minutes": strconv.Itoa(math.MaxInt32),
		}),
	}
}

// Close stops the broker and writes down what it holds in memory.
func (b *Broker) Close() error {
	b.stop()
	b.keeping.Wait()
	err := b.record(nil)
	b.cluster.Close()
	if err != nil {
		return fmt.Errorf("stop embedded kafka: %w", err)
	}
	return nil
}

// keep removes what is past its retention period and members that are gone,
// until ctx ends.
func (b *Broker) keep(ctx context.Context) {
	retention, silence := time.NewTicker(retentionPeriod), time.NewTicker(silencePeriod)
	defer retention.Stop()
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-retention.C:
			if err := b.retain(nil); err != nil {
				b.logger.Error("embedded kafka: nothing was removed", "error", err)
			}
		case <-silence.C:
			if err := b.members.dismiss(ctx); err != nil && ctx.Err() == nil {
				b.logger.Warn("embedded kafka: a member that is gone keeps its partitions for now", "error", err)
			}
		}
	}
}

// retain hides again what was hidden before the broker died, and removes what is
// past its retention period.
func (b *Broker) retain(hidden watermarks) error {
	for topic, marks := range hidden {
		for p, m := range marks.Partitions {
			info := b.cluster.PartitionInfo(topic, int32(p))
			if info == nil || m.Start <= info.LogStartOffset {
				continue
			}
			if err := b.cluster.DeleteRecords(topic, int32(p), min(m.Start, info.HighWatermark)); err != nil {
				return fmt.Errorf("hide the beginning of %s/%d: %w", topic, p, err)
			}
		}
	}
	if err := b.record(nil); err != nil {
		return err
	}
	b.cluster.ApplyRetention()
	return b.record(nil)
}

// deletion is the beginning that a partition is about to get; -1 is its end.
type deletion struct {
	topic     string
	partition int32
	start     int64
}

// record writes down where every partition begins and ends, with what is about
// to be deleted. Topics that are gone are forgotten.
func (b *Broker) record(about []deletion) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	topics, err := readTopics(b.dir)
	if err != nil {
		return fmt.Errorf("record watermarks: %w", err)
	}
	next := watermarks{}
	for _, t := range topics.Topics {
		marks := topicMarks{ID: t.ID}
		for _, info := range b.cluster.PartitionInfos(t.Name) {
			marks.Partitions = append(marks.Partitions, partitionMark{Start: info.LogStartOffset, Next: info.HighWatermark})
		}
		next[t.Name] = marks
	}
	for _, d := range about {
		marks := next[d.topic].Partitions
		if d.partition < 0 || int(d.partition) >= len(marks) {
			continue
		}
		m := &marks[d.partition]
		if d.start == -1 {
			d.start = m.Next
		}
		m.Start = max(m.Start, min(d.start, m.Next))
	}
	var old watermarks
	if err := readJSON(b.marks, &old); err != nil {
		return fmt.Errorf("record watermarks: %w", err)
	}
	if maps.EqualFunc(old, next, func(a, b topicMarks) bool { return a.ID == b.ID && slices.Equal(a.Partitions, b.Partitions) }) {
		return nil
	}
	raw, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode watermarks: %w", err)
	}
	return writeFile(b.marks, raw)
}

// beforeDelete sees requests to delete records before the broker does, which
// serves no other client meanwhile.
func (b *Broker) beforeDelete(request kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // the library wants this order
	var about []deletion
	for _, t := range request.(*kmsg.DeleteRecordsRequest).Topics {
		for _, p := range t.Partitions {
			about = append(about, deletion{t.Topic, p.Partition, p.Offset})
		}
	}
	if err := b.record(about); err != nil {
		b.logger.Error("embedded kafka: records were not deleted", "error", err)
		b.cluster.KeepControl()
		return nil, err, true // closes the client's connection
	}
	return nil, nil, false
}

// smallSegments gives topics with a retention period small segments.
func smallSegments(request kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // the library wants this order
	create := request.(*kmsg.CreateTopicsRequest)
	for i := range create.Topics {
		t := &create.Topics[i]
		retained, chosen := false, false
		for _, c := range t.Configs {
			retained = retained || (c.Name == "retention.ms" || c.Name == "retention.bytes") && c.Value != nil && *c.Value != "-1"
			chosen = chosen || c.Name == "segment.bytes"
		}
		if retained && !chosen {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = "segment.bytes", kmsg.StringPtr(strconv.Itoa(segmentBytesRetained))
			t.Configs = append(t.Configs, c)
		}
	}
	return nil, nil, false
}

// brokerLogger passes on what the broker warns of. Its messages name topics,
// partitions, groups and files.
type brokerLogger struct{ logger *slog.Logger }

// Logf implements kfake.Logger.
func (l brokerLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	var to slog.Level
	switch level {
	case kfake.LogLevelError:
		to = slog.LevelError
	case kfake.LogLevelWarn:
		to = slog.LevelWarn
	default:
		return // a line a request
	}
	l.logger.Log(context.Background(), to, "embedded kafka: "+fmt.Sprintf(format, args...))
}
