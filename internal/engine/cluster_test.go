package engine_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// TestTwoEnginesAnswerAsACluster joins two embedded servers by remote_servers.
// There is no Keeper in the library, so ON CLUSTER statements are refused: who
// sets up a cluster of embedded servers tells each of them.
func TestTwoEnginesAnswerAsACluster(t *testing.T) {
	t.Parallel()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("shared & <secret>\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var nodes []int
	for range 2 {
		nodes = append(nodes, reserve(t))
	}
	addresses := []string{loopback(nodes[0]), loopback(nodes[1])}
	var connections []engine.ClickHouse
	for _, port := range nodes {
		connections = append(connections, enginetest.StartClickHouse(t, func(c *engine.Config) {
			c.ClickHouse = engine.ClickHouseConfig{Cluster: "schools", RemoteServers: addresses, PasswordFile: password, NativePort: port}
		}).Connection())
	}
	for i, c := range connections {
		conn := open(t, c)
		execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n")
		execute(t, conn, "INSERT INTO rows SELECT number FROM numbers("+[]string{"10", "20"}[i]+")")
		execute(t, conn, "CREATE TABLE all AS rows ENGINE = Distributed(schools, "+c.Database+", rows, n)")
	}
	for i, c := range connections {
		if c.Cluster != "schools" {
			t.Errorf("node %d: cluster = %q", i, c.Cluster)
		}
		conn := open(t, c)
		for _, from := range []string{"cluster('schools', currentDatabase(), rows)", "all"} {
			if n := count(t, conn, "SELECT count() FROM "+from); n != 30 {
				t.Errorf("node %d: rows in %s = %d, want 30", i, from, n)
			}
		}
		err := conn.Exec(t.Context(), "CREATE DATABASE everywhere ON CLUSTER schools")
		if err == nil || !strings.Contains(err.Error(), "Replicated DDL queries are disabled") {
			t.Errorf("node %d: ON CLUSTER = %v; the library can do it now, use it", i, err)
		}
	}
}

// reserve returns a port that was free.
func reserve(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().(*net.TCPAddr).Port
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
