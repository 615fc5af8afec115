package engine_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// packet builds packets of the native protocol by hand, so that a test can cut
// them.
type packet struct{ bytes.Buffer }

func (p *packet) number(n uint64) { p.Write(binary.AppendUvarint(nil, n)) }

func (p *packet) text(s string) {
	p.number(uint64(len(s)))
	p.WriteString(s)
}

const revision = 54460

func helloPacket(c engine.ClickHouse) []byte {
	var p packet
	p.number(0)
	p.text("test")
	p.number(24)
	p.number(1)
	p.number(revision)
	p.text(c.Database)
	p.text(c.User)
	p.text(c.Password)
	return p.Bytes()
}

// queryPacket is what a client of that revision sends after the server's hello.
func queryPacket(query string) []byte {
	var p packet
	p.text("") // quota key
	p.number(1)
	p.text("")     // query id
	p.WriteByte(1) // initial query
	p.text("")     // initial user
	p.text("")     // initial query id
	p.text("0.0.0.0:0")
	p.Write(make([]byte, 8)) // start time
	p.WriteByte(1)           // interface: TCP
	for _, s := range []string{"user", "host", "test"} {
		p.text(s)
	}
	p.number(24)
	p.number(1)
	p.number(revision)
	p.text("")     // quota key
	p.number(0)    // depth
	p.number(0)    // patch
	p.WriteByte(0) // no trace
	p.number(0)
	p.number(0)
	p.number(0) // parallel replicas
	p.text("")  // end of settings
	p.text("")  // secret
	p.number(2) // stage
	p.number(0) // no compression
	p.text(query)
	p.text("") // end of parameters
	p.number(2)
	p.text("")
	p.Write([]byte{1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0}) // empty block
	return p.Bytes()
}

// rude connects, sends parts, reads what comes for a moment after each, and ends
// with a reset or an orderly end.
func rude(t *testing.T, address string, reset bool, parts ...[]byte) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("the engine is gone: %v", err)
	}
	for i, part := range parts {
		if _, err := conn.Write(part); err != nil {
			break // it has refused us
		}
		if i < len(parts)-1 {
			if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 16)); err != nil { // the rest stays unread
				break
			}
		}
	}
	if reset {
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRudeClientsDoNotEndTheEngine: each of these ends clickhouse-local when it
// meets it without the gate.
func TestRudeClientsDoNotEndTheEngine(t *testing.T) {
	t.Parallel()
	server := enginetest.StartClickHouse(t)
	c := server.Connection()
	conn := open(t, c)
	execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n")
	native := c.Addresses[0]
	alive := func(after string) {
		t.Helper()
		if n := count(t, conn, "SELECT toUInt64(1)"); n != 1 {
			t.Fatalf("%s: no answer", after)
		}
		select {
		case <-server.Process().Done():
			t.Fatalf("%s: the engine ended: %v", after, server.Process().Err())
		default:
		}
	}
	noise := make([]byte, 200)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	hello := helloPacket(c)
	for _, reset := range []bool{false, true} {
		rude(t, native, reset)
		alive("nothing")
		rude(t, native, reset, noise)
		alive("noise")
		rude(t, c.HTTPAddress, reset, noise)
		alive("noise over HTTP")
		for cut := range len(hello) {
			rude(t, native, reset, hello[:cut])
		}
		alive("part of a hello")
		rude(t, native, reset, hello, nil)
		alive("hello")
		query := queryPacket("SELECT number FROM numbers(100000000)")
		for cut := 0; cut <= len(query); cut += 3 {
			rude(t, native, reset, hello, query[:cut])
		}
		rude(t, native, reset, hello, query, nil)
		alive("part of a query")
		rude(t, native, reset, hello, queryPacket("INSERT INTO rows VALUES"), []byte{2, 0, 1})
		alive("part of an insert")
		rude(t, native, reset, hello, queryPacket("SELECT 1"), nil)
		alive("unread answer")
	}
}

func TestRefusedLogins(t *testing.T) {
	t.Parallel()
	c, _ := enginetest.ClickHouse(t)
	wrongPassword, wrongUser, wrongDatabase := c, c, c
	wrongPassword.Password, wrongUser.User, wrongDatabase.Database = "wrong", "nobody", "nowhere"
	for want, refused := range map[int32][]engine.ClickHouse{516: {wrongPassword, wrongUser}, 81: {wrongDatabase}} {
		for _, r := range refused {
			err := open(t, r).Ping(t.Context())
			var exception *clickhouse.Exception
			if !errors.As(err, &exception) || exception.Code != want {
				t.Errorf("ping as %s = %v, want code %d", r, err, want)
			}
		}
	}
	if err := open(t, c).Ping(t.Context()); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

func TestHTTPInterface(t *testing.T) {
	t.Parallel()
	c, _ := enginetest.ClickHouse(t)
	target := url.URL{Scheme: "http", Host: c.HTTPAddress, User: url.UserPassword(c.User, c.Password), RawQuery: "query=SELECT+currentUser()"}
	response, err := http.Get(target.String())
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(text)); got != c.User {
		t.Errorf("user over HTTP = %q, want %q", got, c.User)
	}
}

// TestEngineIsStartedAgain kills the process behind a supervised server: clients
// find it at the same address, with what it had acknowledged.
func TestEngineIsStartedAgain(t *testing.T) {
	t.Parallel()
	config := engine.Config{DataDir: t.TempDir()}
	engines, err := engine.Start(t.Context(), config, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		enginetest.Missing(t, err)
	}
	defer func() {
		if err := engines.Close(); err != nil {
			t.Error(err)
		}
	}()
	conn := open(t, engines.ClickHouse)
	execute(t, conn, "CREATE TABLE rows (n UInt64) ENGINE = MergeTree ORDER BY n")
	for round := range 3 {
		execute(t, conn, fmt.Sprintf("INSERT INTO rows VALUES (%d)", round))
		killChildren(t, config.DataDir)
		enginetest.Eventually(t, time.Minute, "answer after a kill", func() error { return conn.Ping(t.Context()) })
		if n := count(t, conn, "SELECT count() FROM rows"); n != uint64(round+1) {
			t.Errorf("rows after kill %d = %d, want %d", round, n, round+1)
		}
	}
	if err := engines.Err(); err != nil {
		t.Errorf("the engines gave up: %v", err)
	}
}

// killChildren kills the processes whose command line names the directory.
func killChildren(t *testing.T, dir string) {
	t.Helper()
	for _, pid := range processesOf(t, dir) {
		process, err := os.FindProcess(pid)
		if err == nil {
			err = process.Kill()
		}
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatalf("kill %d: %v", pid, err)
		}
	}
}
