package bench

import (
	"fmt"
	"iter"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
)

// RawMessages yields the workload as columns of the topic `raw`, in messages of
// messageRows rows (the last of each partition is smaller): what connectors make
// of the requests of publishers. Schools deliver slot by slot. The columns
// are valid until the next one is asked for.
func (w *Workload) RawMessages(partitions, messageRows int) iter.Seq2[int, *raw.Answers] {
	return func(yield func(partition int, a *raw.Answers) bool) {
		builders := make([]*rawBuilder, partitions)
		shared := newRawShared(w.Population)
		for i := range builders {
			builders[i] = newRawBuilder(w.Population, shared)
		}
		for rows := range slots(w) {
			school := w.Population.Learners[rows[0].Learner].School
			partition := answer.PartitionOf(w.Population.Schools[school].Code, partitions)
			b := builders[partition]
			for i := range rows {
				b.append(&rows[i])
				if b.columns.Rows == messageRows {
					if !yield(partition, b.finish()) {
						return
					}
					b.reset()
				}
			}
		}
		for partition, b := range builders {
			if b.columns.Rows > 0 && !yield(partition, b.finish()) {
				return
			}
		}
	}
}

// places gives each of a fixed number of things a place in a dictionary, in the
// order of their first use since the last reset.
type places struct {
	place []int32
	stamp []uint32
	now   uint32
}

func newPlaces(n int) places {
	return places{place: make([]int32, n), stamp: make([]uint32, n), now: 1}
}

// of returns the place of thing i; fresh is true when it is its first use, and
// the place is then next.
func (p *places) of(i, next int) (place int32, fresh bool) {
	if p.stamp[i] == p.now {
		return p.place[i], false
	}
	p.stamp[i], p.place[i] = p.now, int32(next)
	return int32(next), true
}

func (p *places) reset() { p.now++ }

// rawShared are texts that all builders use.
type rawShared struct {
	schemes []raw.Scheme // per publisher
	groups  map[string]int
	names   []string

	// A learner is in one partition only, so that builders can share these; each
	// has its own generation of stamps.
	learners, schools places
}

func newRawShared(p *Population) *rawShared {
	s := &rawShared{groups: make(map[string]int), learners: newPlaces(len(p.Learners)), schools: newPlaces(len(p.Schools))}
	for i := range p.Publishers {
		scheme, err := raw.ParseScheme(p.Publishers[i].Scheme)
		if err != nil {
			panic(fmt.Sprintf("bench: population has a publisher without a scheme: %v", err))
		}
		s.schemes = append(s.schemes, scheme)
	}
	for i := range p.Learners {
		if _, ok := s.groups[p.Learners[i].Group]; !ok {
			s.groups[p.Learners[i].Group] = len(s.names)
			s.names = append(s.names, p.Learners[i].Group)
		}
	}
	return s
}

// rawBuilder collects the rows of one partition.
type rawBuilder struct {
	p       *Population
	shared  *rawShared
	columns raw.Answers

	publishers, schools, groups, items, goals, subjects, learners places
}

func newRawBuilder(p *Population, shared *rawShared) *rawBuilder {
	return &rawBuilder{
		p: p, shared: shared,
		publishers: newPlaces(len(p.Publishers)), schools: shared.schools, groups: newPlaces(len(shared.names)),
		items: newPlaces(len(p.Items)), goals: newPlaces(len(p.Goals)), subjects: newPlaces(len(p.Subjects)),
		learners: shared.learners,
	}
}

func (b *rawBuilder) append(r *Row) {
	c, item, learner := &b.columns, &b.p.Items[r.Item], &b.p.Learners[r.Learner]
	goal := &b.p.Goals[item.Goal]
	put(&c.Publisher, &b.publishers, item.Publisher, b.p.Publishers[item.Publisher].ID)
	put(&c.School, &b.schools, learner.School, b.p.Schools[learner.School].Code)
	put(&c.Group, &b.groups, b.shared.groups[learner.Group], learner.Group)
	put(&c.Exercise, &b.items, int(r.Item), item.Exercise)
	put(&c.Goal, &b.goals, item.Goal, goal.Key)
	put(&c.Subject, &b.subjects, goal.Subject, b.p.Subjects[goal.Subject])
	b.putLearner(learner, item.Publisher)
	c.YearGroup = append(c.YearGroup, learner.YearGroup)
	c.Kind = append(c.Kind, uint8(answer.KindPractice))
	score := 0.0
	if r.Right {
		score = 1
	}
	c.Score = append(c.Score, score)
	c.Attempt = append(c.Attempt, r.Attempt)
	c.ResponseTime = append(c.ResponseTime, r.ResponseTime)
	c.AnsweredAt = append(c.AnsweredAt, r.AnsweredAt)
	c.Revision = append(c.Revision, 0)
	if len(c.EventID.Offsets) == 0 {
		c.EventID.Offsets = append(c.EventID.Offsets, 0)
	}
	c.EventID.Bytes = appendEventID(c.EventID.Bytes, learner.School, r.Sequence)
	c.EventID.Offsets = append(c.EventID.Offsets, int32(len(c.EventID.Bytes)))
	c.Rows++
}

func put(s *answer.Strings, p *places, i int, text string) {
	place, fresh := p.of(i, len(s.Values))
	if fresh {
		s.Values = append(s.Values, text)
	}
	s.Codes = append(s.Codes, place)
}

// putLearner adds the identity under which the publisher knows the learner. All
// practice publishers of a population use one scheme, so a learner has one
// identity in a message.
func (b *rawBuilder) putLearner(learner *Learner, publisher int) {
	identities := &b.columns.Identity
	place, fresh := b.learners.of(learner.Index, len(identities.Values))
	if fresh {
		identity := raw.Identity{
			School:     b.p.Schools[learner.School].Code,
			Identifier: raw.Identifier{Scheme: b.shared.schemes[publisher], Value: b.p.Identifier(learner.Index, b.p.Scheme(publisher))},
		}
		if identity.Scheme == raw.SchemePublisher {
			identity.Publisher = b.p.Publishers[publisher].ID
		}
		identities.Values = append(identities.Values, identity)
	}
	identities.Codes = append(identities.Codes, place)
}

func (b *rawBuilder) finish() *raw.Answers { return &b.columns }

// reset empties the columns and keeps their memory.
func (b *rawBuilder) reset() {
	c := &b.columns
	for _, s := range []*answer.Strings{&c.Publisher, &c.School, &c.Group, &c.Exercise, &c.Goal, &c.Subject} {
		s.Codes, s.Values = s.Codes[:0], s.Values[:0]
	}
	c.Rows = 0
	c.YearGroup, c.Kind, c.Score, c.Attempt = c.YearGroup[:0], c.Kind[:0], c.Score[:0], c.Attempt[:0]
	c.ResponseTime, c.AnsweredAt, c.Revision = c.ResponseTime[:0], c.AnsweredAt[:0], c.Revision[:0]
	c.EventID.Offsets, c.EventID.Bytes = c.EventID.Offsets[:0], c.EventID.Bytes[:0]
	c.Identity.Codes, c.Identity.Values = c.Identity.Codes[:0], c.Identity.Values[:0]
	for _, p := range []*places{&b.publishers, &b.schools, &b.groups, &b.items, &b.goals, &b.subjects, &b.learners} {
		p.reset()
	}
}
