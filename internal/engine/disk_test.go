package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// watchedDisk knows what would be left of a directory if power were lost: the
// names that were in a directory when it was synced, with the content that a file
// had when it was synced.
type watchedDisk struct {
	t    *testing.T
	root string
	gate func(path string) error // before each sync; nil lets all pass

	mu       sync.Mutex
	names    map[string]bool // below root
	contents map[string][]byte
}

func newWatchedDisk(t *testing.T) *watchedDisk {
	return &watchedDisk{t: t, root: t.TempDir(), names: map[string]bool{kafkaDir: true}, contents: map[string][]byte{}}
}

func (w *watchedDisk) sync(f *os.File) error {
	if w.gate != nil {
		if err := w.gate(f.Name()); err != nil {
			return err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	name, err := filepath.Rel(w.root, f.Name())
	if err != nil {
		return fmt.Errorf("name: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if info.IsDir() {
		entries, err := os.ReadDir(f.Name())
		for _, e := range entries {
			w.names[filepath.Join(name, e.Name())] = true
		}
		return err //nolint:wrapcheck // a test's
	}
	content, err := os.ReadFile(f.Name())
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	w.contents[name] = content[:info.Size()]
	return nil
}

// loosePower makes the directory that is left.
func (w *watchedDisk) loosePower() string {
	w.t.Helper()
	w.mu.Lock()
	names, contents := maps.Clone(w.names), maps.Clone(w.contents)
	w.mu.Unlock()
	left := w.t.TempDir()
	for name := range names {
		there := true
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			there = there && names[dir]
		}
		info, err := os.Stat(filepath.Join(w.root, name))
		if !there || err != nil {
			continue // its directory's name is lost, or it was removed since
		}
		content := contents[name]
		if strings.HasSuffix(name, ".json") { // the broker syncs these itself
			if content, err = os.ReadFile(filepath.Join(w.root, name)); err != nil {
				w.t.Fatal(err)
			}
		}
		if info.IsDir() {
			err = os.MkdirAll(filepath.Join(left, name), 0o700)
		} else if err = os.MkdirAll(filepath.Dir(filepath.Join(left, name)), 0o700); err == nil {
			err = os.WriteFile(filepath.Join(left, name), content, 0o600)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return left
}

func brokerOn(t *testing.T, dir string, sync func(*os.File) error) *Broker {
	t.Helper()
	broker, err := startBroker(Config{DataDir: dir, Kafka: KafkaConfig{sync: sync}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	return broker
}

func franz(t *testing.T, broker *Broker, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(broker.Address), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordDeliveryTimeout(time.Minute), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// Topics of these tests.
const (
	syncedTopic   = "synced"
	unsyncedTopic = "unsynced"
	topicParts    = 3
)

func makeTopics(t *testing.T, client *kgo.Client) {
	t.Helper()
	config := func(name string, value int) kmsg.CreateTopicsRequestTopicConfig {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, kmsg.StringPtr(strconv.Itoa(value))
		return c
	}
	request := kmsg.NewPtrCreateTopicsRequest()
	for _, name := range []string{syncedTopic, unsyncedTopic} {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, topicParts, 1
		topic.Configs = append(topic.Configs, config("segment.bytes", 4_000))
		if name == unsyncedTopic {
			topic.Configs = append(topic.Configs, config("flush.messages", unsyncedMessages))
		}
		request.Topics = append(request.Topics, topic)
	}
	response, err := request.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range response.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAcknowledgedSurvivesLossOfPower: whenever power is lost, what was
// acknowledged or fetched before is there afterwards, through many segments,
// retries of producers and a restart. Of the topic that is not synced nothing is.
func TestAcknowledgedSurvivesLossOfPower(t *testing.T) {
	t.Parallel()
	w := newWatchedDisk(t)
	broker := brokerOn(t, w.root, w.sync)
	client := franz(t, broker)
	makeTopics(t, client)

	var told toldValues
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for worker := range 4 {
		own := franz(t, broker)
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				value := fmt.Sprintf("%d-%d-%s", worker, n, strings.Repeat("x", 100+n%900))
				records := []*kgo.Record{
					{Topic: syncedTopic, Partition: int32(n % topicParts), Value: []byte(value)},
					{Topic: unsyncedTopic, Partition: int32(n % topicParts), Value: []byte(value)},
				}
				if err := own.ProduceSync(ctx, records...).FirstErr(); err == nil {
					told.add(value)
				}
			}
		})
	}
	reader := franz(t, broker, kgo.ConsumeTopics(syncedTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	running.Go(func() {
		for ctx.Err() == nil {
			reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) { told.add(string(r.Value)) })
		}
	})
	for cut := range 4 {
		before := told.await(150 * (cut + 1))
		left := contentOf(t, w.loosePower())
		for value := range before {
			if !left[value] {
				t.Fatalf("cut %d: %.20s… is lost, of %d told and %d left", cut, value, len(before), len(left))
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.contents {
		if strings.HasPrefix(filepath.Base(filepath.Dir(name)), unsyncedTopic+"-") {
			t.Errorf("%s was synced", name)
		}
	}
}

// toldValues is what clients have heard of.
type toldValues struct {
	mu     sync.Mutex
	values map[string]bool
	enough chan struct{} // closed when there are as many as wanted
	wanted int
}

func (v *toldValues) add(value string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.values == nil {
		v.values = map[string]bool{}
	}
	v.values[value] = true
	if v.enough != nil && len(v.values) >= v.wanted {
		close(v.enough)
		v.enough = nil
	}
}

// await returns them when there are so many.
func (v *toldValues) await(wanted int) map[string]bool {
	v.mu.Lock()
	if enough := make(chan struct{}); len(v.values) < wanted {
		v.enough, v.wanted = enough, wanted
		v.mu.Unlock()
		<-enough
		v.mu.Lock()
	}
	defer v.mu.Unlock()
	return maps.Clone(v.values)
}

// contentOf starts a broker on a directory and returns all values of the synced
// topic.
func contentOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	broker := brokerOn(t, dir, nil)
	values := map[string]bool{}
	client := franz(t, broker, kgo.ConsumeTopics(syncedTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	next := map[int32]int64{}
	for behind := true; behind && t.Context().Err() == nil; {
		client.PollFetches(t.Context()).EachRecord(func(r *kgo.Record) {
			values[string(r.Value)], next[r.Partition] = true, r.Offset+1
		})
		behind = false
		for _, info := range broker.cluster.PartitionInfos(syncedTopic) {
			behind = behind || next[info.Partition] < info.HighWatermark
		}
	}
	return values
}

// TestReplyWaitsForItsSync: neither the producer nor a reader hears of a message
// before it is synced; the topic that is not synced does not wait.
func TestReplyWaitsForItsSync(t *testing.T) {
	t.Parallel()
	w := newWatchedDisk(t)
	release, asked := make(chan struct{}), make(chan struct{}, 1)
	w.gate = func(path string) error {
		if filepath.Base(filepath.Dir(path)) == syncedTopic+"-0" && strings.HasSuffix(path, segmentSuffix) {
			select {
			case asked <- struct{}{}:
			default:
			}
			<-release
		}
		return nil
	}
	broker := brokerOn(t, w.root, w.sync)
	client := franz(t, broker)
	makeTopics(t, client)
	var order []string
	var mu sync.Mutex
	note := func(what string) { mu.Lock(); defer mu.Unlock(); order = append(order, what) }
	var running sync.WaitGroup
	running.Go(func() {
		if err := franz(t, broker).ProduceSync(t.Context(), &kgo.Record{Topic: syncedTopic, Value: []byte("a")}).FirstErr(); err != nil {
			t.Error(err)
		}
		note("told")
	})
	running.Go(func() {
		reader := franz(t, broker, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{syncedTopic: {0: kgo.NewOffset().AtStart()}}))
		for reader.PollFetches(t.Context()).NumRecords() == 0 && t.Context().Err() == nil {
		}
		note("told")
	})
	<-asked
	other := franz(t, broker)
	for _, r := range []*kgo.Record{{Topic: unsyncedTopic, Value: []byte("a")}, {Topic: syncedTopic, Partition: 1, Value: []byte("a")}} {
		if err := other.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	note("others")
	close(release)
	running.Wait()
	if order[0] != "others" {
		t.Errorf("order = %v", order)
	}
}

// TestNothingIsAcknowledgedAfterAFailedSync: the system has forgotten by then
// what it could not write.
func TestNothingIsAcknowledgedAfterAFailedSync(t *testing.T) {
	t.Parallel()
	w := newWatchedDisk(t)
	var mu sync.Mutex
	fail := true
	w.gate = func(path string) error {
		mu.Lock()
		defer mu.Unlock()
		if fail && strings.HasSuffix(path, segmentSuffix) {
			fail = false
			return errors.New("disk is broken")
		}
		return nil
	}
	broker := brokerOn(t, w.root, w.sync)
	// An idempotent producer never gives up what may have been written.
	client := franz(t, broker, kgo.DisableIdempotentWrite(), kgo.RecordRetries(3))
	makeTopics(t, client)
	for partition := range int32(2) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		err := client.ProduceSync(ctx, &kgo.Record{Topic: syncedTopic, Partition: partition, Value: []byte("a")}).FirstErr()
		cancel()
		if err == nil {
			t.Errorf("partition %d: acknowledged on a disk that failed", partition)
		}
	}
	other := franz(t, broker)
	if err := other.ProduceSync(t.Context(), &kgo.Record{Topic: unsyncedTopic, Value: []byte("a")}).FirstErr(); err != nil {
		t.Errorf("the topic that is not synced: %v", err)
	}
}

// TestLogEndsAtAGap: what follows a torn segment is gone after a loss of power,
// and a process that died leaves everything.
func TestLogEndsAtAGap(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run("power lost="+strconv.FormatBool(lost), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			broker := brokerOn(t, dir, nil)
			client := franz(t, broker)
			makeTopics(t, client)
			const messages = 40
			for n := range messages {
				value := []byte(strconv.Itoa(n) + strings.Repeat("x", 500))
				if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: syncedTopic, Value: value}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			left := t.TempDir()
			if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			partition := partitionDir(filepath.Join(left, kafkaDir), syncedTopic, 0)
			bases, err := segmentBases(partition)
			if err != nil || len(bases) < 4 {
				t.Fatalf("segments = %v, %v", bases, err)
			}
			if lost {
				torn := segmentPath(partition, bases[1])
				content, err := os.ReadFile(torn)
				if err != nil {
					t.Fatal(err)
				}
				clear(content[len(content)-10:]) // in the last batch
				if err := errors.Join(os.WriteFile(torn, content, 0o600), os.Remove(filepath.Join(left, bootFile))); err != nil {
					t.Fatal(err)
				}
			}
			want := messages
			if lost {
				want = int(bases[2]) - 1
			}
			if got := contentOf(t, left); len(got) != want {
				t.Errorf("%d messages are left, want %d", len(got), want)
			}
		})
	}
}

// TestSharedRunBeginsAfterTheCall: a run that was under way may have missed what
// the caller wrote.
func TestSharedRunBeginsAfterTheCall(t *testing.T) {
	t.Parallel()
	var shared sharedRun
	var mu sync.Mutex
	written, runs := 0, 0
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 20 {
				mu.Lock()
				written++
				mine := written
				mu.Unlock()
				seen := 0
				if err := shared.do(func() error {
					mu.Lock()
					defer mu.Unlock()
					runs++
					seen = written
					return nil
				}); err != nil || seen != 0 && seen < mine {
					t.Errorf("run saw %d of %d, %v", seen, mine, err)
				}
			}
		})
	}
	all.Wait()
	if runs > 1000 || runs == 0 {
		t.Errorf("runs = %d for 1000 calls", runs)
	}
}
