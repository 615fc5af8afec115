package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of the gate.
const (
	gateConnections = 512              // more wait to be accepted
	helloLimit      = 10 * time.Second // a client that says nothing is dropped
	waitForEngine   = 20 * time.Second // how long a connection waits for a restart
	gateGrace       = 5 * time.Second  // how long the engine may take to end connections
)

// gate stands before the embedded ClickHouse. clickhouse-local was not made to
// be a server: an exception that leaves its connection handler ends the process.
// A wrong password, an unknown database, a hello cut short and a reset while
// idle (what the kernel sends for a client that died with unread data) all do
// so. The gate lets none of them through: it forwards a hello only when it is
// whole and the server would accept it, and turns a reset into an orderly end,
// upon which the server cancels the client's query.
//
// Its addresses stay while the engine behind it is restarted; connections made
// meanwhile wait.
//
//	client ──▶ gate (fixed ports) ──▶ engine (ports chosen anew at each start)
type gate struct {
	listeners []net.Listener
	target    func() (ports, bool) // ports of the engine; false while it restarts
	space     *space               // without it, nothing that the engine says may be believed
	asker     *http.Client
	logger    *slog.Logger

	slots   chan struct{}
	running sync.WaitGroup

	ctx    context.Context // ends when clients are sent away
	cancel context.CancelFunc
	force  context.Context // ends when connections to the engine are cut too
	cut    context.CancelFunc
}

// openGate starts to accept. Close stops it.
func openGate(native, web net.Listener, target func() (ports, bool), space *space, logger *slog.Logger) *gate {
	g := &gate{
		listeners: []net.Listener{native, web},
		target:    target,
		space:     space,
		asker:     &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: handshakeLimit},
		logger:    logger,
		slots:     make(chan struct{}, gateConnections),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.force, g.cut = context.WithCancel(context.Background())
	g.running.Go(func() { g.accept(native, g.serveNative) })
	g.running.Go(func() { g.accept(web, g.serveHTTP) })
	return g
}

// close stops accepting, sends the clients away, and waits until the engine has
// ended its side of their connections, as long as the grace period.
func (g *gate) close(grace time.Duration) error {
	defer g.cut()
	timer := time.AfterFunc(grace, g.cut)
	defer timer.Stop()
	g.cancel()
	var errs []error
	for _, l := range g.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	g.running.Wait()
	return errors.Join(errs...)
}

func (g *gate) accept(listener net.Listener, serve func(*net.TCPConn)) {
	for {
		select {
		case g.slots <- struct{}{}:
		case <-g.ctx.Done():
			return
		}
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, for one
			<-g.slots
			g.logger.ErrorContext(g.ctx, "embedded clickhouse: accept", "error", err)
			if !pause(g.ctx, 100*time.Millisecond) {
				return
			}
			continue
		}
		g.running.Go(func() {
			defer func() { <-g.slots }()
			defer closeQuietly(conn)
			stop := context.AfterFunc(g.ctx, func() { closeQuietly(conn) })
			defer stop()
			serve(conn.(*net.TCPConn))
		})
	}
}

// pause waits; false means that ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// closeQuietly closes a connection of which nobody expects anything more.
func closeQuietly(c io.Closer) { _ = c.Close() }

func (g *gate) serveNative(client *net.TCPConn) {
	if client.SetReadDeadline(time.Now().Add(helloLimit)) != nil {
		return
	}
	reader := bufio.NewReader(client)
	h, err := readHello(reader)
	if err != nil || client.SetReadDeadline(time.Time{}) != nil {
		return // a scan, or a client that went away
	}
	server, at, err := g.dial(func(p ports) int { return p.Native })
	if err != nil {
		g.refuse(client, refusal{codeNetworkError, "The server is not up"})
		return
	}
	defer closeQuietly(server)
	refused, err := g.admit(g.ctx, address(at.HTTP), h)
	if err != nil {
		g.refuse(client, refusal{codeNetworkError, "The server is not up"})
		return
	}
	if refused != nil {
		g.refuse(client, *refused)
		return
	}
	if _, err := server.Write(h.raw); err != nil {
		return
	}
	if buffered := reader.Buffered(); buffered > 0 {
		rest, err := reader.Peek(buffered)
		if err != nil {
			return
		}
		if _, err := server.Write(rest); err != nil {
			return
		}
	}
	g.join(client, server)
}

func (g *gate) refuse(client *net.TCPConn, why refusal) {
	if _, err := client.Write(why.packet()); err != nil {
		return // it went away without hearing why
	}
	closeQuietly(client)
}

func (g *gate) serveHTTP(client *net.TCPConn) {
	server, _, err := g.dial(func(p ports) int { return p.HTTP })
	if err != nil {
		return
	}
	defer closeQuietly(server)
	g.join(client, server)
}

// dial connects to the engine. While it restarts, it waits.
func (g *gate) dial(port func(ports) int) (*net.TCPConn, ports, error) {
	ctx, cancel := context.WithTimeout(g.ctx, waitForEngine)
	defer cancel()
	var dialer net.Dialer
	for {
		at, up := g.target()
		err := errors.New("the engine restarts")
		if up {
			var conn net.Conn
			if conn, err = dialer.DialContext(ctx, "tcp", address(port(at))); err == nil {
				return conn.(*net.TCPConn), at, nil
			}
		}
		if !pause(ctx, readyPoll) {
			return nil, ports{}, fmt.Errorf("connect to the engine: %w", err)
		}
	}
}

// join copies both ways until both sides are done. Whatever way the client
// ends, the server sees an orderly end of input and everything it still sends
// is taken; so it never meets a reset.
func (g *gate) join(client, server *net.TCPConn) {
	stop := context.AfterFunc(g.force, func() { closeQuietly(server) })
	defer stop()
	var forth sync.WaitGroup
	forth.Go(func() {
		// How the client ended does not matter: the server is told that it did.
		_, _ = io.Copy(server, client)
		_ = server.CloseWrite()
	})
	if err := g.reply(client, server); err != nil {
		// The client is gone and the server may not know. The copy above ends as
		// well: reading from the client fails.
		closeQuietly(client)
		_, _ = io.Copy(io.Discard, server)
	}
	closeQuietly(client) // the server has ended the connection
	forth.Wait()
}

// errFull reports that replies are held back because the disk is full.
var errFull = errors.New("the disk is full")

// replyBytes is how much of a reply is passed on at a time.
const replyBytes = 64 << 10

// reply passes on what the server says, as long as it can be believed: never
// again once the disk was full, also when another process has been started since.
func (g *gate) reply(client, server *net.TCPConn) error {
	buffer := make([]byte, replyBytes)
	reached := g.space.reached()
	for {
		n, err := server.Read(buffer)
		if n > 0 {
			g.space.full()
			select {
			case <-reached:
				return errFull
			default:
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil //nolint:nilerr // however it ended, it has: io.EOF as a rule
		}
	}
}
