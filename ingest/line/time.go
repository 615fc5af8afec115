package line

// Times outside these years are slips of a clock or of a unit.
const (
	firstYear = 2000
	lastYear  = 2199
	dayMS     = 24 * 3600 * 1000
)

// parseMoment reads a time in the form of RFC 3339 and returns milliseconds since
// 1970, UTC; more precise fractions are cut off. The offset must be there: a time
// of day without it means two moments in the night that summer time ends.
func parseMoment(text []byte) (ms int64, rule Rule) {
	day, rest, rule := parseDay(text)
	if rule != "" {
		return 0, or(rule, RuleNotADate, RuleNotATime)
	}
	// Thh:mm:ss
	if len(rest) < 9 || rest[0] != 'T' || rest[3] != ':' || rest[6] != ':' {
		return 0, RuleNotATime
	}
	hour, ok1 := two(rest[1:])
	minute, ok2 := two(rest[4:])
	second, ok3 := two(rest[7:])
	if !ok1 || !ok2 || !ok3 || hour > 23 || minute > 59 || second > 59 {
		return 0, RuleNotATime
	}
	ms = day*dayMS + (hour*3600+minute*60+second)*1000
	rest = rest[9:]
	if len(rest) > 0 && rest[0] == '.' {
		fraction, left := parseFraction(rest[1:])
		if len(left) == len(rest)-1 {
			return 0, RuleNotATime
		}
		ms, rest = ms+fraction, left
	}
	offset, rule := parseOffset(rest)
	return ms - offset, rule
}

func or(rule, from, to Rule) Rule {
	if rule == from {
		return to
	}
	return rule
}

// parseFraction reads the digits after the point as milliseconds.
func parseFraction(text []byte) (ms int64, rest []byte) {
	unit := int64(100)
	for len(text) > 0 && text[0] >= '0' && text[0] <= '9' {
		ms += unit * int64(text[0]-'0')
		unit /= 10
		text = text[1:]
	}
	return ms, text
}

// parseOffset reads Z or ±hh:mm, up to 14 hours, in milliseconds.
func parseOffset(text []byte) (ms int64, rule Rule) {
	if len(text) == 0 {
		return 0, RuleNoOffset
	}
	if text[0] == 'Z' && len(text) == 1 {
		return 0, ""
	}
	if len(text) != 6 || text[0] != '+' && text[0] != '-' || text[3] != ':' {
		return 0, RuleNotATime
	}
	hour, ok1 := two(text[1:])
	minute, ok2 := two(text[4:])
	if !ok1 || !ok2 || hour > 14 || minute > 59 {
		return 0, RuleNotATime
	}
	ms = (hour*60 + minute) * 60 * 1000
	if text[0] == '-' {
		ms = -ms
	}
	return ms, ""
}

// parseDate reads YYYY-MM-DD as days since 1970.
func parseDate(text []byte) (day int64, rule Rule) {
	day, rest, rule := parseDay(text)
	if rule == "" && len(rest) != 0 {
		rule = RuleNotADate
	}
	return day, rule
}

func parseDay(text []byte) (day int64, rest []byte, rule Rule) {
	if len(text) < 10 || text[4] != '-' || text[7] != '-' {
		return 0, nil, RuleNotADate
	}
	century, ok1 := two(text)
	year, ok2 := two(text[2:])
	month, ok3 := two(text[5:])
	dom, ok4 := two(text[8:])
	year += 100 * century
	if !ok1 || !ok2 || !ok3 || !ok4 || month < 1 || month > 12 || dom < 1 || dom > daysIn(year, month) {
		return 0, nil, RuleNotADate
	}
	if year < firstYear || year > lastYear {
		return 0, nil, RuleOutOfRange
	}
	return daysSince1970(year, month, dom), text[10:], ""
}

func two(text []byte) (int64, bool) {
	tens, units := text[0]-'0', text[1]-'0'
	return int64(tens)*10 + int64(units), tens <= 9 && units <= 9
}

func daysIn(year, month int64) int64 {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSince1970 counts in years that begin in March, so that the leap day is the
// last: the method is Howard Hinnant's days_from_civil.
func daysSince1970(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return year*365 + year/4 - year/100 + year/400 + dayOfYear - 719468
}
