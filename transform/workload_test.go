package transform_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// seedFlag repeats a failing random test.
var seedFlag = flag.Uint64("seed", 1, "seed of random tests; 0 takes the clock, the default is the same everywhere")

// newRandom returns a random source of the test's own, whose seed and rerun command
// are printed when the test fails.
func newRandom(t testing.TB) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with: go test ./transform -run '^%s$' -seed %d", t.Name(), seed)
		}
	})
	return rand.New(rand.NewPCG(seed, xxhash.Sum64String(t.Name())))
}

// workload makes messages of `answers` as a partition sees them: several
// publishers and schools, retries, answers that arrive late, repeats of earlier
// rows, corrections, learners who change group or year, unknown goals and
// subjects, scores off the scale.
type workload struct {
	random    *rand.Rand
	learners  []simulated
	items     int
	now       int64 // milliseconds
	events    uint64
	past      []row
	pastTests []testRow
	twins     []twins
	doubled   []row  // answers that were given to another learner, too
	epoch     uint32 // of the keys of the tokens
	plain     bool   // no corrections
	calm      bool   // nothing late, no repeats, no oddities
}

// twins are two learners who were given the same answer or test result.
type twins [2]answer.Token

type simulated struct {
	token     answer.Token
	school    string
	group     string
	yearGroup uint8
	skill     float64
}

type row struct {
	id                                                answer.EventID
	learner                                           answer.Token
	publisher, school, group, exercise, goal, subject string
	yearGroup                                         uint8
	score                                             float64
	attempt                                           uint16
	at                                                int64
	revision                                          uint32
}

func newWorkload(random *rand.Rand, learners, items int) *workload {
	w := &workload{random: random, items: items, now: 1_790_000_000_000, epoch: 1}
	for i := range learners {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], random.Uint64())
		binary.LittleEndian.PutUint64(b[8:], random.Uint64()|1)
		w.learners = append(w.learners, simulated{
			token: answer.MintToken(b), school: fmt.Sprintf("%02dAB00", i%3), group: fmt.Sprintf("%dA", 3+i%6),
			yearGroup: uint8(3 + i%6), skill: random.NormFloat64(),
		})
	}
	return w
}

// correct makes a correction, most of them newer than the ones before.
func (w *workload) correct(again row) row {
	r := w.random
	again.revision = uint32(1 + r.IntN(3))
	again.score = 1 - again.score
	switch r.IntN(5) {
	case 0:
		again.at += int64(r.IntN(2_000_000)) - 1_000_000
	case 1:
		for range 20 {
			if l := &w.learners[r.IntN(len(w.learners))]; l.school == again.school {
				again.learner = l.token
			}
		}
	case 2:
		again.exercise = w.exercise(r.IntN(w.items))
		again.goal = fmt.Sprintf("doel-%d", r.IntN(11))
	}
	return again
}

func (w *workload) difficulty(item int) float64 {
	return 1.2 * math.Sin(float64(item)*12.9898)
}

// row makes one answer.
func (w *workload) row() row {
	r := w.random
	if !w.calm && len(w.past) > 0 && r.IntN(12) == 0 {
		again := w.past[r.IntN(len(w.past))]
		switch r.IntN(8) {
		case 0, 2: // corrected, sometimes another time, by another learner, for another exercise
			if n := len(w.doubled); n > 0 && !w.plain && r.IntN(3) == 0 { // for the other one
				again = w.correct(w.doubled[n-1])
				again.learner, again.at, w.doubled = w.doubled[n-1].learner, w.doubled[n-1].at, w.doubled[:n-1]
			} else if !w.plain {
				again = w.correct(again)
			}
		case 1: // the same id for another answer
			again.at -= int64(r.IntN(5000))
		case 3: // the same answer for another learner, who may turn out to be the same
			if other := w.classmate(again.school, again.learner); other != again.learner {
				again.learner = other
				w.doubled = append(w.doubled, again)
			}
		}
		return again
	}
	l := &w.learners[r.IntN(len(w.learners))]
	if !w.calm && r.IntN(200) == 0 {
		l.group = fmt.Sprintf("%dB", l.yearGroup)
	}
	if !w.calm && r.IntN(400) == 0 {
		l.yearGroup = 1 + l.yearGroup%8
	}
	item := r.IntN(w.items)
	w.now += int64(r.IntN(2000))
	w.events++
	out := row{learner: l.token, publisher: [2]string{"bingel", "gynzy"}[item%2], school: l.school, group: l.group,
		exercise: w.exercise(item), goal: fmt.Sprintf("doel-%d", item%11), subject: [2]string{"rekenen", "taal"}[item%11%2],
		yearGroup: l.yearGroup, attempt: uint16(r.IntN(3)), at: w.now}
	binary.LittleEndian.PutUint64(out.id[:], w.events*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(out.id[8:], r.Uint64())
	if r.Float64() < 1/(1+math.Exp(w.difficulty(item)-l.skill)) {
		out.score = 1
	}
	if !w.calm {
		w.spoil(&out)
	}
	if len(w.past) < 4000 {
		w.past = append(w.past, out)
	} else {
		w.past[r.IntN(len(w.past))] = out
	}
	return out
}

// classmate draws a learner of a school, or returns the one that is given.
func (w *workload) classmate(school string, learner answer.Token) answer.Token {
	l := &w.learners[w.random.IntN(len(w.learners))]
	if l.school != school || l.token == learner {
		return learner
	}
	w.twins = append(w.twins, twins{learner, l.token})
	return l.token
}

// exercise names an item. Names of two publishers coincide unless the workload is
// calm.
func (w *workload) exercise(item int) string {
	if w.calm {
		return fmt.Sprintf("opgave-%d", item)
	}
	return fmt.Sprintf("opgave-%d", item/2)
}

func (w *workload) spoil(out *row) {
	switch r := w.random; r.IntN(30) {
	case 0, 1, 2: // late
		out.at -= int64(r.IntN(10_000_000))
	case 3:
		out.goal = ""
	case 4:
		out.goal, out.subject = "", ""
	case 5:
		out.subject = ""
	case 6:
		out.subject = "wereldoriëntatie"
	case 7:
		out.score = r.Float64()
	case 8:
		out.group, out.yearGroup = "", 0
	case 9:
		if r.IntN(10) == 0 {
			out.score = []float64{math.NaN(), -1, 1.5, math.Inf(1)}[r.IntN(4)]
		}
	}
}

// message makes one message.
func (w *workload) message(rawOffset int64, rows int) *answer.Columns {
	b := newColumns(rawOffset)
	b.c.KeyEpoch = w.epoch
	for range rows {
		b.add(w.row())
	}
	return &b.c
}

// columns builds a message row by row.
type columns struct {
	c     answer.Columns
	codes map[*answer.Strings]map[string]int32
	token map[answer.Token]int32
}

func newColumns(rawOffset int64) *columns {
	b := &columns{codes: make(map[*answer.Strings]map[string]int32), token: make(map[answer.Token]int32)}
	b.c.RawOffset, b.c.KeyEpoch = rawOffset, 1
	return b
}

func (b *columns) text(s *answer.Strings, v string) {
	if b.codes[s] == nil {
		b.codes[s] = make(map[string]int32)
	}
	code, ok := b.codes[s][v]
	if !ok {
		code = int32(len(s.Values))
		b.codes[s][v] = code
		s.Values = append(s.Values, v)
	}
	s.Codes = append(s.Codes, code)
}

func (b *columns) add(r row) {
	c := &b.c
	c.Rows++
	b.text(&c.Publisher, r.publisher)
	b.text(&c.School, r.school)
	b.text(&c.Group, r.group)
	b.text(&c.Exercise, r.exercise)
	b.text(&c.Goal, r.goal)
	b.text(&c.Subject, r.subject)
	code, ok := b.token[r.learner]
	if !ok {
		code = int32(len(c.Learner.Values))
		b.token[r.learner] = code
		c.Learner.Values = append(c.Learner.Values, r.learner)
	}
	c.Learner.Codes = append(c.Learner.Codes, code)
	c.EventID = append(c.EventID, r.id)
	c.YearGroup = append(c.YearGroup, r.yearGroup)
	c.Kind = append(c.Kind, uint8(answer.KindPractice))
	c.Score = append(c.Score, r.score)
	c.Attempt = append(c.Attempt, r.attempt)
	c.ResponseTime = append(c.ResponseTime, -1)
	c.AnsweredAt = append(c.AnsweredAt, r.at)
	c.Revision = append(c.Revision, r.revision)
}
