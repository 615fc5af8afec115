package engine

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// heldListener gives the embedded broker its connections, none before the broker
// has put away what may not be served any more. They hold replies back until what
// they tell of is on the disk: the acknowledgement of messages, and messages that
// are fetched. The latter because what a reader makes of a message must not
// outlive it: after a loss of power its offset would go to another one.
type heldListener struct {
	net.Listener
	disk *disk // nil holds nothing back

	open, closed chan struct{}
	once         sync.Once
}

func newHeldListener(listener net.Listener, disk *disk) *heldListener {
	return &heldListener{Listener: listener, disk: disk, open: make(chan struct{}), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *heldListener) Accept() (net.Conn, error) {
	select {
	case <-l.open:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil || l.disk == nil {
		return conn, err
	}
	return &heldConn{Conn: conn, disk: l.disk}, nil
}

// Close implements net.Listener.
func (l *heldListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// heldConn reads along with the requests, to know what a reply answers. The
// broker reads in one goroutine and writes in another, a reply at a time.
type heldConn struct {
	net.Conn
	disk *disk

	head [requestHead]byte // of the request that is being read
	got  int               // bytes of it
	skip int               // bytes of the request after it

	mu      sync.Mutex
	waiting []heldRequest // in the order of the requests
}

// requestHead is the beginning of every request: size of the rest (4), key (2),
// version (2), correlation (4).
const requestHead = 12

// replyHead is the beginning of every reply: size of the rest (4), correlation
// (4).
const replyHead = 8

type heldRequest struct {
	key, version int16
	correlation  uint32
}

// Read implements net.Conn.
func (c *heldConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.watch(p[:n])
	return n, err
}

func (c *heldConn) watch(p []byte) {
	for len(p) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(p))
			c.skip -= n
			p = p[n:]
			continue
		}
		n := copy(c.head[c.got:], p)
		c.got += n
		p = p[n:]
		if c.got < requestHead {
			return
		}
		c.got = 0
		c.skip = max(0, int(binary.BigEndian.Uint32(c.head[:]))+4-requestHead)
		r := heldRequest{
			key: int16(binary.BigEndian.Uint16(c.head[4:])), version: int16(binary.BigEndian.Uint16(c.head[6:])),
			correlation: binary.BigEndian.Uint32(c.head[8:]),
		}
		if r.held() {
			c.mu.Lock()
			c.waiting = append(c.waiting, r)
			c.mu.Unlock()
		}
	}
}

// held tells whether the reply to a request may have to wait.
func (r *heldRequest) held() bool {
	switch kmsg.Key(r.key) {
	case kmsg.Produce, kmsg.Fetch, kmsg.OffsetCommit, kmsg.CreateTopics, kmsg.DeleteTopics, kmsg.CreatePartitions,
		kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs:
		return true
	}
	return false
}

// Write implements net.Conn. The broker writes one whole reply. An error closes
// the connection without it.
func (c *heldConn) Write(reply []byte) (int, error) {
	if len(reply) < replyHead || int(binary.BigEndian.Uint32(reply)) != len(reply)-4 {
		return 0, fmt.Errorf("embedded kafka wrote %d bytes that are not one reply", len(reply))
	}
	if r, found := c.answered(binary.BigEndian.Uint32(reply[4:])); found {
		if err := c.disk.hold(r, reply[replyHead:]); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(reply)
}

// answered takes the request out that a reply belongs to. Those before it have
// none: producers may ask for that.
func (c *heldConn) answered(correlation uint32) (heldRequest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range c.waiting {
		if r.correlation == correlation {
			c.waiting = append(c.waiting[:0], c.waiting[i+1:]...)
			return r, true
		}
	}
	return heldRequest{}, false
}

// hold returns when what a reply tells of is on the disk.
func (d *disk) hold(r heldRequest, body []byte) error {
	response := kmsg.ResponseForKey(r.key)
	response.SetVersion(r.version)
	if response.IsFlexible() && len(body) > 0 {
		body = body[1:] // tagged fields of the head: the broker sends none
	}
	if err := response.ReadFrom(body); err != nil {
		return fmt.Errorf("read reply of embedded kafka to request %s: %w", kmsg.NameForKey(r.key), err)
	}
	switch response := response.(type) {
	case *kmsg.ProduceResponse:
		return d.holdProduced(response)
	case *kmsg.FetchResponse:
		return d.holdFetched(response)
	case *kmsg.OffsetCommitResponse:
		return d.syncGroups()
	default: // topics were made, deleted or changed
		d.forget()
		return d.syncDirectory()
	}
}

func (d *disk) holdProduced(response *kmsg.ProduceResponse) error {
	var wait waits
	for i := range response.Topics {
		t := &response.Topics[i]
		for k := range t.Partitions {
			p := &t.Partitions[k]
			if p.ErrorCode != 0 {
				continue
			}
			if err := wait.add(d, t.Topic, t.TopicID, p.Partition, p.BaseOffset); err != nil {
				return err
			}
		}
	}
	return wait.all()
}

func (d *disk) holdFetched(response *kmsg.FetchResponse) error {
	var wait waits
	for i := range response.Topics {
		t := &response.Topics[i]
		for k := range t.Partitions {
			p := &t.Partitions[k]
			last, any := lastBatch(p.RecordBatches)
			if !any {
				continue
			}
			if err := wait.add(d, t.Topic, t.TopicID, p.Partition, last); err != nil {
				return err
			}
		}
	}
	return wait.all()
}

// lastBatch returns where the last record batch begins. A batch is its offset
// (8 bytes), the size of the rest (4) and the rest.
func lastBatch(batches []byte) (offset int64, any bool) {
	const head = 12
	for len(batches) >= head {
		offset, any = int64(binary.BigEndian.Uint64(batches)), true
		batches = batches[min(len(batches), head+int(binary.BigEndian.Uint32(batches[8:]))):]
	}
	return offset, any
}

// waits is what one reply waits for.
type waits struct {
	logs    []*partitionLog
	batches []int64
}

func (w *waits) add(d *disk, topic string, id [16]byte, partition int32, batch int64) error {
	log, err := d.open(topic, id, partition)
	if err != nil || log == nil || log.durable.Load() > batch {
		return err
	}
	w.logs, w.batches = append(w.logs, log), append(w.batches, batch)
	return nil
}

func (w *waits) all() error {
	if len(w.logs) == 1 { // as our own client asks
		return w.logs[0].ensure(w.batches[0])
	}
	var group errgroup.Group
	for i, log := range w.logs {
		group.Go(func() error { return log.ensure(w.batches[i]) })
	}
	return group.Wait()
}
