package store_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// workload makes answers of 40 schools with 200 learners each on 2,000 exercises
// of 200 goals, in the order of time. The same seed gives the same messages.
type workload struct {
	random     *rand.Rand
	schools    []string
	exercises  []string
	goals      []string
	subjects   []string
	groups     []string
	publishers []string
	learners   []answer.Token
	now        int64
	offset     []int64 // next raw offset per partition
	partitions int
}

const start2026 = 1_795_000_000_000 // a day in November 2026, ms

func newWorkload(seed uint64, partitions int) *workload {
	w := &workload{random: rand.New(rand.NewPCG(seed, 7)), now: start2026, offset: make([]int64, partitions), partitions: partitions,
		subjects: []string{"rekenen", "taal", "spelling"}, publishers: []string{"bingel", "baps", "delta"}}
	for i := range 40 {
		w.schools = append(w.schools, fmt.Sprintf("%02dAB%02d", i, i%3))
	}
	for i := range 2000 {
		w.exercises = append(w.exercises, fmt.Sprintf("wig5-b%d-l%d-o%d", i/100, i/10%10, i%10))
	}
	for i := range 200 {
		w.goals = append(w.goals, fmt.Sprintf("optellen-tot-%d", i))
	}
	for i := range 24 {
		w.groups = append(w.groups, fmt.Sprintf("%d%c", 1+i/3, 'A'+i%3))
	}
	for range 8000 {
		w.learners = append(w.learners, answer.MintToken(w.digest()))
	}
	return w
}

func (w *workload) digest() (d [16]byte) {
	binary.LittleEndian.PutUint64(d[:], w.random.Uint64())
	binary.LittleEndian.PutUint64(d[8:], w.random.Uint64())
	return d
}

// message makes the next message of a partition: answers of the schools that
// belong there.
func (w *workload) message(partition, rows int) *answer.Columns {
	var schools []int
	for i, s := range w.schools {
		if answer.PartitionOf(s, w.partitions) == partition {
			schools = append(schools, i)
		}
	}
	if len(schools) == 0 {
		panic("workload: no school in this partition")
	}
	c := &answer.Columns{KeyEpoch: 1, RawOffset: w.offset[partition]}
	w.offset[partition]++
	c.Rows = rows
	c.Publisher.Values, c.Group.Values, c.Exercise.Values = w.publishers, w.groups, w.exercises
	c.Goal.Values, c.Subject.Values = w.goals, w.subjects
	for _, s := range schools {
		c.School.Values = append(c.School.Values, w.schools[s])
		c.Learner.Values = append(c.Learner.Values, w.learners[200*s:200*s+200]...)
	}
	for range rows {
		w.now += 2
		school := w.random.IntN(len(schools))
		learner := w.random.IntN(200)
		exercise := w.random.IntN(len(w.exercises))
		c.School.Codes = append(c.School.Codes, int32(school))
		c.Learner.Codes = append(c.Learner.Codes, int32(200*school+learner))
		c.Exercise.Codes = append(c.Exercise.Codes, int32(exercise))
		c.Publisher.Codes = append(c.Publisher.Codes, int32(exercise%len(w.publishers)))
		c.Goal.Codes = append(c.Goal.Codes, int32(exercise/10))
		c.Subject.Codes = append(c.Subject.Codes, int32(exercise/10%len(w.subjects)))
		c.Group.Codes = append(c.Group.Codes, int32(learner%len(w.groups)))
		c.YearGroup = append(c.YearGroup, uint8(1+learner%len(w.groups)/3))
		c.Kind = append(c.Kind, uint8(answer.KindPractice))
		c.Score = append(c.Score, float64(w.random.IntN(2)))
		c.Attempt = append(c.Attempt, 1)
		c.ResponseTime = append(c.ResponseTime, int32(w.random.IntN(20000))-1)
		c.AnsweredAt = append(c.AnsweredAt, w.now)
		c.Revision = append(c.Revision, 0)
		c.EventID = append(c.EventID, answer.EventID(w.digest()))
	}
	return c
}

// skills makes states of learners of a partition: each its overall row, then
// rows of subjects and goals.
func (w *workload) skills(learners, rowsEach int, position answer.Position) transform.SkillRows {
	var r transform.SkillRows
	for range learners {
		token := answer.MintToken(w.digest())
		school := w.schools[w.random.IntN(len(w.schools))]
		for layer := range rowsEach {
			r.Learner = append(r.Learner, token)
			r.School = append(r.School, school)
			r.Group = append(r.Group, w.groups[w.random.IntN(len(w.groups))])
			r.YearGroup = append(r.YearGroup, uint8(1+w.random.IntN(8)))
			r.KeyEpoch = append(r.KeyEpoch, 1)
			subject := w.subjects[layer%len(w.subjects)]
			switch layer {
			case 0:
				r.Layer, r.Key, r.Subject = append(r.Layer, transform.LayerOverall), append(r.Key, ""), append(r.Subject, "")
				r.Recent = append(r.Recent, []uint64{w.random.Uint64(), w.random.Uint64(), w.random.Uint64()})
			case 1, 2:
				r.Layer, r.Key, r.Subject = append(r.Layer, transform.LayerSubject), append(r.Key, subject), append(r.Subject, subject)
				r.Recent = append(r.Recent, nil)
			default:
				r.Layer, r.Key, r.Subject = append(r.Layer, transform.LayerGoal), append(r.Key, w.goals[layer]), append(r.Subject, subject)
				r.Recent = append(r.Recent, nil)
			}
			r.Mean = append(r.Mean, w.random.NormFloat64())
			r.Variance = append(r.Variance, w.random.Float64())
			r.Answers = append(r.Answers, uint32(1+w.random.IntN(99)))
			r.LastAt = append(r.LastAt, w.now)
			r.FastMean = append(r.FastMean, w.random.Float64())
			r.SlowMean = append(r.SlowMean, w.random.Float64())
			r.LastScore = append(r.LastScore, 1)
			r.Position = append(r.Position, position)
		}
	}
	return r
}
