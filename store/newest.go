package store

import (
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// newestSkills leaves of rows in any order what FINAL would leave, and what has
// not departed: the row with the highest position of every learner, layer and
// key, unless it says that the learner has the layer no longer, or a worker that
// had lost its partition wrote it of a token that had left. ClickHouse takes
// several times as long for it. Rows of one key and position are equal.
func newestSkills(rows *transform.SkillRows, departed []transform.Departed) {
	left := make(map[answer.Token]answer.Position, len(departed))
	for _, d := range departed {
		left[d.Learner] = d.Position
	}
	newest := newNewestRows(rows)
	for i := range rows.Learner {
		newest.see(i)
	}
	rows.Keep(func(i int) bool {
		if newest.replaced[i] || rows.Answers[i] == 0 {
			return false
		}
		position, departed := left[rows.Learner[i]]
		return !departed || rows.Position[i] >= position
	})
}

// newestRows finds the newest row of a key: open addressing with linear probing,
// at most half full.
type newestRows struct {
	rows     *transform.SkillRows
	slots    []uint32 // row + 1, 0 = free
	replaced []bool   // by a newer row
}

func newNewestRows(rows *transform.SkillRows) *newestRows {
	n := rows.Len()
	return &newestRows{rows: rows, slots: make([]uint32, 1<<bits.Len(uint(2*n))), replaced: make([]bool, n)}
}

// see takes in a row.
func (n *newestRows) see(i int) {
	r, mask := n.rows, uint64(len(n.slots)-1)
	for slot := n.hash(i) & mask; ; slot = (slot + 1) & mask {
		if n.slots[slot] == 0 {
			n.slots[slot] = uint32(i + 1)
			return
		}
		j := int(n.slots[slot] - 1)
		if r.Learner[i] != r.Learner[j] || r.Layer[i] != r.Layer[j] || r.Key[i] != r.Key[j] {
			continue
		}
		if r.Position[i] < r.Position[j] {
			n.replaced[i] = true
			return
		}
		n.replaced[j] = true
		n.slots[slot] = uint32(i + 1)
		return
	}
}

// hash spreads a key; tokens are keyed digests already.
func (n *newestRows) hash(i int) uint64 {
	token := n.rows.Learner[i].Bytes()
	return binary.LittleEndian.Uint64(token[:8]) + xxhash.Sum64String(n.rows.Key[i])*(2*uint64(n.rows.Layer[i])+1)
}
