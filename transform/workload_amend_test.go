package transform_test

import (
	"encoding/binary"
	"slices"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// orders makes a message of commands: learners are merged, erased, or all get
// new tokens. Afterwards answers come under the tokens that are left, repeats of
// old ones too.
func (w *workload) orders(rawOffset int64) *answer.Commands {
	b := &commands{c: answer.Commands{RawOffset: rawOffset}, schools: make(map[string]int32)}
	switch r := w.random; {
	case r.IntN(4) == 0:
		w.rotate(b)
	case r.IntN(2) == 0 && len(w.learners) > 8:
		i := r.IntN(len(w.learners))
		gone := w.learners[i]
		w.learners = append(w.learners[:i], w.learners[i+1:]...)
		b.add(answer.CommandErase, gone.school, gone.token, answer.Token{})
		w.forget(gone.token)
	default:
		w.merge(b)
	}
	if b.c.Rows == 0 { // somebody whom nobody knows
		b.add(answer.CommandErase, w.learners[0].school, w.token(), answer.Token{})
	}
	b.c.KeyEpoch = w.epoch
	return &b.c
}

// merge makes one learner of two, up to three times.
func (w *workload) merge(b *commands) {
	for range 1 + w.random.IntN(3) {
		i, j := w.random.IntN(len(w.learners)), w.random.IntN(len(w.learners))
		if n := len(w.twins); n > 0 && w.random.IntN(3) > 0 {
			i, j = w.numbered(w.twins[n-1][0]), w.numbered(w.twins[n-1][1])
			w.twins = w.twins[:n-1]
		}
		if i < 0 || j < 0 || i == j || w.learners[i].school != w.learners[j].school || len(w.learners) < 8 {
			continue
		}
		from, into := w.learners[i], w.learners[j]
		b.add(answer.CommandMove, from.school, from.token, into.token)
		w.rename(from.token, into.token)
		w.learners = append(w.learners[:i], w.learners[i+1:]...)
	}
}

// numbered returns the number of a learner, or -1.
func (w *workload) numbered(token answer.Token) int {
	return slices.IndexFunc(w.learners, func(l simulated) bool { return l.token == token })
}

// rotate gives every learner a new token, as a new key does.
func (w *workload) rotate(b *commands) {
	w.epoch++
	for i := range w.learners {
		l := &w.learners[i]
		into := w.token()
		b.add(answer.CommandMove, l.school, l.token, into)
		w.rename(l.token, into)
		l.token = into
	}
}

func (w *workload) token() answer.Token {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], w.random.Uint64())
	binary.LittleEndian.PutUint64(b[8:], w.random.Uint64()|1)
	return answer.MintToken(b)
}

func (w *workload) rename(from, into answer.Token) {
	for i := range w.past {
		if w.past[i].learner == from {
			w.past[i].learner = into
		}
	}
	for i := range w.pastTests {
		if w.pastTests[i].learner == from {
			w.pastTests[i].learner = into
		}
	}
	for i := range w.doubled {
		if w.doubled[i].learner == from {
			w.doubled[i].learner = into
		}
	}
	for i := range w.twins {
		for k := range w.twins[i] {
			if w.twins[i][k] == from {
				w.twins[i][k] = into
			}
		}
	}
}

func (w *workload) forget(token answer.Token) {
	kept := w.past[:0]
	for _, r := range w.past {
		if r.learner != token {
			kept = append(kept, r)
		}
	}
	w.past = kept
	w.doubled = slices.DeleteFunc(w.doubled, func(r row) bool { return r.learner == token })
	w.pastTests = slices.DeleteFunc(w.pastTests, func(r testRow) bool { return r.learner == token })
}

// commands builds a message of commands.
type commands struct {
	c       answer.Commands
	schools map[string]int32
}

func (b *commands) add(kind answer.CommandKind, school string, learner, into answer.Token) {
	c := &b.c
	code, ok := b.schools[school]
	if !ok {
		code = int32(len(c.School.Values))
		b.schools[school] = code
		c.School.Values = append(c.School.Values, school)
	}
	c.Kind = append(c.Kind, kind)
	c.School.Codes = append(c.School.Codes, code)
	c.Learner.Codes, c.Learner.Values = append(c.Learner.Codes, int32(c.Rows)), append(c.Learner.Values, learner)
	c.Into.Codes, c.Into.Values = append(c.Into.Codes, int32(c.Rows)), append(c.Into.Values, into)
	c.Rows++
}
