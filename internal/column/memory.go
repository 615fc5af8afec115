package column

import "math/bits"

// Memory is where Arrow makes what it needs on the way: bodies, compressed and
// decompressed buffers. What is given back is handed out again, so that a stage
// that works through messages makes no garbage. It implements Arrow's
// memory.Allocator. Not safe for concurrent use.
type Memory struct {
	Wipe bool // clear what is given back, for messages with identities

	free [memoryClasses][][]byte // by the power of two of their capacity
	held int                     // bytes in free
}

const (
	smallestClass = 6  // log2 of the smallest capacity
	memoryClasses = 17 // up to 4 MiB; larger ones are left to the garbage collector
	memoryHolds   = 8 << 20
)

// classOf returns the class whose members have room for size bytes.
func classOf(size int) int {
	return max(bits.Len(uint(size-1)), smallestClass) - smallestClass
}

// Allocate implements memory.Allocator. The bytes are zero or those of an earlier
// message: Arrow's reader and writer fill what they ask for.
func (m *Memory) Allocate(size int) []byte {
	if size <= 0 {
		return nil
	}
	class := classOf(size)
	if class >= memoryClasses {
		return make([]byte, size)
	}
	list := m.free[class]
	if len(list) == 0 {
		return make([]byte, 1<<(class+smallestClass))[:size]
	}
	b := list[len(list)-1]
	m.free[class] = list[:len(list)-1]
	m.held -= cap(b)
	return b[:size]
}

// Reallocate implements memory.Allocator.
func (m *Memory) Reallocate(size int, b []byte) []byte {
	if size <= cap(b) {
		return b[:size]
	}
	grown := m.Allocate(size)
	copy(grown, b)
	m.Free(b)
	return grown
}

// Free implements memory.Allocator.
func (m *Memory) Free(b []byte) {
	b = b[:cap(b)]
	if m.Wipe {
		clear(b)
	}
	if len(b) == 0 || m.held+len(b) > memoryHolds {
		return
	}
	class := classOf(len(b))
	if class >= memoryClasses || len(b) != 1<<(class+smallestClass) {
		return
	}
	m.free[class] = append(m.free[class], b)
	m.held += len(b)
}
