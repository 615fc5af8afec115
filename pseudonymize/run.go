package pseudonymize

import (
	"context"
	"errors"
	"fmt"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/column"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// run is the memory for the messages that are handled together. Its readers keep
// decoded columns until the run is wiped.
type run struct {
	opener *seal.Opener
	topic  string
	slots  []*slot
	used   int

	unknown []vault.Alias
	memory  column.Memory // of the decoded messages
}

// slot holds one decoded message.
type slot struct {
	reader   *raw.Reader
	offset   int64
	tests    bool // test results, not answers
	answers  raw.Answers
	results  raw.TestResults
	poisoned *poison // nothing else is filled then

	aliases  []vault.Alias // normalised identities, by code
	digests  []vault.Digest
	learners []vault.Learner // of the identities, by code
}

func newRun(opener *seal.Opener, topic string) *run {
	return &run{opener: opener, topic: topic, memory: column.Memory{Wipe: true}}
}

func (r *run) take() *slot {
	if r.used == len(r.slots) {
		s := &slot{reader: raw.NewReader(r.opener, r.topic)}
		s.reader.Use(&r.memory)
		r.slots = append(r.slots, s)
	}
	s := r.slots[r.used]
	r.used++
	return s
}

// wipe clears what identifies somebody.
func (r *run) wipe() {
	for _, s := range r.slots[:r.used] {
		clear(s.answers.EventID.Bytes)
		clear(s.results.EventID.Bytes)
		clear(s.answers.Identity.Values)
		clear(s.results.Identity.Values)
		s.answers, s.results = raw.Answers{Identity: raw.Identities{Values: s.answers.Identity.Values[:0]}},
			raw.TestResults{Identity: raw.Identities{Values: s.results.Identity.Values[:0]}}
		clear(s.aliases)
		s.poisoned = nil
	}
	clear(r.unknown)
	r.used = 0
}

func (s *slot) rows() int {
	if s.tests {
		return s.results.Rows
	}
	return s.answers.Rows
}

func (s *slot) identities() *raw.Identities {
	if s.tests {
		return &s.results.Identity
	}
	return &s.answers.Identity
}

func (s *slot) eventIDs() *raw.Texts {
	if s.tests {
		return &s.results.EventID
	}
	return &s.answers.EventID
}

func (s *slot) publisher() *answer.Strings {
	if s.tests {
		return &s.results.Publisher
	}
	return &s.answers.Publisher
}

// read opens and decodes a message. Poison is kept in the slot; an error is one
// that must stop the partition.
func (w *worker) read(s *slot, m *stream.Message) error {
	s.offset, s.poisoned = m.Offset, nil
	schema := string(m.Header(stream.HeaderSchema))
	s.tests = schema == raw.SchemaTestResults
	if err := w.stage.findKey(m.Value); err != nil {
		return fmt.Errorf("open offset %d: %w", m.Offset, err)
	}
	err := s.reader.Read(schema, w.partition, m.Value, &s.answers, &s.results)
	if err == nil {
		err = w.normalise(s)
	}
	if err == nil {
		return nil
	}
	err = classify(err)
	if !errors.As(err, &s.poisoned) {
		return fmt.Errorf("read offset %d: %w", m.Offset, err)
	}
	return nil
}

// findKey makes sure that the key is loaded that a sealed message names. One that
// came with a rotation is looked for.
func (s *Stage) findKey(sealed []byte) error {
	id, ok := seal.RecipientOf(sealed)
	if !ok || s.opener.Holds(id) {
		return nil
	}
	if s.config.ReloadKeys != nil {
		keys, err := s.config.ReloadKeys()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrKey, err)
		}
		s.opener.Add(keys...)
	}
	if !s.opener.Holds(id) {
		return fmt.Errorf("%w: it was sealed for key %s; load the private key that belongs to the connectors' public key", ErrKey, id)
	}
	return nil
}

// normalise checks the identities of a message and brings them into the form
// that the registry knows.
func (w *worker) normalise(s *slot) error {
	s.aliases = s.aliases[:0]
	values := s.identities().Values
	for i := range values {
		a := vault.Normalise(values[i])
		if err := vault.Check(&a); err != nil {
			return &poison{ReasonIdentity, err}
		}
		if answer.PartitionOf(a.School, w.stage.config.Partitions) != w.partition {
			return &poison{ReasonPartition, errors.New("a school belongs to another partition")}
		}
		s.aliases = append(s.aliases, a)
	}
	return nil
}

// resolve looks up the learners of a message, first all digests and then all
// lookups, so that the processor overlaps the reads from memory. Unknown aliases
// are added to the run's.
func (w *worker) resolve(r *run, s *slot) {
	if s.poisoned != nil {
		return
	}
	s.digests, s.learners = s.digests[:0], s.learners[:0]
	for i := range s.aliases {
		s.digests = append(s.digests, w.registry.Digest(&s.aliases[i]))
	}
	state := w.registry.State()
	for i := range s.digests {
		l := state.Lookup(&s.digests[i])
		if l == 0 {
			r.unknown = append(r.unknown, s.aliases[i])
		}
		s.learners = append(s.learners, l)
	}
}

// handleRun takes messages from raw to answers: read all, make the unknown
// learners durable, then write all.
func (w *worker) handleRun(ctx context.Context, messages []stream.Message) error {
	r := w.stage.takeRun()
	defer w.stage.giveRun(r)
	defer w.registry.Wipe()
	for i := range messages {
		if err := stream.CheckNext(messages[i].Offset, w.next+int64(i)); err != nil {
			return fmt.Errorf("raw has a hole: %w", err)
		}
		if err := w.read(r.take(), &messages[i]); err != nil {
			return err
		}
	}
	if err := w.identify(ctx, r); err != nil {
		return err
	}
	for i, s := range r.slots[:r.used] {
		if s.poisoned != nil {
			if err := w.bury(ctx, &messages[i], s.poisoned); err != nil {
				return err
			}
		}
	}
	if err := w.stage.passed("dead letters written"); err != nil {
		return err
	}
	if err := w.write(ctx, r, messages); err != nil {
		return err
	}
	w.next = messages[len(messages)-1].Offset + 1
	w.assignment.Commit(w.next)
	return nil
}

// identify gives every identity of the run its learner. Writing new ones may
// bring in what others wrote; then that is adopted and all is looked up again.
func (w *worker) identify(ctx context.Context, r *run) error {
	for {
		r.unknown = r.unknown[:0]
		for _, s := range r.slots[:r.used] {
			w.resolve(r, s)
		}
		if len(r.unknown) == 0 {
			return nil
		}
		before := w.registry.State().Learners()
		if err := w.registry.Create(ctx, r.unknown, false); err != nil {
			return err
		}
		w.stage.counters.learners.Add(int64(w.registry.State().Learners() - before))
		if err := w.stage.passed("learners created"); err != nil {
			return err
		}
		if w.registry.State().NeedsAdoption() {
			if err := w.adopt(ctx); err != nil {
				return err
			}
		}
	}
}

// write makes and produces the messages: engines first, because the answers tell
// a restart where to go on.
func (w *worker) write(ctx context.Context, r *run, messages []stream.Message) error {
	for i := range w.engines {
		if err := w.writeEngine(ctx, &w.engines[i], &w.stage.config.Engines[i], r); err != nil {
			return err
		}
		if err := w.stage.passed("engine written"); err != nil {
			return err
		}
	}
	rows, err := w.encode(ctx, r, messages)
	if err != nil {
		return err
	}
	if _, err := w.stage.config.Client.Produce(ctx, w.main.topic, w.partition, w.main.messages...); err != nil {
		return err
	}
	if err := w.stage.passed("answers written"); err != nil {
		return err
	}
	w.stage.counters.messages.Add(int64(len(w.main.messages)))
	w.main.release()
	w.stage.counters.rows.Add(int64(rows))
	return nil
}

// encode fills the main output with one message per message of the run. One that
// would be larger than Kafka takes becomes a dead letter.
func (w *worker) encode(ctx context.Context, r *run, messages []stream.Message) (rows int, err error) {
	w.main.begin()
	for i, s := range r.slots[:r.used] {
		if s.poisoned == nil {
			size, err := w.main.add(s, w.registry.State())
			if err != nil {
				return rows, fmt.Errorf("encode offset %d: %w", s.offset, err)
			}
			if size <= stream.MaxMessageBytes {
				rows += s.rows()
				continue
			}
			w.main.drop()
			if err := w.bury(ctx, &messages[i], &poison{ReasonSize, fmt.Errorf("%d bytes", size)}); err != nil {
				return rows, err
			}
		}
		if err := w.main.addEmpty(s); err != nil {
			return rows, fmt.Errorf("encode offset %d: %w", s.offset, err)
		}
	}
	w.main.finish()
	return rows, nil
}
