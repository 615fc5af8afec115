package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// Sealed bytes are
//
//	version (1) · epoch (4, big-endian) · fingerprint of the epoch's root (8) ·
//	nonce (12, random) · AES-256-GCM ciphertext and tag (16)
//
// under the vault key of the epoch, with the first 13 bytes and the caller's
// context as associated data. Writer and reader are the same party, so a
// symmetric key does; 256 bits stay closed to quantum computers, too. A key
// seals far fewer than the 2^32 messages that random nonces allow.
const (
	sealVersion   = 1
	sealHeader    = 1 + 4 + 8
	sealNonce     = 12
	sealTag       = 16
	sealOverhead  = sealHeader + sealNonce + sealTag
	contextRecord = "registry.v1" // followed by the partition
	contextRow    = "vault-row.v1"
)

// Sealer seals under the primary epoch and opens under every epoch that the
// keyring still has. It is for one goroutine.
type Sealer struct {
	ring    *keyring.Ring
	epochs  map[uint32]sealKey
	context []byte
}

type sealKey struct {
	aead        cipher.AEAD
	fingerprint keyring.Fingerprint
}

// NewSealer makes a sealer.
func NewSealer(ring *keyring.Ring) *Sealer {
	return &Sealer{ring: ring, epochs: make(map[uint32]sealKey)}
}

func (s *Sealer) key(epoch uint32) (sealKey, error) {
	if k, ok := s.epochs[epoch]; ok {
		return k, nil
	}
	secret, err := s.ring.Key(keyring.Vault, epoch)
	if errors.Is(err, keyring.ErrUnknownEpoch) { // another process may have rotated
		if err := s.ring.Refresh(); err != nil {
			return sealKey{}, err
		}
		secret, err = s.ring.Key(keyring.Vault, epoch)
	}
	if err != nil {
		return sealKey{}, err
	}
	fingerprint, err := s.ring.Fingerprint(epoch)
	if err != nil {
		return sealKey{}, err
	}
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return sealKey{}, fmt.Errorf("make vault cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return sealKey{}, fmt.Errorf("make vault cipher: %w", err)
	}
	k := sealKey{aead: aead, fingerprint: fingerprint}
	s.epochs[epoch] = k
	return k, nil
}

// Seal appends the sealed plaintext to dst. The context says what it is for and
// must be given again to open it.
func (s *Sealer) Seal(dst, plaintext []byte, context ...[]byte) ([]byte, error) {
	epoch := s.ring.Primary()
	k, err := s.key(epoch)
	if err != nil {
		return dst, fmt.Errorf("seal: %w", err)
	}
	start := len(dst)
	dst = slices.Grow(dst, sealOverhead+len(plaintext))
	dst = append(dst, sealVersion)
	dst = binary.BigEndian.AppendUint32(dst, epoch)
	dst = append(dst, k.fingerprint[:]...)
	dst = dst[:start+sealHeader+sealNonce]
	nonce := dst[start+sealHeader:]
	if _, err := rand.Read(nonce); err != nil {
		return dst[:start], fmt.Errorf("seal: draw nonce: %w", err)
	}
	return k.aead.Seal(dst, nonce, plaintext, s.bind(dst[start:start+sealHeader], context)), nil
}

// Open appends the plaintext of sealed bytes to dst. An epoch or fingerprint
// that the keyring doesn't have is ErrKeyset, anything else that is wrong
// ErrSealed.
func (s *Sealer) Open(dst, sealed []byte, context ...[]byte) ([]byte, error) {
	if len(sealed) < sealOverhead || sealed[0] != sealVersion {
		return dst, fmt.Errorf("open: %w: %d bytes of an unknown form", ErrSealed, len(sealed))
	}
	epoch := SealedEpoch(sealed)
	k, err := s.key(epoch)
	if err != nil {
		return dst, fmt.Errorf("open: %w: %w", ErrKeyset, err)
	}
	if fingerprint := keyring.Fingerprint(sealed[5:sealHeader]); fingerprint != k.fingerprint {
		return dst, fmt.Errorf("open: %w: epoch %d has fingerprint %s there, %s in the loaded keyset; load the keyset that this deployment began with",
			ErrKeyset, epoch, fingerprint, k.fingerprint)
	}
	out, err := k.aead.Open(dst, sealed[sealHeader:sealHeader+sealNonce], sealed[sealHeader+sealNonce:], s.bind(sealed[:sealHeader], context))
	if err != nil {
		return dst, fmt.Errorf("open: %w", ErrSealed)
	}
	return out, nil
}

// SealedEpoch returns the epoch of sealed bytes, 0 when they are too short.
func SealedEpoch(sealed []byte) uint32 {
	if len(sealed) < sealHeader {
		return 0
	}
	return binary.BigEndian.Uint32(sealed[1:5])
}

// bind frames header and context into one piece of associated data.
func (s *Sealer) bind(header []byte, context [][]byte) []byte {
	s.context = append(s.context[:0], header...)
	for _, part := range context {
		s.context = binary.LittleEndian.AppendUint32(s.context, uint32(len(part)))
		s.context = append(s.context, part...)
	}
	return s.context
}
