package query

import (
	"time"

	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// usualLayers is how many layers of a learner need no memory of their own.
const usualLayers = 24

// estimates appends what is known of each layer of a learner, with the variance
// of the skill that it stands for. The zero time stands for that of the learner's
// newest answer, without drift.
func (m *ReadModel) estimates(l *learner, dst []filter.Estimate, now time.Time) []filter.Estimate {
	still := now.IsZero()
	at := now.UnixMilli()
	if still {
		at = 0
		for i := range l.layers {
			at = max(at, int64(l.layers[i].lastAt)*1000)
		}
	}
	for i := range l.layers {
		inner := &l.layers[i]
		e := filter.Estimate{Layer: int(inner.kind), Subject: -1, Variance: float64(inner.variance), Answers: inner.answers,
			AgeMs: at - int64(inner.lastAt)*1000}
		if !still {
			e.Variance = m.drifted(inner, now).Variance
		}
		if inner.kind == transform.LayerGoal {
			for k := range l.layers {
				if l.layers[k].kind == transform.LayerSubject && l.layers[k].key == inner.subject {
					e.Subject = k
					break
				}
			}
		}
		dst = append(dst, e)
	}
	m.parameters.SkillVariances(dst)
	return dst
}

// varianceAt returns the error variance of the skill of a learner at a goal. Of a
// goal that was not met it is that of the wider skill, with what goals differ by.
func (m *ReadModel) varianceAt(l *learner, goal *domain, now time.Time) float64 {
	var buffer [usualLayers]filter.Estimate
	estimates := m.estimates(l, buffer[:0], now)
	subject := goal.parent.Load().index
	met := [filter.Layers]float64{-1, -1, -1}
	for i := range l.layers {
		inner := &l.layers[i]
		if keys := [filter.Layers]uint32{0, subject, goal.index}; inner.key == keys[inner.kind] {
			met[inner.kind] = estimates[i].Skill
		}
	}
	variance := 0.0
	for kind, known := range met {
		switch {
		case known >= 0:
			variance = known
		case kind != filter.LayerSubject || !m.isUnknownSubject(subject):
			variance += m.parameters.Learner[kind].Variance
		}
	}
	return variance
}
