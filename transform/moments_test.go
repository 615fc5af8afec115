package transform_test

import (
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/transform"
)

func calendar(t *testing.T) transform.Calendar {
	t.Helper()
	location, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	c := transform.Calendar{Moments: transform.DefaultMoments(), Location: location}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSchoolYear(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"2026-07-31": "2025-2026", "2026-08-01": "2026-2027", "2027-01-01": "2026-2027", "2028-02-29": "2027-2028"} {
		date, err := time.Parse(time.DateOnly, text)
		if err != nil {
			t.Fatal(err)
		}
		day := transform.DayOf(date.Date())
		if got := day.SchoolYear().String(); got != want || day.String() != text {
			t.Errorf("%s: school year of %s = %s, want %s", text, day, got, want)
		}
	}
}

// TestToday: days begin at midnight in the Netherlands, in winter and in summer.
func TestToday(t *testing.T) {
	t.Parallel()
	c := calendar(t)
	for instant, want := range map[string]string{
		"2026-07-31T21:59:59Z": "2026-07-31", "2026-07-31T22:00:00Z": "2026-08-01",
		"2026-12-31T22:59:59Z": "2026-12-31", "2026-12-31T23:00:00Z": "2027-01-01",
	} {
		at, err := time.Parse(time.RFC3339, instant)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Today(at).String(); got != want {
			t.Errorf("Today(%s) = %s, want %s", instant, got, want)
		}
	}
}

func TestOccasions(t *testing.T) {
	t.Parallel()
	c := calendar(t)
	o, err := c.Occasion("2026-2027-M")
	if err != nil || o.Name() != "2026-2027-M" || o.From.String() != "2027-01-10" || o.To.String() != "2027-02-28" {
		t.Errorf("Occasion = %+v from %s to %s, %v", o, o.From, o.To, err)
	}
	for _, name := range []string{"", "2026-2028-M", "2026-2027-X", "2026-2027-m", "2026-2027", "M", "2026-2027-M.1"} {
		if _, err := c.Occasion(name); err == nil {
			t.Errorf("Occasion(%q) is none, and no error", name)
		}
	}
	for _, e := range []struct {
		day         transform.Day
		begun, past string
	}{
		{transform.DayOf(2026, 11, 26), "2025-2026-E", "2025-2026-E"},
		{transform.DayOf(2027, 1, 10), "2026-2027-M", "2025-2026-E"},
		{transform.DayOf(2027, 2, 28), "2026-2027-M", "2025-2026-E"},
		{transform.DayOf(2027, 3, 1), "2026-2027-M", "2026-2027-M"},
	} {
		begun, past := c.Begun(e.day, 1), c.Past(e.day, 3)
		if begun[0].Name() != e.begun || past[0].Name() != e.past || len(past) != 3 {
			t.Errorf("%s: begun %s, past %v, want %s, %s", e.day, begun[0].Name(), past, e.begun, e.past)
		}
	}
	for name, moments := range map[string][]transform.Moment{
		"none": nil, "name": {{Name: "m", From: transform.MonthDay{Month: 1, Day: 1}, To: transform.MonthDay{Month: 2, Day: 1}}},
		"twice":    append(transform.DefaultMoments(), transform.DefaultMoments()...),
		"backward": {{Name: "M", From: transform.MonthDay{Month: 2, Day: 1}, To: transform.MonthDay{Month: 1, Day: 1}}},
		"no days":  {{Name: "M"}},
	} {
		if err := (&transform.Calendar{Moments: moments}).Validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	var day transform.MonthDay
	for _, text := range []string{"02-29", "13-01", "1-1", "", "01-32"} {
		if err := day.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("UnmarshalText(%q): no error", text)
		}
	}
}
