package transform

import (
	"math"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// Partition is the state of one partition: the skills of its learners and its
// share of the item statistics. It is a pure function of the rows it was given,
// in the order of the log, and of the snapshots given with them. Restoring it
// from what Checkpoint returned and replaying the log from anywhere before that
// gives the same bits again. It is not safe for concurrent use.
//
// Rules, each a function of the log alone:
//   - A row whose position is not after that of its learner's last answer was
//     applied before and is passed over; so is a sum whose position is newer.
//   - A repeat moves nothing.
//   - An answer that is older than its learner's newest, and no repeat, is
//     applied where it stands in the log, as if no time had passed since the
//     answer before it.
//   - Every answer moves the learner. Only a first answer of a learner to an
//     exercise moves the item side: attempt at most 1 (0 is unknown), and the
//     exercise is not among the learner's last MaxRecent ones.
//   - A score outside [0, 1] or a learner without a token moves nothing.
type Partition struct {
	parameters filter.Parameters
	catalog    *Catalog
	position   answer.Position // last row given
	keyEpoch   uint32          // of the message at hand

	words    words // schools and groups
	about    descriptions
	byToken  map[answer.Token]uint32
	learners chunks[learner]
	layers   chunks[layer]
	index    layerIndex
	vacant   vacant

	items  sums
	goals  sums
	global sums // one entry, under number 0

	changedLayers []uint32 // by the message at hand, first touched first
	dirtyLayers   []uint32 // since the last checkpoint, first touched first

	message message  // scratch of Apply
	said    Evidence // of the rows last applied
	grouped grouped  // scratch of Changes and Checkpoint
	norms   normState
}

// learner is what a partition knows of a learner besides layers. It holds no
// pointers.
type learner struct {
	token   answer.Token
	newest  int64  // newest answered_at of the rows scanned
	about   int32  // description
	overall uint32 // layer
	turn    uint32 // scratch of grouping: place among the learners touched + 1
	recents uint8
	oldest  uint8             // place in recent
	recent  [MaxRecent]uint64 // ring
}

// layer is one Gaussian of a learner with its counters: less than 100 bytes with
// its share of the index. It holds no pointers.
type layer struct {
	filter.Gaussian
	filter.Counters // LastAtMs is the newest answered_at; Answers 0 = never moved
	position        answer.Position
	learner         uint32
	key             int32  // number of the subject or goal in the catalog
	subject         int32  // number of the goal's subject
	parent          uint32 // layer of the goal's subject + 1, 0 = none
	about           int32  // description of the learner when the layer moved last
	kind            Layer
	changed, dirty  bool
}

// sum is the share of this partition in the statistics of one component.
type sum struct {
	evidenceSum
	position answer.Position
	hash     uint64 // of the ItemKey
	number   int32  // in the catalog
	goal     int32
	subject  int32
	fresh    bool // changed since the last TakeSums
	dirty    bool // changed since the last checkpoint
}

// sums are the sums of one kind of component.
type sums struct {
	component Component
	local     []uint32 // number in the catalog → number here + 1
	all       chunks[sum]
	fresh     []uint32
	dirty     []uint32
}

// of returns the sum of a component by its number in the catalog.
func (s *sums) of(number int32) (i uint32, entry *sum) {
	if int(number) >= len(s.local) {
		s.local = append(s.local, make([]uint32, int(number)+1-len(s.local)+len(s.local)/2)...)
	}
	if i := s.local[number]; i != 0 {
		return i - 1, s.all.at(i - 1)
	}
	i, entry = s.all.add()
	entry.number = number
	s.local[number] = i + 1
	return i, entry
}

// touch remembers that a sum has changed.
func (s *sums) touch(i uint32, entry *sum) {
	if !entry.fresh {
		entry.fresh = true
		s.fresh = append(s.fresh, i)
	}
	if !entry.dirty {
		entry.dirty = true
		s.dirty = append(s.dirty, i)
	}
}

// NewPartition makes an empty partition. All partitions of a process share a
// catalog.
func NewPartition(parameters filter.Parameters, catalog *Catalog) *Partition {
	return &Partition{
		parameters: parameters,
		catalog:    catalog,
		words:      newWords(),
		about:      newDescriptions(),
		byToken:    make(map[answer.Token]uint32),
		items:      sums{component: ComponentItem},
		goals:      sums{component: ComponentGoal},
		global:     sums{component: ComponentGlobal},
	}
}

// Learners returns the number of learners.
func (p *Partition) Learners() int { return int(p.learners.n) - len(p.vacant.learners) }

// Layers returns the number of layers of all learners.
func (p *Partition) Layers() int { return int(p.layers.n) - len(p.vacant.layers) }

// learnerOf returns the learner of a token, a new one with its overall layer
// when the token is.
func (p *Partition) learnerOf(token answer.Token) uint32 {
	if i, ok := p.byToken[token]; ok {
		return i
	}
	return p.addLearner(token)
}

// addLearner adds the learner of a token that has none, with its overall layer.
func (p *Partition) addLearner(token answer.Token) uint32 {
	i, vacant := takeLast(&p.vacant.learners)
	if !vacant {
		i, _ = p.learners.add()
	}
	l := p.learners.at(i)
	*l = learner{token: token, newest: math.MinInt64}
	l.overall = p.addLayer(i, LayerOverall, 0)
	p.byToken[token] = i
	return i
}

func (p *Partition) addLayer(owner uint32, kind Layer, key int32) uint32 {
	i, vacant := takeLast(&p.vacant.layers)
	if !vacant {
		i, _ = p.layers.add()
	}
	l := p.layers.at(i)
	*l = layer{learner: owner, kind: kind, key: key}
	if kind != LayerOverall {
		p.index.add(&p.layers, i)
	}
	return i
}

// layerOf returns a layer of a learner, a new one when there is none.
func (p *Partition) layerOf(owner uint32, kind Layer, key int32) uint32 {
	if i, found := p.index.find(&p.layers, owner, kind, key); found {
		return i
	}
	return p.addLayer(owner, kind, key)
}

// applied tells whether the state of a learner has the row at a position in it.
func (p *Partition) applied(l *learner, position answer.Position) bool {
	overall := p.layers.at(l.overall)
	return overall.Answers > 0 && position <= overall.position
}

// remember puts an exercise at the end of the learner's recent ones and tells
// whether it was among them.
func (l *learner) remember(hash uint64) (known bool) {
	for i, h := range l.recent[:l.recents] {
		if h == hash {
			l.moveLast(uint8(i))
			return true
		}
	}
	if l.recents < MaxRecent {
		l.recent[l.recents] = hash
		l.recents++
		return false
	}
	l.recent[l.oldest] = hash
	l.oldest = (l.oldest + 1) % MaxRecent
	return false
}

// moveLast moves the exercise in a place of the ring behind the newest.
func (l *learner) moveLast(place uint8) {
	hash, newest := l.recent[place], (l.oldest+l.recents-1)%l.recents
	for place != newest {
		next := (place + 1) % l.recents
		l.recent[place] = l.recent[next]
		place = next
	}
	l.recent[newest] = hash
}

// appendRecent appends the recent exercises, newest last.
func (l *learner) appendRecent(dst []uint64) []uint64 {
	dst = append(dst, l.recent[l.oldest:l.recents]...)
	return append(dst, l.recent[:l.oldest]...)
}

// take moves a layer: the Gaussian after the answer, and the counters.
func (l *layer) take(g filter.Gaussian, score float64, at int64, position answer.Position, about int32) {
	if l.Answers > 0 {
		at = max(at, l.LastAtMs)
	}
	l.Gaussian, l.position, l.about = g, position, about
	l.Add(score, at)
}
