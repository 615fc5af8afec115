package query

import (
	"math"
	"time"

	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// drifted returns a layer as it is just before an answer given now: what was not
// seen for long is known less well.
func (m *ReadModel) drifted(l *layer, now time.Time) filter.Gaussian {
	g := filter.Gaussian{Mean: l.mean, Variance: float64(l.variance)}
	return m.parameters.Drift(int(l.kind), g, now.UnixMilli()-int64(l.lastAt)*1000)
}

// layersOf returns the layers of a learner that a skill is the sum of. Layers
// inside the wanted one are zero, and so is an unknown subject, which the filter
// leaves out too; those that were never seen have their prior.
// subject and goal are indexes in the catalogue.
func (m *ReadModel) layersOf(l *learner, kind transform.Layer, subject, goal uint32, now time.Time) (out filter.Learner) {
	keys := [filter.Layers]uint32{0, subject, goal}
	for i := range int(kind) + 1 {
		if i == filter.LayerSubject && m.isUnknownSubject(subject) {
			continue
		}
		out[i] = m.parameters.Prior(i)
	}
	for i := range l.layers {
		inner := &l.layers[i]
		if inner.kind <= kind && inner.key == keys[inner.kind] {
			out[inner.kind] = m.drifted(inner, now)
		}
	}
	return out
}

func (m *ReadModel) isUnknownSubject(index uint32) bool {
	return index == noDomain || m.catalogue.subjects.at(index).name == ""
}

// newcomer returns the layers of a learner of whom nothing is known: the mean of
// the year group when that is large enough to be shown.
func (m *ReadModel) newcomer(yearGroup uint8) (out filter.Learner) {
	for i := range out {
		out[i] = m.parameters.Prior(i)
	}
	if h := m.catalogue.overall.norms[yearGroup].Load(); h != nil && yearGroup > 0 && h.Learners() >= MinGroup {
		out[filter.LayerOverall].Mean = h.mean()
	}
	return out
}

// margin returns how far a skill lies above the difficulty of an exercise whose
// success has a given logit, when their difference has variance v.
func margin(logit, v float64) float64 {
	return logit * math.Sqrt(1+math.Pi/8*v)
}

// gaussian returns a component of a difficulty, or its prior.
func (m *ReadModel) gaussian(component int, of *measure) filter.Gaussian {
	if of == nil {
		return m.parameters.Shared[component]
	}
	return filter.Gaussian{Mean: of.mean, Variance: of.variance}
}

// shared returns the components of the difficulty of an exercise.
func (m *ReadModel) shared(item *Item) filter.Shared {
	return filter.Shared{
		filter.ComponentItem:   m.gaussian(filter.ComponentItem, item.measure.Load()),
		filter.ComponentGoal:   m.gaussian(filter.ComponentGoal, item.goal.Load().measure.Load()),
		filter.ComponentGlobal: m.gaussian(filter.ComponentGlobal, m.items.global.Load()),
	}
}
