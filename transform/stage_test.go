package transform_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// world is a Kafka with the topics of a deployment, a memory store, and a clock
// that the test moves.
type world struct {
	t           testing.TB
	random      *rand.Rand
	partitions  int
	client      *stream.Client
	topics      stream.Topics
	store       *memory
	persistence transform.Persistence // the memory store unless the test says otherwise
	skillsBytes int                   // limit of a message of skills, 0 = the usual
	normsEvery  time.Duration         // NormInterval of stages
	clock       atomic.Int64          // nanoseconds
	messages    [][]sent
	deadLetters atomic.Int64
	deadLetter  func(context.Context, int, string, *stream.Message) error
	parameters  filter.Parameters // zero value: the defaults
	changes     []modelChange     // of parameters, by partition
	cuts        int               // losses of power, after which the log of skills may lack messages
}

// modelChange says from which message on another model is at work.
type modelChange struct {
	partition  int
	rawOffset  int64
	parameters filter.Parameters
}

func newWorld(t testing.TB, random *rand.Rand, partitions int) *world {
	t.Helper()
	w := &world{t: t, random: random, partitions: partitions, client: newClient(t), store: newMemory(), messages: make([][]sent, partitions), normsEvery: 3 * time.Second}
	w.persistence = w.store
	w.deadLetter = func(context.Context, int, string, *stream.Message) error { w.deadLetters.Add(1); return nil }
	w.topics = newTopics(t, w.client, partitions)
	return w
}

func newClient(t testing.TB) *stream.Client {
	t.Helper()
	client, err := stream.NewClient(stream.Config{Brokers: enginetest.Kafka(t), ClientID: "transform-test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func newTopics(t testing.TB, client *stream.Client, partitions int) stream.Topics {
	t.Helper()
	topics := stream.NewTopics(enginetest.UniqueName("transform") + "-")
	err := client.EnsureTopics(t.Context(), stream.TopicSpec{Name: topics.Answers, Partitions: partitions},
		stream.TopicSpec{Name: topics.Skills, Partitions: partitions}, stream.TopicSpec{Name: topics.ItemSums, Partitions: 1},
		stream.TopicSpec{Name: topics.Items, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	return topics
}

func (w *world) now() time.Time { return time.Unix(0, w.clock.Load()) }

func (w *world) pass(d time.Duration) { w.clock.Add(int64(d)) }

// sent is a message of answers, of test results, of commands, or an order to switch
// to a rebuild.
type sent struct {
	answers  *answer.Columns
	tests    *answer.TestResults
	commands *answer.Commands
	rebuild  int64 // raw offset of an order to switch to a rebuild, 0 = another message
}

func (s sent) rawOffset() int64 {
	switch {
	case s.rebuild != 0:
		return s.rebuild
	case s.commands != nil:
		return s.commands.RawOffset
	case s.tests != nil:
		return s.tests.RawOffset
	}
	return s.answers.RawOffset
}

// send produces a message of answers, and sometimes one twice, as a retry does.
func (w *world) send(partition int, c *answer.Columns) {
	w.t.Helper()
	w.messages[partition] = append(w.messages[partition], sent{answers: c})
	w.produce(partition, answersMessage(w.t, c))
}

// sendNext produces the next message of a workload: answers, now and then test
// results or orders, now and then nothing, for gaps in raw offsets are normal.
func (w *world) sendNext(partition int, load *workload, rawOffset int64, rows int) {
	w.t.Helper()
	switch w.random.IntN(12) {
	case 0:
	case 1:
		w.order(partition, load.orders(rawOffset))
	case 2:
		w.sendTests(partition, load.testResults(rawOffset, 1+rows/4))
	default:
		w.send(partition, load.message(rawOffset, rows))
	}
}

// order produces a message of commands.
func (w *world) order(partition int, c *answer.Commands) {
	w.t.Helper()
	w.messages[partition] = append(w.messages[partition], sent{commands: c})
	var encoder answer.Encoder
	value, err := encoder.AppendCommands(nil, c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.produce(partition, stream.Message{Value: value, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(answer.SchemaCommands)}, stream.Int64Header(stream.HeaderRawOffset, c.RawOffset),
		stream.Int64Header(stream.HeaderKeyEpoch, int64(c.KeyEpoch)), stream.DigestHeader(value)}})
}

func (w *world) produce(partition int, m stream.Message) {
	w.t.Helper()
	copies := []stream.Message{m}
	if w.random.IntN(10) == 0 {
		copies = append(copies, m)
	}
	if _, err := w.client.Produce(w.t.Context(), w.topics.Answers, partition, copies...); err != nil {
		w.t.Fatal(err)
	}
}

func answersMessage(t testing.TB, c *answer.Columns) stream.Message {
	t.Helper()
	var value []byte
	if c.Rows > 0 {
		var encoder answer.Encoder
		var err error
		if value, err = encoder.AppendAnswers(nil, c); err != nil {
			t.Fatal(err)
		}
	}
	return stream.Message{Value: value, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(answer.SchemaAnswers)}, stream.Int64Header(stream.HeaderRawOffset, c.RawOffset),
		stream.Int64Header(stream.HeaderKeyEpoch, int64(c.KeyEpoch)), stream.DigestHeader(value)}}
}

// process is one transform process: snapshots, stage and reducer.
type process struct {
	w         *world
	snapshots *transform.Snapshots
	stage     *transform.Stage
	reducer   *transform.Reducer
	stop      func()
}

func (w *world) start() *process {
	w.t.Helper()
	catalog := transform.NewCatalog()
	snapshots, err := transform.NewSnapshots(transform.SnapshotsConfig{Client: w.client, Topic: w.topics.Items, Persistence: w.persistence, Catalog: catalog, Window: 3, Parameters: w.parameters})
	if err != nil {
		w.t.Fatal(err)
	}
	stage, err := transform.NewStage(transform.StageConfig{Client: w.client, Topics: w.topics, Persistence: w.persistence, Snapshots: snapshots, Catalog: catalog, MaxSkillsBytes: w.skillsBytes,
		DeadLetter: w.deadLetter, Now: w.now, NormInterval: w.normsEvery, Parameters: w.parameters})
	if err != nil {
		w.t.Fatal(err)
	}
	reducer, err := transform.NewReducer(transform.ReducerConfig{Client: w.client, Topics: w.topics, Persistence: w.persistence, Partitions: w.partitions, Now: w.now, Parameters: w.parameters})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := snapshots.Run(ctx); err != nil {
			w.t.Errorf("follow snapshots: %v", err)
		}
	})
	p := &process{w: w, snapshots: snapshots, stage: stage, reducer: reducer, stop: sync.OnceFunc(func() { cancel(); running.Wait() })}
	w.t.Cleanup(p.stop)
	return p
}

// worker drives one handler as the delivery loop would, one step at a time.
type worker struct {
	w          *world
	topic      string
	partition  int
	handler    stream.Handler
	assignment *stream.Assignment
	next       int64
	started    bool
	batch      stream.Batch
}

func (w *world) worker(topic string, partition int, handler stream.Handler, generation int32, committed int64) *worker {
	return &worker{w: w, topic: topic, partition: partition, handler: handler,
		assignment: &stream.Assignment{Topic: topic, Partition: partition, Generation: generation, Committed: committed}}
}

// step starts the handler, or gives it at most n messages, or idles. It returns
// whether it is at the end of the topic.
func (k *worker) step(n int) (atEnd bool, err error) {
	ctx, cancel := context.WithTimeout(k.w.t.Context(), 30*time.Second)
	defer cancel()
	if !k.started {
		if k.next, err = k.handler.Start(ctx, k.assignment); err != nil {
			return false, err
		}
		k.started = true
	}
	_, end, err := k.w.client.Offsets(ctx, k.topic, k.partition)
	if err != nil {
		return false, err
	}
	if k.next >= end {
		return true, k.handler.Idle(ctx)
	}
	if err := k.w.client.Fetch(ctx, k.topic, k.partition, k.next, time.Second, &k.batch); err != nil {
		return false, err
	}
	messages := k.batch.Messages[:min(n, len(k.batch.Messages))]
	if len(messages) == 0 {
		return false, nil
	}
	if err := k.handler.Handle(ctx, messages); err != nil {
		return false, err
	}
	k.next = messages[len(messages)-1].Offset + 1
	return false, nil
}

func (k *worker) end() {
	k.handler.Stop()
	k.started = false
}

// readAll reads a partition.
func (w *world) readAll(topic string, partition int) []stream.Message {
	w.t.Helper()
	first, end, err := w.client.Offsets(w.t.Context(), topic, partition)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []stream.Message
	for next := first; next < end; {
		var batch stream.Batch
		if err := w.client.Fetch(w.t.Context(), topic, partition, next, time.Second, &batch); err != nil {
			w.t.Fatal(err)
		}
		for _, m := range batch.Messages {
			all, next = append(all, m), m.Offset+1
		}
	}
	return all
}

// versions reads what every reader makes of `items`.
func (w *world) versions() []difficulties {
	w.t.Helper()
	all := []difficulties{{}}
	decoder := transform.NewDecoder()
	var rows transform.SnapshotRows
	for _, m := range w.readAll(w.topics.Items, 0) {
		version, err := m.Int64(stream.HeaderSnapshot)
		if err != nil {
			w.t.Fatal(err)
		}
		if version != int64(len(all)) {
			continue
		}
		if err := decoder.Items(m.Value, &rows); err != nil {
			w.t.Fatal(err)
		}
		next := make(difficulties)
		for name, g := range all[len(all)-1] {
			next[name] = g
		}
		for i := range rows.Len() {
			next[componentName{rows.Component[i], string([]byte(rows.Key[i]))}] = filter.Gaussian{Mean: rows.Mean[i], Variance: rows.Variance[i]}
		}
		all = append(all, next)
	}
	return all
}

// verify compares everything with the oracle, which uses the versions that the
// log of skills names.
func (w *world) verify() {
	w.t.Helper()
	versions := w.versions()
	for partition := range w.partitions {
		o, tests := newOracle(), newTestOracle()
		log := w.readAll(w.topics.Skills, partition)
		for _, m := range w.messages[partition] {
			version, rows, found := w.standing(log, m.rawOffset())
			if !found && w.cuts > 0 {
				version = w.adopted(partition, m.rawOffset())
			} else if !found {
				w.t.Fatalf("partition %d: no message of skills for raw offset %d", partition, m.rawOffset())
			}
			for _, change := range w.changes {
				if change.partition == partition && m.rawOffset() >= change.rawOffset {
					o.parameters = change.parameters
				}
			}
			o.versions[m.rawOffset()] = versions[version]
			switch {
			case m.rebuild != 0:
				o.rebuild(m.rebuild)
			case m.commands != nil:
				o.command(m.commands, versions[version])
				tests.command(m.commands)
			case m.tests != nil:
				o.changed, o.gone = nil, nil
				tests.apply(m.tests)
			default:
				o.apply(m.answers, versions[version])
			}
			if !found {
				continue
			}
			all, expected, gone := o.rows(), make(map[layerName]skillRow), make(map[layerName]bool)
			for name := range o.changed {
				if row, ok := all[name]; ok {
					expected[name] = row
				}
			}
			for name, row := range rows {
				if row.answers == 0 {
					gone[name] = true
					delete(rows, name)
				}
			}
			if w.cuts > 0 { // a message that was made again leaves out what the store has
				maps.DeleteFunc(expected, func(name layerName, _ skillRow) bool { _, there := rows[name]; return !there })
				maps.DeleteFunc(o.gone, func(name layerName, _ bool) bool { return !gone[name] })
			}
			sameMaps(w.t, fmt.Sprintf("partition %d, skills of raw offset %d", partition, m.rawOffset()), rows, expected)
			sameMaps(w.t, fmt.Sprintf("partition %d, layers gone at raw offset %d", partition, m.rawOffset()), gone, o.gone)
			if w.t.Failed() {
				w.show(log)
				return
			}
		}
		restored, err := w.persistence.Restore(w.t.Context(), partition)
		if err != nil {
			w.t.Fatal(err)
		}
		sameMaps(w.t, "stored skills", unordered(&restored.Skills), o.rows())
		sameMaps(w.t, "stored sums", sumRowsOf(&restored.Sums), sumsOf(o))
		w.t.Logf("partition %d: %d answers, %d corrected, %d learners", partition, len(o.archive), o.corrected, len(o.learners))
		if w.persistence == w.store {
			sameMaps(w.t, "archived test results", w.store.testRows(partition), tests.archive)
			w.verifyNorms(partition, o)
			w.verifyArchive(partition, o)
		}
	}
}

// unordered turns columns into rows that need not stand in any order.
func unordered(r *transform.SkillRows) map[layerName]skillRow {
	all := make(map[layerName]skillRow, r.Len())
	for i := range r.Len() {
		all[layerName{r.Learner[i], r.Layer[i], r.Key[i]}] = rowOf(r, i)
	}
	return all
}

// standing returns the one message, or series of messages, that readers take for
// a raw offset.
func (w *world) standing(log []stream.Message, rawOffset int64) (version uint64, rows map[layerName]skillRow, found bool) {
	w.t.Helper()
	rows = make(map[layerName]skillRow)
	decoder := transform.NewDecoder()
	var decoded transform.SkillRows
	for i := range log {
		m := &log[i]
		stands, err := transform.Stands(m)
		if err != nil {
			w.t.Fatal(err)
		}
		if !stands || w.int64(m, stream.HeaderRawOffset) != rawOffset {
			continue
		}
		if found {
			w.show(log)
			w.t.Fatalf("offset %d: raw offset %d stands twice", m.Offset, rawOffset)
		}
		if err := m.CheckDigest(); err != nil {
			w.t.Fatal(err)
		}
		if err := decoder.Skills(m.Value, &decoded); err != nil {
			w.t.Fatal(err)
		}
		for name, row := range cloneRows(skillRowsOf(w.t, &decoded)) {
			rows[name] = row
		}
		version, found = uint64(w.int64(m, stream.HeaderSnapshot)), m.Header(transform.HeaderRemaining) == nil
	}
	return version, rows, found
}

// show prints what a log of skills says of itself.
func (w *world) show(log []stream.Message) {
	for i := range log {
		m := &log[i]
		w.t.Logf("offset %d: raw offset %d, snapshot %d, digest %x, remaining %x", m.Offset, w.int64(m, stream.HeaderRawOffset),
			w.int64(m, stream.HeaderSnapshot), m.Header(stream.HeaderDigest), m.Header(transform.HeaderRemaining))
	}
}

func (w *world) int64(m *stream.Message, header string) int64 {
	w.t.Helper()
	value, err := m.Int64(header)
	if err != nil {
		w.t.Fatal(err)
	}
	return value
}

// cloneRows copies the texts, which point into the decoder's memory.
func cloneRows(rows map[layerName]skillRow) map[layerName]skillRow {
	out := make(map[layerName]skillRow, len(rows))
	for name, row := range rows {
		name.key = string([]byte(name.key))
		row.school, row.group, row.subject = string([]byte(row.school)), string([]byte(row.group)), string([]byte(row.subject))
		out[name] = row
	}
	return out
}

func (w *world) verifyNorms(partition int, o *oracle) {
	w.t.Helper()
	got, want := make(map[string]int64), make(map[string]int64)
	for name, norm := range w.store.norms[partition] {
		for bin, n := range norm.bins {
			got[fmt.Sprint(name, bin)] = n
		}
	}
	for name, bins := range o.norms() {
		for bin, n := range bins {
			want[fmt.Sprint(name, bin)] = n
		}
	}
	sameMaps(w.t, "stored norms", got, want)
}

// archivedFacts is what is compared of an answer in the archive.
type archivedFacts struct {
	row
	epoch                 uint32
	gradient, information int64
}

// verifyArchive compares every answer, with what it says of its exercise.
func (w *world) verifyArchive(partition int, o *oracle) {
	w.t.Helper()
	got, want := make(map[answer.Position]archivedFacts), make(map[answer.Position]archivedFacts)
	for _, r := range w.store.archive[partition] {
		if _, twice := got[r.position]; twice && !r.gone {
			w.t.Errorf("partition %d: two answers at position %d", partition, r.position)
		}
		if !r.gone {
			got[r.position] = archivedFacts{r.row, r.epoch, int64(r.gradient) << 16, int64(r.information) << 16}
		}
	}
	for position, a := range o.archive {
		want[position] = archivedFacts{a.row, a.epoch, a.gradient, a.information}
	}
	for _, facts := range []map[answer.Position]archivedFacts{got, want} {
		for position, f := range facts {
			if !f.valid() { // NaN is not itself
				f.score = -2
				facts[position] = f
			}
		}
	}
	sameMaps(w.t, fmt.Sprintf("archive of partition %d", partition), got, want)
}

// settle works everything off, without faults, until all is durable.
func (w *world) settle(workers []*worker, reducer *worker) {
	w.t.Helper()
	for quiet := 0; quiet < 4; {
		w.pass(4 * time.Second)
		done := true
		for _, k := range append(workers, reducer) {
			atEnd, err := k.step(1000)
			if err != nil {
				w.t.Fatalf("settle %s/%d: %v", k.topic, k.partition, err)
			}
			done = done && atEnd
		}
		w.store.advance(-1)
		if quiet++; !done {
			quiet = 0
		}
	}
}

// TestStageSurvives drives two partitions and a reducer through random cuts of
// the same log, checkpoints, partial durability, failing calls, crashes and
// workers that come back after they were replaced.
func TestStageSurvives(t *testing.T) {
	t.Parallel()
	for round := range 4 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			survive(t, newRandom(t))
		})
	}
}

func survive(t *testing.T, random *rand.Rand) {
	w := newWorld(t, random, 2)
	if random.IntN(2) == 0 {
		w.skillsBytes = 6000 // most messages of skills are split
	}
	for partition := range w.partitions {
		load := newWorkload(random, 30, 60)
		for rawOffset := range int64(40) {
			w.sendNext(partition, load, rawOffset, random.IntN(50))
		}
	}
	c := w.crew()
	c.disturb(300)
	c.settle()
	w.verify()
	if n := w.deadLetters.Load(); n != 0 {
		t.Errorf("%d dead letters, want none", n)
	}
}

// tolerate takes a step; after an error the worker starts again, as the delivery
// loop does.
func (w *world) tolerate(k *worker, n int) {
	w.t.Helper()
	if _, err := k.step(n); err != nil {
		if !errors.Is(err, errInjected) && !transform.IsOvertaken(err) {
			w.t.Fatalf("step of %s/%d: %v", k.topic, k.partition, err)
		}
		k.end()
	}
}
