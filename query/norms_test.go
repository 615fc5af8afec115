package query_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// freeze makes a norm of learners of one year group with a goal, whose skills are
// given; they have practised it for ten weeks until the day.
func freeze(t testing.TB, name string, version uint32, asOf transform.Day, yearGroup uint8, skills []float64) *transform.FrozenNorm {
	t.Helper()
	calendar := transform.Calendar{Moments: transform.DefaultMoments()}
	occasion, err := calendar.Occasion(name)
	if err != nil {
		t.Fatal(err)
	}
	freezer := transform.NewFreezer(filter.DefaultParameters(), occasion, asOf)
	for n, skill := range skills {
		var rows []transform.DailySkill
		for week := range 11 {
			of := transform.DailySkill{Learner: token(n), YearGroup: yearGroup, Day: asOf - transform.Day(7*(10-week)), Variance: 0.1,
				Answers: uint32(20 + week), Position: 1}
			overall, subject, goal := of, of, of
			overall.Layer, overall.Mean = transform.LayerOverall, skill-float64(10-week)/20
			subject.Layer, subject.Key, subject.Subject = transform.LayerSubject, "rekenen", "rekenen"
			goal.Layer, goal.Key, goal.Subject = transform.LayerGoal, "optellen", "rekenen"
			rows = append(rows, goal, overall, subject)
		}
		freezer.Add(rows)
	}
	norm, err := freezer.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	norm.Version, norm.TakenAt = version, monday
	return norm
}

func evenly(n int, low, high float64) (skills []float64) {
	for i := range n {
		skills = append(skills, low+(high-low)*(float64(i)+0.5)/float64(n))
	}
	return skills
}

// Against a frozen norm a percentile moves only through the learner; against the
// live one through the others too.
func TestFrozenNormStandsStill(t *testing.T) {
	t.Parallel()
	m := model(t)
	if err := m.AddNorm(freeze(t, "2025-2026-E", 1, transform.DayOf(2026, 6, 30), 5, evenly(400, -1, 1))); err != nil {
		t.Fatal(err)
	}
	at := func(n int, skill float64, position int) {
		m.ApplySkills(skillRows(pupil{n: n, school: schoolA, yearGroup: 5, at: monday.UnixMilli(), position: answer.Position(position)}, skill, 0, map[string]float64{"optellen": 0}))
	}
	for n := range 100 {
		at(n, float64(n)/100, 1)
	}
	live, _ := m.NormNamed("live", 0) // no frozen norm is called so: the zero choice is live
	frozen := m.DefaultNorm()
	of := func(by query.NormChoice) query.Percentile {
		s, _ := m.StandingBy(token(50), by)
		return s.Percentiles[2]
	}
	before, beforeLive := of(frozen), of(live)
	if want := 75.0; math.Abs(before.Percentile-want) > 0.3 {
		t.Errorf("percentile of .5 among -1 to 1 = %v, want %v", before.Percentile, want)
	}
	for n := range 50 {
		at(n, 2, 2)
	}
	if got := of(frozen); got != before {
		t.Errorf("frozen percentile = %+v after others moved, want %+v", got, before)
	}
	if got := of(live); got.Percentile > beforeLive.Percentile-20 {
		t.Errorf("live percentile = %v after others moved up, before %v", got.Percentile, beforeLive.Percentile)
	}
	at(50, -0.5, 3)
	if got := of(frozen); math.Abs(got.Percentile-25) > 0.3 {
		t.Errorf("frozen percentile = %v after the learner moved to -.5, want 25", got.Percentile)
	}
}

// The newest valid norm is taken by default; others by name, version and moment.
func TestChoiceOfNorm(t *testing.T) {
	t.Parallel()
	now := monday
	m := query.NewReadModel(query.Config{Partitions: 1, Now: func() time.Time { return now }})
	for _, n := range []*transform.FrozenNorm{
		freeze(t, "2025-2026-M", 1, transform.DayOf(2026, 2, 28), 5, evenly(20, -1, 1)),
		freeze(t, "2025-2026-E", 1, transform.DayOf(2026, 6, 30), 5, evenly(20, -1, 1)),
		freeze(t, "2025-2026-E", 2, transform.DayOf(2026, 6, 30), 5, evenly(30, -1, 1)),
		freeze(t, "2022-2023-E", 1, transform.DayOf(2023, 6, 30), 5, evenly(20, -1, 1)),
		freeze(t, "2026-2027-M", 1, transform.DayOf(2027, 2, 28), 5, evenly(20, -1, 1)),
	} {
		if err := m.AddNorm(n); err != nil {
			t.Fatal(err)
		}
	}
	used := func(choice query.NormChoice) (string, uint64) {
		d, ok := m.Distribution("optellen", 5, choice)
		if !ok {
			t.Fatalf("norm shows nothing")
		}
		return d.Norm.Name, d.Norm.Version
	}
	if name, version := used(m.DefaultNorm()); name != "2025-2026-E" || version != 2 {
		t.Errorf("default = %s version %d, want the newest version of the newest norm that is not in the future", name, version)
	}
	if c, ok := m.NormAt("M"); !ok {
		t.Error("no norm of M")
	} else if name, _ := used(c); name != "2025-2026-M" {
		t.Errorf("norm of M = %s, want 2025-2026-M", name)
	}
	if c, ok := m.NormNamed("2025-2026-E", 1); !ok {
		t.Error("version 1 is not found")
	} else if _, version := used(c); version != 1 {
		t.Errorf("version = %d, want 1", version)
	}
	if c, ok := m.NormNamed("2022-2023-E", 0); !ok {
		t.Error("an old norm can't be asked for")
	} else if name, _ := used(c); name != "2022-2023-E" {
		t.Errorf("old norm = %s", name)
	}
	if _, ok := m.NormNamed("2025-2026-E", 3); ok {
		t.Error("a version that there is not was found")
	}
	now = monday.AddDate(2, 0, 0)
	if name, _ := used(m.DefaultNorm()); name != "2026-2027-M" {
		t.Errorf("default after two years = %s, want 2026-2027-M", name)
	}
	now = monday.AddDate(9, 0, 0)
	if d := m.DefaultNorm(); d != (query.NormChoice{}) {
		t.Error("a norm that is too old is taken without being asked for")
	}
}

// A live distribution is told anew only when ten learners have moved.
func TestLiveDistributionsDoNotDifferByFew(t *testing.T) {
	t.Parallel()
	m := model(t)
	at := func(n int, skill float64, position int) {
		m.ApplySkills(skillRows(pupil{n: n, school: schoolA, yearGroup: 5, at: monday.UnixMilli(), position: answer.Position(position)}, skill, 0, map[string]float64{"optellen": 0}))
	}
	for n := range 40 {
		at(n, float64(n)/20-1, 1)
	}
	told := func() [99]float64 {
		d, ok := m.Distribution("optellen", 5, query.NormChoice{})
		if !ok {
			t.Fatal("nothing is told")
		}
		return d.Skill
	}
	first := told()
	for i := range 50 { // few learners, many answers
		at(i%9, 3, i+2)
	}
	if got := told(); got != first {
		t.Error("the distribution shows what nine learners did")
	}
	for n := range 40 {
		at(n, 3, 100)
	}
	if got := told(); got == first {
		t.Error("the distribution stands still after all have moved")
	}
}

type overviewReply struct {
	Norm       struct{ Kind, Name string }
	Since      *struct{ Name string }
	GrowthNorm *struct{ Name string } `json:"growth_norm"`
	Summary    []struct {
		Goal                  *string
		Learners              int
		Percentile, Low, High *float64
	}
	Learners []struct {
		Learner string
		Skills  []struct {
			Layer      string
			Goal       *string
			Percentile *float64
			Learners   *int
			Growth     *struct {
				Value, SE float64
				Direction string
			}
			Comparable []struct {
				Weeks, Learners int
				Median          float64
				Low, High       *float64
			}
		}
	}
	Next *string
}

func (s *service) overview(t *testing.T, query string) (reply overviewReply) {
	t.Helper()
	body := readAll(t, s.do(t, request{key: "school", path: "/v1/groups/5A/overview?school=" + schoolA + query}))
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return reply
}

func TestGroupOverview(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	// Learners of year group 4 who began in June where some of ours did.
	if err := s.model.AddNorm(freeze(t, "2025-2026-E", 1, transform.DayOf(2026, 6, 30), 4, evenly(300, -2, 2))); err != nil {
		t.Fatal(err)
	}
	seen, after := 0, ""
	for page := 0; page < 10; page++ {
		path := "&limit=6&norm=live"
		if after != "" {
			path += "&after=" + after
		}
		reply := s.overview(t, path)
		if reply.Norm.Name != "live" || reply.Since == nil || reply.Since.Name != "2025-2026-E" || reply.GrowthNorm == nil || reply.GrowthNorm.Name != "2025-2026-E" {
			t.Fatalf("overview quotes %+v, %+v, %+v", reply.Norm, reply.Since, reply.GrowthNorm)
		}
		for _, l := range reply.Learners {
			if l.Learner <= after {
				t.Errorf("learner %s comes after %s", l.Learner, after)
			}
			after = l.Learner
			seen++
			for _, p := range l.Skills {
				rare := p.Goal != nil && *p.Goal == "romeinse cijfers"
				if shown := p.Percentile != nil; shown == rare {
					t.Errorf("learner %s: percentile of %s %v shown = %v", l.Learner, p.Layer, p.Goal, shown)
				}
				if (p.Growth == nil) != rare {
					t.Errorf("learner %s: growth of %s %v = %v", l.Learner, p.Layer, p.Goal, p.Growth)
				}
				if p.Learners != nil && *p.Learners%10 != 0 {
					t.Errorf("a group of %d is told to the learner", *p.Learners)
				}
			}
		}
		if reply.Next == nil {
			break
		}
	}
	if seen != 20 {
		t.Errorf("the overview has %d learners, want 20", seen)
	}
}

// Growth has a direction beyond noise only, and comparable learners are told in
// cells of ten or more.
func TestGrowthInTheOverview(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	if err := s.model.AddNorm(freeze(t, "2025-2026-E", 1, transform.DayOf(2026, 6, 30), 4, evenly(300, -2, 2))); err != nil {
		t.Fatal(err)
	}
	reply := s.overview(t, "&goal=optellen&norm=live")
	cells, quartiles, up := 0, 0, 0
	for _, l := range reply.Learners {
		for _, p := range l.Skills {
			if p.Goal == nil || *p.Goal != "optellen" {
				t.Errorf("%s %v is told, want optellen alone", p.Layer, p.Goal)
				continue
			}
			if p.Growth == nil || p.Growth.Value <= 0 {
				t.Errorf("growth = %+v, want one above 0: all stood lower", p.Growth)
			} else if clear := p.Growth.Value > 1.6448536*p.Growth.SE; clear != (p.Growth.Direction == "up") {
				t.Errorf("growth = %+v", p.Growth)
			} else if clear {
				up++
			}
			for _, c := range p.Comparable {
				cells++
				if c.Learners < 10 || c.Learners%10 != 0 || (c.Low == nil) != (c.Learners < 40) {
					t.Errorf("cell = %+v", c)
				}
				if c.Low != nil {
					quartiles++
				}
			}
		}
	}
	if cells == 0 || quartiles == 0 || up == 0 {
		t.Errorf("%d cells of comparable learners, %d with quartiles, %d have grown for sure: want some of each", cells, quartiles, up)
	}
	if len(reply.Summary) != 1 || reply.Summary[0].Learners != 20 || reply.Summary[0].Percentile == nil ||
		!(*reply.Summary[0].Low < *reply.Summary[0].Percentile && *reply.Summary[0].Percentile < *reply.Summary[0].High) {
		t.Errorf("summary = %+v, want one of 20 learners with a band", reply.Summary)
	}
	// 60 learners of the norm group are spread evenly over 20 steps, three on each;
	// the group has one on each: its mean is the middle.
	if got := *reply.Summary[0].Percentile; math.Abs(got-50) > 2 {
		t.Errorf("percentile of the group = %v, want about 50", got)
	}
	for _, key := range []string{"school-b", "engine", "analyst"} {
		if got := s.do(t, request{key: key, path: "/v1/groups/5A/overview?school=" + schoolA}).StatusCode; got != 404 && got != 403 {
			t.Errorf("overview with key %s = %d, want 403 or 404", key, got)
		}
	}
}

func TestHistoryAtMoments(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	if err := s.model.AddNorm(freeze(t, "2025-2026-E", 1, transform.DayOf(2026, 6, 30), 4, evenly(300, -2, 2))); err != nil {
		t.Fatal(err)
	}
	var reply struct {
		Moments []struct {
			Name        string
			YearGroup   *int `json:"year_group"`
			Norm        *struct{ Name string }
			Percentiles []struct {
				Layer      string
				Percentile *float64
				Level      *struct{ Value string }
			}
		}
	}
	body := readAll(t, s.do(t, request{key: "school", path: pathOf(schools, 10, "history") + "?levels=i-v"}))
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		t.Fatal(err)
	}
	if len(reply.Moments) != 1 || reply.Moments[0].Name != "2025-2026-E" || reply.Moments[0].Norm == nil || *reply.Moments[0].YearGroup != 4 {
		t.Fatalf("history = %s, want one moment with its norm", body)
	}
	// Skill -1 among -2 to 2.
	for _, p := range reply.Moments[0].Percentiles {
		if p.Percentile == nil || math.Abs(*p.Percentile-25) > 0.5 || p.Level == nil || p.Level.Value != "IV" {
			t.Errorf("%s = %+v, want percentile 25 and level IV", p.Layer, p)
		}
	}
	if got := readAll(t, s.do(t, request{key: "school-b", path: pathOf(schools, 45, "history")})); !strings.Contains(got, `"moments":[]`) {
		t.Errorf("history of a learner who had not begun = %s, want none", got)
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	for scale, want := range map[string][]string{"a-e": {"A", "B", "C", "D", "E"}, "i-v": {"I", "II", "III", "IV", "V"}} {
		var got []string
		for n := range 40 {
			body := readAll(t, s.do(t, request{key: "engine", path: pathOf(engine, n, "percentiles") + "?levels=" + scale}))
			var reply struct {
				Percentiles []struct {
					Level *struct{ Scale, Value string }
				}
			}
			if err := json.Unmarshal([]byte(body), &reply); err != nil {
				t.Fatal(err)
			}
			got = append(got, reply.Percentiles[0].Level.Value)
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("levels %s = %v, want %v", scale, got, want)
		}
	}
}
