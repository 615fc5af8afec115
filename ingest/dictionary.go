package ingest

import (
	"bytes"
	"hash/maphash"
)

// dictionary gives each distinct text of one column of one message a code. Texts
// lie in an arena and the table holds codes, so that a row costs no allocation.
// The hash is seeded: a publisher can't choose texts that collide.
type dictionary struct {
	seed   maphash.Seed
	arena  []byte
	ends   []int32  // end of each text in arena
	table  []int32  // open addressing: code + 1, 0 = free; length is a power of two
	hashes []uint32 // of each text
	values []string
}

const firstTable = 64

func newDictionary(seed maphash.Seed) dictionary {
	return dictionary{seed: seed, table: make([]int32, firstTable)}
}

// code returns the code of a text, adding it when it is new.
func (d *dictionary) code(text []byte) int32 {
	hash := uint32(maphash.Bytes(d.seed, text))
	mask := uint32(len(d.table) - 1)
	for slot := hash & mask; ; slot = (slot + 1) & mask {
		entry := d.table[slot]
		if entry == 0 {
			return d.add(text, hash, slot)
		}
		if d.hashes[entry-1] == hash && bytes.Equal(d.text(entry-1), text) {
			return entry - 1
		}
	}
}

func (d *dictionary) text(code int32) []byte {
	start := int32(0)
	if code > 0 {
		start = d.ends[code-1]
	}
	return d.arena[start:d.ends[code]]
}

func (d *dictionary) add(text []byte, hash, slot uint32) int32 {
	code := int32(len(d.ends))
	d.arena = append(d.arena, text...)
	d.ends = append(d.ends, int32(len(d.arena)))
	d.hashes = append(d.hashes, hash)
	d.table[slot] = code + 1
	if 2*len(d.ends) > len(d.table) {
		d.grow()
	}
	return code
}

func (d *dictionary) grow() {
	d.table = make([]int32, 2*len(d.table))
	mask := uint32(len(d.table) - 1)
	for code, hash := range d.hashes {
		slot := hash & mask
		for d.table[slot] != 0 {
			slot = (slot + 1) & mask
		}
		d.table[slot] = int32(code) + 1
	}
}

// strings returns the texts by code. They share one copy of the arena, the only
// allocation of a message.
func (d *dictionary) strings() []string {
	all, start := string(d.arena), int32(0)
	d.values = d.values[:0]
	for _, end := range d.ends {
		d.values = append(d.values, all[start:end])
		start = end
	}
	return d.values
}

// reset forgets all texts and wipes the arena, which may hold identifiers.
func (d *dictionary) reset() {
	clear(d.arena)
	clear(d.table)
	clear(d.values)
	d.arena, d.ends, d.hashes, d.values = d.arena[:0], d.ends[:0], d.hashes[:0], d.values[:0]
}

// bytes returns the size of the texts.
func (d *dictionary) bytes() int { return len(d.arena) }
