package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
)

// proxy stands between store and server. When a client sends the text that it
// waits for, it stops all traffic and tells; resume lets it go on.
type proxy struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup

	mu      sync.Mutex
	text    []byte
	forward bool // whether the text still reaches the server
	seen    chan struct{}
	held    chan struct{} // closed when traffic may flow
	open    map[net.Conn]bool
}

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, server: server, held: make(chan struct{}), open: make(map[net.Conn]bool)}
	close(p.held)
	p.running.Go(p.accept)
	t.Cleanup(func() {
		listener.Close()
		p.resume()
		p.mu.Lock()
		for c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		p.running.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(client) })
	}
}

func (p *proxy) keep(c net.Conn, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if open {
		p.open[c] = true
	} else {
		delete(p.open, c)
	}
}

func (p *proxy) serve(client net.Conn) {
	p.keep(client, true)
	defer p.keep(client, false)
	defer client.Close()
	p.mu.Lock()
	held := p.held
	p.mu.Unlock()
	<-held
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	p.keep(server, true)
	defer p.keep(server, false)
	defer server.Close()
	p.running.Go(func() {
		io.Copy(client, server)
		client.Close()
	})
	buffer := make([]byte, 1<<20)
	for {
		n, err := client.Read(buffer)
		if n > 0 && !p.pass(server, buffer[:n]) || err != nil {
			return
		}
	}
}

// pass forwards a piece, or holds it when it is what was waited for.
func (p *proxy) pass(server net.Conn, piece []byte) bool {
	p.mu.Lock()
	held := p.held
	if p.text != nil && bytes.Contains(piece, p.text) {
		if p.forward {
			server.Write(piece)
			piece = nil
		}
		p.text, p.held = nil, make(chan struct{})
		held = p.held
		close(p.seen)
	}
	p.mu.Unlock()
	<-held
	_, err := server.Write(piece)
	return err == nil
}

// await makes the proxy stop at a text and returns what tells that it has.
func (p *proxy) await(text string, forward bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.forward, p.seen = []byte(text), forward, make(chan struct{})
	return p.seen
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.held:
	default:
		close(p.held)
	}
}

// writeSteps hands over messages and checkpoints of a partition, with states that
// all carry the position, until stop is closed. It returns the outcomes.
func writeSteps(ctx context.Context, s *store.Store, w *workload, partition int, messages <-chan *answer.Columns) (rows int, err error) {
	var outcomes []<-chan error
	for c := range messages {
		if err := s.Archive(ctx, partition, c, nil, nil); err != nil {
			return rows, err
		}
		rows += c.Rows
		position := c.Position(c.Rows - 1)
		call, outcome := durable()
		outcomes = append(outcomes, outcome)
		skills := w.skills(0, 0, position)
		for i := range c.Rows / 10 {
			token := c.Learner.At(i * 10)
			if len(skills.Learner) > 0 && skills.Learner[len(skills.Learner)-1] == token {
				continue
			}
			skills.Append(&transform.SkillRows{Learner: []answer.Token{token}, School: []string{"a"}, Group: []string{""}, YearGroup: []uint8{1}, KeyEpoch: []uint32{1},
				Layer: []transform.Layer{0}, Key: []string{""}, Subject: []string{""}, Mean: []float64{0}, Variance: []float64{1}, Answers: []uint32{1}, LastAt: []int64{start2026},
				FastMean: []float64{0}, SlowMean: []float64{0}, LastScore: []float64{0}, Position: []answer.Position{position}, Recent: [][]uint64{nil}}, 0)
		}
		err := s.Checkpoint(ctx, &transform.Checkpoint{Partition: partition, Position: position, AnswersOffset: c.RawOffset, SkillsOffset: c.RawOffset, Skills: skills, Durable: call,
			Sums: transform.ItemSumRows{Component: []transform.Component{2}, Key: []string{""}, Goal: []string{""}, Subject: []string{""}, Gradient: []int64{1}, Information: []int64{1},
				Answers: []int64{int64(rows)}, ScoreSum: []int64{1}, Position: []answer.Position{position}},
			Norms:     transform.NormRows{Layer: []transform.Layer{0}, Key: []string{""}, YearGroup: []uint8{1}, Bins: [][]uint16{{1}}, Counts: [][]int64{{1}}, Position: []answer.Position{position}},
			Adoptions: []transform.Adoption{{Position: position, Version: 1}}})
		if err != nil {
			return rows, err
		}
	}
	for _, outcome := range outcomes {
		if err := <-outcome; err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// disorder counts partitions in which something is further than what must be
// durable before it.
const disorder = `SELECT countIf(p.until > s.until OR p.until > n.until OR p.until > a.until OR p.rows > r.rows OR p.rows != l.rows OR s.until > i.until)
FROM (SELECT partition, max(position) AS until, (max(raw_offset) + 1) * 100 AS rows FROM {db}.progress GROUP BY partition) AS p
FULL JOIN (SELECT partition, max(position) AS until FROM {db}.skills GROUP BY partition) AS s ON s.partition = p.partition
LEFT JOIN (SELECT partition, max(position) AS until FROM {db}.item_sums GROUP BY partition) AS i ON i.partition = s.partition
LEFT JOIN (SELECT partition, max(position) AS until FROM {db}.norms GROUP BY partition) AS n ON n.partition = p.partition
LEFT JOIN (SELECT partition, max(position) AS until FROM {db}.adoptions GROUP BY partition) AS a ON a.partition = p.partition
LEFT JOIN (SELECT source_partition, toInt64(uniqExact(position)) AS rows FROM {db}.answers GROUP BY source_partition) AS r ON r.source_partition = p.partition
LEFT JOIN (SELECT l.partition, toInt64(uniqExact(raw_offset)) * 100 AS rows FROM {db}.raw_ledger AS l
	INNER JOIN (SELECT partition, max(raw_offset) AS until FROM {db}.progress GROUP BY partition) AS q ON q.partition = l.partition
	WHERE toInt64(raw_offset) <= until GROUP BY l.partition) AS l ON l.partition = p.partition`

// TestKillAtEachStep kills ClickHouse just before and just after it is sent each
// of the inserts of a batch. What is in the tables then is in the order that
// makes it whole; once ClickHouse is back, everything comes in, once.
func TestKillAtEachStep(t *testing.T) {
	t.Parallel()
	server := enginetest.StartClickHouse(t)
	connection := server.Database()
	p := startProxy(t, connection.Addresses[0])
	s := openStoreOn(t, connection, func(c *store.Config) {
		c.Addresses, c.MaxDelay = []string{p.listener.Addr().String()}, 5*time.Millisecond
	})
	w := newWorkload(21, 2)
	total := 0
	for _, table := range []string{"answers", "raw_ledger", "item_sums", "norms", "adoptions", "skills", "progress"} {
		for _, forward := range []bool{false, true} {
			seen := p.await("INSERT INTO "+connection.Database+"."+table+" ", forward)
			var writing sync.WaitGroup
			rows := make([]int, 2)
			errs := make([]error, 2)
			for partition := range 2 {
				messages := make(chan *answer.Columns, 3)
				for range 3 {
					messages <- w.message(partition, 100)
				}
				close(messages)
				own := newWorkload(1, 1)
				writing.Go(func() { rows[partition], errs[partition] = writeSteps(t.Context(), s.Store, own, partition, messages) })
			}
			<-seen
			server.Kill()
			server.Restart()
			if n := s.number(t, strings.ReplaceAll(disorder, "{db}", connection.Database)); n != 0 {
				t.Errorf("killed at %s (sent: %v): %d partitions are further than what they stand on", table, forward, n)
			}
			p.resume()
			writing.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatalf("killed at %s (sent: %v): %v", table, forward, err)
			}
			total += rows[0] + rows[1]
			if n := s.number(t, "SELECT count() FROM "+s.table("answers")+" FINAL"); n != int64(total) {
				t.Errorf("killed at %s (sent: %v): %d answers, want %d", table, forward, n, total)
			}
		}
	}
	if s.Stats().Retries == 0 {
		t.Error("no insert was tried again: nothing was killed")
	}
	restored, err := s.Restore(t.Context(), 1)
	if err != nil || restored.RawOffset != w.offset[1]-1 {
		t.Errorf("Restore = raw offset %d, %v, want %d", restored.RawOffset, err, w.offset[1]-1)
	}
}

// TestClickHouseAway: writers wait, in bounded memory, and nothing is lost.
func TestClickHouseAway(t *testing.T) {
	t.Parallel()
	server := enginetest.StartClickHouse(t)
	var log lockedBuffer
	s := openStoreOn(t, server.Database(), func(c *store.Config) {
		c.MaxRows, c.Batches, c.MaxDelay = 10_000, 3, 20*time.Millisecond
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	w := newWorkload(22, 1)
	server.Kill()
	sent, waiting := fill(t, s, w)
	server.Restart()
	if err := s.Archive(t.Context(), 0, waiting, nil, nil); err != nil {
		t.Fatal(err)
	}
	call, outcome := durable()
	if err := s.Checkpoint(t.Context(), &transform.Checkpoint{Position: waiting.Position(4999), Durable: call}); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; err != nil {
		t.Fatal(err)
	}
	if n := s.number(t, "SELECT count() FROM "+s.table("answers")); n != int64(5000*(sent+1)) {
		t.Errorf("%d answers, want %d", n, 5000*(sent+1))
	}
	if !strings.Contains(log.String(), "trying again") {
		t.Error("the log does not say that inserts failed")
	}
}

// fill archives messages of 5,000 rows until the store, which can't write them and
// has room for three batches of 10,000, makes the caller wait. It returns how many were taken, and
// the one that was not.
func fill(t *testing.T, s testStore, w *workload) (sent int, waiting *answer.Columns) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 100 {
		waiting = w.message(0, 5000)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := s.Archive(ctx, 0, waiting, nil, nil)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sent++
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if sent > 3*10_000/5000 {
		t.Errorf("%d messages were taken while ClickHouse took none, want at most three batches full", sent)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	return sent, waiting
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestRejected: what can't be inserted stops all partitions until they begin
// again from what is durable.
func TestRejected(t *testing.T) {
	t.Parallel()
	s := openStore(t, func(c *store.Config) { c.MaxDelay = 10 * time.Millisecond })
	w := newWorkload(23, 1)
	write := func() error {
		messages := make(chan *answer.Columns, 1)
		messages <- w.message(0, 100)
		close(messages)
		_, err := writeSteps(t.Context(), s.Store, w, 0, messages)
		return err
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	s.execute(t, "ALTER TABLE "+s.table("skills")+" RENAME COLUMN fast_mean TO slower_mean")
	var server *store.ServerError
	if err := write(); !errors.Is(err, store.ErrRejected) || !errors.As(err, &server) {
		t.Fatalf("write to a table without a column = %v, want ErrRejected by the server", err)
	}
	s.execute(t, "ALTER TABLE "+s.table("skills")+" RENAME COLUMN slower_mean TO fast_mean")
	if err := s.Archive(t.Context(), 0, w.message(0, 100), nil, nil); !errors.Is(err, store.ErrRejected) {
		t.Errorf("Archive before Restore = %v, want ErrRejected", err)
	}
	restored, err := s.Restore(t.Context(), 0)
	if err != nil || restored.RawOffset != 0 {
		t.Fatalf("Restore = raw offset %d, %v, want 0", restored.RawOffset, err)
	}
	if err := write(); err != nil {
		t.Errorf("write after Restore = %v", err)
	}
}

// TestErrorsHoldNoValues: a value that ClickHouse quotes in its message reaches
// neither log nor error.
func TestErrorsHoldNoValues(t *testing.T) {
	t.Parallel()
	const canary = "canary-7f3a"
	var log lockedBuffer
	s := openStore(t, func(c *store.Config) {
		c.MaxDelay, c.Logger = 10*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
	})
	s.execute(t, "ALTER TABLE "+s.table("answers")+" MODIFY COLUMN exercise Enum8('none' = 0)")
	var message string
	err := s.db.QueryRowContext(t.Context(), "INSERT INTO "+s.table("answers")+" (exercise) VALUES ('"+canary+"')").Scan(&message)
	if err == nil || !strings.Contains(err.Error(), canary) {
		t.Fatalf("insert of an unknown value = %v, want an error that quotes it: the test proves nothing", err)
	}
	w := newWorkload(24, 1)
	c := w.message(0, 10)
	c.Exercise.Values = []string{canary}
	clear(c.Exercise.Codes)
	if err := s.Archive(t.Context(), 0, c, nil, nil); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, 10*time.Second, "the log tells of the failure", func() error {
		if !strings.Contains(log.String(), "clickhouse error") {
			return fmt.Errorf("log: %q", log.String())
		}
		return nil
	})
	s.execute(t, "ALTER TABLE "+s.table("answers")+" MODIFY COLUMN exercise LowCardinality(String)")
	enginetest.Eventually(t, 10*time.Second, "the answers arrive", func() error {
		if n := s.number(t, "SELECT count() FROM "+s.table("answers")); n != 10 {
			return fmt.Errorf("%d answers, want 10", n)
		}
		return nil
	})
	if strings.Contains(log.String(), canary) {
		t.Errorf("the log quotes a value: %s", log.String())
	}
}
