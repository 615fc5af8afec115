package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
)

const loopback = "127.0.0.1"

// startAttempts is how often an engine is started with newly chosen ports when
// somebody took one between the choice and its use.
const startAttempts = 5

func checkAddresses(addresses []string) error {
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return fmt.Errorf("%q is not host:port", a)
		}
		if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q is not host:port", a)
		}
	}
	return nil
}

// freePorts returns distinct loopback ports, for each the wanted one, or any free
// one when that is 0 or taken.
func freePorts(wanted ...int) (found []int, err error) {
	for _, w := range wanted {
		listener, err := net.Listen("tcp", address(w))
		if err != nil && w != 0 {
			listener, err = net.Listen("tcp", address(0))
		}
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		// Held until all are found, so that none is found twice.
		defer func() { err = errors.Join(err, listener.Close()) }()
		found = append(found, portOf(listener))
	}
	return found, nil
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// ports are those of one engine, kept beside its data so that addresses survive
// a restart where they can.
type ports struct {
	Native int `json:"native"`
	HTTP   int `json:"http,omitempty"`
}

func readPorts(path string) (ports, error) {
	var p ports
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("read ports: %w", err)
	}
	// Ports are a convenience: a file torn by a crash only loses their memory.
	if json.Unmarshal(raw, &p) != nil {
		return ports{}, nil
	}
	return p, nil
}

func writePorts(path string, p ports) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode ports: %w", err)
	}
	return writeFile(path, raw)
}

// writeFile replaces a file as a whole: readers see the old or the new content,
// also after a crash.
func writeFile(path string, content []byte) error {
	temporary := path + ".tmp"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
