package transform

import (
	"cmp"
	"math/bits"
	"slices"
	"sort"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// The norm histograms of a partition are counted from its layers when they are
// asked for, not kept: an answer moves the overall layer, and with it the skill
// of its learner at every subject and goal, so keeping them would touch them all
// for each answer. Counting is a pure function of the layers: replays, repeats
// and removals need no bookkeeping.

// normState is what was handed out last.
type normState struct {
	entries []normEntry // scratch
	taken   bool        // whether anything was handed out
	last    answer.Position
	// moved holds the year groups that learners have left since, as bits. What
	// they leave behind may be empty and must be handed out together with the
	// state that no longer names it.
	moved map[uint32]uint16
	left  []normKey // of layers that are gone
}

type normKey struct {
	kind      Layer
	yearGroup uint8
	key       int32
}

// normEntry places one layer of one learner in a histogram.
type normEntry struct {
	normKey
	bin   uint16
	moved bool // the learner has left this year group, or answered since the last time
	gone  bool // the learner has left it
}

func (a normEntry) compare(b normEntry) int {
	if a.kind != b.kind {
		return cmp.Compare(a.kind, b.kind)
	}
	if a.key != b.key {
		return cmp.Compare(a.key, b.key)
	}
	if a.yearGroup != b.yearGroup {
		return cmp.Compare(a.yearGroup, b.yearGroup)
	}
	return cmp.Compare(a.bin, b.bin)
}

// NormsDue tells whether the next checkpoint must hold the norms.
func (p *Partition) NormsDue() bool { return len(p.norms.moved) > 0 || len(p.norms.left) > 0 }

// leave remembers that a learner with answers has left a year group.
func (n *normState) leave(owner uint32, yearGroup uint8) {
	if n.moved == nil {
		n.moved = make(map[uint32]uint16)
	}
	n.moved[owner] |= 1 << yearGroup
}

// TakeNorms appends the norm histograms of the groups in which a learner has
// answered, or which one has left, since it was called last; the first time all.
// They are ordered by layer, key and year group; those that became empty come
// without bins. A learner counts in the year group of the last answer; the skill
// that counts for a subject or goal is that of its layer together with the wider
// ones.
//
// Whether a group has changed is told by positions, not by its counts: then also
// two workers that write by turns leave behind what the log says.
func (p *Partition) TakeNorms(dst *NormRows) {
	entries := p.placeLayers(p.norms.entries[:0])
	for _, key := range p.norms.left {
		entries = append(entries, normEntry{normKey: key, moved: true, gone: true})
	}
	p.norms.left = nil
	clear(p.norms.moved)
	slices.SortFunc(entries, normEntry.compare)
	start := dst.Len()
	for first := 0; first < len(entries); {
		end := first + 1
		for end < len(entries) && entries[end].normKey == entries[first].normKey {
			end++
		}
		p.appendNorm(dst, entries[first:end])
		first = end
	}
	sort.Sort(normOrder{dst, start})
	if cap(entries) > keepNormEntries {
		entries = nil
	}
	p.norms.entries, p.norms.last, p.norms.taken = entries, p.position, true
}

// keepNormEntries is the number of entries whose memory is kept for the next
// time.
const keepNormEntries = 1 << 14

// placeLayers appends an entry per layer that has moved, and one per year group
// that its learner has left.
func (p *Partition) placeLayers(dst []normEntry) []normEntry {
	for i := range p.layers.n {
		l := p.layers.at(i)
		if l.Answers == 0 {
			continue
		}
		owner := p.learners.at(l.learner)
		key := normKey{kind: l.kind, yearGroup: p.about.all[owner.about].yearGroup, key: l.key}
		moved := !p.norms.taken || p.layers.at(owner.overall).position > p.norms.last
		dst = append(dst, normEntry{normKey: key, bin: Bin(p.skillAt(l, owner)), moved: moved})
		for left := p.norms.moved[l.learner]; left != 0; left &= left - 1 {
			key.yearGroup = uint8(bits.TrailingZeros16(left))
			dst = append(dst, normEntry{normKey: key, moved: true, gone: true})
		}
	}
	return dst
}

// skillAt returns the skill of a learner at the width of a layer.
func (p *Partition) skillAt(l *layer, owner *learner) float64 {
	skill := filter.Learner{LayerOverall: p.layers.at(owner.overall).Gaussian}
	if l.parent != 0 {
		skill[LayerSubject] = p.layers.at(l.parent - 1).Gaussian
	}
	if l.kind != LayerOverall {
		skill[l.kind] = l.Gaussian
	}
	return skill.Skill().Mean
}

// appendNorm appends one histogram when anybody in it has moved.
func (p *Partition) appendNorm(dst *NormRows, entries []normEntry) {
	if !slices.ContainsFunc(entries, func(e normEntry) bool { return e.moved }) {
		return
	}
	start := len(dst.bins)
	for _, e := range entries {
		switch n := len(dst.bins); {
		case e.gone:
		case n > start && dst.bins[n-1] == e.bin:
			dst.counts[n-1]++
		default:
			dst.bins, dst.counts = append(dst.bins, e.bin), append(dst.counts, 1)
		}
	}
	end := len(dst.bins)
	p.appendNormRow(dst, entries[0].normKey, dst.bins[start:end:end], dst.counts[start:end:end])
}

func (p *Partition) appendNormRow(dst *NormRows, key normKey, bins []uint16, counts []int64) {
	name := ""
	switch key.kind {
	case LayerOverall:
	case LayerSubject:
		name = p.catalog.SubjectName(key.key)
	case LayerGoal:
		name = p.catalog.GoalName(key.key)
	}
	dst.Layer = append(dst.Layer, key.kind)
	dst.Key = append(dst.Key, name)
	dst.YearGroup = append(dst.YearGroup, key.yearGroup)
	dst.Bins = append(dst.Bins, bins)
	dst.Counts = append(dst.Counts, counts)
	dst.Position = append(dst.Position, p.position)
}

// normOrder sorts rows from a first one on by what they are about, since numbers
// of names differ between processes. No two are about the same.
type normOrder struct {
	rows  *NormRows
	first int
}

func (o normOrder) Len() int { return o.rows.Len() - o.first }

func (o normOrder) Less(i, j int) bool {
	r, a, b := o.rows, o.first+i, o.first+j
	return cmp.Or(cmp.Compare(r.Layer[a], r.Layer[b]), strings.Compare(r.Key[a], r.Key[b]), cmp.Compare(r.YearGroup[a], r.YearGroup[b])) < 0
}

func (o normOrder) Swap(i, j int) {
	r, a, b := o.rows, o.first+i, o.first+j
	r.Layer[a], r.Layer[b] = r.Layer[b], r.Layer[a]
	r.Key[a], r.Key[b] = r.Key[b], r.Key[a]
	r.YearGroup[a], r.YearGroup[b] = r.YearGroup[b], r.YearGroup[a]
	r.Bins[a], r.Bins[b] = r.Bins[b], r.Bins[a]
	r.Counts[a], r.Counts[b] = r.Counts[b], r.Counts[a]
	r.Position[a], r.Position[b] = r.Position[b], r.Position[a]
}
