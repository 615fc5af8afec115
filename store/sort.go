package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/ClickHouse/ch-go/proto"
)

// sorter brings the rows of a block into the order of its table before they are
// sent. ClickHouse checks whether a block is sorted and then does not sort it
// itself, which is most of the work of an insert. The order is only for speed: a
// block that is sorted wrongly, or not, is sorted by ClickHouse.
type sorter struct {
	entries, other []sortEntry
	order          []uint32
	rank           []uint32 // of a school in the dictionary of the block

	spare8    []uint8
	spare16   []uint16
	spare32   []uint32
	spare64   []uint64
	spareInt  []int32
	spareLong []int64
	spareReal []float64
	spareID   [][16]byte
}

// sortEntry is a row and the first bytes of its sorting key: the rank of the
// school (at most 23 bits), then the first 32 bits of the token, which tell the
// learners of a school apart but for accidents.
type sortEntry struct {
	key uint64
	row uint32
}

// sort puts the rows in the order of school, learner, answered_at and id. The
// columns and the spare ones of the sorter change places.
func (b *answersBlock) sort(s *sorter) {
	s.rank = b.school.ranks(s.rank[:0])
	s.entries = s.entries[:0]
	for row := range b.learner {
		prefix := binary.BigEndian.Uint32(b.learner[row][:4])
		s.entries = append(s.entries, sortEntry{key: uint64(s.rank[b.school.code(row)])<<32 | uint64(prefix), row: uint32(row)})
	}
	s.radix()
	b.sortByTime(s.entries)
	s.order = s.order[:0]
	for i := range s.entries {
		s.order = append(s.order, s.entries[i].row)
	}
	b.permute(s)
}

// radix sorts the entries by key, least significant digit first, and keeps the
// order of equal ones.
func (s *sorter) radix() {
	const digitBits, digits = 11, 5
	var begin [digits][1 << digitBits]uint32
	for i := range s.entries {
		key := s.entries[i].key
		for d := range digits {
			begin[d][key>>(d*digitBits)&(1<<digitBits-1)]++
		}
	}
	s.other = slices.Grow(s.other[:0], len(s.entries))[:len(s.entries)]
	from, to := s.entries, s.other
	for d := range digits {
		place, shift := &begin[d], d*digitBits
		if len(from) == 0 || int(place[from[0].key>>shift&(1<<digitBits-1)]) == len(from) {
			continue // all have the same digit
		}
		sum := uint32(0)
		for i, n := range place {
			place[i] = sum
			sum += n
		}
		for i := range from {
			digit := from[i].key >> shift & (1<<digitBits - 1)
			to[place[digit]] = from[i]
			place[digit]++
		}
		from, to = to, from
	}
	s.entries, s.other = from, to
}

// sortByTime sorts the rows of each learner, which mostly are in order already.
func (b *answersBlock) sortByTime(entries []sortEntry) {
	compare := func(x, y sortEntry) int {
		if c := cmp.Compare(b.answeredAt.ColInt64[x.row], b.answeredAt.ColInt64[y.row]); c != 0 {
			return c
		}
		return bytes.Compare(b.id[x.row][:], b.id[y.row][:])
	}
	for first := 0; first < len(entries); {
		last := first + 1
		sorted := true
		for last < len(entries) && entries[last].key == entries[first].key {
			sorted = sorted && compare(entries[last-1], entries[last]) <= 0
			last++
		}
		if !sorted {
			slices.SortFunc(entries[first:last], compare)
		}
		first = last
	}
}

func (b *answersBlock) permute(s *sorter) {
	for _, w := range []*wordColumn{&b.publisher, &b.school, &b.group, &b.exercise, &b.goal, &b.subject} {
		permute(&w.Keys16, s.order, &s.spare16)
		permute(&w.Keys32, s.order, &s.spare32)
	}
	permute(&b.id, s.order, &s.spareID)
	permute(&b.learner, s.order, &s.spareID)
	permute(&b.keyEpoch, s.order, &s.spare32)
	permute(&b.yearGroup, s.order, &s.spare8)
	permute(&b.revision, s.order, &s.spare32)
	permute(&b.partition, s.order, &s.spare16)
	permute(&b.position, s.order, &s.spare64)
	permute(&b.kind.ColUInt8, s.order, &s.spare8)
	permute(&b.score, s.order, &s.spareReal)
	permute(&b.attempt, s.order, &s.spare16)
	permute(&b.responseTime.nulls, s.order, &s.spare8)
	permute(&b.responseTime.values, s.order, &s.spareInt)
	permute(&b.answeredAt.ColInt64, s.order, &s.spareLong)
	permute(&b.gradient, s.order, &s.spareInt)
	permute(&b.information, s.order, &s.spare16)
}

// permute replaces a column by its values in another order; its old memory
// becomes the spare for the next.
func permute[S ~[]T, T any](column *S, order []uint32, spare *[]T) {
	if len(*column) == 0 {
		return // the keys of the other width
	}
	sorted := slices.Grow((*spare)[:0], len(order))[:len(order)]
	for i, row := range order {
		sorted[i] = (*column)[row]
	}
	*spare = (*column)[:0]
	*column = sorted
}

// code returns the place in the dictionary of a row's word.
func (c *wordColumn) code(row int) uint32 {
	if c.Key == proto.KeyUInt16 {
		return uint32(c.Keys16[row])
	}
	return c.Keys32[row]
}

// ranks appends, per word of the dictionary, its place in the order of bytes.
func (c *wordColumn) ranks(ranks []uint32) []uint32 {
	order := make([]uint32, len(c.used))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int {
		return cmp.Compare(c.vocabulary.words[c.used[a]], c.vocabulary.words[c.used[b]])
	})
	ranks = slices.Grow(ranks, len(order))[:len(order)]
	for rank, place := range order {
		ranks[place] = uint32(rank)
	}
	return ranks
}
