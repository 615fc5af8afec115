package line

import (
	"math"
	"strconv"
)

// number reads the text of a JSON number and tells whether it has neither
// fraction nor exponent.
func (s *scanner) number() (text []byte, whole bool) {
	if c := s.peek(); c != '-' && (c < '0' || c > '9') {
		s.fail(typeOr(c))
		return nil, false
	}
	start, whole := s.at, true
	if s.line[s.at] == '-' {
		s.at++
	}
	if s.at < len(s.line) && s.line[s.at] == '0' {
		s.at++
	} else if !s.digits() {
		return nil, false
	}
	if s.at < len(s.line) && s.line[s.at] == '.' {
		whole = false
		s.at++
		if !s.digits() {
			return nil, false
		}
	}
	if s.at < len(s.line) && s.line[s.at]|0x20 == 'e' {
		whole = false
		s.at++
		if s.at < len(s.line) && (s.line[s.at] == '+' || s.line[s.at] == '-') {
			s.at++
		}
		if !s.digits() {
			return nil, false
		}
	}
	return s.line[start:s.at], whole
}

// digits reads one digit or more.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.line) && s.line[s.at] >= '0' && s.line[s.at] <= '9' {
		s.at++
	}
	if s.at == start {
		s.fail(RuleMalformed)
		return false
	}
	return true
}

// oneDigit tells whether the number to come is a single digit, the usual case of
// scores, attempts and year groups. It does not read it.
func (s *scanner) oneDigit() (digit byte, ok bool) {
	if s.at+1 >= len(s.line) || s.line[s.at+1] != ',' && s.line[s.at+1] != '}' {
		return 0, false
	}
	digit = s.line[s.at] - '0'
	return digit, digit <= 9
}

// integer reads a whole number within limits.
func (s *scanner) integer(f *field) int64 {
	if v, ok := s.oneDigit(); ok && float64(v) >= f.min && float64(v) <= f.max {
		s.at++
		return int64(v)
	}
	text, whole := s.number()
	if s.rule != "" {
		return 0
	}
	if !whole {
		s.fail(RuleNotInteger)
		return 0
	}
	digits, negative := text, false
	if digits[0] == '-' {
		digits, negative = digits[1:], true
	}
	if len(digits) > 18 { // every limit is below 10^18, and leading zeros are not JSON
		s.fail(RuleOutOfRange)
		return 0
	}
	v := int64(0)
	for _, d := range digits {
		v = v*10 + int64(d-'0')
	}
	if negative {
		v = -v
	}
	if v < int64(f.min) || v > int64(f.max) {
		s.fail(RuleOutOfRange)
		return 0
	}
	return v
}

// decimal reads a number within limits, correctly rounded; minus zero is zero.
func (s *scanner) decimal(f *field) float64 {
	if v, ok := s.oneDigit(); ok && float64(v) >= f.min && float64(v) <= f.max {
		s.at++
		return float64(v)
	}
	text, whole := s.number()
	if s.rule != "" {
		return 0
	}
	v, ok := quickDecimal(text, whole)
	if !ok {
		var err error
		if v, err = strconv.ParseFloat(string(text), 64); err != nil {
			s.fail(RuleOutOfRange)
			return 0
		}
	}
	if !(v >= f.min && v <= f.max) {
		s.fail(RuleOutOfRange)
		return 0
	}
	return v + 0 // -0 + 0 = 0
}

var powersOfTen = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// quickDecimal converts a number of at most 15 digits without an exponent. Both
// the digits, below 2^53, and the power of ten are exact, so one division rounds
// correctly.
func quickDecimal(text []byte, whole bool) (float64, bool) {
	if len(text) > 16 {
		return 0, false
	}
	if whole && len(text) == 1 {
		return float64(text[0] - '0'), true
	}
	mantissa, scale, fraction := uint64(0), 0, 0
	for i, c := range text {
		switch {
		case c >= '0' && c <= '9':
			mantissa = mantissa*10 + uint64(c-'0')
			scale += fraction
		case c == '.':
			fraction = 1
		case c != '-' || i > 0: // an exponent
			return 0, false
		}
	}
	if mantissa >= 1<<53 {
		return 0, false
	}
	v := float64(mantissa) / powersOfTen[scale]
	if text[0] == '-' {
		v = math.Copysign(v, -1)
	}
	return v, true
}
