package column

import (
	"bytes"
	"encoding/binary"

	"github.com/pierrec/lz4/v4"
)

// Bodies are compressed as frames of LZ4 (the format's specification 1.6.3) with
// independent blocks of 64 KiB and no checksums, behind their length. The LZ4
// library's own writer of frames makes objects for every one.

// frameHead is the magic number, FLG (version 1, independent blocks), BD (64 KiB)
// and HC, the checksum of the two before.
var frameHead = [7]byte{0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82}

const (
	frameBlock    = 64 << 10
	frameVerbatim = 1 << 31 // bit of a block's size: it is not compressed
)

// compressor appends frames. It is reusable and not safe for concurrent use.
type compressor struct {
	table lz4.Compressor
	block [frameBlock]byte
}

// append appends the length of raw and its frame.
func (c *compressor) append(dst, raw []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(raw)))
	dst = append(dst, frameHead[:]...)
	for len(raw) > 0 {
		block := raw[:min(len(raw), frameBlock)]
		raw = raw[len(block):]
		// The only error is that the block does not get shorter.
		n, err := c.table.CompressBlock(block, c.block[:len(block)])
		if err != nil || n == 0 {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(len(block))|frameVerbatim)
			dst = append(dst, block...)
			continue
		}
		dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
		dst = append(dst, c.block[:n]...)
	}
	return binary.LittleEndian.AppendUint32(dst, 0)
}

// decompress fills dst with what a frame holds. It returns false for a frame of
// another form, or one that holds more or less.
func decompress(dst, frame []byte) bool {
	if !bytes.HasPrefix(frame, frameHead[:]) {
		return false
	}
	for frame = frame[len(frameHead):]; len(frame) >= 4; {
		size := binary.LittleEndian.Uint32(frame)
		frame = frame[4:]
		if size == 0 {
			return len(dst) == 0 && len(frame) == 0
		}
		verbatim := size&frameVerbatim != 0
		size &^= frameVerbatim
		if int(size) > len(frame) {
			return false
		}
		block := frame[:size]
		frame = frame[size:]
		if verbatim {
			if len(block) > len(dst) {
				return false
			}
			dst = dst[copy(dst, block):]
			continue
		}
		n, err := lz4.UncompressBlock(block, dst[:min(len(dst), frameBlock)])
		if err != nil {
			return false
		}
		dst = dst[n:]
	}
	return false
}
