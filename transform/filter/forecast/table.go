package forecast

// pageSize is how many values are allocated at once.
const pageSize = 1 << 10

// table holds values under hashed keys. Values do not move, so that pointers to
// them stay good. When the table is full, a new key gets a spare value that is
// forgotten at the next new key: it starts from nothing every time.
type table[T any] struct {
	keys  []uint64 // open addressing, 0 = free
	index []int32
	pages [][]T
	count int
	limit int
	spare T
}

func newTable[T any](limit int) *table[T] {
	return &table[T]{keys: make([]uint64, 1<<8), index: make([]int32, 1<<8), limit: limit}
}

// find returns the value of a key, or nil.
func (t *table[T]) find(key uint64) *T {
	if key == 0 {
		key = 1
	}
	mask := uint64(len(t.keys) - 1)
	for i := key & mask; t.keys[i] != 0; i = (i + 1) & mask {
		if t.keys[i] == key {
			return t.value(t.index[i])
		}
	}
	return nil
}

// at returns the value of a key, the zero value when it is new.
func (t *table[T]) at(key uint64) *T {
	if v := t.find(key); v != nil {
		return v
	}
	if t.count >= t.limit {
		var zero T
		t.spare = zero
		return &t.spare
	}
	if 2*t.count >= len(t.keys) {
		t.grow()
	}
	if key == 0 {
		key = 1
	}
	if t.count%pageSize == 0 {
		t.pages = append(t.pages, make([]T, pageSize))
	}
	i := int32(t.count)
	t.count++
	t.insert(key, i)
	return t.value(i)
}

func (t *table[T]) value(i int32) *T { return &t.pages[i/pageSize][i%pageSize] }

// insert puts an absent key in a free place.
func (t *table[T]) insert(key uint64, value int32) {
	mask := uint64(len(t.keys) - 1)
	i := key & mask
	for t.keys[i] != 0 {
		i = (i + 1) & mask
	}
	t.keys[i], t.index[i] = key, value
}

func (t *table[T]) grow() {
	keys, index := t.keys, t.index
	t.keys, t.index = make([]uint64, 2*len(keys)), make([]int32, 2*len(keys))
	for i, key := range keys {
		if key != 0 {
			t.insert(key, index[i])
		}
	}
}

// mix spreads the bits of x (the finalizer of a multiplicative hash).
func mix(x uint64) uint64 {
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}

// join makes one key of two.
func join(a, b uint64) uint64 { return mix(a*0x9e3779b97f4a7c15 ^ mix(b+0x632be59bd9b4e019)) }
