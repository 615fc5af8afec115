package store_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

func historyToken(n int) answer.Token {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n+1)*0x9e3779b97f4a7c15)
	return answer.MintToken(b)
}

// practise hands over what learners of a school, by number, have reached on a day
// at noon: overall, a subject and a goal.
func practise(t *testing.T, s testStore, day transform.Day, position answer.Position, from, to int, skill func(n int) float64) {
	t.Helper()
	rows := transform.SkillRows{}
	for n := from; n < to; n++ {
		for layer, key := range []string{"", "rekenen", "optellen"} {
			mean := 0.0
			if layer == 0 {
				mean = skill(n)
			}
			subject := "rekenen"
			if layer == 0 {
				subject = ""
			}
			rows.Learner = append(rows.Learner, historyToken(n))
			rows.School, rows.Group = append(rows.School, "12AB00"), append(rows.Group, "5A")
			rows.YearGroup, rows.KeyEpoch = append(rows.YearGroup, 5), append(rows.KeyEpoch, 1)
			rows.Layer, rows.Key, rows.Subject = append(rows.Layer, transform.Layer(layer)), append(rows.Key, key), append(rows.Subject, subject)
			rows.Mean, rows.Variance, rows.Answers = append(rows.Mean, mean), append(rows.Variance, 0.2), append(rows.Answers, 20)
			rows.LastAt = append(rows.LastAt, day.Date().Add(12*time.Hour).UnixMilli())
			rows.FastMean, rows.SlowMean, rows.LastScore = append(rows.FastMean, .5), append(rows.SlowMean, .5), append(rows.LastScore, 1)
			rows.Position, rows.Recent = append(rows.Position, position), append(rows.Recent, nil)
		}
	}
	call, outcome := durable()
	if err := s.Checkpoint(t.Context(), &transform.Checkpoint{Partition: 1, Position: position, Skills: rows, Durable: call}); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; err != nil {
		t.Fatal(err)
	}
}

// TestFreezeNorm goes the whole way: states that the transform stage hands over,
// ClickHouse, a norm, its tables, and back.
func TestFreezeNorm(t *testing.T) {
	t.Parallel()
	s := openStore(t, func(c *store.Config) { c.MaxDelay = 20 * time.Millisecond })
	ctx := t.Context()
	if _, err := s.Restore(ctx, 1); err != nil {
		t.Fatal(err)
	}
	june := transform.DayOf(2027, time.June, 30)
	skill := func(n int) float64 { return float64(n-50) / 50 }
	earlier := func(n int) float64 { return skill(n) - 0.5 }
	practise(t, s, june-57, 1, 0, 100, earlier)
	practise(t, s, june-1, 2, 0, 100, skill)
	practise(t, s, june+10, 3, 0, 100, func(int) float64 { return 5 })    // after the moment
	practise(t, s, june-400, 4, 100, 150, func(int) float64 { return 3 }) // in an earlier school year
	calendar := transform.Calendar{Moments: transform.DefaultMoments()}
	occasion, err := calendar.Occasion("2026-2027-E")
	if err != nil {
		t.Fatal(err)
	}
	told := int64(0)
	freeze := &store.Freeze{Occasion: occasion, AsOf: june, Parameters: filter.DefaultParameters(), TakenAt: june.Date(),
		Progress: func(done, total int64) {
			if done > total {
				t.Errorf("progress %d of %d", done, total)
			}
			told = done
		}}
	version, made, err := s.FreezeNorm(ctx, freeze)
	if err != nil || !made || version.Version != 1 || version.Learners != 100 || version.GroupCount != 3 || told != 600 {
		t.Fatalf("FreezeNorm = %+v, %v, %v, progress %d", version, made, err, told)
	}
	norm, err := s.LoadNorm(ctx, version)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range norm.Groups {
		n, err := transform.NewNorm(&g)
		if err != nil {
			t.Fatal(err)
		}
		if g.YearGroup != 5 || n.Learners() != 100 || n.BelowBin(int(transform.Bin(skill(30)))) != 30 {
			t.Errorf("%s %q: %d learners, %d below the thirty-first", g.Layer, g.Key, n.Learners(), n.BelowBin(int(transform.Bin(skill(30)))))
		}
	}
	// Eight weeks before, 25 learners stood in each half of a logit.
	found := 0
	for _, c := range norm.Growth {
		if c.Weeks == 8 && c.Layer == transform.LayerGoal {
			found++
			if want := (float64(c.Start)+0.5)*transform.GrowthStep + 0.5; c.Learners < 24 || math.Abs(c.Median-want) > 0.1 || !math.IsNaN(c.Low) {
				t.Errorf("growth = %+v, want 25 learners who reached %v, without quartiles", c, want)
			}
		}
	}
	if found != 4 {
		t.Errorf("%d cells of growth after 8 weeks, want 4", found)
	}
	s.sameVersions(t, version)

	// Again: nothing new unless asked for and unless the history has changed.
	if again, made, err := s.FreezeNorm(ctx, freeze); err != nil || made || again.Digest != version.Digest {
		t.Errorf("freezing twice = %+v, %v, %v", again, made, err)
	}
	freeze.Again = true
	if again, made, err := s.FreezeNorm(ctx, freeze); err != nil || made || again.Version != 1 {
		t.Errorf("freezing the same history again = %+v, %v, %v", again, made, err)
	}
	practise(t, s, june, 5, 0, 1, func(int) float64 { return 2 })
	second, made, err := s.FreezeNorm(ctx, freeze)
	if err != nil || !made || second.Version != 2 || second.Digest == version.Digest {
		t.Errorf("freezing a changed history = %+v, %v, %v", second, made, err)
	}
	first, err := s.LoadNorm(ctx, version)
	if err != nil || !reflect.DeepEqual(first.Groups, norm.Groups) {
		t.Errorf("version 1 has changed: %v", err)
	}
	s.sameVersions(t, version, second)
}

func (s testStore) sameVersions(t *testing.T, want ...transform.NormVersion) {
	t.Helper()
	got, err := s.NormVersions(t.Context())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("NormVersions = %+v, %v, want %+v", got, err, want)
	}
}

// TestFreezeOfFew: under ten learners there is no norm, and no table of norms has
// anything of them.
func TestFreezeOfFew(t *testing.T) {
	t.Parallel()
	s := openStore(t, func(c *store.Config) { c.MaxDelay = 20 * time.Millisecond })
	if _, err := s.Restore(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	june := transform.DayOf(2027, time.June, 30)
	practise(t, s, june, 1, 0, 9, func(int) float64 { return 0 })
	calendar := transform.Calendar{Moments: transform.DefaultMoments()}
	occasion, err := calendar.Occasion("2026-2027-E")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.FreezeNorm(t.Context(), &store.Freeze{Occasion: occasion, AsOf: june, Parameters: filter.DefaultParameters(), TakenAt: june.Date()})
	if err == nil || !strings.Contains(err.Error(), "10 learners") {
		t.Errorf("FreezeNorm of nine learners = %v, want to be told that ten are needed", err)
	}
	for _, table := range []string{"frozen_norms", "norm_growth", "norm_versions"} {
		if n := s.number(t, "SELECT count() FROM "+s.table(table)); n != 0 {
			t.Errorf("%s has %d rows", table, n)
		}
	}
}

// TestSkillsUntil finds the state of any day, of the asked learners of the school
// alone.
func TestSkillsUntil(t *testing.T) {
	t.Parallel()
	s := openStore(t, func(c *store.Config) { c.MaxDelay = 20 * time.Millisecond })
	if _, err := s.Restore(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, 0))
	first := transform.DayOf(2026, time.August, 10)
	type state struct {
		day  transform.Day
		mean float64
	}
	history := make([][]state, 20)
	for i := range 30 {
		day := first + transform.Day(3*i)
		n := random.IntN(len(history))
		mean := random.NormFloat64()
		practise(t, s, day, answer.Position(i+1), n, n+1, func(int) float64 { return mean })
		history[n] = append(history[n], state{day, mean})
	}
	for _, day := range []transform.Day{first - 1, first, first + 40, first + 100} {
		var asked []answer.Token
		want := map[answer.Token]float64{}
		for n := 0; n < len(history); n += 2 {
			asked = append(asked, historyToken(n))
			for _, h := range history[n] {
				if h.day <= day {
					want[historyToken(n)] = h.mean
				}
			}
		}
		rows, err := s.SkillsUntil(t.Context(), "12AB00", asked, day)
		if err != nil {
			t.Fatal(err)
		}
		got := map[answer.Token]float64{}
		for _, r := range rows {
			if r.Layer == transform.LayerOverall {
				got[r.Learner] = r.Mean
			}
		}
		if !reflect.DeepEqual(got, want) || len(rows) != 3*len(want) {
			t.Errorf("%s: %d rows, %d learners, want %d", day, len(rows), len(got), len(want))
		}
		if rows, err := s.SkillsUntil(t.Context(), "34CD01", asked, day); err != nil || len(rows) != 0 {
			t.Errorf("another school sees %d rows, %v", len(rows), err)
		}
	}
}
