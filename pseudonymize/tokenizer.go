package pseudonymize

import (
	"fmt"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// Tokenizer makes the tokens of one purpose and key epoch:
//
//	token = first 16 bytes of HMAC-SHA-256(K[purpose, epoch], learner id ‖ salt)
//
// Both inputs are 16 random bytes of fixed length, so no separator is needed. It
// allocates nothing and is for one goroutine.
type Tokenizer struct{ mac *keyring.MAC }

// NewTokenizer makes a tokenizer. A purpose whose keys do not make tokens is
// refused.
func NewTokenizer(ring *keyring.Ring, purpose keyring.Purpose, epoch uint32) (*Tokenizer, error) {
	if !purpose.MakesTokens() {
		return nil, fmt.Errorf("make tokenizer: purpose %q makes no tokens", string(purpose))
	}
	key, err := ring.Key(purpose, epoch)
	if err != nil {
		return nil, fmt.Errorf("make tokenizer: %w", err)
	}
	return &Tokenizer{mac: keyring.NewMAC(key)}, nil
}

// Token returns the token of a learner.
func (t *Tokenizer) Token(s *vault.Secret) answer.Token {
	t.mac.Begin()
	t.mac.Bytes(s.ID[:])
	t.mac.Bytes(s.Salt[:])
	return answer.MintToken(t.mac.Sum())
}

// EventDigester makes event ids:
//
//	event id = first 16 bytes of HMAC-SHA-256(K[event], length of publisher (32 bits) ‖ publisher ‖ id)
//
// The key outlives every rotation: an event id is the idempotency key, and a
// redelivered answer must get the same one for ever. It allocates nothing and is
// for one goroutine.
type EventDigester struct{ mac *keyring.MAC }

// NewEventDigester makes a digester for keyring.Event, or for
// keyring.EngineEvent of an engine.
func NewEventDigester(ring *keyring.Ring, purpose keyring.Purpose) (*EventDigester, error) {
	key, err := ring.Key(purpose, 0)
	if err != nil {
		return nil, fmt.Errorf("make event digester: %w", err)
	}
	return &EventDigester{mac: keyring.NewMAC(key)}, nil
}

// ID returns the event id of an event that a publisher calls id.
func (d *EventDigester) ID(publisher string, id []byte) answer.EventID {
	d.mac.Begin()
	d.mac.Field(publisher)
	d.mac.Bytes(id)
	return d.mac.Sum()
}

// Wipe clears the last event's id from memory.
func (d *EventDigester) Wipe() { d.mac.Wipe() }
