package bench

import "time"

// Slots of a school day as minutes after local midnight: a group works on one
// subject in each. Wednesday afternoon is free.
var slotMinutes = [3]int{8*60 + 45, 10*60 + 30, 13*60 + 15}

// calendar walks over the lesson slots of Dutch school days.
type calendar struct {
	midnight int64 // local midnight of the day, UTC ms since 1970
	day      int   // days since 1970
	slot     int
	offset   int // minutes east of UTC on that day
}

const (
	dayMS    = 24 * 60 * 60 * 1000
	minuteMS = 60 * 1000
)

// newCalendar starts at the first slot on or after the date of start.
func newCalendar(start time.Time) calendar {
	y, m, d := start.Date()
	c := calendar{day: int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / (24 * 60 * 60))}
	c.settle()
	return c
}

// start returns the beginning of the current slot in UTC ms since 1970.
func (c *calendar) start() int64 {
	return c.midnight + int64(slotMinutes[c.slot])*minuteMS
}

// next moves to the following slot.
func (c *calendar) next() {
	c.slot++
	if c.slot == len(slotMinutes) || c.slot == 2 && weekday(c.day) == time.Wednesday {
		c.slot = 0
		c.day++
		c.settle()
	}
}

// settle skips days without school and sets what depends on the day.
func (c *calendar) settle() {
	for !isSchoolDay(c.day) {
		c.day++
	}
	c.offset = amsterdamOffset(c.day)
	c.midnight = int64(c.day)*dayMS - int64(c.offset)*minuteMS
}

func weekday(day int) time.Weekday {
	return time.Weekday((day + 4) % 7) // 1 January 1970 was a Thursday
}

// isSchoolDay leaves out weekends and rough holiday weeks: summer (20 July to
// 30 August), the third week of October, Christmas, and the first week of May.
func isSchoolDay(day int) bool {
	if w := weekday(day); w == time.Saturday || w == time.Sunday {
		return false
	}
	_, month, d := date(day)
	switch month {
	case time.July:
		return d < 20
	case time.August:
		return d > 30
	case time.October:
		return d < 15 || d > 21
	case time.December:
		return d < 21
	case time.January:
		return d > 4
	case time.May:
		return d > 7
	}
	return true
}

func date(day int) (year int, month time.Month, d int) {
	return time.Unix(int64(day)*24*60*60, 0).UTC().Date()
}

// amsterdamOffset is the local time offset in minutes at noon of the day: summer time
// from the last Sunday of March until the last Sunday of October.
func amsterdamOffset(day int) int {
	year, _, _ := date(day)
	if day >= lastSunday(year, time.March) && day < lastSunday(year, time.October) {
		return 120
	}
	return 60
}

func lastSunday(year int, month time.Month) int {
	last := int(time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Unix() / (24 * 60 * 60))
	return last - int(weekday(last))
}
