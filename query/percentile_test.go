package query_test

import (
	"maps"
	"math"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
)

var monday = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func model(t testing.TB) *query.ReadModel {
	t.Helper()
	return query.NewReadModel(query.Config{Partitions: 4, Now: func() time.Time { return monday }, Seed: 7})
}

func sortedKeys(m map[string]float64) []string { return slices.Sorted(maps.Keys(m)) }

// midRank is the percentile by definition: the share below plus half the ties.
func midRank(sorted []float64, x float64) float64 {
	below := sort.SearchFloat64s(sorted, x)
	upTo := sort.Search(len(sorted), func(i int) bool { return sorted[i] > x })
	return 100 * (float64(below) + float64(upTo-below)/2) / float64(len(sorted))
}

// A million learners whose skills move twice: the live percentiles differ from
// brute force by no more than .1 point, and so do the ends of the bands, which lie
// among the true skills: each learner's is spread around the estimate.
func TestPercentileAgainstBruteForce(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	for _, spread := range []float64{0.5, 1} {
		m := model(t)
		skills := make([]float64, n)
		rows := &transform.SkillRows{}
		for round := range 2 {
			for i := range n {
				skills[i] = random.NormFloat64()*spread + 0.3
				p := pupil{n: i, school: "12AB00", yearGroup: 5, at: monday.UnixMilli(), position: answer.At(int64(round+1), 0)}
				appendRow(rows, &p, row{layer: transform.LayerOverall, mean: skills[i], variance: 0.04, answers: 9})
				if rows.Len() == 10_000 {
					m.ApplySkills(rows)
					rows.Reset()
				}
			}
			m.ApplySkills(rows)
			rows.Reset()
		}
		sorted := slices.Sorted(slices.Values(skills))
		worst, worstBand := 0.0, 0.0
		for i := 0; i < n; i += n / 5000 {
			s, ok := m.Standing(token(i))
			if !ok || len(s.Percentiles) != 1 || !s.Percentiles[0].Shown {
				t.Fatalf("Standing(%d) = %+v, %v, want one percentile", i, s, ok)
			}
			p := s.Percentiles[0]
			worst = max(worst, math.Abs(p.Percentile-midRank(sorted, skills[i])))
			if i%(n/50) != 0 {
				continue
			}
			for _, c := range []struct{ got, at float64 }{{p.Low, skills[i] - 1.6448536269514722*p.SE}, {p.High, skills[i] + 1.6448536269514722*p.SE}} {
				sum := 0.0
				for _, other := range skills {
					sum += math.Erfc((other-c.at)/(p.SE*math.Sqrt2)) / 2
				}
				worstBand = max(worstBand, math.Abs(c.got-100*sum/float64(n)))
			}
		}
		t.Logf("spread %.1f: largest difference from brute force %.4f points, of the ends of bands %.4f", spread, worst, worstBand)
		if worst > 0.1 || worstBand > 0.1 {
			t.Errorf("spread %.1f: largest differences = %.4f, %.4f points, want <= .1", spread, worst, worstBand)
		}
	}
}

// Skills that are tied count half, wherever in a bin they lie.
func TestPercentileOfTies(t *testing.T) {
	t.Parallel()
	m := model(t)
	rows := &transform.SkillRows{}
	var skills []float64
	for i := range 1000 {
		skills = append(skills, []float64{-0.61237, 0.0001, 0.70999}[i%3])
		p := pupil{n: i, school: "12AB00", yearGroup: 5, at: monday.UnixMilli(), position: 1}
		appendRow(rows, &p, row{layer: transform.LayerOverall, mean: skills[i], variance: 0.04, answers: 1})
	}
	m.ApplySkills(rows)
	sorted := slices.Sorted(slices.Values(skills))
	for i := range 3 {
		s, _ := m.Standing(token(i))
		if got, want := s.Percentiles[0].Percentile, midRank(sorted, skills[i]); math.Abs(got-want) > 1e-9 {
			t.Errorf("percentile of %v = %v, want %v", skills[i], got, want)
		}
	}
}

func TestSmallGroupsAreNotShown(t *testing.T) {
	t.Parallel()
	m := model(t)
	add := func(from, to int, goal string) {
		for i := from; i < to; i++ {
			m.ApplySkills(skillRows(pupil{n: i, school: "12AB00", yearGroup: 4, at: monday.UnixMilli(), position: 1}, 0, 0, map[string]float64{goal: float64(i) / 10}))
		}
	}
	add(0, 9, "klokkijken")
	add(100, 110, "tafels")
	for goal, want := range map[string]bool{"klokkijken": false, "tafels": true, "unknown": false} {
		if _, ok := m.Distribution(goal, 4, query.NormChoice{}); ok != want {
			t.Errorf("Distribution(%s, 4) shown = %v, want %v", goal, ok, want)
		}
		if _, ok := m.Distribution(goal, 5, query.NormChoice{}); ok {
			t.Errorf("Distribution(%s, 5) is shown, want not: there is nobody", goal)
		}
	}
	s, _ := m.Standing(token(3))
	for _, p := range s.Percentiles {
		if want := p.Layer != transform.LayerGoal; p.Shown != want {
			t.Errorf("%s %s shown = %v, want %v", p.Layer, p.Key, p.Shown, want)
		}
		if !p.Shown && (p.Learners != 0 || p.Percentile != 0 || p.High != 0) {
			t.Errorf("%s %s = %+v, want nothing of the group", p.Layer, p.Key, p)
		}
	}
	add(9, 10, "klokkijken")
	if _, ok := m.Distribution("klokkijken", 4, query.NormChoice{}); !ok {
		t.Error("the tenth learner does not make the group shown")
	}
}

// A small group leans on its parent by the documented weight; one of 200 does not.
func TestSmallGroupsLeanOnTheirParent(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, 50, 199, 200, 300} {
		m := model(t)
		// Everybody has skill 0 in the subject; those of the goal stand at +1.
		for i := range 1000 {
			goals := map[string]float64{}
			if i < n {
				goals["breuken"] = 1
			}
			m.ApplySkills(skillRows(pupil{n: i, school: "12AB00", yearGroup: 6, at: monday.UnixMilli(), position: 1}, 0, 0, goals))
		}
		s, _ := m.Standing(token(0))
		w := 1.0
		if n < 200 {
			w = float64(n) / float64(n+25) * 225 / 200
		}
		want := 100 * (w*0.5 + (1 - w)) // half of its own group, all of the parent
		got := s.Percentiles[2]
		if math.Abs(got.Percentile-want) > 0.01 || got.Learners != int64(n) {
			t.Errorf("n=%d: percentile, learners = %v, %d, want %v, %d", n, got.Percentile, got.Learners, want, n)
		}
		if got.Low > got.Percentile || got.High < got.Percentile {
			t.Errorf("n=%d: band %v–%v does not hold %v", n, got.Low, got.High, got.Percentile)
		}
	}
}

func TestDistributionAgainstSort(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	m := model(t)
	var skills []float64
	for i := range 20_000 {
		overall, goal := random.NormFloat64()*0.7, random.NormFloat64()*0.5
		skills = append(skills, overall+0.1+goal)
		m.ApplySkills(skillRows(pupil{n: i, school: "12AB00", yearGroup: 7, at: monday.UnixMilli(), position: 1}, overall, 0.1, map[string]float64{"procenten": goal}))
	}
	d, ok := m.Distribution("procenten", 7, query.NormChoice{})
	if !ok || d.Learners != 20_000 {
		t.Fatalf("Distribution = %d learners, %v, want 20000, true", d.Learners, ok)
	}
	sorted := slices.Sorted(slices.Values(skills))
	for i, at := range d.Skill {
		if got := midRank(sorted, at); math.Abs(got-float64(i+1)) > 0.05 {
			t.Errorf("percentile %d lies at %v, which is percentile %v", i+1, at, got)
		}
	}
	if !slices.IsSorted(d.Skill[:]) {
		t.Error("skills at rising percentiles do not rise")
	}
}
