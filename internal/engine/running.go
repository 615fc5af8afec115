package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrInUse reports that another process runs embedded engines on the data
// directory. Attach reaches them.
var ErrInUse = errors.New("data directory is in use by another process")

// lockName is the file whose lock says who runs the engines of a directory. The
// kernel releases it when that process dies.
const lockName = "lock"

// lockDirectory takes the lock of a data directory, or fails with ErrInUse.
func lockDirectory(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		closeErr := file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), closeErr)
	}
	return file, nil
}

// unlockDirectory gives the lock back. Unlocking comes before closing: a process
// that is just being started holds a copy of the descriptor for a moment, and
// with it the lock.
func unlockDirectory(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}

// Attach reaches the embedded engines that another process runs on the data
// directory. Closing the result leaves them alone.
func Attach(config Config) (*Engines, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("attach to engines: %w", err)
	}
	e := &Engines{Brokers: config.Kafka.Brokers, done: make(chan struct{}), stop: make(chan struct{})}
	if len(e.Brokers) == 0 {
		p, err := runningPorts(filepath.Join(config.DataDir, kafkaPortFile))
		if err != nil {
			return nil, err
		}
		e.Brokers = []string{address(p.Native)}
	}
	if len(config.ClickHouse.Addresses) > 0 {
		connection, err := external(config.ClickHouse)
		e.ClickHouse = connection
		return e, err
	}
	p, err := runningPorts(filepath.Join(config.DataDir, "clickhouse-ports"))
	if err != nil {
		return nil, err
	}
	e.ClickHouse = config.ClickHouse.connection()
	e.ClickHouse.Addresses, e.ClickHouse.HTTPAddress = []string{address(p.Native)}, address(p.HTTP)
	path := config.ClickHouse.PasswordFile
	if path == "" {
		path = filepath.Join(config.DataDir, "clickhouse", "password")
	}
	e.ClickHouse.Password, err = readPassword(path)
	if err != nil {
		return nil, fmt.Errorf("attach to engines: %w", err)
	}
	return e, nil
}

func runningPorts(path string) (ports, error) {
	p, err := readPorts(path)
	if err == nil && p.Native == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return p, fmt.Errorf("attach to engines: %w", err)
	}
	return p, nil
}

// Started tells whether an embedded engine runs in or under this process.
func (e *Engines) Started() bool { return e.broker != nil || e.server != nil }
