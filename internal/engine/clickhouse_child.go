package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/ClickHouse/ch-go"
)

const (
	handshakeLimit  = 5 * time.Second
	clickHouseGrace = 30 * time.Second
)

// child is a process that runs clickhouse-local, and the ports it listens on.
type child struct {
	process *process
	ports   ports
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

// startChild starts a child and returns when it answers; again with other ports
// when somebody took one between its choice and its use.
func startChild(ctx context.Context, config Config, library string, connection ClickHouse, logger *slog.Logger) (*child, error) {
	if err := mendUnwritten(filepath.Join(config.DataDir, "clickhouse", "data"), logger); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		found, err := freePorts(0, 0)
		if err != nil {
			return nil, err
		}
		chosen := ports{Native: found[0], HTTP: found[1]}
		c, err := launch(ctx, config, library, connection, chosen)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, errEnded) || free(chosen) || attempt == startAttempts {
			return nil, err
		}
	}
}

// free tells whether all ports can be used, so that they were not what stopped
// an engine.
func free(p ports) bool {
	for _, port := range []int{p.Native, p.HTTP} {
		listener, err := net.Listen("tcp", address(port))
		if err != nil || listener.Close() != nil {
			return false
		}
	}
	return true
}

// launch runs one child and waits until it answers.
func launch(ctx context.Context, config Config, library string, connection ClickHouse, chosen ports) (*child, error) {
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
	p, err := startProcess(command, clickHouseGrace)
	if err != nil {
		return nil, err
	}
	c := &child{process: p, ports: chosen}
	if err := p.await(ctx, func(ctx context.Context) error { return c.handshake(ctx, connection) }); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return c, nil
}

// handshake succeeds when the server accepts our password: nobody else's server
// on that port would. It listens for HTTP last, which the gate needs, too.
func (c *child) handshake(ctx context.Context, connection ClickHouse) error {
	// A connection names its database, so it has to exist before the first.
	if err := c.statement(ctx, connection, "CREATE DATABASE IF NOT EXISTS "+connection.Database); err != nil {
		return err
	}
	return c.ping(ctx)
}

// statement executes one that returns nothing, on a connection of its own.
func (c *child) statement(ctx context.Context, connection ClickHouse, text string) error {
	client, err := ch.Dial(ctx, ch.Options{
		Address: address(c.ports.Native), User: connection.User, Password: connection.Password,
		DialTimeout: handshakeLimit, HandshakeTimeout: handshakeLimit,
	})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return errors.Join(client.Do(ctx, ch.Query{Body: text}), client.Close())
}

// ping succeeds when the server answers over HTTP.
func (c *child) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(c.ports.HTTP)+"/ping", http.NoBody)
	if err != nil {
		return fmt.Errorf("ask over HTTP: %w", err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask over HTTP: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		err = fmt.Errorf("ask over HTTP: %s", response.Status)
	}
	return errors.Join(err, response.Body.Close())
}
