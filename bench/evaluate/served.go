package evaluate

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// servedEpoch is how many first answers go into a version of the difficulties:
// what the reducer aims at.
const servedEpoch = 500

// The head is fitted every night once there are firstHead answers; in a file
// without moments each time that nightly of them have come in, and before that each
// time that their number has doubled.
const (
	firstHead = 1000
	nightly   = 10_000
)

// served is the path of production: a partition that moves learners at once and
// adds up evidence, versions of the difficulties made of it, and the read model
// that tells engines what to expect. Only the topics between them are left out.
//
// The head is fitted by one pass over the log, as it is by a refit, and stands
// still from night to night.
type served struct {
	parameters filter.Parameters
	catalog    *transform.Catalog
	partition  *transform.Partition
	estimates  *transform.Estimates
	snapshot   *transform.Snapshot
	model      *query.ReadModel
	now        time.Time // of the answer at hand, for the read model

	epoch   int  // first answers per version
	heads   bool // whether a head is fitted at all
	trainer filter.Trainer
	day     int64 // of the newest answer
	scale   uint64
	version uint64
	answers int // learned
	firsts  int // since the last version

	columns   answer.Columns
	skills    transform.SkillRows
	sums      transform.ItemSumRows
	tokens    []answer.Token
	exercises []string
	goals     []string
	expected  query.Expectation
}

func newServed(a *Answers, epoch int, heads bool) *served {
	s := &served{parameters: filter.DefaultParameters(), catalog: transform.NewCatalog(), epoch: epoch, heads: heads, trainer: filter.NewTrainer()}
	s.partition = transform.NewPartition(s.parameters, s.catalog)
	s.estimates = transform.NewEstimates(s.parameters, 1)
	s.snapshot = transform.EmptySnapshot(&s.parameters)
	s.model = query.NewReadModel(query.Config{Partitions: 1, Now: func() time.Time { return s.now }})
	s.tokens = make([]answer.Token, len(a.Learners))
	for u := range s.tokens {
		s.tokens[u] = syntheticToken(u)
	}
	for i := range a.Items {
		s.exercises = append(s.exercises, fmt.Sprintf("i%d", i))
	}
	s.goals = []string{""}
	for k := range a.Skills {
		s.goals = append(s.goals, fmt.Sprintf("g%d", k))
	}
	s.columns = oneRow()
	return s
}

// syntheticToken returns a token for learner number u, spread as keyed digests
// are.
func syntheticToken(u int) answer.Token {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], (uint64(u)+1)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(b[8:], uint64(u)+1)
	return answer.MintToken(b)
}

// oneRow returns a message of one answer, to be filled in.
func oneRow() answer.Columns {
	text := func(value string) answer.Strings {
		return answer.Strings{Codes: []int32{0}, Values: []string{value}}
	}
	return answer.Columns{
		Facts: answer.Facts{
			Rows: 1, Publisher: text("file"), School: text("00AA00"), Group: text(""), Exercise: text(""), Goal: text(""), Subject: text(""),
			YearGroup: []uint8{0}, Kind: []uint8{uint8(answer.KindPractice)}, Score: []float64{0}, Attempt: []uint16{0},
			ResponseTime: []int32{-1}, AnsweredAt: []int64{0}, Revision: []uint32{0},
		},
		EventID: make([]answer.EventID, 1),
		Learner: answer.Tokens{Codes: []int32{0}, Values: make([]answer.Token, 1)},
	}
}

func (s *served) predict(a *Answers, i int) float64 {
	s.now = time.UnixMilli(a.Time[i] * 1000)
	s.expected = s.model.Expect(s.tokens[a.Learner[i]], "file:"+s.exercises[a.Item[i]], s.goals[a.Skill[i]+1])
	return s.expected.Probability
}

func (s *served) learn(a *Answers, i int) {
	if s.heads {
		s.trainer.Learn(&s.expected.Features, s.trainer.Head.Probability(&s.expected.Features), a.Score[i])
	}
	c := &s.columns
	c.Learner.Values[0], c.Exercise.Values[0], c.Goal.Values[0] = s.tokens[a.Learner[i]], s.exercises[a.Item[i]], s.goals[a.Skill[i]+1]
	c.Score[0], c.AnsweredAt[0], c.RawOffset = a.Score[i], a.Time[i]*1000, int64(i)
	s.firsts += s.partition.Apply(c, nil, s.snapshot).First
	s.skills.Reset()
	s.partition.Changes(&s.skills)
	s.model.ApplySkills(&s.skills)
	s.answers++
	refit := s.heads && s.night(a.Time[i])
	if s.firsts >= s.epoch || refit {
		s.publish(refit)
	}
}

// night tells whether a night has passed before the answer at a moment (seconds, 0 =
// unknown).
func (s *served) night(at int64) bool {
	const secondsPerDay = 86_400
	day := at / secondsPerDay
	passed := day != s.day
	s.day = day
	if at <= 0 {
		passed = s.answers%nightly == 0 || s.answers < nightly && s.answers&(s.answers-1) == 0
	}
	return s.answers == firstHead || s.answers > firstHead && passed
}

// publish makes the next version of the difficulties, with a new head if asked.
func (s *served) publish(head bool) {
	s.sums.Reset()
	s.partition.TakeSums(&s.sums)
	s.estimates.Fold(0, &s.sums)
	rows := s.estimates.News()
	s.version++
	rows.Version = s.version
	if head {
		s.scale++
		rows.Scale = &transform.Scale{Number: s.scale, Head: s.trainer.Head}
	}
	s.estimates.Accept(rows)
	s.snapshot = s.snapshot.With(s.catalog, rows)
	s.model.ApplySnapshot(rows.Version, rows)
	s.firsts = 0
}
