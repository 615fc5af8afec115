package pseudonymize

import (
	"encoding/binary"
	"sync"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// reverseTable maps the tokens of one engine to the learners of all partitions:
// open addressing in slots of 24 bytes, at most three quarters full. Entries of
// erased learners stay and lead to a learner that is not live. It is safe for
// concurrent use.
type reverseTable struct {
	mu    sync.RWMutex
	slots []reverseSlot
	used  int
}

type reverseSlot struct {
	token [16]byte
	reversePlace
}

type reversePlace struct {
	learner   vault.Learner // 0 = free slot
	partition uint32
}

func (t *reverseTable) find(token answer.Token) (reversePlace, bool) {
	key := token.Bytes()
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.slots) == 0 {
		return reversePlace{}, false
	}
	slot := &t.slots[t.probe(&key)]
	return slot.reversePlace, slot.learner != 0
}

// probe returns the slot of a token, or the free one where it belongs.
func (t *reverseTable) probe(key *[16]byte) int {
	mask := len(t.slots) - 1
	i := int(binary.LittleEndian.Uint64(key[:8])) & mask
	for t.slots[i].learner != 0 && t.slots[i].token != *key {
		i = (i + 1) & mask
	}
	return i
}

// add inserts the learners from first to last that are not erased.
func (t *reverseTable) add(tokenizer *Tokenizer, state *vault.State, partition int, first, last vault.Learner) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := first; l <= last; l++ {
		if !state.Live(state.MergedInto(l)) {
			continue
		}
		if 4*(t.used+1) > 3*len(t.slots) {
			t.grow()
		}
		key := tokenizer.Token(state.Secret(l)).Bytes()
		slot := &t.slots[t.probe(&key)]
		if slot.learner == 0 {
			t.used++
		}
		*slot = reverseSlot{token: key, reversePlace: reversePlace{learner: l, partition: uint32(partition)}}
	}
}

func (t *reverseTable) grow() {
	const first = 64
	t.move(max(first, 2*len(t.slots)), func(*reverseSlot) bool { return true })
}

// drop removes the learners of a partition.
func (t *reverseTable) drop(partition int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.used > 0 {
		t.move(len(t.slots), func(slot *reverseSlot) bool { return slot.partition != uint32(partition) })
	}
}

// move takes the entries that stay to a new slice of a size.
func (t *reverseTable) move(size int, stays func(*reverseSlot) bool) {
	old := t.slots
	t.slots, t.used = make([]reverseSlot, size), 0
	for i := range old {
		if old[i].learner != 0 && stays(&old[i]) {
			t.slots[t.probe(&old[i].token)] = old[i]
			t.used++
		}
	}
}
