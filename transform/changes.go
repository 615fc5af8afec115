package transform

import "github.com/leerstroom/leerstroom/internal/answer"

// touch remembers that a layer has changed.
func (p *Partition) touch(number uint32) {
	l := p.layers.at(number)
	if !l.changed {
		l.changed = true
		p.changedLayers = append(p.changedLayers, number)
	}
	if !l.dirty {
		l.dirty = true
		p.dirtyLayers = append(p.dirtyLayers, number)
	}
}

func (p *Partition) forgetChanges() {
	for _, number := range p.changedLayers {
		p.layers.at(number).changed = false
	}
	p.changedLayers = p.changedLayers[:0]
}

// Changes appends the layers that the last message changed: learners in the
// order in which it touched them, the rows of a learner together. The rings of
// recent exercises are valid until the next call.
func (p *Partition) Changes(dst *SkillRows) {
	p.grouped.rings = p.grouped.rings[:0]
	p.appendLayers(dst, p.changedLayers, &p.grouped.rings)
}

// grouped is scratch of appendLayers.
type grouped struct {
	learners []uint32 // first touched first
	starts   []uint32
	sorted   []uint32
	rings    []uint64
}

// appendLayers appends layers, those of a learner together, otherwise in the
// order given.
func (p *Partition) appendLayers(dst *SkillRows, numbers []uint32, rings *[]uint64) {
	g := &p.grouped
	g.learners, g.starts = g.learners[:0], append(g.starts[:0], 0)
	for _, number := range numbers {
		owner := p.layers.at(number).learner
		l := p.learners.at(owner)
		if l.turn == 0 {
			g.learners, g.starts = append(g.learners, owner), append(g.starts, 0)
			l.turn = uint32(len(g.learners))
		}
		g.starts[l.turn]++
	}
	for i := 1; i < len(g.starts); i++ {
		g.starts[i] += g.starts[i-1]
	}
	g.sorted = resize(g.sorted, len(numbers))
	for _, number := range numbers {
		next := &g.starts[p.learners.at(p.layers.at(number).learner).turn-1]
		g.sorted[*next] = number
		*next++
	}
	for _, owner := range g.learners {
		p.learners.at(owner).turn = 0
	}
	for _, number := range g.sorted {
		p.appendLayer(dst, p.layers.at(number), rings)
	}
}

func (p *Partition) appendLayer(dst *SkillRows, l *layer, rings *[]uint64) {
	owner := p.learners.at(l.learner)
	var key, subject string
	var ring []uint64
	switch l.kind {
	case LayerOverall:
		first := len(*rings)
		*rings = owner.appendRecent(*rings)
		ring = (*rings)[first:len(*rings):len(*rings)]
	case LayerSubject:
		key = p.catalog.SubjectName(l.key)
		subject = key
	case LayerGoal:
		key, subject = p.catalog.GoalName(l.key), p.catalog.SubjectName(l.subject)
	}
	dst.Learner = append(dst.Learner, owner.token)
	about := &p.about.all[l.about]
	dst.School = append(dst.School, p.words.texts[about.school])
	dst.Group = append(dst.Group, p.words.texts[about.group])
	dst.YearGroup = append(dst.YearGroup, about.yearGroup)
	dst.KeyEpoch = append(dst.KeyEpoch, about.keyEpoch)
	dst.Layer = append(dst.Layer, l.kind)
	dst.Key = append(dst.Key, key)
	dst.Subject = append(dst.Subject, subject)
	dst.Mean = append(dst.Mean, l.Mean)
	dst.Variance = append(dst.Variance, l.Variance)
	dst.Answers = append(dst.Answers, l.Answers)
	dst.LastAt = append(dst.LastAt, l.LastAtMs)
	dst.FastMean = append(dst.FastMean, l.Fast)
	dst.SlowMean = append(dst.SlowMean, l.Slow)
	dst.LastScore = append(dst.LastScore, l.Last)
	dst.Position = append(dst.Position, l.position)
	dst.Recent = append(dst.Recent, ring)
}

// TakeSums appends the sums that changed since it was called last: items, goals,
// global, each first changed first.
func (p *Partition) TakeSums(dst *ItemSumRows) {
	for _, s := range []*sums{&p.items, &p.goals, &p.global} {
		for _, i := range s.fresh {
			entry := s.all.at(i)
			entry.fresh = false
			p.appendSum(dst, s.component, entry)
		}
		s.fresh = s.fresh[:0]
	}
}

func (p *Partition) appendSum(dst *ItemSumRows, component Component, s *sum) {
	var key string
	switch component {
	case ComponentItem:
		key = p.catalog.ItemKey(s.number)
	case ComponentGoal:
		key = p.catalog.GoalName(s.number)
	case ComponentGlobal:
	}
	dst.Component = append(dst.Component, component)
	dst.Key = append(dst.Key, key)
	dst.Goal = append(dst.Goal, p.catalog.GoalName(s.goal))
	dst.Subject = append(dst.Subject, p.catalog.SubjectName(s.subject))
	dst.Gradient = append(dst.Gradient, s.gradient)
	dst.Information = append(dst.Information, s.information)
	dst.Answers = append(dst.Answers, s.answers)
	dst.ScoreSum = append(dst.ScoreSum, s.scores)
	dst.Position = append(dst.Position, s.position)
}

// Checkpoint fills in the position, skills and sums of everything that changed
// since it was called last. The memory is the checkpoint's own.
func (p *Partition) Checkpoint(checkpoint *Checkpoint) {
	checkpoint.Position = p.position
	checkpoint.rings = grown(checkpoint.rings[:0], p.dirtyRings())
	checkpoint.Skills.grow(len(p.dirtyLayers))
	p.appendLayers(&checkpoint.Skills, p.dirtyLayers, &checkpoint.rings)
	for _, number := range p.dirtyLayers {
		p.layers.at(number).dirty = false
	}
	p.dirtyLayers = p.dirtyLayers[:0]
	for _, s := range []*sums{&p.items, &p.goals, &p.global} {
		for _, i := range s.dirty {
			entry := s.all.at(i)
			entry.dirty = false
			p.appendSum(&checkpoint.Sums, s.component, entry)
		}
		s.dirty = s.dirty[:0]
	}
}

func (p *Partition) dirtyRings() (n int) {
	for _, number := range p.dirtyLayers {
		if l := p.layers.at(number); l.kind == LayerOverall {
			n += int(p.learners.at(l.learner).recents)
		}
	}
	return n
}

// grow makes room for n more rows.
func (r *SkillRows) grow(n int) {
	r.Learner = grown(r.Learner, n)
	for _, texts := range []*[]string{&r.School, &r.Group, &r.Key, &r.Subject} {
		*texts = grown(*texts, n)
	}
	r.YearGroup = grown(r.YearGroup, n)
	r.KeyEpoch = grown(r.KeyEpoch, n)
	r.Layer = grown(r.Layer, n)
	for _, numbers := range []*[]float64{&r.Mean, &r.Variance, &r.FastMean, &r.SlowMean, &r.LastScore} {
		*numbers = grown(*numbers, n)
	}
	r.Answers = grown(r.Answers, n)
	r.LastAt = grown(r.LastAt, n)
	r.Position = grown(r.Position, n)
	r.Recent = grown(r.Recent, n)
}

func grown[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	return append(make([]T, 0, len(s)+n), s...)
}

// Position returns the position of the last row given.
func (p *Partition) Position() answer.Position { return p.position }
