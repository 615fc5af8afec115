package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/ClickHouse/ch-go"
)

const (
	readyPoll       = 10 * time.Millisecond
	readyLimit      = time.Minute // loading many parts after a crash takes long
	handshakeLimit  = 5 * time.Second
	clickHouseGrace = 30 * time.Second
)

// ClickHouseServer is the embedded server.
type ClickHouseServer struct {
	ClickHouse ClickHouse

	process *process
}

// Done is closed when the server process has ended, for whatever reason.
func (s *ClickHouseServer) Done() <-chan struct{} { return s.process.done }

// Err tells how the server ended. It may be called after Done is closed.
func (s *ClickHouseServer) Err() error { return s.process.reason() }

// Close stops the server and waits for its end.
func (s *ClickHouseServer) Close() error {
	select {
	case <-s.process.done:
		return nil // its end was reported by Done
	default:
	}
	if err := s.process.close(); err != nil {
		return fmt.Errorf("stop embedded clickhouse: %w", err)
	}
	return nil
}

// Kill ends the server with SIGKILL, for tests.
func (s *ClickHouseServer) Kill() error { return s.process.kill() }

// StartClickHouse starts the embedded server alone; the addresses of Kafka in
// the configuration do not matter. The caller closes it.
func StartClickHouse(ctx context.Context, config Config, logger *slog.Logger) (*ClickHouseServer, error) {
	config.Kafka.Brokers, config.ClickHouse.Addresses = nil, nil
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("start clickhouse: %w", err)
	}
	if err := privateDir(config.DataDir); err != nil {
		return nil, fmt.Errorf("start clickhouse: %w", err)
	}
	return startServer(ctx, config, logger)
}

// startServer starts the child, again with other ports when one was taken
// meanwhile.
func startServer(ctx context.Context, config Config, logger *slog.Logger) (*ClickHouseServer, error) {
	library, err := FindLibrary(config.LibraryPath)
	if err != nil {
		return nil, fmt.Errorf("start embedded clickhouse: %w", err)
	}
	connection, err := prepare(config)
	if err != nil {
		return nil, fmt.Errorf("start embedded clickhouse: %w", err)
	}
	remembered := filepath.Join(config.DataDir, "clickhouse-ports")
	for attempt := 1; ; attempt++ {
		began := time.Now()
		chosen, err := choosePorts(config.ClickHouse, remembered, attempt)
		if err != nil {
			return nil, fmt.Errorf("start embedded clickhouse: %w", err)
		}
		connection.Addresses, connection.HTTPAddress = []string{address(chosen.Native)}, address(chosen.HTTP)
		server, err := launch(ctx, config, library, connection, chosen)
		if err == nil {
			logger.InfoContext(ctx, "embedded clickhouse is up", "native", connection.Addresses[0], "http", connection.HTTPAddress,
				"took", time.Since(began).Round(time.Millisecond))
			return server, writePorts(remembered, chosen)
		}
		if !errors.Is(err, errEnded) || free(chosen) || attempt == startAttempts {
			return nil, fmt.Errorf("start embedded clickhouse: %w", err)
		}
		logger.WarnContext(ctx, "a port was taken, trying again", "native", chosen.Native, "http", chosen.HTTP)
	}
}

// free tells whether both ports can be used, so that they were not what stopped
// the server.
func free(p ports) bool {
	for _, port := range []int{p.Native, p.HTTP} {
		listener, err := net.Listen("tcp", address(port))
		if err != nil {
			return false
		}
		if err := listener.Close(); err != nil {
			return false
		}
	}
	return true
}

func choosePorts(config ClickHouseConfig, remembered string, attempt int) (ports, error) {
	last, err := readPorts(remembered)
	if err != nil {
		return ports{}, err
	}
	if attempt > 1 {
		last = ports{}
	}
	chosen := ports{Native: config.NativePort, HTTP: config.HTTPPort}
	if chosen.Native == 0 {
		if chosen.Native, err = freePort(last.Native); err != nil {
			return ports{}, err
		}
	}
	if chosen.HTTP == 0 {
		if chosen.HTTP, err = freePort(last.HTTP); err != nil {
			return ports{}, err
		}
	}
	return chosen, nil
}

// prepare makes the directories and the password.
func prepare(config Config) (ClickHouse, error) {
	dir := filepath.Join(config.DataDir, "clickhouse")
	for _, d := range []string{dir, filepath.Join(dir, "data"), filepath.Join(dir, "log"), filepath.Join(dir, "backups")} {
		if err := privateDir(d); err != nil {
			return ClickHouse{}, err
		}
	}
	connection := config.ClickHouse.connection()
	path := config.ClickHouse.PasswordFile
	if path == "" {
		path = filepath.Join(dir, "password")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := writeFile(path, []byte(rand.Text()+"\n")); err != nil {
				return ClickHouse{}, fmt.Errorf("keep generated password: %w", err)
			}
		}
	}
	password, err := readPassword(path)
	if err != nil {
		return ClickHouse{}, err
	}
	connection.Password = password
	return connection, nil
}

// launch runs one child and waits until it answers.
func launch(ctx context.Context, config Config, library string, connection ClickHouse, chosen ports) (*ClickHouseServer, error) {
	dir, err := filepath.Abs(filepath.Join(config.DataDir, "clickhouse"))
	if err != nil {
		return nil, fmt.Errorf("find data directory: %w", err)
	}
	if err := writeServerConfig(dir, config.ClickHouse, connection, chosen); err != nil {
		return nil, err
	}
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	command := exec.Command(executable, ChildClickHouse, library, dir)
	command.Dir = dir
	// The child needs nothing of our environment, which may hold secrets. Its
	// few Go threads shall not be interrupted by signals inside the library.
	command.Env = []string{"GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=" + strconv.Itoa(min(2, runtime.NumCPU())), "TZ=UTC", "PATH=" + os.Getenv("PATH")}
	command.SysProcAttr = detached()
	child, err := startProcess(command, clickHouseGrace)
	if err != nil {
		return nil, err
	}
	server := &ClickHouseServer{ClickHouse: connection, process: child}
	if err := server.ready(ctx); err != nil {
		return nil, errors.Join(err, child.kill())
	}
	return server, nil
}

// errEnded marks a child that ended before it answered.
var errEnded = errors.New("ended before it was ready")

// ready returns when the server has accepted our password: nobody else's server
// on that port would.
func (s *ClickHouseServer) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		err := s.handshake(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.process.done:
			return fmt.Errorf("%w: %w", errEnded, s.process.reason())
		case <-ctx.Done():
			return fmt.Errorf("wait until it answers: %w (last: %w)", context.Cause(ctx), err)
		case <-poll.C:
		}
	}
}

func (s *ClickHouseServer) handshake(ctx context.Context) error {
	client, err := ch.Dial(ctx, ch.Options{
		Address: s.ClickHouse.Addresses[0], User: s.ClickHouse.User, Password: s.ClickHouse.Password,
		DialTimeout: handshakeLimit, HandshakeTimeout: handshakeLimit,
	})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	// A connection names its database, so it has to exist before the first.
	err = client.Do(ctx, ch.Query{Body: "CREATE DATABASE IF NOT EXISTS " + s.ClickHouse.Database})
	return errors.Join(err, client.Close())
}
