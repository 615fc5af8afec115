// Package seal closes messages so that only the holder of a private key opens
// them. A Sealer holds the recipient's public key alone: whoever takes it over
// reads nothing that was sealed before.
//
// A sealed message is
//
//	1 byte    format, 1
//	8 bytes   id of the recipient's key: first bytes of SHA-256 of the public key
//	1120      encapsulated key (ML-KEM-768 + X25519, RFC 9180 HPKE)
//	12        nonce, random
//	n         ciphertext, AES-256-GCM
//	16        tag
//
// The AES key is exported from the HPKE context that the encapsulated key sets
// up, so it is bound to the recipient and to this format. One encapsulation
// serves a period or a number of messages, whichever ends first; every message
// still opens alone.
//
// Invariants:
//   - Associated data are authenticated and not sent: a message moved to another
//     topic, schema or partition does not open. See AppendContext.
//   - A data key never leaves memory and is never used by two Sealers. At most
//     2^20 messages share one, so two random nonces meet with a chance below
//     2^-56.
//   - Open never panics on any input, allocates no more than the input's size,
//     and gives one uniform error, ErrOpen, for whatever is wrong with it.
//   - Recorded today, a message stays closed to a later quantum computer as long
//     as either ML-KEM-768 or X25519 holds.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrOpen reports a message that was not sealed for one of the keys and the
// given associated data, or was damaged since. It does not say which.
var ErrOpen = errors.New("sealed message can't be opened")

const (
	formatVersion     = 1
	keyIDBytes        = 8
	encapsulatedBytes = 1088 + 32
	headBytes         = 1 + keyIDBytes + encapsulatedBytes
	nonceBytes        = 12
	tagBytes          = 16

	// Overhead is what sealing adds to a message, in bytes.
	Overhead = headBytes + nonceBytes + tagBytes

	// maxMessages is the number of messages that one data key may seal.
	maxMessages = 1 << 20
)

// suite is the one combination of algorithms in use. The format byte names it.
const (
	suiteInfo     = "leerstroom sealed message v1"
	exportContext = "AES-256-GCM data key"
	dataKeyBytes  = 32
)

// KeyID names a recipient's key without telling anything about what it opens.
type KeyID [keyIDBytes]byte

// String returns the id in hex.
func (id KeyID) String() string { return fmt.Sprintf("%x", id[:]) }

// AppendContext appends the associated data of a message: where it belongs.
// Lengths keep two different places from looking the same.
func AppendContext(dst []byte, topic, schema string, partition int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(topic)))
	dst = append(dst, topic...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(schema)))
	dst = append(dst, schema...)
	return binary.BigEndian.AppendUint64(dst, uint64(int64(partition)))
}

// SealerConfig says for whom to seal and how long one data key serves.
type SealerConfig struct {
	Recipient *PublicKey
	Period    time.Duration // 0 means one hour
	Messages  int           // 0, and anything above, means 2^20

	// Refresh is asked for the recipient's key every now and then, so that a
	// rotation needs no restart; while it fails, the last key stays. Nil: never.
	Refresh      func() (*PublicKey, error)
	RefreshEvery time.Duration // 0 means ten seconds
}

// Sealer seals messages. It is safe for concurrent use.
type Sealer struct {
	config SealerConfig

	mu      sync.Mutex
	current *dataKey
	used    int       // messages sealed with current
	until   time.Time // when current ends
	refresh time.Time // when Refresh is asked next
}

// dataKey is what one encapsulation yields. It is safe for concurrent use.
type dataKey struct {
	head []byte // format, key id and encapsulated key, as sent
	aead cipher.AEAD
}

// NewSealer makes a Sealer with its first data key.
func NewSealer(config SealerConfig) (*Sealer, error) {
	if config.Recipient == nil {
		return nil, errors.New("make sealer: no recipient key")
	}
	if config.Period <= 0 {
		config.Period = time.Hour
	}
	if config.Messages <= 0 || config.Messages > maxMessages {
		config.Messages = maxMessages
	}
	if config.RefreshEvery <= 0 {
		config.RefreshEvery = 10 * time.Second
	}
	s := &Sealer{config: config, refresh: time.Now().Add(config.RefreshEvery)}
	key, err := newDataKey(config.Recipient)
	if err != nil {
		return nil, fmt.Errorf("make sealer: %w", err)
	}
	s.current, s.until = key, time.Now().Add(config.Period)
	return s, nil
}

// Recipient returns the id of the key that opens what this Sealer seals.
func (s *Sealer) Recipient() KeyID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config.Recipient.id
}

// Seal appends the sealed plaintext to dst and returns the extended slice. dst
// must not overlap plaintext or associated.
func (s *Sealer) Seal(dst, plaintext, associated []byte) []byte {
	key := s.take()
	dst = append(dst, key.head...)
	return key.aead.Seal(dst, nil, plaintext, associated)
}

// take counts one message against the data key, replacing one that has ended.
func (s *Sealer) take() *dataKey {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.changed(now)
	if changed || s.used >= s.config.Messages || now.After(s.until) {
		key, err := newDataKey(s.config.Recipient)
		if err != nil {
			// The same call with the same key succeeded in NewSealer, and the
			// system's source of randomness ends the process by itself.
			panic(fmt.Sprintf("seal: encapsulation to an accepted key failed: %v", err))
		}
		s.current, s.used, s.until = key, 0, now.Add(s.config.Period)
	}
	s.used++
	return s.current
}

// changed asks for the recipient's key when it is time to, and tells whether it
// is another one.
func (s *Sealer) changed(now time.Time) bool {
	if s.config.Refresh == nil || now.Before(s.refresh) {
		return false
	}
	s.refresh = now.Add(s.config.RefreshEvery)
	key, err := s.config.Refresh()
	if err != nil || key.id == s.config.Recipient.id {
		return false
	}
	s.config.Recipient = key
	return true
}

// RecipientOf returns the id of the key that a message is sealed for; ok is false
// for what is no sealed message.
func RecipientOf(sealed []byte) (id KeyID, ok bool) {
	if len(sealed) < Overhead || sealed[0] != formatVersion {
		return KeyID{}, false
	}
	return KeyID(sealed[1 : 1+keyIDBytes]), true
}

func newDataKey(recipient *PublicKey) (*dataKey, error) {
	encapsulated, sender, err := hpke.NewSender(recipient.key, hpke.HKDFSHA256(), hpke.ExportOnly(), []byte(suiteInfo))
	if err != nil {
		return nil, fmt.Errorf("encapsulate data key: %w", err)
	}
	if len(encapsulated) != encapsulatedBytes {
		return nil, fmt.Errorf("encapsulate data key: %d bytes, want %d", len(encapsulated), encapsulatedBytes)
	}
	secret, err := sender.Export(exportContext, dataKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive data key: %w", err)
	}
	aead, err := newAEAD(secret)
	if err != nil {
		return nil, err
	}
	head := append(make([]byte, 0, headBytes), formatVersion)
	head = append(head, recipient.id[:]...)
	return &dataKey{head: append(head, encapsulated...), aead: aead}, nil
}

func newAEAD(secret []byte) (cipher.AEAD, error) {
	defer clear(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("use data key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("use data key: %w", err)
	}
	return aead, nil
}
