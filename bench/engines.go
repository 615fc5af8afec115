package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/leerstroom/leerstroom/internal/engine"
)

// StartEngines starts the embedded engines below a directory, each in a process
// of its own, so that memory and allocations of this process are Leerstroom's
// alone. The executable must call engine.RunIfChild first. The returned function
// stops them.
func StartEngines(ctx context.Context, dir, libraryPath string, logger *slog.Logger) (*Environment, func() error, error) {
	broker, err := engine.StartBrokerProcess(ctx, filepath.Join(dir, "broker"), engine.KafkaConfig{})
	if err != nil {
		return nil, nil, fmt.Errorf("start engines of the benchmark: %w", err)
	}
	engines, err := engine.Start(ctx, engine.Config{
		DataDir: dir, LibraryPath: libraryPath, Kafka: engine.KafkaConfig{Brokers: []string{broker.Address}},
	}, logger)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start engines of the benchmark: %w", err), broker.Close())
	}
	stop := func() error { return errors.Join(engines.Close(), broker.Close()) }
	return &Environment{Brokers: engines.Brokers, ClickHouse: engines.ClickHouse, Dir: filepath.Join(dir, "bench"), Logger: logger}, stop, nil
}
