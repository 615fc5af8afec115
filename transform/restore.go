package transform

import (
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// Restore fills an empty partition with its durable state. Rows may come in any
// order. What Restore leaves behind is what the partition was, to the bit.
func (p *Partition) Restore(restored *Restored) error {
	if p.learners.n != 0 || p.items.all.n != 0 {
		panic("transform: Restore needs an empty partition")
	}
	p.position = restored.Position
	rows := &restored.Skills
	p.reserve(rows)
	if err := p.takeIn(rows, 0, rows.Len()); err != nil {
		return err
	}
	for _, v := range restored.Vacated {
		p.raiseNewest(v.Learner, v.AnsweredAt)
	}
	for i := range restored.Sums.Component {
		if err := p.restoreSum(&restored.Sums, i); err != nil {
			return err
		}
	}
	return nil
}

// reserve makes room in an empty partition.
func (p *Partition) reserve(rows *SkillRows) {
	learners := 0
	for _, kind := range rows.Layer {
		if kind == LayerOverall {
			learners++
		}
	}
	p.byToken = make(map[answer.Token]uint32, learners)
	p.index.reserve(rows.Len() - learners)
}

// takeIn takes rows [first, last) in, each as soon as the overall layer of its
// learner is there, which also describes the learner.
func (p *Partition) takeIn(rows *SkillRows, first, last int) error {
	r := restoring{partition: p, rows: rows, last: -1}
	var early []int
	for i := first; i < last; i++ {
		done, err := r.layer(i)
		if err != nil {
			return err
		}
		if !done {
			early = append(early, i)
		}
	}
	for _, i := range early {
		if done, err := r.layer(i); err != nil || !done {
			return errors.Join(err, errLayers(i))
		}
	}
	return nil
}

func errLayers(row int) error {
	return fmt.Errorf("restore skills: row %d: want exactly one overall layer per learner", row)
}

// restoring takes rows of skills in. Those of a learner mostly follow each other.
type restoring struct {
	partition *Partition
	rows      *SkillRows
	last      int    // row taken in last, -1 = none; and of it:
	owner     uint32 // learner
	about     int32  // description
}

// layer takes one row in; it returns false when that of the learner's overall
// layer has to come first.
func (r *restoring) layer(i int) (done bool, err error) {
	p, rows, kind := r.partition, r.rows, r.rows.Layer[i]
	owner, known := r.owner, r.last >= 0 && rows.Learner[i] == rows.Learner[r.last]
	if !known {
		owner, known = p.byToken[rows.Learner[i]]
	}
	if kind != LayerOverall && !known {
		return false, nil
	}
	if kind == LayerOverall && known {
		return false, errLayers(i)
	}
	var number uint32
	switch kind {
	case LayerOverall:
		owner = p.addLearner(rows.Learner[i])
		number = p.learners.at(owner).overall
	case LayerSubject:
		number = p.layerOf(owner, kind, p.catalog.Subject(rows.Key[i]))
	case LayerGoal:
		number = p.layerOf(owner, kind, p.catalog.Goal(rows.Key[i]))
		if rows.Subject[i] != "" {
			subject := p.catalog.Subject(rows.Subject[i])
			parent := p.layerOf(owner, LayerSubject, subject) + 1
			l := p.layers.at(number)
			l.subject, l.parent = subject, parent
		}
	}
	if r.last < 0 || !sameDescription(rows, i, r.last) {
		r.about = p.descriptionOf(rows, i)
	}
	if kind == LayerOverall {
		r.learner(owner, i)
	}
	l := p.layers.at(number)
	l.Gaussian = filter.Gaussian{Mean: rows.Mean[i], Variance: rows.Variance[i]}
	l.Counters = filter.Counters{Answers: rows.Answers[i], Last: rows.LastScore[i], Slow: rows.SlowMean[i], Fast: rows.FastMean[i], LastAtMs: rows.LastAt[i]}
	l.position = rows.Position[i]
	l.about = r.about
	r.last, r.owner = i, owner
	return true, nil
}

func sameDescription(rows *SkillRows, i, j int) bool {
	return rows.School[i] == rows.School[j] && rows.Group[i] == rows.Group[j] && rows.KeyEpoch[i] == rows.KeyEpoch[j] && rows.YearGroup[i] == rows.YearGroup[j]
}

func (p *Partition) descriptionOf(rows *SkillRows, i int) int32 {
	return p.about.number(description{
		school:    p.words.number(rows.School[i]),
		group:     p.words.number(rows.Group[i]),
		keyEpoch:  rows.KeyEpoch[i],
		yearGroup: rows.YearGroup[i],
	})
}

// learner takes in what the row of an overall layer says of its learner.
func (r *restoring) learner(owner uint32, i int) {
	l := r.partition.learners.at(owner)
	l.newest = r.rows.LastAt[i]
	l.about = r.about
	l.recents = uint8(copy(l.recent[:], r.rows.Recent[i]))
}

func (p *Partition) restoreSum(rows *ItemSumRows, i int) error {
	var entry *sum
	switch rows.Component[i] {
	case ComponentItem:
		_, entry = p.items.of(p.catalog.Item(rows.Key[i]))
		entry.hash = xxhash.Sum64String(rows.Key[i])
	case ComponentGoal:
		_, entry = p.goals.of(p.catalog.Goal(rows.Key[i]))
	case ComponentGlobal:
		_, entry = p.global.of(0)
	default:
		return fmt.Errorf("restore sums: row %d: unknown component", i)
	}
	entry.goal = p.catalog.Goal(rows.Goal[i])
	entry.subject = p.catalog.Subject(rows.Subject[i])
	entry.evidenceSum = evidenceSum{rows.Gradient[i], rows.Information[i], rows.Answers[i], rows.ScoreSum[i]}
	entry.position = rows.Position[i]
	return nil
}
