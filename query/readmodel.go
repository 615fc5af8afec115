package query

import (
	"log/slog"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// Config says how a ReadModel works. The zero value is usable.
type Config struct {
	// Partitions is the number of partitions of the topic `skills`. 0 means 64.
	Partitions int
	// Parameters are those that the transform stage uses. nil means the filter's
	// defaults.
	Parameters *filter.Parameters
	// Now is the clock of a skill's drift. nil means time.Now.
	Now func() time.Time
	// RandomShare is the share of exercises that are drawn uniformly, so that
	// difficulties stay linked and free of the selection's bias. 0 means .1;
	// between .05 and .1 is sensible.
	RandomShare float64
	// Seed sets the random draws. The same seed, learner state and exposure give
	// the same exercise.
	Seed uint64
	// Calendar says at which moments of the school year norms are frozen. Without
	// moments it has the defaults.
	Calendar transform.Calendar
	// NormValidity is how old a frozen norm may be to be taken without being asked
	// for. 0 means 800 days: two school years and a summer.
	NormValidity time.Duration
	// Logger receives what an operator should know. nil discards.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Partitions == 0 {
		c.Partitions = 64
	}
	if c.Parameters == nil {
		p := filter.DefaultParameters()
		c.Parameters = &p
	}
	if c.RandomShare == 0 {
		c.RandomShare = 0.1
	}
	if len(c.Calendar.Moments) == 0 {
		c.Calendar.Moments = transform.DefaultMoments()
	}
	if c.NormValidity == 0 {
		c.NormValidity = 800 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// ReadModel is the newest state of all learners, exercises and norms, in
// memory. All methods may be called at the same time.
type ReadModel struct {
	config      Config
	parameters  filter.Parameters
	catalogue   *catalogue
	learners    *learners
	groups      groups
	items       *items
	frozen      atomic.Pointer[frozenNorms]
	unknownGoal *domain        // of which nothing is known
	applied     []atomic.Int64 // per partition: newest raw offset that is in the states, -1 for none
	following   atomic.Pointer[followed]

	skillMessages atomic.Uint64
}

// NewReadModel makes an empty read model.
func NewReadModel(config Config) *ReadModel {
	config = config.withDefaults()
	m := &ReadModel{
		config:     config,
		parameters: *config.Parameters,
		catalogue:  newCatalogue(),
		learners:   newLearners(),
		groups:     groups{members: map[groupKey][]ref{}},
		applied:    make([]atomic.Int64, config.Partitions),
	}
	m.items = newItems(m.catalogue)
	m.unknownGoal = &domain{index: noDomain}
	m.unknownGoal.parent.Store(&domain{index: noDomain})
	for i := range m.applied {
		m.applied[i].Store(-1)
	}
	return m
}

// ApplySkills puts the states of a message or of a checkpoint into the model.
// What is older than what is there is passed over. The rows are not kept. They may
// come in any order; what is about one learner is cheaper when it stands together.
func (m *ReadModel) ApplySkills(rows *transform.SkillRows) {
	for first := 0; first < rows.Len(); {
		last := first + 1
		for last < rows.Len() && rows.Learner[last] == rows.Learner[first] {
			last++
		}
		m.applyLearner(rows, first, last)
		first = last
	}
}

// ApplySnapshot puts a version of the item snapshot into the model. A version
// that is not newer than the newest is passed over. The rows are not kept.
func (m *ReadModel) ApplySnapshot(version uint64, rows *transform.SnapshotRows) {
	m.items.apply(version, rows)
}

// applyLearner applies rows of one learner.
func (m *ReadModel) applyLearner(rows *transform.SkillRows, first, last int) {
	token := rows.Learner[first]
	shard := shardOf(token)
	s := &m.learners.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	l, slot := s.find(token)
	known := l != nil
	if !known {
		if !slices.ContainsFunc(rows.Answers[first:last], func(n uint32) bool { return n > 0 }) {
			return // gone, and never known
		}
		l, slot = s.create(token)
		l.reserve(last - first)
	}
	before := groupKey{l.school, l.group}
	yearGroup := l.yearGroup
	for i := first; i < last; i++ {
		if rows.Answers[i] == 0 {
			m.dropLayer(l, rows, i)
		} else {
			m.applyRow(l, rows, i)
		}
	}
	if len(l.layers) == 0 {
		m.groups.leave(refOf(shard, slot), before)
		s.remove(token, slot)
		return
	}
	s.estimates = m.estimates(l, s.estimates[:0], time.Time{})
	m.count(l, yearGroup, s.estimates)
	if after := (groupKey{l.school, l.group}); !known || before != after {
		m.groups.move(refOf(shard, slot), before, after, known)
	}
}

// dropLayer takes a layer away that a learner has no longer.
func (m *ReadModel) dropLayer(l *learner, rows *transform.SkillRows, i int) {
	key := uint32(0)
	switch rows.Layer[i] {
	case transform.LayerSubject:
		key = m.catalogue.subject(rows.Key[i]).index
	case transform.LayerGoal:
		key = m.catalogue.goal(rows.Key[i], rows.Subject[i]).index
	}
	target := l.find(rows.Layer[i], key)
	if target == nil || rows.Position[i] <= target.position {
		return
	}
	m.takeOut(l, target)
	last := len(l.layers) - 1
	*target = l.layers[last]
	l.layers = l.layers[:last]
}

// takeOut takes a layer out of the norm histogram that counts it.
func (m *ReadModel) takeOut(l *learner, inner *layer) {
	if inner.at.bin == unplaced {
		return
	}
	h := m.domainOf(inner).norm(l.yearGroup)
	h.add(inner.at, -1)
	h.touch(l.token.Bytes()[1])
}

// Forget takes learners away who have left by a position.
func (m *ReadModel) Forget(departed []transform.Departed) {
	for _, d := range departed {
		shard := shardOf(d.Learner)
		s := &m.learners.shards[shard]
		s.mu.Lock()
		if l, slot := s.find(d.Learner); l != nil && l.position < d.Position {
			for i := range l.layers {
				m.takeOut(l, &l.layers[i])
			}
			m.groups.leave(refOf(shard, slot), groupKey{l.school, l.group})
			s.remove(d.Learner, slot)
		}
		s.mu.Unlock()
	}
}

// noDomain is an index that no domain has.
const noDomain = 1<<32 - 1

// unplaced marks a layer that no histogram counts yet.
const unplaced = histogramBins

func (m *ReadModel) applyRow(l *learner, rows *transform.SkillRows, i int) {
	var key, subject uint32
	kind, position := rows.Layer[i], rows.Position[i]
	switch kind {
	case transform.LayerSubject:
		key = m.catalogue.subject(rows.Key[i]).index
	case transform.LayerGoal:
		subject = m.catalogue.subject(rows.Subject[i]).index
		key = m.catalogue.goal(rows.Key[i], rows.Subject[i]).index
	}
	target := l.find(kind, key)
	if target == nil {
		target = l.grow()
		if kind == transform.LayerOverall { // rows of a store come in any order
			first := &l.layers[0]
			*target, target = *first, first
		}
		*target = layer{}
		target.kind, target.key, target.at.bin = kind, key, unplaced
	} else if position <= target.position {
		return
	}
	target.mean, target.variance = rows.Mean[i], float32(rows.Variance[i])
	target.answers, target.subject = rows.Answers[i], subject
	target.lastAt = uint32(max(0, rows.LastAt[i]/1000))
	target.slow = uint16(share(rows.SlowMean[i], math.MaxUint16))
	target.fast = uint16(share(rows.FastMean[i], math.MaxUint16))
	target.last = uint8(share(rows.LastScore[i], math.MaxUint8))
	target.position = position
	if kind == transform.LayerOverall {
		recent := rows.Recent[i][max(0, len(rows.Recent[i])-recentItems):]
		for n, hash := range recent {
			l.recent[n] = hashBits(hash)
		}
		l.recents = uint8(len(recent))
	}
	if position >= l.position {
		l.position = position
		l.school = m.catalogue.schools.again(l.school, rows.School[i])
		l.group = m.catalogue.groups.again(l.group, rows.Group[i])
		l.keyEpoch = rows.KeyEpoch[i]
		l.yearGroup = min(rows.YearGroup[i], yearGroups-1)
	}
}

// count moves the learner in the norm histograms to where its skills are now. A
// step of the overall layer moves every skill that stands on it.
func (m *ReadModel) count(l *learner, yearGroup uint8, estimates []filter.Estimate) {
	mark := l.token.Bytes()[1]
	for i := range l.layers {
		inner := &l.layers[i]
		to := place{transform.Bin(l.meanOf(inner)), transform.VarianceClass(estimates[i].Spread)}
		if to == inner.at && yearGroup == l.yearGroup {
			continue
		}
		d := m.domainOf(inner)
		h := d.norm(l.yearGroup)
		switch {
		case inner.at.bin == unplaced:
			h.add(to, 1)
		case yearGroup != l.yearGroup:
			before := d.norm(yearGroup)
			before.add(inner.at, -1)
			before.touch(mark)
			h.add(to, 1)
		default:
			h.move(inner.at, to)
		}
		h.touch(mark)
		inner.at = to
	}
}

func (m *ReadModel) domainOf(l *layer) *domain {
	switch l.kind {
	case transform.LayerSubject:
		return m.catalogue.subjects.at(l.key)
	case transform.LayerGoal:
		return m.catalogue.goals.at(l.key)
	}
	return m.catalogue.overall
}

// newest returns the first of several tokens of one learner that the model
// knows, or the first.
func (m *ReadModel) newest(tokens []answer.Token) answer.Token {
	for _, token := range tokens {
		s := &m.learners.shards[shardOf(token)]
		s.mu.RLock()
		l, _ := s.find(token)
		s.mu.RUnlock()
		if l != nil {
			return token
		}
	}
	return tokens[0]
}

// Learners returns the number of learners.
func (m *ReadModel) Learners() int { return m.learners.len() }

// Items returns the number of exercises.
func (m *ReadModel) Items() int { return m.items.len() }

// SnapshotVersion returns the newest item snapshot that is in the model.
func (m *ReadModel) SnapshotVersion() uint64 { return m.items.version.Load() }

// Bytes estimates the memory of the learners and tells their number of layers.
func (m *ReadModel) Bytes() (total, layers int64) { return m.learners.bytes() }
