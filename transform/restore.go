package transform

import (
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// Restore fills an empty partition with its durable state. Rows may come in any
// order. What Restore leaves behind is what the partition was, to the bit.
func (p *Partition) Restore(restored *Restored) error {
	if p.learners.n != 0 || p.items.all.n != 0 {
		panic("transform: Restore needs an empty partition")
	}
	p.position = restored.Position
	for _, kind := range []Layer{LayerOverall, LayerSubject, LayerGoal} {
		for i, l := range restored.Skills.Layer {
			if l == kind {
				if err := p.restoreLayer(&restored.Skills, i); err != nil {
					return err
				}
			}
		}
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

// restoreLayer takes one row in: that of a learner's overall layer first, which
// also describes the learner, then subjects, then goals.
func (p *Partition) restoreLayer(rows *SkillRows, i int) error {
	kind := rows.Layer[i]
	owner, known := p.byToken[rows.Learner[i]]
	if known == (kind == LayerOverall) {
		return fmt.Errorf("restore skills: row %d: want exactly one overall layer per learner", i)
	}
	var number uint32
	switch kind {
	case LayerOverall:
		owner = p.learnerOf(rows.Learner[i])
		number = p.restoreLearner(owner, rows, i)
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
	l := p.layers.at(number)
	l.Gaussian = filter.Gaussian{Mean: rows.Mean[i], Variance: rows.Variance[i]}
	l.Counters = filter.Counters{Answers: rows.Answers[i], Last: rows.LastScore[i], Slow: rows.SlowMean[i], Fast: rows.FastMean[i], LastAtMs: rows.LastAt[i]}
	l.position = rows.Position[i]
	l.about = p.descriptionOf(rows, i)
	return nil
}

func (p *Partition) descriptionOf(rows *SkillRows, i int) int32 {
	return p.about.number(description{
		school:    p.words.number(rows.School[i]),
		group:     p.words.number(rows.Group[i]),
		keyEpoch:  rows.KeyEpoch[i],
		yearGroup: rows.YearGroup[i],
	})
}

func (p *Partition) restoreLearner(owner uint32, rows *SkillRows, i int) (overall uint32) {
	l := p.learners.at(owner)
	l.newest = rows.LastAt[i]
	l.about = p.descriptionOf(rows, i)
	l.recents = uint8(copy(l.recent[:], rows.Recent[i]))
	return l.overall
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
