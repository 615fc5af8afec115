package vault

import (
	"encoding/binary"
	"math/bits"
)

// aliasTable maps digests to learners: open addressing with linear probing in
// one slice of 20-byte slots, at most three quarters full. Digests are keyed, so
// their first bytes are a hash that nobody outside can steer.
type aliasTable struct {
	slots []aliasSlot
	used  int
}

type aliasSlot struct {
	digest  Digest
	learner Learner // 0 = free
}

const firstSlots = 16

// fits returns the number of slots for n entries: the power of two at which
// they fill at most three quarters.
func fits(n int) int {
	need := max(firstSlots, n+n/3+1)
	return 1 << bits.Len(uint(need-1))
}

func (t *aliasTable) reserve(n int) {
	if size := fits(n); size > len(t.slots) {
		t.resize(size)
	}
}

func (t *aliasTable) home(d *Digest) int {
	return int(binary.LittleEndian.Uint64(d[:8]) & uint64(len(t.slots)-1))
}

func (t *aliasTable) find(d *Digest) Learner {
	if len(t.slots) == 0 {
		return 0
	}
	mask := len(t.slots) - 1
	for i := t.home(d); ; i = (i + 1) & mask {
		if slot := &t.slots[i]; slot.learner == 0 || slot.digest == *d {
			return slot.learner
		}
	}
}

func (t *aliasTable) set(d *Digest, learner Learner) {
	if 4*(t.used+1) > 3*len(t.slots) {
		t.resize(max(firstSlots, 2*len(t.slots)))
	}
	mask := len(t.slots) - 1
	for i := t.home(d); ; i = (i + 1) & mask {
		slot := &t.slots[i]
		if slot.learner == 0 {
			t.used++
			slot.digest, slot.learner = *d, learner
			return
		}
		if slot.digest == *d {
			slot.learner = learner
			return
		}
	}
}

func (t *aliasTable) resize(size int) {
	old := t.slots
	t.slots = make([]aliasSlot, size)
	mask := size - 1
	for k := range old {
		if old[k].learner == 0 {
			continue
		}
		i := t.home(&old[k].digest)
		for t.slots[i].learner != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = old[k]
	}
	clear(old)
}

// remove frees a digest and moves later entries of its run back, so that no
// digest stays behind and no search ends early.
func (t *aliasTable) remove(d *Digest) {
	if len(t.slots) == 0 {
		return
	}
	mask := len(t.slots) - 1
	i := t.home(d)
	for t.slots[i].digest != *d || t.slots[i].learner == 0 {
		if t.slots[i].learner == 0 {
			return
		}
		i = (i + 1) & mask
	}
	t.used--
	for next := (i + 1) & mask; t.slots[next].learner != 0; next = (next + 1) & mask {
		// An entry may fill the hole when its home lies at or before the hole.
		if home := t.home(&t.slots[next].digest); (next-home)&mask >= (next-i)&mask {
			t.slots[i] = t.slots[next]
			i = next
		}
	}
	t.slots[i] = aliasSlot{}
}

// idTable maps learner ids to learners. Ids are random, so they hash themselves.
type idTable struct {
	slots []Learner
	used  int
}

func (t *idTable) find(id *LearnerID, secrets []Secret) Learner {
	if len(t.slots) == 0 {
		return 0
	}
	mask := len(t.slots) - 1
	for i := int(binary.LittleEndian.Uint64(id[:8])) & mask; ; i = (i + 1) & mask {
		if l := t.slots[i]; l == 0 || secrets[l].ID == *id {
			return l
		}
	}
}

// add inserts a learner that find doesn't know.
func (t *idTable) add(l Learner, secrets []Secret) {
	if 4*(t.used+1) > 3*len(t.slots) {
		old := t.slots
		t.slots = make([]Learner, max(firstSlots, 2*len(old)))
		for _, o := range old {
			if o != 0 {
				t.place(o, secrets)
			}
		}
	}
	t.used++
	t.place(l, secrets)
}

func (t *idTable) place(l Learner, secrets []Secret) {
	mask := len(t.slots) - 1
	i := int(binary.LittleEndian.Uint64(secrets[l].ID[:8])) & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = l
}
