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
