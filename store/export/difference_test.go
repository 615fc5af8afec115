package export_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/store/export"
	"github.com/leerstroom/leerstroom/transform"
)

const (
	crowdExercises  = 6
	crowdSchools    = 8
	crowdPartitions = 2
)

// crowd is a store that learners come to and leave, and what a reader of all its
// releases knows beside them: who answered what, and who was erased when.
type crowd struct {
	t         *testing.T
	store     *store.Store
	random    *rand.Rand
	offset    [crowdPartitions]int64
	tokens    []answer.Token // of every learner that ever was, zero = erased
	schools   []int          // likewise
	exercises [crowdExercises]crowdExercise
	version   uint64
	events    uint64
	out       string
	releases  int
}

type crowdExercise struct {
	answers map[int]int     // by learner
	first   map[int]float64 // score of the first answer
	anew    map[int]bool    // learners that came since the exercise was told last
	told    *export.Difficulty
	mean    float64
}

func newCrowd(t *testing.T, seed uint64) *crowd {
	c := &crowd{t: t, store: openStore(t), random: rand.New(rand.NewPCG(seed, 1)), out: t.TempDir()}
	for e := range c.exercises {
		c.exercises[e] = crowdExercise{answers: make(map[int]int), first: make(map[int]float64), anew: make(map[int]bool)}
	}
	return c
}

// mint gives a learner a token that nobody has had.
func (c *crowd) mint() answer.Token {
	var token [16]byte
	binary.BigEndian.PutUint64(token[:], c.random.Uint64())
	binary.BigEndian.PutUint64(token[8:], c.random.Uint64())
	return answer.MintToken(token)
}

func schoolName(school int) string { return fmt.Sprintf("%02dXY00", school) }

// join makes a learner at a school.
func (c *crowd) join(school int) (learner int) {
	c.tokens, c.schools = append(c.tokens, c.mint()), append(c.schools, school)
	return len(c.tokens) - 1
}

// joinAll makes learners, spread over the first schools.
func (c *crowd) joinAll(n, schools int) []int {
	learners := make([]int, n)
	for i := range learners {
		learners[i] = c.join(i % schools)
	}
	return learners
}

// archive stores one answer of each given learner to an exercise.
func (c *crowd) archive(exercise int, learners ...int) {
	c.t.Helper()
	x := &c.exercises[exercise]
	for partition := range crowdPartitions {
		rows := &answer.Columns{RawOffset: c.offset[partition], KeyEpoch: 1}
		rows.Publisher.Values, rows.Subject.Values, rows.Group.Values, rows.Goal.Values = []string{"bingel"}, []string{"rekenen"}, []string{""}, []string{""}
		rows.Exercise.Values = []string{fmt.Sprint("opgave-", exercise)}
		for _, learner := range learners {
			if c.schools[learner]%crowdPartitions != partition {
				continue
			}
			score := float64(c.random.IntN(2))
			c.append(rows, learner, score)
			if x.answers[learner]++; x.answers[learner] == 1 {
				x.first[learner], x.anew[learner] = score, true
			}
			x.mean += score - 0.5 // every answer moves the difficulty
		}
		if rows.Rows = len(rows.EventID); rows.Rows == 0 {
			continue
		}
		c.offset[partition]++
		must(c.t, c.store.Archive(c.t.Context(), partition, rows, nil, nil))
		done := make(chan error, 1)
		must(c.t, c.store.Checkpoint(c.t.Context(), &transform.Checkpoint{Partition: partition, Position: rows.Position(rows.Rows - 1), Durable: func(err error) { done <- err }}))
		must(c.t, <-done)
	}
}

func (c *crowd) append(rows *answer.Columns, learner int, score float64) {
	c.events++
	var id answer.EventID
	binary.BigEndian.PutUint64(id[:], c.events)
	rows.EventID = append(rows.EventID, id)
	rows.School.Codes, rows.School.Values = append(rows.School.Codes, int32(len(rows.School.Values))), append(rows.School.Values, schoolName(c.schools[learner]))
	rows.Learner.Codes, rows.Learner.Values = append(rows.Learner.Codes, int32(len(rows.Learner.Values))), append(rows.Learner.Values, c.tokens[learner])
	for _, s := range []*answer.Strings{&rows.Publisher, &rows.Group, &rows.Subject, &rows.Goal, &rows.Exercise} {
		s.Codes = append(s.Codes, 0)
	}
	rows.YearGroup, rows.Kind, rows.Attempt = append(rows.YearGroup, 5), append(rows.Kind, 1), append(rows.Attempt, 1)
	rows.Score, rows.ResponseTime = append(rows.Score, score), append(rows.ResponseTime, -1)
	rows.AnsweredAt, rows.Revision = append(rows.AnsweredAt, 1_795_000_000_000+int64(c.events)), append(rows.Revision, 0)
}

// depart erases a learner, or gives it another token, as orders do.
func (c *crowd) depart(learner int, erase bool) {
	c.t.Helper()
	partition := c.schools[learner] % crowdPartitions
	a := &transform.Amendment{Order: answer.At(c.offset[partition], 0), RawOffset: c.offset[partition], Commands: 1, SumsDone: true}
	a.Partition, a.Position = partition, a.Order
	departure := transform.Departure{LearnerName: transform.LearnerName{School: schoolName(c.schools[learner]), Learner: c.tokens[learner]}}
	c.tokens[learner] = answer.Token{}
	if !erase {
		c.tokens[learner] = c.mint()
		departure.Into, departure.KeyEpoch = c.tokens[learner], 2
	}
	a.Departures = []transform.Departure{departure}
	c.offset[partition]++
	must(c.t, c.store.Amend(c.t.Context(), a))
	for e := range c.exercises {
		if x := &c.exercises[e]; erase {
			delete(x.answers, learner)
			delete(x.first, learner)
			delete(x.anew, learner)
		}
	}
}

// present returns a learner who has answered an exercise and is still there.
func (c *crowd) present(exercise int) (learner int, ok bool) {
	x := &c.exercises[exercise]
	for _, learner := range c.random.Perm(len(c.tokens)) {
		if x.answers[learner] > 0 {
			return learner, true
		}
	}
	return 0, false
}

// release writes an export after the difficulties have moved, and returns the
// bytes of the Parquet file.
func (c *crowd) release() []byte {
	c.t.Helper()
	var rows transform.SnapshotRows
	add := func(component transform.Component, key string, mean float64) {
		rows.Append(&transform.SnapshotRows{Component: []transform.Component{component}, Key: []string{key}, Goal: []string{""}, Subject: []string{"rekenen"},
			Mean: []float64{mean}, Variance: []float64{0.01}, Gradient: []int64{0}, Information: []int64{0}, Answers: []int64{5}, ScoreSum: []int64{3 << 32}}, 0)
	}
	for e := range c.exercises {
		add(transform.ComponentItem, answer.ItemKey("bingel", fmt.Sprint("opgave-", e)), c.exercises[e].mean)
	}
	add(transform.ComponentGlobal, "", 0)
	c.version++
	must(c.t, c.store.SaveSnapshot(c.t.Context(), c.version, &rows))
	c.releases++
	directory, err := export.WriteDifficulty(c.t.Context(), c.store, c.out, created.Add(time.Duration(c.releases)*time.Second))
	must(c.t, err)
	content, err := os.ReadFile(filepath.Join(directory, "difficulty.parquet"))
	must(c.t, err)
	read, err := parquet.ReadFile[export.Difficulty](filepath.Join(directory, "difficulty.parquet"))
	must(c.t, err)
	found := make(map[string]*export.Difficulty)
	for i := range read {
		found[read[i].Exercise] = &read[i]
	}
	for e := range c.exercises {
		c.compare(e, found[fmt.Sprint("opgave-", e)])
	}
	return content
}

// compare is the reader: a row that is there anew, or differs from the one
// before, must do so by enough learners of enough schools.
func (c *crowd) compare(exercise int, row *export.Difficulty) {
	c.t.Helper()
	x := &c.exercises[exercise]
	schools, answers, sum := make(map[int]bool), 0, 0.0
	for learner := range x.anew {
		schools[c.schools[learner]] = true
	}
	enough := len(x.anew) >= export.MinLearners && len(schools) >= export.MinSchools
	switch same := row == nil && x.told == nil || row != nil && x.told != nil && sameRow(row, x.told); {
	case !enough && !same:
		c.t.Errorf("release %d: exercise %d was told as %+v and is told as %+v, which tells of %d learners of %d schools", c.releases, exercise, x.told, row, len(x.anew), len(schools))
		return
	case !enough:
		return
	case row == nil:
		c.t.Errorf("release %d: exercise %d is not told, though %d learners of %d schools are new", c.releases, exercise, len(x.anew), len(schools))
		return
	}
	for learner, given := range x.answers {
		answers += given
		sum += x.first[learner]
	}
	proportion := min(max(sum/float64(len(x.answers)), export.Cap), 1-export.Cap)
	if row.Learners != int64(len(x.answers)) || row.Answers != int64(answers) || math.Abs(row.ProportionCorrect-proportion) > 0.00051 || math.Abs(row.Difficulty-x.mean) > 0.00051 {
		c.t.Errorf("release %d: exercise %d is told as %+v, want %d learners, %d answers, proportion %f, difficulty %f", c.releases, exercise, row, len(x.answers), answers, proportion, x.mean)
	}
	x.told, x.anew = row, make(map[int]bool)
}

func sameRow(a, b *export.Difficulty) bool {
	x, y := *a, *b
	x.Goal, x.Subject, y.Goal, y.Subject = nil, nil, nil, nil
	return x == y
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestTwoReleasesTellNoLearner compares releases between which one learner has
// answered, answered again, got another token or was erased: they are the same to
// the byte. So they stay until ten learners of three schools are new.
func TestTwoReleasesTellNoLearner(t *testing.T) {
	t.Parallel()
	const seed = 60
	t.Logf("seed %d", seed)
	c := newCrowd(t, seed)
	for e := range c.exercises {
		c.archive(e, c.joinAll(12, 4)...)
	}
	before := c.release()
	if c.exercises[0].told == nil {
		t.Fatal("the first release tells nothing")
	}
	same := func(what string) {
		t.Helper()
		if string(c.release()) != string(before) {
			t.Errorf("%s: the release differs from the one before", what)
		}
	}
	same("nothing happened")
	newcomer := c.join(1)
	c.archive(0, newcomer)
	same("one learner came")
	c.archive(0, newcomer)
	same("one learner answered again")
	c.depart(newcomer, false)
	same("one learner got another token")
	c.depart(newcomer, true)
	same("one learner came and was erased")
	for range 3 {
		learner, _ := c.present(1) // of the twelve: then there are fewer than ten
		c.depart(learner, true)
		same("one learner of the release was erased")
	}
	c.archive(2, c.joinAll(9, 4)...)
	c.archive(3, c.joinAll(12, 2)...)
	same("nine learners came, and twelve of two schools")
	c.archive(2, c.join(5))
	if string(c.release()) == string(before) {
		t.Error("ten learners of three schools came, and the release is the same")
	}
}

// TestReleasesOfACrowd lets learners come, answer again, get other tokens and be
// erased at random between releases. No two successive ones differ by few.
func TestReleasesOfACrowd(t *testing.T) {
	t.Parallel()
	const seed = 61
	t.Logf("seed %d", seed)
	c := newCrowd(t, seed)
	told, kept := 0, 0
	for range 10 {
		for e := range c.exercises {
			var learners []int
			for range c.random.IntN(3 + e) {
				learners = append(learners, c.join(c.random.IntN(crowdSchools)))
			}
			if again, ok := c.present(e); ok && c.random.IntN(2) == 0 {
				learners = append(learners, again)
			}
			c.archive(e, learners...)
			if gone, ok := c.present(e); ok && c.random.IntN(3) == 0 {
				c.depart(gone, c.random.IntN(2) == 0)
			}
		}
		before := c.exercises
		c.release()
		for e := range c.exercises {
			if c.exercises[e].told != before[e].told {
				told++
			} else if c.exercises[e].told != nil {
				kept++
			}
		}
	}
	if told < 6 || kept < 12 {
		t.Errorf("%d rows were told anew, %d kept: the test has to have more of each", told, kept)
	}
}
