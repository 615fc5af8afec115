package engine

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// disk brings what the embedded broker has written to stable storage.
//
// The broker can sync every write itself, but then it does so in the one loop in
// which it serves everybody, one file after the other, for every topic. So it
// writes without syncing, and replies are held back until what they tell of is
// synced, see held.go. Calls for the same partition share a sync; partitions are
// synced at the same time.
//
// A topic is left to the operating system when its setting flush.messages is the
// greatest, which is also what Apache Kafka understands by it.
type disk struct {
	dir    string // of the broker
	logger *slog.Logger
	sync   func(*os.File) error

	groups, directory sharedRun // groups.log; dir itself
	failure           atomic.Pointer[error]

	mu     sync.Mutex
	topics map[string]*topicLog // by name; nil when topics.json has to be read
	ids    map[[16]byte]string
}

// topicLog is what is known of a topic.
type topicLog struct {
	name         string
	unsynced     bool
	segmentBytes int64 // a segment that is as large gets no more batches
	partitions   map[int32]*partitionLog
}

// unsyncedMessages is the value of flush.messages of a topic that may lose its
// last messages when power is lost.
const unsyncedMessages = math.MaxInt64

func newDisk(dir string, sync func(*os.File) error, logger *slog.Logger) *disk {
	if sync == nil {
		sync = (*os.File).Sync
	}
	return &disk{dir: dir, sync: sync, logger: logger}
}

// forget drops what is known of topics, because some were made, deleted or
// changed.
func (d *disk) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.topics, d.ids = nil, nil
}

// open finds a partition by the name of its topic, or by the id when the name is
// empty. It returns nil for a topic that is not synced.
func (d *disk) open(topic string, id [16]byte, partition int32) (*partitionLog, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.find(topic, id)
	if t == nil {
		// It may have been made a moment ago, by somebody who has no reply yet.
		if err := d.read(); err != nil {
			return nil, err
		}
		t = d.find(topic, id)
	}
	if t == nil {
		return nil, fmt.Errorf("sync %s/%d: the broker's list of topics has none of that name", topic, partition)
	}
	if t.unsynced {
		return nil, nil //nolint:nilnil // nothing to sync
	}
	p := t.partitions[partition]
	if p == nil {
		p = &partitionLog{disk: d, dir: partitionDir(d.dir, t.name, partition), segmentBytes: t.segmentBytes}
		t.partitions[partition] = p
	}
	return p, nil
}

func (d *disk) find(topic string, id [16]byte) *topicLog {
	if topic == "" {
		topic = d.ids[id]
	}
	return d.topics[topic]
}

func partitionDir(dir, topic string, partition int32) string {
	return filepath.Join(dir, "partitions", fmt.Sprintf("%s-%d", url.PathEscape(topic), partition))
}

// read takes the topics from the broker's list, which it writes before it
// answers the request that makes one.
func (d *disk) read() error {
	list, err := readTopics(d.dir)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	d.topics, d.ids = make(map[string]*topicLog), make(map[[16]byte]string)
	for _, t := range list.Topics {
		l := &topicLog{name: t.Name, segmentBytes: segmentBytes, partitions: make(map[int32]*partitionLog)}
		if text, ok := t.Configs["segment.bytes"]; ok {
			if l.segmentBytes, err = strconv.ParseInt(text, 10, 64); err != nil {
				return fmt.Errorf("sync: segment.bytes of topic %s: %w", t.Name, err)
			}
		}
		l.unsynced = t.Configs["flush.messages"] == strconv.FormatInt(unsyncedMessages, 10)
		d.topics[t.Name] = l
		raw, err := base64.StdEncoding.DecodeString(t.ID)
		if err != nil || len(raw) != len([16]byte{}) {
			return fmt.Errorf("sync: id of topic %s in topics.json is not 16 bytes in base64", t.Name)
		}
		d.ids[[16]byte(raw)] = t.Name
	}
	return nil
}

// syncFile syncs a file or directory. After a failure nothing is trusted any
// more: the system forgets what it could not write, so that a second attempt
// would succeed without it.
func (d *disk) syncFile(f *os.File) error {
	if failure := d.failure.Load(); failure != nil {
		return *failure
	}
	err := d.sync(f)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("sync %s: %w; repair the disk and start again: until then nothing is acknowledged", filepath.Base(f.Name()), err)
	if d.failure.CompareAndSwap(nil, &err) {
		d.logger.Error("embedded kafka can't write", "error", err)
	}
	return err
}

func (d *disk) syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer closeQuietly(f) // only read from
	return d.syncFile(f)
}

// syncGroups makes the committed offsets durable.
func (d *disk) syncGroups() error {
	return d.groups.do(func() error {
		err := d.syncPath(filepath.Join(d.dir, "groups.log"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // nothing was committed
		}
		return errors.Join(err, d.syncPath(d.dir)) // it may have been written anew
	})
}

// syncDirectory makes the list of topics durable: the broker syncs the file, but
// not its name.
func (d *disk) syncDirectory() error {
	return d.directory.do(func() error { return d.syncPath(d.dir) })
}

// partitionLog is the segments of one partition.
type partitionLog struct {
	disk         *disk
	dir          string
	segmentBytes int64

	shared  sharedRun
	written atomic.Int64 // batches that begin below it were in the file when somebody asked
	durable atomic.Int64 // batches that begin below it are on the disk

	// Of the run of shared that is under way:
	active *os.File // last segment that held anything, nil at first
	base   int64    // of active
}

// ensure returns when the batch that begins at an offset is on the disk, and all
// before it. The broker has written it.
func (p *partitionLog) ensure(batch int64) error {
	if p.durable.Load() > batch {
		return nil
	}
	raise(&p.written, batch+1)
	return p.shared.do(func() error {
		upTo := p.written.Load()
		if p.durable.Load() >= upTo {
			return nil
		}
		if err := p.flush(); err != nil {
			return err
		}
		p.durable.Store(upTo)
		return nil
	})
}

func raise(mark *atomic.Int64, to int64) {
	for {
		old := mark.Load()
		if to <= old || mark.CompareAndSwap(old, to) {
			return
		}
	}
}

// flush syncs what was written since the last time.
func (p *partitionLog) flush() error {
	if p.active != nil {
		info, err := p.active.Stat()
		if err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		// The broker begins a new segment only when the last one is full.
		if info.Size() < p.segmentBytes && linked(info) {
			return p.disk.syncFile(p.active)
		}
	}
	return p.flushSegments()
}

// flushSegments syncs the active segment and those that came after it, in this
// order, and then their names.
func (p *partitionLog) flushSegments() error {
	bases, err := segmentBases(p.dir)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	first := p.active == nil
	for _, base := range bases {
		if !first && base < p.base {
			continue
		}
		if err := p.flushSegment(base); err != nil {
			return err
		}
	}
	if err := p.disk.syncPath(p.dir); err != nil || !first {
		return err
	}
	if err := p.disk.syncPath(filepath.Dir(p.dir)); err != nil {
		return err
	}
	return p.disk.syncDirectory()
}

// flushSegment syncs one segment. It becomes the active one unless it is empty:
// such a file may be left over from before a crash, and the broker go on in the
// one before.
func (p *partitionLog) flushSegment(base int64) error {
	f, err := os.OpenFile(segmentPath(p.dir, base), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // retention removed it
	}
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		err = p.disk.syncFile(f)
	}
	if err != nil || info.Size() == 0 {
		return errors.Join(err, f.Close())
	}
	if p.active != nil {
		err = p.active.Close()
	}
	p.active, p.base = f, base
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func segmentPath(dir string, base int64) string {
	return filepath.Join(dir, strconv.FormatInt(base, 10)+segmentSuffix)
}

const (
	segmentSuffix = ".dat"
	indexSuffix   = ".idx"
)

// segmentBases returns the first offsets of the segments of a partition,
// ascending; none when there is no such directory.
func segmentBases(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var bases []int64
	for _, e := range entries {
		text, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		base, err := strconv.ParseInt(text, 10, 64)
		if ok && err == nil {
			bases = append(bases, base)
		}
	}
	slices.SortFunc(bases, cmp.Compare[int64])
	return bases, nil
}

// sharedRun lets callers share the runs of what they all want done. An error
// stays: see syncFile.
type sharedRun struct {
	mu           sync.Mutex
	changed      *sync.Cond
	begun, ended uint64
	err          error
}

// do returns after a run of f that began after the call.
func (s *sharedRun) do(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = sync.NewCond(&s.mu)
	}
	for want := s.begun + 1; s.ended < want && s.err == nil; {
		if s.begun > s.ended {
			s.changed.Wait()
			continue
		}
		s.begun++
		s.mu.Unlock()
		err := f()
		s.mu.Lock()
		s.err, s.ended = err, s.begun
		s.changed.Broadcast()
	}
	return s.err
}
