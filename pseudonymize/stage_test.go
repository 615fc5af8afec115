package pseudonymize_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/deadletter"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

func seedFlag() uint64 {
	seed, err := strconv.ParseUint(os.Getenv("LEERSTROOM_TEST_SEED"), 10, 64)
	if err != nil {
		return 0 // not set: draw one
	}
	return seed
}

// checkAnswers compares the topic answers with what was pushed: every message
// once or as an identical repeat, in order, columns unchanged, tokens and event
// ids as the registry and the keys say.
func (d *deployment) checkAnswers(t testing.TB, l *load, messages []stream.Message, epochs ...uint32) {
	t.Helper()
	registry, err := d.vault(t).Open(t.Context(), thePart, vault.Follow)
	must(t, err)
	events, err := pseudonymize.NewEventDigester(d.ring, keyring.Event)
	must(t, err)
	first := slices.DeleteFunc(d.dropRepeats(t, messages), isCommands)
	if len(first) != l.n {
		t.Fatalf("answers holds %d messages, want %d", len(first), l.n)
	}
	var decoder answer.Decoder
	for i := range first {
		m := &first[i]
		epoch, err := m.Int64(stream.HeaderKeyEpoch)
		must(t, err)
		if len(epochs) > 0 && !containsEpoch(epochs, epoch) {
			t.Fatalf("message %d has key epoch %d, want one of %v", i, epoch, epochs)
		}
		tokens := tokenizer(t, d.ring, keyring.Analytics, uint32(epoch))
		want := func(id raw.Identity) answer.Token {
			secret, err := registry.Find(id)
			must(t, err)
			return tokens.Token(&secret)
		}
		if a := l.answers[i]; a != nil {
			var c answer.Columns
			must(t, decoder.Answers(m.Value, &c))
			if !reflect.DeepEqual(trim(c.Facts), trim(a.Facts)) {
				t.Fatalf("message %d: the columns of answers changed", i)
			}
			checkRows(t, i, c.EventID, &c.Learner, &a.EventID, &a.Identity, &a.Publisher, events, want)
		} else if r := l.results[i]; r != nil {
			var c answer.TestResults
			must(t, decoder.TestResults(m.Value, &c))
			if fmt.Sprint(c.TestFacts) != fmt.Sprint(r.TestFacts) {
				t.Fatalf("message %d: the columns of test results changed", i)
			}
			checkRows(t, i, c.EventID, &c.Learner, &r.EventID, &r.Identity, &r.Publisher, events, want)
		}
	}
}

func isCommands(m stream.Message) bool {
	return string(m.Header(stream.HeaderSchema)) == answer.SchemaCommands
}

func containsEpoch(epochs []uint32, epoch int64) bool {
	for _, e := range epochs {
		if int64(e) == epoch {
			return true
		}
	}
	return false
}

func trim(f answer.Facts) string { return fmt.Sprint(f) }

func checkRows(t testing.TB, message int, got []answer.EventID, learners *answer.Tokens, ids *raw.Texts, identities *raw.Identities,
	publisher *answer.Strings, events *pseudonymize.EventDigester, want func(raw.Identity) answer.Token) {
	t.Helper()
	if len(got) != ids.Len() {
		t.Fatalf("message %d has %d rows, want %d", message, len(got), ids.Len())
	}
	for row := range got {
		if got[row] != events.ID(publisher.At(row), ids.At(row)) {
			t.Fatalf("message %d row %d has another event id", message, row)
		}
		if learners.At(row) != want(*identities.At(row)) {
			t.Fatalf("message %d row %d has another learner's token", message, row)
		}
	}
}

// dropRepeats returns the first message of every raw offset, and fails when a
// repeat differs from it or one is missing.
func (d *deployment) dropRepeats(t testing.TB, messages []stream.Message) []stream.Message {
	t.Helper()
	var first []stream.Message
	for i := range messages {
		m := &messages[i]
		must(t, m.CheckDigest())
		offset, err := m.Int64(stream.HeaderRawOffset)
		must(t, err)
		switch {
		case offset == int64(len(first)):
			first = append(first, *m)
		case offset > int64(len(first)):
			t.Fatalf("raw offset %d follows %d", offset, len(first)-1)
		case !sameMessage(&first[offset], m):
			t.Fatalf("raw offset %d has two messages that differ", offset)
		}
	}
	return first
}

// sameMessage tells whether two messages differ in nothing but their offsets.
func sameMessage(a, b *stream.Message) bool {
	return bytes.Equal(a.Value, b.Value) && reflect.DeepEqual(a.Headers, b.Headers)
}

func TestOneInOneOut(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	l := d.push(t, r, thePart, 40)
	s := d.stage(t)
	must(t, work(t.Context(), d, s, thePart, r))
	d.checkAnswers(t, l, d.read(t, d.topics.Answers, thePart), 1)
	if c := s.Counts(); c.Messages != 40 || c.DeadLetters != 0 || c.Learners == 0 {
		t.Errorf("Counts = %+v, want 40 messages, learners, no dead letters", c)
	}
	// A restart finds nothing to do.
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	if got := len(d.read(t, d.topics.Answers, thePart)); got != 40 {
		t.Errorf("answers holds %d messages after a restart, want 40", got)
	}
}

// mintOf makes a learner of the alias alone, so that runs with different
// crashes can be compared byte by byte.
func mintOf(digest *vault.Digest) (vault.Secret, error) {
	sum := sha256.Sum256(digest[:])
	return vault.Secret{ID: vault.LearnerID(sum[:16]), Salt: [16]byte(sum[16:])}, nil
}

// TestCrashAtEveryStep kills the stage at every step of its work and restarts
// it, and again at random steps. The topic must hold the same bytes as without.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	d.mint = mintOf
	d.engines = []pseudonymize.EngineTopic{d.engineTopic(t, "snappet", func(string) bool { return true })}
	l := d.push(t, r, thePart, 8)
	d.send(t, thePart, stream.Message{Value: []byte("no seal"), Headers: []stream.Header{{Key: stream.HeaderSchema, Value: []byte(raw.SchemaAnswers)}}})
	l.n++
	steps := map[string]int{}
	s := d.stage(t)
	s.SetCrash(func(step string) error { steps[step]++; return nil })
	must(t, work(t.Context(), d, s, thePart, r))
	want := d.read(t, d.topics.Answers, thePart)
	d.checkAnswers(t, l, want)
	if len(steps) < 6 {
		t.Fatalf("only %d steps were passed: %v", len(steps), steps)
	}
	for step := range steps {
		d.crashAndCompare(t, r, "every "+step, want, 4, func(name string, _ int) bool { return name == step })
	}
	d.crashAndCompare(t, r, "random steps", want, 4, func(string, int) bool { return r.IntN(4) == 0 })
}

// crashAndCompare does the same work once more on empty topics, with so many
// crashes at most, and compares the outcome. It returns how many there were.
func (d *deployment) crashAndCompare(t *testing.T, r *rand.Rand, where string, want []stream.Message, most int, die func(step string, n int) bool) (crashes int) {
	t.Helper()
	source := d.topics.Raw
	must(t, d.conn.Exec(t.Context(), "TRUNCATE TABLE "+d.database+".identities SYNC"))
	d.freshTopics(t)
	d.topics.Raw = source
	d.engines = []pseudonymize.EngineTopic{d.engineTopic(t, "snappet", func(string) bool { return true })}
	for {
		passed := 0
		s := d.stage(t)
		s.SetCrash(func(step string) error {
			passed++
			// Dying early for ever gets nowhere, so the process may live at last.
			if crashes < most && die(step, passed) {
				return errCrash
			}
			return nil
		})
		err := work(t.Context(), d, s, thePart, r)
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		crashes++
	}
	if crashes == 0 {
		t.Fatalf("crash at %s: there was none", where)
	}
	got := d.dropRepeats(t, d.read(t, d.topics.Answers, thePart))
	engine := d.dropRepeats(t, d.read(t, d.engines[0].Topic, thePart))
	if len(got) != len(want) || len(engine) != len(want) {
		t.Fatalf("crash at %s: %d messages in answers, %d for the engine, want %d", where, len(got), len(engine), len(want))
	}
	for i := range want {
		if !sameMessage(&got[i], &want[i]) {
			t.Fatalf("crash at %s: message %d differs from the run without crashes", where, i)
		}
	}
	return crashes
}

// TestZombieStages lets two stages work on one partition at once, as after a
// pause that outlived the group's patience.
func TestZombieStages(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	l := d.push(t, r, thePart, 30)
	done := make(chan error, 2)
	for i := range 2 {
		s, own := d.stage(t), rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		go func() { done <- work(context.WithoutCancel(t.Context()), d, s, thePart, own) }()
	}
	for range 2 {
		must(t, <-done)
	}
	d.checkAnswers(t, l, d.read(t, d.topics.Answers, thePart))
}

// TestPoisonStopsNobody: what can't be read becomes a dead letter and an empty
// message, and everything around it passes.
func TestPoisonStopsNobody(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	good := func() *raw.Answers { return makeAnswers(r, thePart, 5, 10) }
	l := &load{answers: map[int]*raw.Answers{}}
	damaged := d.sealAnswers(t, thePart, good())
	damaged.Value[len(damaged.Value)-1] ^= 1
	elsewhere := d.sealAnswers(t, thePart+1, good()) // sealed for another partition
	schema := d.sealAnswers(t, thePart, good())
	schema.Headers[0].Value = []byte("raw-answers.v9")
	foreign := d.sealAnswers(t, thePart, makeAnswers(r, thePart+1, 5, 10)) // schools of another partition
	garbage := stream.Message{Headers: damaged.Headers}
	var err error
	garbage.Value, err = d.writer.Append(nil, raw.SchemaAnswers, thePart, func(_ *raw.Encoder, dst []byte) ([]byte, error) {
		return append(dst, "not columns"...), nil
	})
	must(t, err)
	reasons := []pseudonymize.Reason{pseudonymize.ReasonSeal, pseudonymize.ReasonSeal, pseudonymize.ReasonSchema, pseudonymize.ReasonPartition, pseudonymize.ReasonMalformed}
	bad := []stream.Message{damaged, elsewhere, schema, foreign, garbage}
	for i := range bad {
		l.answers[2*i] = good()
		d.send(t, thePart, d.sealAnswers(t, thePart, l.answers[2*i]), bad[i])
	}
	l.n = 2 * len(bad)
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	messages := d.read(t, d.topics.Answers, thePart)
	d.checkAnswers(t, l, messages)
	letters := d.read(t, d.topics.DeadLetters, thePart)
	if len(letters) != len(bad) {
		t.Fatalf("%d dead letters, want %d", len(letters), len(bad))
	}
	opener, err := seal.NewOpener(d.key)
	must(t, err)
	var decoder answer.Decoder
	for i := range bad {
		var c answer.Columns
		if must(t, decoder.Answers(messages[2*i+1].Value, &c)); c.Rows != 0 {
			t.Errorf("message %d has %d rows in the place of poison, want 0", 2*i+1, c.Rows)
		}
		if got := pseudonymize.Reason(letters[i].Header(deadletter.HeaderReason)); got != reasons[i] {
			t.Errorf("dead letter %d has reason %s, want %s", i, got, reasons[i])
		}
		inside, err := deadletter.Open(opener, d.topics.DeadLetters, thePart, &letters[i])
		must(t, err)
		if inside.Offset != int64(2*i+1) || !bytes.Equal(inside.Value, bad[i].Value) || string(inside.Header(stream.HeaderSchema)) != string(bad[i].Header(stream.HeaderSchema)) {
			t.Errorf("dead letter %d does not hold its message", i)
		}
	}
}

func TestMissingKeyStopsTheStage(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	d.push(t, r, thePart, 2)
	other, err := seal.GenerateKey()
	must(t, err)
	d.sealFor(t, other)
	d.send(t, thePart, d.sealAnswers(t, thePart, makeAnswers(r, thePart, 3, 3)))
	err = work(t.Context(), d, d.stage(t), thePart, r)
	if !errors.Is(err, pseudonymize.ErrKey) || !strings.Contains(err.Error(), "load the private key") {
		t.Errorf("a message for a key that is not loaded: %v, want %v and what to do", err, pseudonymize.ErrKey)
	}
	if got := len(d.read(t, d.topics.DeadLetters, thePart)); got != 0 {
		t.Errorf("%d dead letters for want of a key, want 0", got)
	}
	if got := len(d.read(t, d.topics.Answers, thePart)); got > 2 {
		t.Errorf("%d messages passed, want at most the 2 before", got)
	}
	for name, spoil := range map[string]func(*pseudonymize.StageConfig){
		"ring":         func(c *pseudonymize.StageConfig) { c.Ring = nil },
		"private keys": func(c *pseudonymize.StageConfig) { c.PrivateKeys = nil },
	} {
		config := pseudonymize.StageConfig{Client: d.client, Topics: d.topics, Partitions: partitions, Ring: d.ring, Vault: d.vault(t), PrivateKeys: []*seal.PrivateKey{d.key}}
		spoil(&config)
		if _, err := pseudonymize.NewStage(config); err == nil || !strings.Contains(err.Error(), "restore") {
			t.Errorf("NewStage without %s = %v, want an error that says what to do", name, err)
		}
	}
}

func TestWrongKeysetStopsTheStage(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	l := d.push(t, r, thePart, 3)
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	right := d.ring
	d.ring = freshRing(t)
	d.send(t, thePart, d.sealAnswers(t, thePart, makeAnswers(r, thePart, 3, 3)))
	if err := work(t.Context(), d, d.stage(t), thePart, r); !errors.Is(err, vault.ErrKeyset) {
		t.Errorf("work with another keyset = %v, want %v", err, vault.ErrKeyset)
	}
	d.ring = right
	messages := d.read(t, d.topics.Answers, thePart)
	d.checkAnswers(t, l, messages)
	// A keyset that is spoilt while the stage runs stops it, too.
	s := d.stage(t)
	h := s.Handler(thePart)
	_, err := h.Start(t.Context(), &stream.Assignment{Topic: d.topics.Raw, Partition: thePart, Committed: -1})
	must(t, err)
	defer h.Stop()
	must(t, os.Chmod(d.ring.Path(), 0o644))
	deadline := time.Now().Add(20 * time.Second)
	for err = nil; err == nil && time.Now().Before(deadline); {
		err = h.Idle(t.Context())
	}
	if !errors.Is(err, keyring.ErrReadable) {
		t.Errorf("Idle with a readable keyset = %v, want %v", err, keyring.ErrReadable)
	}
}

// TestHoleInRawStopsThePartition leaves out a message of raw: positions would
// name other rows from there on, so nothing is passed on.
func TestHoleInRawStopsThePartition(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	d.push(t, r, thePart, 3)
	messages := d.read(t, d.topics.Raw, thePart)
	h := d.stage(t).Handler(thePart)
	_, err := h.Start(t.Context(), &stream.Assignment{Topic: d.topics.Raw, Partition: thePart, Committed: -1})
	must(t, err)
	defer h.Stop()
	if err := h.Handle(t.Context(), []stream.Message{messages[0], messages[2]}); err == nil || !strings.Contains(err.Error(), "hole") {
		t.Errorf("Handle with a hole = %v, want an error that says so", err)
	}
	if n := len(d.read(t, d.topics.Answers, thePart)); n != 0 {
		t.Errorf("%d messages were passed on", n)
	}
	must(t, h.Handle(t.Context(), messages))
}
