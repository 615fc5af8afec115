package engine

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Limits and periods of the embedded broker.
const (
	maxBatchBytes   = 64 << 20 // a topic may set less
	segmentBytes    = 16 << 20
	sessionFloor    = "1000"
	neverTicks      = 365 * 24 * 3600 * 1000 // ms
	defaultParts    = 1
	kafkaDir        = "kafka"
	kafkaPortFile   = "kafka-port"
	watermarksFile  = "kafka-watermarks.json"
	offsetsKeepMins = math.MaxInt32
)

// Broker is the embedded broker.
type Broker struct {
	Address string // host:port

	cluster *kfake.Cluster
}

func startBroker(config Config, logger *slog.Logger) (*Broker, error) {
	dir := filepath.Join(config.DataDir, kafkaDir)
	if err := privateDir(dir); err != nil {
		return nil, fmt.Errorf("start embedded kafka: %w", err)
	}
	remembered := filepath.Join(config.DataDir, kafkaPortFile)
	last, err := readPorts(remembered)
	if err != nil {
		return nil, fmt.Errorf("start embedded kafka: %w", err)
	}
	listener, err := listen(config.Kafka.Port, last.Native)
	if err != nil {
		return nil, fmt.Errorf("start embedded kafka: %w", err)
	}
	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.DataDir(dir),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return listener, nil }),
		kfake.DefaultNumPartitions(defaultParts),
		kfake.WithLogger(brokerLogger{logger}),
		kfake.BrokerConfigs(map[string]string{
			"message.max.bytes": strconv.Itoa(maxBatchBytes),
			"log.segment.bytes": strconv.Itoa(segmentBytes),
			// Kept for ever unless the topic says otherwise.
			"log.retention.ms": "-1",
			// A group that pauses for the summer keeps its place.
			"offsets.retention.minutes": strconv.Itoa(offsetsKeepMins),
		}),
	}
	if !config.Kafka.UnsyncedWrites {
		options = append(options, kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		return nil, fmt.Errorf("start embedded kafka: %w", err)
	}
	broker := &Broker{Address: listener.Addr().String(), cluster: cluster}
	if err := writePorts(remembered, ports{Native: portOf(listener)}); err != nil {
		cluster.Close()
		return nil, fmt.Errorf("start embedded kafka: %w", err)
	}
	logger.Info("embedded kafka is up", "address", broker.Address)
	return broker, nil
}

// Close stops the broker and writes down what it holds in memory.
func (b *Broker) Close() error {
	b.cluster.Close()
	return nil
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
