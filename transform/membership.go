package transform

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// Learners come and go as a whole when a message amends them: they are taken
// out, and put in as the rows that describe them.

// present tells whether a learner has answers.
func (p *Partition) present(token answer.Token) bool {
	i, ok := p.byToken[token]
	return ok && p.layers.at(p.learners.at(i).overall).Answers > 0
}

// newestOf returns the newest moment that a learner was seen to answer at.
func (p *Partition) newestOf(token answer.Token) int64 {
	if i, ok := p.byToken[token]; ok {
		return p.learners.at(i).newest
	}
	return math.MinInt64
}

// keyEpochOf returns the epoch of the key that made a token, 0 when nobody has it.
func (p *Partition) keyEpochOf(token answer.Token) uint32 {
	if i, ok := p.byToken[token]; ok {
		return p.about.all[p.learners.at(i).about].keyEpoch
	}
	return 0
}

// raiseNewest says that a learner was seen to answer at a moment, also when no
// answer is left.
func (p *Partition) raiseNewest(token answer.Token, at int64) {
	l := p.learners.at(p.learnerOf(token))
	l.newest = max(l.newest, at)
}

// layersOf returns the layers with answers of some learners, each in the order of
// kind and key.
func (p *Partition) layersOf(tokens []answer.Token) map[answer.Token][]uint32 {
	owners := make(map[uint32]answer.Token, len(tokens))
	for _, token := range tokens {
		if i, ok := p.byToken[token]; ok {
			owners[i] = token
		}
	}
	found := make(map[answer.Token][]uint32, len(owners))
	for i := range p.layers.n {
		l := p.layers.at(i)
		if l.Answers == 0 {
			continue
		}
		if token, ok := owners[l.learner]; ok {
			found[token] = append(found[token], i)
		}
	}
	for _, layers := range found {
		slices.SortFunc(layers, func(a, b uint32) int { return p.compareLayers(p.layers.at(a), p.layers.at(b)) })
	}
	return found
}

func (p *Partition) compareLayers(a, b *layer) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(p.layerKey(a), p.layerKey(b)))
}

// layerKey returns the subject or goal of a layer, empty for overall.
func (p *Partition) layerKey(l *layer) string {
	switch l.kind {
	case LayerSubject:
		return p.catalog.SubjectName(l.key)
	case LayerGoal:
		return p.catalog.GoalName(l.key)
	case LayerOverall:
	}
	return ""
}

// appendGone appends the row that says that a learner has a layer no longer.
func (p *Partition) appendGone(dst *SkillRows, l *layer, position answer.Position) {
	dst.Learner = append(dst.Learner, p.learners.at(l.learner).token)
	dst.School = append(dst.School, p.words.texts[p.about.all[l.about].school])
	dst.Group = append(dst.Group, "")
	dst.YearGroup = append(dst.YearGroup, 0)
	dst.KeyEpoch = append(dst.KeyEpoch, p.about.all[l.about].keyEpoch)
	dst.Layer = append(dst.Layer, l.kind)
	dst.Key = append(dst.Key, p.layerKey(l))
	dst.Subject = append(dst.Subject, "")
	dst.Mean = append(dst.Mean, 0)
	dst.Variance = append(dst.Variance, 0)
	dst.Answers = append(dst.Answers, 0)
	dst.LastAt = append(dst.LastAt, 0)
	dst.FastMean = append(dst.FastMean, 0)
	dst.SlowMean = append(dst.SlowMean, 0)
	dst.LastScore = append(dst.LastScore, 0)
	dst.Position = append(dst.Position, position)
	dst.Recent = append(dst.Recent, nil)
}

// detach takes a learner out. Its layers are those of layersOf; what it leaves
// behind in the norms is remembered.
func (p *Partition) detach(token answer.Token, layers []uint32) {
	owner, ok := p.byToken[token]
	if !ok {
		return
	}
	delete(p.byToken, token)
	l := p.learners.at(owner)
	yearGroup := p.about.all[l.about].yearGroup
	for _, number := range layers {
		gone := p.layers.at(number)
		p.norms.left = append(p.norms.left, normKey{kind: gone.kind, yearGroup: yearGroup, key: gone.key})
		if number != l.overall {
			p.freeLayer(number)
		}
	}
	p.freeLayer(l.overall)
	*l = learner{}
	p.vacant.learners = append(p.vacant.learners, owner)
}

func (p *Partition) freeLayer(number uint32) {
	l := p.layers.at(number)
	if l.kind != LayerOverall {
		p.index.remove(&p.layers, number)
	}
	*l = layer{}
	p.vacant.layers = append(p.vacant.layers, number)
}

// vacant are the places of what has gone, to be used again.
type vacant struct{ learners, layers []uint32 }

func takeLast(list *[]uint32) (i uint32, ok bool) {
	n := len(*list)
	if n == 0 {
		return 0, false
	}
	i = (*list)[n-1]
	*list = (*list)[:n-1]
	return i, true
}

// attach puts the learner of rows [first, last) in, which must not be there.
func (p *Partition) attach(rows *SkillRows, first, last int) error {
	return p.takeIn(rows, first, last)
}

// remove takes out a layer that find finds, and closes the gap that it leaves in
// the probing of others.
func (x *layerIndex) remove(layers *chunks[layer], i uint32) {
	mask := uint64(len(x.slots) - 1)
	home := func(i uint32) uint64 {
		l := layers.at(i)
		return hashLayer(l.learner, l.kind, l.key) & mask
	}
	gap := home(i)
	for x.slots[gap] != i+1 {
		gap = (gap + 1) & mask
	}
	for slot := (gap + 1) & mask; x.slots[slot] != 0; slot = (slot + 1) & mask {
		// An entry may fill the gap when it does not lie between gap and its home.
		if (slot-home(x.slots[slot]-1))&mask >= (slot-gap)&mask {
			x.slots[gap] = x.slots[slot]
			gap = slot
		}
	}
	x.slots[gap] = 0
	x.used--
}
