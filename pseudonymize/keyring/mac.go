package keyring

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// MAC computes HMAC-SHA-256 under one key, truncated to 16 bytes: at 4.5 million
// values two collide with a chance of 2^-84. It keeps its state and buffers
// between calls, allocates nothing, and is for one goroutine.
type MAC struct {
	hash   hash.Hash
	buffer []byte
	sum    [sha256.Size]byte
	sums   uint64
}

// NewMAC makes a MAC under the key.
func NewMAC(key Key) *MAC {
	return &MAC{hash: hmac.New(sha256.New, key[:]), buffer: make([]byte, 0, 256)}
}

// Begin starts a message. Every part but the last goes in with Field, so that
// no two lists of parts make the same message.
func (m *MAC) Begin() { m.buffer = m.buffer[:0] }

// Byte appends one byte.
func (m *MAC) Byte(b byte) { m.buffer = append(m.buffer, b) }

// Field appends a part with its length before it (32 bits, little-endian).
func (m *MAC) Field(part string) {
	m.buffer = binary.LittleEndian.AppendUint32(m.buffer, uint32(len(part)))
	m.buffer = append(m.buffer, part...)
}

// Text appends the last part, or one of fixed length, as it is.
func (m *MAC) Text(part string) { m.buffer = append(m.buffer, part...) }

// Bytes appends the last part, or one of fixed length, as it is.
func (m *MAC) Bytes(part []byte) { m.buffer = append(m.buffer, part...) }

// Sum returns the MAC of the message since Begin.
func (m *MAC) Sum() [16]byte {
	m.sums++
	m.hash.Reset()
	m.hash.Write(m.buffer)
	m.hash.Sum(m.sum[:0])
	return [16]byte(m.sum[:16])
}

// Sums returns how many MACs were computed: the work that somebody who watches
// the clock could tell apart.
func (m *MAC) Sums() uint64 { return m.sums }

// Wipe clears what the last message left in the buffer.
func (m *MAC) Wipe() { clear(m.buffer[:cap(m.buffer)]) }
