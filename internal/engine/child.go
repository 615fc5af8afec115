package engine

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// Hidden subcommands: an executable that calls RunIfChild first answers them.
const (
	// ChildClickHouse LIBRARY DIRECTORY runs the embedded ClickHouse configured
	// in the directory until standard input ends.
	ChildClickHouse = "engine-clickhouse"

	// ChildKafka DIRECTORY PORT UNSYNCED runs the embedded Kafka in a process of
	// its own until standard input ends; UNSYNCED is true or false. Tests kill it.
	ChildKafka = "engine-kafka"
)

// RunIfChild runs an engine and ends the process when this process was started
// for that; else it does nothing. It has to be the first call of main, and of
// TestMain in packages whose tests start engines.
func RunIfChild() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[1] {
	case ChildClickHouse:
		os.Exit(ClickHouseMain(os.Args[2:]))
	case ChildKafka:
		os.Exit(kafkaMain(os.Args[2:]))
	}
}

// listenQueries make clickhouse-local a server. The last one blocks on standard
// input, which the parent holds open.
const listenQueries = "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; " +
	"SELECT count() FROM file('/dev/stdin', 'LineAsString', 'l String') FORMAT Null"

// ClickHouseMain is the body of ChildClickHouse. It returns the exit code.
func ClickHouseMain(args []string) int {
	if len(args) != 2 {
		fmt.Fprintf(os.Stderr, "usage: %s LIBRARY DIRECTORY\n", ChildClickHouse)
		return 2
	}
	// The engine measures the stack of the thread that calls it.
	runtime.LockOSThread()
	if err := yieldToStages(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	library, dir := args[0], args[1]
	err := runLocal(library, []string{
		"clickhouse-local",
		"--path", filepath.Join(dir, "data"),
		"--config-file", filepath.Join(dir, "config.xml"),
		"--log-level", "warning", // clickhouse-local ignores the level in the file
		"--query", listenQueries,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func kafkaMain(args []string) int {
	usage := func() int {
		fmt.Fprintf(os.Stderr, "usage: %s DIRECTORY PORT UNSYNCED\n", ChildKafka)
		return 2
	}
	if len(args) != 3 {
		return usage()
	}
	port, portErr := strconv.Atoi(args[1])
	unsynced, syncErr := strconv.ParseBool(args[2])
	if portErr != nil || syncErr != nil {
		return usage()
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	broker, err := startBroker(Config{DataDir: args[0], Kafka: KafkaConfig{Port: port, UnsyncedWrites: unsynced}}, logger)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, readErr := io.Copy(io.Discard, os.Stdin)
	if err := broker.Close(); err != nil || readErr != nil {
		logger.LogAttrs(context.Background(), slog.LevelError, "stop embedded kafka", slog.Any("error", err), slog.Any("input", readErr))
		return 1
	}
	return 0
}
