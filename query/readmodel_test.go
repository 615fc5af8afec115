package query_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
)

// history makes states of learners at rising positions: skills move, goals are
// begun, groups, year groups and schools change.
func history(random *rand.Rand, learners, steps int) []*transform.SkillRows {
	var out []*transform.SkillRows
	for step := range steps {
		rows := &transform.SkillRows{}
		for n := range learners {
			if random.IntN(3) == 0 {
				continue
			}
			p := pupil{n: n, school: schoolA, group: []string{"5A", "5B"}[random.IntN(2)], yearGroup: uint8(5 + step/4),
				at: monday.UnixMilli() + int64(step), position: answer.At(int64(step+1), n), recent: []string{"x:1", "x:2"}}
			goals := map[string]float64{"optellen": random.NormFloat64() / 2}
			if random.IntN(2) == 0 {
				goals["aftrekken"] = random.NormFloat64() / 2
			}
			one := skillRows(p, random.NormFloat64(), random.NormFloat64()/3, goals)
			rows.AppendRange(one, 0, one.Len())
		}
		out = append(out, rows)
	}
	return out
}

// view is all that can be asked of a model about some learners.
type view struct {
	standings []query.Standing
	norms     []query.Distribution
	groups    [][]answer.Token
}

func viewOf(m *query.ReadModel, learners int) (v view) {
	for n := range learners {
		s, _ := m.Standing(token(n))
		slices.SortFunc(s.Percentiles, func(a, b query.Percentile) int {
			if a.Layer != b.Layer {
				return int(a.Layer) - int(b.Layer)
			}
			return slices.Compare([]byte(a.Key), []byte(b.Key))
		})
		v.standings = append(v.standings, s)
	}
	for _, goal := range []string{"optellen", "aftrekken"} {
		for yearGroup := range uint8(9) {
			d, _ := m.Distribution(goal, yearGroup, query.NormChoice{})
			v.norms = append(v.norms, d)
		}
	}
	for _, group := range []string{"5A", "5B"} {
		tokens := m.Group(schoolA, group)
		slices.SortFunc(tokens, func(a, b answer.Token) int { x, y := a.Bytes(), b.Bytes(); return slices.Compare(x[:], y[:]) })
		v.groups = append(v.groups, tokens)
	}
	return v
}

// Whatever the order in which states arrive, and however often, the model is
// that of the newest ones: loading may overlap with following.
func TestOldStatesChangeNothing(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	const learners = 60
	states := history(random, learners, 12)
	want := model(t)
	for _, rows := range states {
		want.ApplySkills(rows)
	}
	for range 5 {
		got := model(t)
		mixed := append(slices.Clone(states), states...)
		random.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		for _, rows := range mixed {
			got.ApplySkills(rows)
		}
		if a, b := viewOf(got, learners), viewOf(want, learners); !reflect.DeepEqual(a, b) {
			t.Fatalf("states in another order give another model:\n%+v\n%+v", a, b)
		}
	}
}

// The live norms are those of a model that has seen the last states only.
func TestNormsFollowTheLearners(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	const learners = 200
	states := history(random, learners, 9)
	moved, fresh := model(t), model(t)
	last := map[answer.Token]map[string]int{}
	all := &transform.SkillRows{}
	for _, rows := range states {
		moved.ApplySkills(rows)
		for i := range rows.Len() {
			if last[rows.Learner[i]] == nil {
				last[rows.Learner[i]] = map[string]int{}
			}
			last[rows.Learner[i]][rows.Layer[i].String()+rows.Key[i]] = all.Len()
			all.Append(rows, i)
		}
	}
	newest := &transform.SkillRows{}
	for n := range learners {
		for _, key := range []string{"overall", "subjectrekenen", "goalaftrekken", "goaloptellen"} {
			if i, ok := last[token(n)][key]; ok {
				newest.Append(all, i)
			}
		}
	}
	fresh.ApplySkills(newest)
	if a, b := viewOf(moved, learners), viewOf(fresh, learners); !reflect.DeepEqual(a, b) {
		t.Fatalf("norms that moved differ from norms made at once:\n%+v\n%+v", a.norms, b.norms)
	}
}

// Readers and writers at the same time: under the race detector, and nothing
// that is read is torn.
func TestReadingWhileWriting(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	m := model(t)
	const learners = 50
	states := history(random, learners, 30)
	rows := &transform.SnapshotRows{}
	for i := range 40 {
		appendItem(rows, "x:"+string(rune('A'+i)), "optellen", float64(i)/10-3, 0.1, 50, 0.7)
	}
	m.ApplySnapshot(1, rows)
	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	for writer := range 3 {
		writing.Add(1)
		go func() {
			defer writing.Done()
			for i := writer; i < len(states); i += 3 {
				m.ApplySkills(states[i])
				m.ApplySnapshot(uint64(i+2), rows)
			}
		}()
	}
	for reader := range 4 {
		reading.Add(1)
		go func() {
			defer reading.Done()
			for n := reader; ; n = (n + 1) % learners {
				select {
				case <-done:
					return
				default:
				}
				selected, err := m.Next(&query.Request{Learner: token(n), Goal: "optellen", Target: 0.75})
				if err != nil || math.IsNaN(selected.Expected) || selected.Exercise == "" {
					t.Errorf("Next = %+v, %v", selected, err)
				}
				s, _ := m.Standing(token(n))
				for _, p := range s.Percentiles {
					if p.Percentile < 0 || p.Percentile > 100 || p.Low > p.High+1 {
						t.Errorf("percentile = %+v", p)
					}
				}
				m.Distribution("optellen", 5, query.NormChoice{})
				m.Group(schoolA, "5A")
			}
		}()
	}
	writing.Wait()
	close(done)
	reading.Wait()
}
