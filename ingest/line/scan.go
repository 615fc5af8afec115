package line

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads the JSON text of one line (RFC 8259, strictly: no duplicate is
// its caller's matter, everything else is its own). The first broken rule sticks
// and every later call does nothing.
type scanner struct {
	line    []byte
	at      int
	rule    Rule
	scratch []byte // texts that had to be unescaped or normalised
}

// reset begins a line. Texts of the line before are no longer valid.
func (s *scanner) reset(line []byte) {
	s.line, s.at, s.rule, s.scratch = line, 0, "", s.scratch[:0]
}

// fail notes the first broken rule.
func (s *scanner) fail(rule Rule) {
	if s.rule == "" {
		s.rule = rule
	}
	s.at = len(s.line)
}

// peek skips white space and returns the byte to come, 0 at the end.
func (s *scanner) peek() byte {
	for s.at < len(s.line) {
		c := s.line[s.at]
		if c > ' ' {
			return c
		}
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c
		}
		s.at++
	}
	return 0
}

// open reads the opening bracket and tells whether a first member follows.
func (s *scanner) open(opening, closing byte) bool {
	if c := s.peek(); c != opening {
		s.fail(typeOr(c))
		return false
	}
	s.at++
	if s.peek() == closing {
		s.at++
		return false
	}
	return s.rule == ""
}

// next reads what follows a member and tells whether another one comes.
func (s *scanner) next(closing byte) bool {
	switch c := s.peek(); {
	case s.rule != "":
		return false
	case c == ',':
		s.at++
		return true
	case c == closing:
		s.at++
		return false
	}
	s.fail(RuleMalformed)
	return false
}

// typeOr returns the rule for an unexpected beginning: another type of value, or
// no JSON at all.
func typeOr(c byte) Rule {
	if c == '{' || c == '[' || c == '"' || c == 't' || c == 'f' || c == 'n' || c == '-' || c >= '0' && c <= '9' {
		return RuleWrongType
	}
	return RuleMalformed
}

// end checks that nothing but white space is left.
func (s *scanner) end() {
	if s.rule == "" && (s.peek() != 0 || s.at != len(s.line)) {
		s.fail(RuleMalformed)
	}
}

// null reads a null when one comes.
func (s *scanner) null() bool {
	if s.peek() != 'n' {
		return false
	}
	if len(s.line)-s.at < 4 || string(s.line[s.at:s.at+4]) != "null" {
		s.fail(RuleMalformed)
		return false
	}
	s.at += 4
	return true
}

// name reads the name of a member and the colon. It is valid until reset.
func (s *scanner) name() []byte {
	if s.peek() != '"' {
		s.fail(RuleMalformed)
		return nil
	}
	name, _ := s.text()
	if s.peek() != ':' {
		s.fail(RuleMalformed)
		return nil
	}
	s.at++
	return name
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special marks, with the high bit of its byte, the first byte of eight that is a
// quote, a backslash, a control character, DEL or not ASCII. Marks above the first
// may be wrong: a borrow runs upwards only.
func special(x uint64) uint64 {
	quote, slash, del := x^(ones*'"'), x^(ones*'\\'), x^(ones*0x7f)
	return ((quote-ones)&^quote | (slash-ones)&^slash | (del-ones)&^del | (x-ones*0x20)&^x | x) & highs
}

// text reads a string. ascii tells that it holds printable ASCII only. The text
// is a piece of the line, or of scratch where it was escaped.
func (s *scanner) text() (value []byte, ascii bool) {
	if c := s.peek(); c != '"' {
		s.fail(typeOr(c))
		return nil, false
	}
	s.at++
	start := s.at
	for s.at+8 <= len(s.line) {
		if mark := special(binary.LittleEndian.Uint64(s.line[s.at:])); mark != 0 {
			s.at += bits.TrailingZeros64(mark) / 8
			break
		}
		s.at += 8
	}
	for s.at < len(s.line) {
		c := s.line[s.at]
		if c == '"' {
			value = s.line[start:s.at:s.at]
			s.at++
			return value, true
		}
		if c < 0x20 || c >= 0x7f || c == '\\' {
			return s.slowText(start), false
		}
		s.at++
	}
	s.fail(RuleMalformed)
	return nil, false
}

// slowText reads the rest of a string that began at start and is ASCII up to
// here.
func (s *scanner) slowText(start int) []byte {
	begin := len(s.scratch)
	s.scratch = append(s.scratch, s.line[start:s.at]...)
	for s.at < len(s.line) {
		c := s.line[s.at]
		switch {
		case c == '"':
			s.at++
			return s.scratch[begin:len(s.scratch):len(s.scratch)]
		case c < 0x20:
			s.fail(RuleMalformed)
			return nil
		case c == '\\':
			if !s.escape() {
				return nil
			}
		case c < utf8.RuneSelf:
			s.scratch = append(s.scratch, c)
			s.at++
		default:
			r, size := utf8.DecodeRune(s.line[s.at:])
			if r == utf8.RuneError && size == 1 {
				s.fail(RuleInvalidUTF8)
				return nil
			}
			s.scratch = append(s.scratch, s.line[s.at:s.at+size]...)
			s.at += size
		}
	}
	s.fail(RuleMalformed)
	return nil
}

// escape reads one escape sequence into scratch.
func (s *scanner) escape() bool {
	if s.at+1 >= len(s.line) {
		s.fail(RuleMalformed)
		return false
	}
	c := s.line[s.at+1]
	s.at += 2
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		return s.unicodeEscape()
	default:
		s.fail(RuleMalformed)
		return false
	}
	s.scratch = append(s.scratch, c)
	return true
}

// unicodeEscape reads the digits after \u, and the second half of a surrogate
// pair.
func (s *scanner) unicodeEscape() bool {
	r, ok := s.hex4()
	if !ok {
		s.fail(RuleMalformed)
		return false
	}
	if utf16.IsSurrogate(r) {
		if len(s.line)-s.at < 6 || s.line[s.at] != '\\' || s.line[s.at+1] != 'u' {
			s.fail(RuleInvalidUTF8)
			return false
		}
		s.at += 2
		low, ok := s.hex4()
		if !ok {
			s.fail(RuleMalformed)
			return false
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			s.fail(RuleInvalidUTF8)
			return false
		}
	}
	s.scratch = utf8.AppendRune(s.scratch, r)
	return true
}

func (s *scanner) hex4() (rune, bool) {
	if len(s.line)-s.at < 4 {
		return 0, false
	}
	var r rune
	for range 4 {
		c := s.line[s.at]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
		s.at++
	}
	return r, true
}
