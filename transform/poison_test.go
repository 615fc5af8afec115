package transform_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform"
)

// TestPoisonPasses puts messages that can't be used between good ones: they go
// to the dead letters with their reason, the good ones and test results pass,
// and every raw offset gets its message of skills.
func TestPoisonPasses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newRandom(t), 1)
	load := newWorkload(w.random, 10, 20)
	load.calm = true
	good := func(rawOffset int64) stream.Message { return answersMessage(t, load.message(rawOffset, 20)) }
	bad := map[string]stream.Message{transform.ReasonDigest: good(1), transform.ReasonSchema: good(2), transform.ReasonMalformed: good(3), transform.ReasonHeaders: good(4)}
	bad[transform.ReasonDigest].Value[100] ^= 1
	bad[transform.ReasonSchema].Headers[0].Value = []byte("answers.v9")
	bad[transform.ReasonMalformed].Headers[0].Value = []byte(answer.SchemaTestResults)
	headers := bad[transform.ReasonHeaders]
	headers.Headers = headers.Headers[:2] // no key epoch, no digest
	bad[transform.ReasonHeaders] = headers
	lost := good(5)
	lost.Headers = lost.Headers[:1] // no raw offset either

	var letters []string
	messages := []stream.Message{good(0), bad[transform.ReasonDigest], bad[transform.ReasonSchema], bad[transform.ReasonMalformed],
		bad[transform.ReasonHeaders], lost, testsMessage(t, 6), {Headers: []stream.Header{stream.Int64Header(stream.HeaderRawOffset, 7)}}, good(8)}
	for _, m := range messages { // one request each, so that fetches may cut anywhere
		if _, err := w.client.Produce(t.Context(), w.topics.Answers, 0, m); err != nil {
			t.Fatal(err)
		}
	}
	w.deadLetter = func(_ context.Context, _ int, reason string, m *stream.Message) error {
		letters = append(letters, fmt.Sprint(m.Offset, reason))
		return nil
	}
	k := w.worker(w.topics.Answers, 0, w.start().stage.Handler(0), 1, -1)
	for {
		w.pass(time.Second)
		atEnd, err := k.step(3)
		if err != nil {
			t.Fatal(err)
		}
		w.store.advance(-1)
		if atEnd {
			break
		}
	}
	if got, want := fmt.Sprint(letters), "[1digest 2schema 3malformed 4headers 5headers]"; got != want {
		t.Errorf("dead letters %v, want %v", got, want)
	}
	var offsets []int64
	for _, m := range w.readAll(w.topics.Skills, 0) {
		offsets = append(offsets, w.int64(&m, stream.HeaderRawOffset))
	}
	if got, want := fmt.Sprint(offsets), "[0 1 2 3 4 6 7 8]"; got != want {
		t.Errorf("raw offsets in skills %v, want %v", got, want)
	}
	if w.store.rows() != 40 || len(w.store.tests[0]) != 3 {
		t.Errorf("%d answers and %d test results archived, want 40 and 3", w.store.rows(), len(w.store.tests[0]))
	}
	if got := w.store.progress[0]; got.RawOffset != 8 || got.AnswersOffset != 8 || got.SkillsOffset != 7 {
		t.Errorf("progress %d/%d/%d, want 8/8/7", got.RawOffset, got.AnswersOffset, got.SkillsOffset)
	}
}

// testsMessage makes a message of three test results.
func testsMessage(t *testing.T, rawOffset int64) stream.Message {
	t.Helper()
	const rows = 3
	codes := make([]int32, rows)
	text := answer.Strings{Codes: codes, Values: []string{"x"}}
	c := answer.TestResults{TestFacts: answer.TestFacts{Rows: rows, Publisher: text, School: text, Group: text, Test: text, TestName: text,
		Subject: text, Part: text, Path: make([][]string, rows), YearGroup: make([]uint8, rows), TakenOn: codes, Score: make([]float64, rows),
		MaxScore: make([]float64, rows), Made: codes, Right: codes, Wrong: codes, DurationS: codes, NormKinds: make([][]string, rows),
		NormValues: make([][]float64, rows), Revision: make([]uint32, rows)},
		EventID: []answer.EventID{{1}, {2}, {3}}, Learner: answer.Tokens{Codes: codes, Values: []answer.Token{answer.MintToken([16]byte{1})}}}
	var encoder answer.Encoder
	value, err := encoder.AppendTestResults(nil, &c)
	if err != nil {
		t.Fatal(err)
	}
	return stream.Message{Value: value, Headers: []stream.Header{{Key: stream.HeaderSchema, Value: []byte(answer.SchemaTestResults)},
		stream.Int64Header(stream.HeaderRawOffset, rawOffset), stream.Int64Header(stream.HeaderKeyEpoch, 1), stream.DigestHeader(value)}}
}

// TestFailureAtEveryCall lets each call of the store fail once, in turn, with
// what it was told until then lost or kept, and wants the same result.
func TestFailureAtEveryCall(t *testing.T) {
	t.Parallel()
	random := newRandom(t)
	w := newWorld(t, random, 1)
	load := newWorkload(random, 12, 30)
	for rawOffset := range int64(12) {
		w.sendNext(0, load, rawOffset, 1+random.IntN(30))
	}
	for call := 1; ; call++ {
		topics := w.topics
		w.topics = newTopics(t, w.client, 1)
		w.topics.Answers = topics.Answers
		w.store = newMemory()
		w.persistence = w.store
		w.store.fail[call] = true
		p := w.start()
		k, reducer := w.worker(w.topics.Answers, 0, p.stage.Handler(0), 1, -1), w.worker(w.topics.ItemSums, 0, p.reducer.Handler(0), 1, -1)
		for range 12 {
			w.pass(700 * time.Millisecond)
			w.tolerate(k, 2)
			w.tolerate(reducer, 5)
			w.store.advance(random.IntN(6))
			if !k.started {
				w.store.advance(random.IntN(3))
				w.store.crash()
			}
		}
		failed := w.store.calls >= call
		clear(w.store.fail)
		w.settle([]*worker{k}, reducer)
		w.verify()
		p.stop()
		if t.Failed() {
			t.Fatalf("call %d failed", call)
		}
		if !failed {
			if call < 10 {
				t.Fatalf("only %d calls were made", call-1)
			}
			return
		}
	}
}
