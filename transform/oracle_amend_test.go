package transform_test

import (
	"slices"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// oracleCorrections are the corrections of one message.
type oracleCorrections struct {
	oracle   *oracle
	message  *answer.Columns
	winners  map[eventName]int             // row that counts
	places   map[eventName]answer.Position // of the answers that are corrected
	repeats  map[int]bool                  // rows that are nothing
	affected map[answer.Token]bool
}

type eventName struct {
	school string
	id     answer.EventID
}

// corrections decides what the corrections of a message do.
func (o *oracle) corrections(c *answer.Columns) *oracleCorrections {
	k := &oracleCorrections{oracle: o, message: c, winners: make(map[eventName]int), places: make(map[eventName]answer.Position),
		repeats: make(map[int]bool), affected: make(map[answer.Token]bool)}
	for i := range c.Rows {
		name := eventName{c.School.At(i), c.EventID[i]}
		if best, ok := k.winners[name]; c.Revision[i] > 0 && (!ok || c.Revision[i] > c.Revision[best]) {
			k.winners[name] = i
		}
	}
	for name, winner := range k.winners {
		k.decide(name, winner)
	}
	return k
}

func (k *oracleCorrections) decide(name eventName, winner int) {
	c, now := k.message, rowAt(k.message, winner)
	var place answer.Position
	var best *oracleAnswer
	for position, a := range k.oracle.archive {
		if a.school != name.school || a.id != name.id {
			continue
		}
		if best == nil || a.revision > best.revision || a.revision == best.revision && position < place {
			best, place = a, position
		}
	}
	for i := range c.Rows {
		if c.School.At(i) != name.school || c.EventID[i] != name.id || i == winner {
			continue
		}
		k.repeats[i] = true
		first := rowAt(c, i)
		if best == nil && c.Revision[i] == 0 && i < winner {
			if _, known := k.oracle.seen[first.key()]; known {
				continue
			}
			// Delivered and corrected in the same message.
			best, place = &oracleAnswer{row: first}, c.Position(i)
			k.oracle.seen[first.key()] = place
			if first.valid() {
				k.oracle.raise(first.learner, first.at)
			}
		}
	}
	switch {
	case best == nil:
		return // an answer like others
	case best.revision >= now.revision:
		k.repeats[winner] = true
		return
	}
	k.places[name] = place
	k.affected[best.learner], k.affected[now.learner] = true, true
}

// raise says that a learner was seen to answer.
func (o *oracle) raise(token answer.Token, at int64) {
	l := o.learners[token]
	if l == nil {
		l = newOracleLearner()
		o.learners[token] = l
	}
	l.newest, l.any = max(l.newest, at), true
}

// covers tells whether a row is dealt with: a repeat, or a correction of
// something.
func (k *oracleCorrections) covers(c *answer.Columns, i int) bool {
	name := eventName{c.School.At(i), c.EventID[i]}
	_, corrects := k.places[name]
	return k.repeats[i] || corrects && k.winners[name] == i
}

func (k *oracleCorrections) carryOut(d difficulties) {
	o, c := k.oracle, k.message
	if len(k.places) == 0 {
		return
	}
	position := c.Position(c.Rows - 1)
	learners := o.takeOut(k.affected, position)
	for name, place := range k.places {
		now := &oracleAnswer{row: rowAt(c, k.winners[name]), epoch: c.KeyEpoch}
		key := now.key()
		for other, a := range o.archive {
			if a.key() == key {
				delete(o.archive, other) // it stands where the correction comes to stand
			}
		}
		o.archive[place] = now
		if _, known := o.seen[key]; !known {
			o.seen[key] = place
		}
		o.corrected++
	}
	o.learn(learners, k.affected, position, d)
}

// takeOut takes back what learners have said, and returns them. Sums are those
// after the message at a position.
func (o *oracle) takeOut(affected map[answer.Token]bool, position answer.Position) map[answer.Token]*oracleLearner {
	for _, place := range o.places() {
		if a := o.archive[place]; affected[a.learner] {
			o.count(a, -1, position)
		}
	}
	taken := make(map[answer.Token]*oracleLearner)
	for token := range affected {
		if l := o.learners[token]; l != nil {
			taken[token] = l
			for name := range l.layers {
				o.gone[name] = true
			}
			delete(o.learners, token)
		}
	}
	o.touchGlobal(position)
	return taken
}

func (o *oracle) touchGlobal(position answer.Position) {
	global := componentName{component: 2}
	if o.sums[global] == nil {
		o.sums[global] = &oracleSum{}
	}
	o.sums[global].position = position
}

// learn learns learners anew from the archive.
func (o *oracle) learn(old map[answer.Token]*oracleLearner, affected map[answer.Token]bool, position answer.Position, d difficulties) {
	for token := range affected {
		o.relearnt[token] = position
	}
	for token, l := range old {
		if affected[token] {
			fresh := newOracleLearner()
			fresh.newest, fresh.any = l.newest, l.any
			o.learners[token] = fresh
		}
	}
	for _, place := range o.places() {
		a := o.archive[place]
		if !affected[a.learner] {
			continue
		}
		a.gradient, a.information = 0, 0
		if !a.valid() {
			continue
		}
		l := o.learners[a.learner]
		if l == nil {
			l = newOracleLearner()
			o.learners[a.learner] = l
		}
		l.newest, l.any = max(l.newest, a.at), true
		o.answer(l, a, position, d)
		o.count(a, 1, position)
	}
	for token := range affected {
		if l := o.learners[token]; l != nil {
			for name := range l.layers {
				delete(o.gone, name)
			}
		}
	}
}

// places returns the positions in the archive, ascending.
func (o *oracle) places() []answer.Position {
	var all []answer.Position
	for position := range o.archive {
		all = append(all, position)
	}
	slices.Sort(all)
	return all
}

// doubles returns which answers stand twice when two learners become one: all of
// one event and moment but that of the highest revision, then the earliest.
func (o *oracle) doubles(from, into answer.Token) (places []answer.Position) {
	best := make(map[answerKey]answer.Position)
	for _, place := range o.places() {
		key := o.archive[place].key()
		if key.learner != from && key.learner != into {
			continue
		}
		key.learner = into
		first, twice := best[key]
		switch {
		case !twice:
			best[key] = place
		case o.archive[place].revision > o.archive[first].revision:
			best[key] = place
			places = append(places, first)
		default:
			places = append(places, place)
		}
	}
	return places
}

// command follows a message of commands.
func (o *oracle) command(c *answer.Commands, d difficulties) {
	o.changed, o.gone = make(map[layerName]bool), make(map[layerName]bool)
	position, before := c.Position(c.Rows-1), o.rows()
	for i, kind := range c.Kind {
		from, into := c.Learner.At(i), c.Into.At(i)
		if kind == answer.CommandErase {
			o.takeOut(map[answer.Token]bool{from: true}, position)
			for place, a := range o.archive {
				if a.learner == from {
					delete(o.archive, place)
				}
			}
			continue
		}
		o.move(from, into, c.KeyEpoch, position, d)
	}
	for name := range o.gone {
		if _, was := before[name]; !was {
			delete(o.gone, name) // on the way only
		}
	}
	o.touchGlobal(position)
}

func (o *oracle) move(from, into answer.Token, epoch uint32, position answer.Position, d difficulties) {
	old, other := o.learners[from], o.learners[into]
	doubles := o.doubles(from, into)
	merge := old != nil && other != nil && len(old.layers) > 0 && len(other.layers) > 0 || len(doubles) > 0
	var learners map[answer.Token]*oracleLearner
	if merge {
		learners = o.takeOut(map[answer.Token]bool{from: true, into: true}, position)
		switch {
		case learners[into] == nil && learners[from] != nil:
			learners[into] = learners[from]
		case learners[from] != nil:
			learners[into].newest, learners[into].any = max(learners[into].newest, learners[from].newest), learners[into].any || learners[from].any
		}
	}
	for _, place := range doubles {
		delete(o.archive, place)
	}
	for key, place := range o.seen { // also of what corrections have moved away
		if key.learner == from {
			key.learner = into
			if _, known := o.seen[key]; !known {
				o.seen[key] = place
			}
		}
	}
	for _, a := range o.archive {
		if a.learner == from {
			a.learner, a.epoch = into, epoch
		}
		if a.learner == into {
			a.epoch = epoch
		}
	}
	switch {
	case merge:
		o.learn(learners, map[answer.Token]bool{into: true}, position, d)
	case old != nil && len(old.layers) > 0:
		if place, known := o.relearnt[from]; known {
			o.relearnt[into] = place
		}
		delete(o.learners, from)
		fresh := newOracleLearner()
		fresh.newest, fresh.any, fresh.group, fresh.yearGroup, fresh.recent, fresh.subjectOf = old.newest, old.any, old.group, old.yearGroup, old.recent, old.subjectOf
		for name, row := range old.layers {
			o.gone[name] = true
			name.learner = into
			copied := *row
			copied.keyEpoch, copied.position = epoch, position
			fresh.layers[name] = &copied
			o.changed[name] = true
			delete(o.gone, name)
		}
		o.learners[into] = fresh
	}
}
