package transform

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Day is a calendar day in the Netherlands, in days since 1970-01-01.
type Day int32

// DayOf returns the day of a date.
func DayOf(year int, month time.Month, day int) Day {
	return Day(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// Date returns the first instant of the day in UTC, as a carrier of its date.
func (d Day) Date() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// String returns the day as 2006-01-02.
func (d Day) String() string { return d.Date().Format(time.DateOnly) }

// SchoolYear is a Dutch school year, by the year in which it begins: 1 August to
// 31 July.
type SchoolYear int

// SchoolYear returns the school year of a day.
func (d Day) SchoolYear() SchoolYear {
	date := d.Date()
	if date.Month() < time.August {
		return SchoolYear(date.Year() - 1)
	}
	return SchoolYear(date.Year())
}

// First returns the first day of the school year.
func (y SchoolYear) First() Day { return DayOf(int(y), time.August, 1) }

// String returns the school year as 2026-2027.
func (y SchoolYear) String() string { return fmt.Sprintf("%04d-%04d", int(y), int(y)+1) }

// MonthDay is a day of every year, written 01-31.
type MonthDay struct {
	Month time.Month
	Day   int
}

// UnmarshalText reads a day of the year. 29 February is none.
func (m *MonthDay) UnmarshalText(text []byte) error {
	date, err := time.Parse("2006-01-02", "2001-"+string(text))
	if err != nil {
		return errors.New("want a day of the year as month-day, such as 01-31, and not 02-29")
	}
	m.Month, m.Day = date.Month(), date.Day()
	return nil
}

// MarshalText writes the day of the year.
func (m MonthDay) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%02d-%02d", int(m.Month), m.Day), nil
}

// in returns the day in a school year.
func (m MonthDay) in(y SchoolYear) Day {
	year := int(y)
	if m.Month < time.August {
		year++
	}
	return DayOf(year, m.Month, m.Day)
}

// Moment is a part of the school year in which schools measure where their
// learners stand (afnamemoment).
type Moment struct {
	Name string   `yaml:"name"` // capitals, such as M and E
	From MonthDay `yaml:"from"` // first day
	To   MonthDay `yaml:"to"`   // last day; a norm tells how it was at the end of it
}

// Calendar says where a school year is measured.
type Calendar struct {
	Moments []Moment
	// Location is where days begin and end. nil means Europe/Amsterdam's rules are
	// not known and UTC is taken.
	Location *time.Location
}

// DefaultMoments are those of Dutch tracking systems: the middle of the year (M,
// januari-februari) and its end (E, mei-juni).
func DefaultMoments() []Moment {
	return []Moment{
		{Name: "M", From: MonthDay{time.January, 10}, To: MonthDay{time.February, 28}},
		{Name: "E", From: MonthDay{time.May, 15}, To: MonthDay{time.June, 30}},
	}
}

var momentName = regexp.MustCompile(`^[A-Z][A-Z0-9]{0,7}$`)

// Validate names the moment that can't be used.
func (c *Calendar) Validate() error {
	if len(c.Moments) == 0 || len(c.Moments) > 12 {
		return errors.New("moments: want 1 to 12")
	}
	seen := map[string]bool{}
	for i, m := range c.Moments {
		switch {
		case !momentName.MatchString(m.Name):
			return fmt.Errorf("moments[%d].name: want a capital, then at most 7 capitals and digits", i)
		case seen[m.Name]:
			return fmt.Errorf("moments[%d].name: given twice", i)
		case m.From.Month == 0 || m.To.Month == 0:
			return fmt.Errorf("moments[%d]: from and to are needed, as month-day", i)
		case m.From.in(2000) > m.To.in(2000):
			return fmt.Errorf("moments[%d]: to lies before from in the school year", i)
		}
		seen[m.Name] = true
	}
	return nil
}

// Today returns the day of an instant.
func (c *Calendar) Today(t time.Time) Day {
	location := c.Location
	if location == nil {
		location = time.UTC
	}
	year, month, day := t.In(location).Date()
	return DayOf(year, month, day)
}

// Occasion is a moment of one school year.
type Occasion struct {
	SchoolYear SchoolYear
	Moment     string
	From, To   Day // first and last day
}

// Name returns the name of the norm of the occasion, such as 2026-2027-M.
func (o *Occasion) Name() string { return o.SchoolYear.String() + "-" + o.Moment }

var occasionName = regexp.MustCompile(`^(\d{4})-(\d{4})-([A-Z][A-Z0-9]{0,7})$`)

// ErrOccasion says that a text names no occasion of a calendar.
var ErrOccasion = errors.New("want a school year and a moment of the calendar, such as 2026-2027-M")

// Occasion returns the occasion with a name.
func (c *Calendar) Occasion(name string) (Occasion, error) {
	parts := occasionName.FindStringSubmatch(name)
	if parts == nil {
		return Occasion{}, ErrOccasion
	}
	first, _ := strconv.Atoi(parts[1]) // four digits
	next, _ := strconv.Atoi(parts[2])
	i := slices.IndexFunc(c.Moments, func(m Moment) bool { return m.Name == parts[3] })
	if next != first+1 || i < 0 {
		return Occasion{}, ErrOccasion
	}
	return c.Moments[i].of(SchoolYear(first)), nil
}

func (m *Moment) of(y SchoolYear) Occasion {
	return Occasion{SchoolYear: y, Moment: m.Name, From: m.From.in(y), To: m.To.in(y)}
}

// Begun returns the n newest occasions that have begun on a day, newest first.
func (c *Calendar) Begun(day Day, n int) []Occasion {
	var found []Occasion
	for y := day.SchoolYear(); len(found) < n+len(c.Moments) && y > day.SchoolYear()-SchoolYear(n)-2; y-- {
		for i := range c.Moments {
			if o := c.Moments[i].of(y); o.From <= day {
				found = append(found, o)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Occasion) int { return int(b.To) - int(a.To) })
	return found[:min(n, len(found))]
}

// Past returns the n newest occasions that ended before a day, newest first.
func (c *Calendar) Past(day Day, n int) []Occasion {
	begun := c.Begun(day, n+len(c.Moments))
	past := slices.DeleteFunc(begun, func(o Occasion) bool { return o.To >= day })
	return past[:min(n, len(past))]
}
