package pseudonymize

import (
	"errors"
	"sync"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// output makes the messages of one topic of answers: with the tokens of one
// purpose and event ids under one key.
type output struct {
	topic     string
	purpose   keyring.Purpose
	events    *EventDigester
	epoch     uint32
	tokenizer *Tokenizer
	tokens    []answer.Token // by learner, zero = not made yet; valid for the epoch
	done      int64          // raw offset of the last message that the topic holds

	drafts *sync.Pool // of *draft, shared by the partitions
	*draft            // between begin and release
}

// draft is the memory in which the messages of one run for one topic are made.
// An output borrows it, so that there are as many as workers, not as partitions.
type draft struct {
	encoder  answer.Encoder
	answers  answer.Columns
	results  answer.TestResults
	gathered facts // rows of some schools, for an engine

	buffer   []byte // values of messages, end to end
	cuts     []int  // where they end
	messages []stream.Message
}

func (s *Stage) newOutput(topic string, purpose, events keyring.Purpose) (output, error) {
	digester, err := NewEventDigester(s.config.Ring, events)
	return output{topic: topic, purpose: purpose, events: digester, done: -1, drafts: &s.drafts}, err
}

// use makes tokens under an epoch from now on.
func (o *output) use(ring *keyring.Ring, epoch uint32) error {
	if o.tokenizer != nil && o.epoch == epoch {
		return nil
	}
	tokenizer, err := NewTokenizer(ring, o.purpose, epoch)
	if err != nil {
		return err
	}
	o.tokenizer, o.epoch = tokenizer, epoch
	clear(o.tokens)
	return nil
}

// token returns the token of a learner, from memory when it was made before.
func (o *output) token(l vault.Learner, state *vault.State) answer.Token {
	if int(l) >= len(o.tokens) {
		o.tokens = append(o.tokens, make([]answer.Token, max(int(l)+1, state.Learners()+1)-len(o.tokens))...)
	}
	if o.tokens[l].IsZero() {
		o.tokens[l] = o.tokenizer.Token(state.Secret(l))
	}
	return o.tokens[l]
}

// begin starts the messages of a run.
func (o *output) begin() {
	if o.draft == nil {
		o.draft = o.drafts.Get().(*draft)
	}
	const keepBytes = 8 << 20
	if cap(o.buffer) > keepBytes {
		o.buffer = nil
	}
	o.buffer, o.cuts, o.messages = o.buffer[:0], o.cuts[:0], o.messages[:0]
}

// add appends the message of a slot and returns its size. The columns that
// identify nobody are handed over, not copied.
func (o *output) add(s *slot, state *vault.State) (size int, err error) {
	tokens := &o.answers.Learner
	if s.tests {
		o.results.TestFacts = s.results.TestFacts
		tokens = &o.results.Learner
		o.results.EventID = o.appendEventIDs(o.results.EventID[:0], s)
	} else {
		o.answers.Facts = s.answers.Facts
		o.answers.EventID = o.appendEventIDs(o.answers.EventID[:0], s)
	}
	tokens.Codes, tokens.Values = s.identities().Codes, tokens.Values[:0]
	for _, l := range s.learners {
		if l == 0 {
			return 0, errors.New("an identity has no learner")
		}
		tokens.Values = append(tokens.Values, o.token(l, state))
	}
	return o.encode(s)
}

// addEmpty appends a message without rows for a slot.
func (o *output) addEmpty(s *slot) error {
	if s.tests {
		o.results = answer.TestResults{}
	} else {
		o.answers = answer.Columns{}
	}
	_, err := o.encode(s)
	return err
}

func (o *output) encode(s *slot) (size int, err error) {
	start := len(o.buffer)
	schema, rows := answer.SchemaAnswers, o.answers.Rows
	if s.tests {
		schema, rows = answer.SchemaTestResults, o.results.Rows
		o.buffer, err = o.encoder.AppendTestResults(o.buffer, &o.results)
	} else {
		o.buffer, err = o.encoder.AppendAnswers(o.buffer, &o.answers)
	}
	if err != nil {
		return 0, err
	}
	o.cuts = append(o.cuts, len(o.buffer))
	o.messages = append(o.messages, headed(schema, s.offset, o.epoch, o.buffer[start:], rows))
	return len(o.buffer) - start, nil
}

// headed returns a message with the headers of answers. Its value is set by
// finish, because the buffer may move until then.
func headed(schema string, rawOffset int64, epoch uint32, value []byte, rows int) stream.Message {
	return stream.Message{Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(schema)},
		stream.Int64Header(stream.HeaderRawOffset, rawOffset),
		stream.Int64Header(stream.HeaderKeyEpoch, int64(epoch)),
		stream.DigestHeader(value),
		stream.Int64Header(stream.HeaderRows, int64(rows)),
	}}
}

// drop takes back the last message.
func (o *output) drop() {
	o.messages, o.cuts = o.messages[:len(o.messages)-1], o.cuts[:len(o.cuts)-1]
	end := 0
	if len(o.cuts) > 0 {
		end = o.cuts[len(o.cuts)-1]
	}
	o.buffer = o.buffer[:end]
}

// release gives back the memory of the messages, which have been produced.
func (o *output) release() {
	o.drafts.Put(o.draft)
	o.draft = nil
}

// finish points the messages at their values, which lie still from now on.
func (o *output) finish() {
	start := 0
	for i, end := range o.cuts {
		o.messages[i].Value = o.buffer[start:end:end]
		start = end
	}
	o.answers.Facts, o.results.TestFacts = answer.Facts{}, answer.TestFacts{}
	o.answers.Learner.Codes, o.results.Learner.Codes = nil, nil
	o.events.Wipe()
}

func (o *output) appendEventIDs(dst []answer.EventID, s *slot) []answer.EventID {
	ids, publisher := s.eventIDs(), s.publisher()
	for row := range s.rows() {
		dst = append(dst, o.events.ID(publisher.At(row), ids.At(row)))
	}
	return dst
}
