package fault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// link passes TCP connections on to an engine and can spoil them. A broker tells
// its clients its own address; in what it says, the link puts its own in that
// place, so that no client goes round it.
type link struct {
	listener net.Listener
	target   string
	own      []byte // own address as brokers write it, nil when nothing is replaced
	theirs   []byte

	mu        sync.Mutex
	spoil     func(reply []byte) // changes replies of a broker; may be nil
	change    *sync.Cond
	stalled   bool          // nothing passes, and nothing says so
	delay     time.Duration // before each piece
	countdown int64         // bytes until all connections are cut, 0 = never
	closed    bool
	open      map[net.Conn]bool
	working   sync.WaitGroup
}

func newLink(target string, broker bool) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open link: %w", err)
	}
	l := &link{listener: listener, target: target, open: make(map[net.Conn]bool)}
	l.change = sync.NewCond(&l.mu)
	if broker {
		if l.own, err = kafkaAddress(l.address()); err == nil {
			l.theirs, err = kafkaAddress(target)
		}
		if err != nil {
			return nil, errors.Join(err, listener.Close())
		}
	}
	l.working.Go(l.accept)
	return l, nil
}

func (l *link) address() string { return l.listener.Addr().String() }

// kafkaAddress returns host and port as they stand in Kafka's replies: the host's
// bytes and the port as 32 bits. All hosts here are equally long.
func kafkaAddress(address string) ([]byte, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address of a broker: %w", err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address of a broker: %w", err)
	}
	return binary.BigEndian.AppendUint32([]byte(host), uint32(port)), nil
}

// accept ends with close.
func (l *link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.working.Go(func() { l.join(client) })
	}
}

// join connects a client with the engine until either leaves.
func (l *link) join(client net.Conn) {
	if !l.enter(client) {
		return
	}
	defer l.leave(client)
	engine, err := net.DialTimeout("tcp", l.target, 2*time.Second)
	if err != nil || !l.enter(engine) {
		return // an engine that is away
	}
	defer l.leave(engine)
	var both sync.WaitGroup
	both.Go(func() { defer l.leave(engine); l.pump(engine, client, false) })
	both.Go(func() { defer l.leave(client); l.pump(client, engine, l.own != nil) })
	both.Wait()
}

func (l *link) enter(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close() // nobody is waiting for it
		return false
	}
	l.open[c] = true
	return true
}

func (l *link) leave(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(c)
}

// drop closes a connection; l.mu is held.
func (l *link) drop(c net.Conn) {
	if l.open[c] {
		delete(l.open, c)
		_ = c.Close() // broken or not, it is over
	}
}

// pump passes bytes on until one side is gone. With replace it takes whole
// replies of a broker and puts our address in them.
func (l *link) pump(to, from net.Conn, replace bool) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := 0, error(nil)
		if replace {
			buffer, err = l.reply(from, buffer)
			n = len(buffer)
		} else {
			n, err = from.Read(buffer)
		}
		for passed := 0; passed < n; {
			allowed := l.pass(n - passed)
			if _, err := to.Write(buffer[passed : passed+allowed]); err != nil {
				return
			}
			passed += allowed
			if !l.alive(to) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// reply reads one reply of a broker: its length in 32 bits, then the reply.
func (l *link) reply(from io.Reader, buffer []byte) ([]byte, error) {
	buffer = append(buffer[:0], 0, 0, 0, 0)
	if _, err := io.ReadFull(from, buffer); err != nil {
		return buffer[:0], err
	}
	size := int(binary.BigEndian.Uint32(buffer))
	const largest = 128 << 20
	if size > largest {
		return buffer[:0], fmt.Errorf("reply of %d bytes", size)
	}
	buffer = append(buffer, make([]byte, size)...)
	if n, err := io.ReadFull(from, buffer[4:]); err != nil {
		return buffer[:4+n], err
	}
	l.mu.Lock()
	if l.spoil != nil {
		l.spoil(buffer[4:])
	}
	l.mu.Unlock()
	for rest := buffer; ; {
		at := bytes.Index(rest, l.theirs)
		if at < 0 {
			return buffer, nil
		}
		copy(rest[at:], l.own)
		rest = rest[at+len(l.own):]
	}
}

// pass waits until bytes may pass and returns how many, at most n. When the
// countdown comes to its end, what was allowed is the last of all connections.
func (l *link) pass(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.stalled && !l.closed {
		l.change.Wait()
	}
	if delay := l.delay; delay > 0 {
		l.mu.Unlock()
		time.Sleep(delay)
		l.mu.Lock()
	}
	if l.countdown == 0 {
		return n
	}
	allowed := int(min(int64(n), l.countdown))
	l.countdown -= int64(allowed)
	if l.countdown == 0 {
		// After the write of these bytes, which has a moment for it.
		l.working.Go(func() {
			time.Sleep(time.Millisecond)
			l.cut()
		})
	}
	return allowed
}

func (l *link) alive(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[c]
}

// cut ends all connections at once.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		l.drop(c)
	}
}

// cutAfter cuts all connections when so many more bytes have passed.
func (l *link) cutAfter(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.countdown = bytes
}

// stall lets nothing pass any more, or everything again.
func (l *link) stall(stalled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = stalled
	l.change.Broadcast()
}

// slow delays every piece.
func (l *link) slow(delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = delay
}

// heal undoes everything.
func (l *link) heal() {
	l.stall(false)
	l.slow(0)
	l.cutAfter(0)
}

func (l *link) close() error {
	l.mu.Lock()
	l.closed = true
	for c := range l.open {
		l.drop(c)
	}
	l.change.Broadcast()
	l.mu.Unlock()
	err := l.listener.Close()
	l.working.Wait()
	return err
}
