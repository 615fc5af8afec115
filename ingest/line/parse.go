// Package line reads one line of `POST /v1/answers` or `POST /v1/test-results`:
// strict JSON against a fixed list of fields, and the rules of every value.
//
// Invariants:
//   - The list is closed: a field that is unknown, renamed or there twice refuses
//     the line, so nothing passes because nobody thought of it.
//   - A refusal names a field of the list and a rule. It never holds a value, nor
//     the name of an unknown field, which can be a value as well.
//   - Unknown is not zero: an optional field that is missing, null or (a text)
//     empty is unknown.
//   - No input panics; nothing is allocated per line in the steady state.
//
// The reader is written by hand for this flat form because a general JSON
// tokenizer spends most of its time on tokens that are known beforehand; a fuzz
// test holds it against github.com/go-json-experiment/json/jsontext.
package line

import (
	"unicode/utf8"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
)

// Refusal says why a line is refused. Field is empty when the rule concerns the
// whole line or an unknown field.
type Refusal struct {
	Field string
	Rule  Rule
}

// Policy is what the rules need to know beside the line.
type Policy struct {
	Publisher            string // of the API key: the only one that lines may name
	NowMS                int64  // milliseconds since 1970
	ClockSkewMS          int64  // how far ahead of ours a publisher's clock may be
	TestIdentifiers      bool   // accept ECK iDs of test chains
	NineDigitIdentifiers bool   // accept nine digits that pass the eleven test from this publisher
}

// Parser reads lines. It is reusable and not safe for concurrent use.
type Parser struct {
	policy  Policy
	scan    scanner
	answers order
	results order

	broken Refusal // the first rule that this line broke
	set    uint64  // fields that this line sets: bit i stands for values[i]
	values [maxFields]value
	scheme raw.Scheme
	known  []byte // the learner's identifier, normalised

	path       [][]byte
	normKinds  [][]byte
	normValues []float64
}

// value is what one field held. It means something only when its bit is set.
type value struct {
	text    []byte
	number  float64
	integer int64
}

// order finds fields by name. Publishers send the same fields in the same order
// line after line, so the place in the line before is the first guess.
type order struct {
	fields []field
	keys   []string // of each field: its name in quotes, and a colon
	byName map[string]int
	last   [maxFields]int
	place  int
}

func newOrder(fields []field) order {
	o := order{fields: fields, byName: make(map[string]int, len(fields))}
	for i := range fields {
		o.keys = append(o.keys, `"`+fields[i].name+`":`)
		o.byName[fields[i].name] = i
		o.last[i] = i % len(fields)
	}
	return o
}

// next reads the name of a member and returns its field; ok is false when the
// name is unknown or no name.
func (o *order) next(s *scanner) (index int, ok bool) {
	if o.place < len(o.last) {
		guess := o.last[o.place]
		if key := o.keys[guess]; len(s.line)-s.at >= len(key) && string(s.line[s.at:s.at+len(key)]) == key {
			s.at += len(key)
			o.place++
			return guess, true
		}
	}
	name := s.name()
	index, ok = o.byName[string(name)]
	if ok && o.place < len(o.last) {
		o.last[o.place] = index
		o.place++
	}
	return index, ok
}

// NewParser makes a parser.
func NewParser(policy Policy) *Parser {
	return &Parser{policy: policy, answers: newOrder(answerFields), results: newOrder(resultFields)}
}

// SetPolicy changes what the next lines are held against.
func (p *Parser) SetPolicy(policy Policy) { p.policy = policy }

// refuse notes why the line is refused and ends its reading.
func (p *Parser) refuse(field string, rule Rule) {
	if p.broken.Rule == "" {
		p.broken = Refusal{field, rule}
	}
	p.scan.fail(rule)
}

// blame names the field whose value the scanner could not read. A line that is
// not JSON is not the fault of one field.
func (p *Parser) blame(field string) {
	if rule := p.scan.rule; rule == RuleMalformed || rule == RuleInvalidUTF8 {
		field = ""
	}
	p.refuse(field, p.scan.rule)
}

// record reads one object of the fields and applies the rules that concern one
// field alone, in the order of the line; then looks for what is missing and for
// identifiers in the wrong place, in the order of the table.
func (p *Parser) record(o *order, text []byte) Refusal {
	s := &p.scan
	s.reset(text)
	o.place, p.known, p.broken, p.set = 0, nil, Refusal{}, 0
	p.path, p.normKinds, p.normValues = p.path[:0], p.normKinds[:0], p.normValues[:0]
	seen := uint64(0)
	for more := s.open('{', '}'); more; more = s.next('}') {
		i, ok := o.next(s)
		switch {
		case s.rule != "":
		case !ok:
			p.refuse("", RuleUnknownField)
		case seen&(1<<i) != 0:
			p.refuse(o.fields[i].name, RuleDuplicateField)
		default:
			seen |= 1 << i
			p.member(o, i)
		}
		if s.rule != "" {
			break
		}
	}
	if s.end(); s.rule != "" {
		p.refuse("", or(s.rule, RuleWrongType, RuleMalformed)) // at the top, another type is no object
		return p.broken
	}
	for i := range o.fields {
		f := &o.fields[i]
		if p.set&(1<<i) == 0 {
			if f.required {
				return Refusal{f.name, RuleRequired}
			}
		} else if f.fact && elsewhere(p.values[i].text, p.known) {
			return Refusal{f.name, RuleIdentifierElsewhere}
		}
	}
	return Refusal{}
}

// member reads the value of a field.
func (p *Parser) member(o *order, i int) {
	f, v, s := &o.fields[i], &p.values[i], &p.scan
	if s.null() || s.rule != "" {
		if s.rule != "" {
			p.blame(f.name)
		}
		return
	}
	set := true
	switch f.kind {
	case learner:
		p.learner()
	case path:
		p.readPath(f)
	case norms:
		p.readNorms()
	case decimal:
		v.number = s.decimal(f)
	case integer:
		v.integer = s.integer(f)
	case text:
		v.text = p.text(f)
		set = len(v.text) > 0
	default:
		set = p.special(f, v)
	}
	if s.rule != "" {
		p.blame(f.name)
	} else if set {
		p.set |= 1 << i
	}
}

// text reads a text within its length.
func (p *Parser) text(f *field) []byte {
	value, ascii := p.scan.text()
	if limit := int(f.max); len(value) > limit && (ascii || utf8.RuneCount(value) > limit) {
		p.scan.fail(RuleTooLong)
	}
	if !ascii && hasControl(value) {
		p.scan.fail(RuleBadCharacters)
	}
	return value
}

// special reads the fields that have a form of their own and tells whether there
// is a value.
func (p *Parser) special(f *field, v *value) bool {
	s := &p.scan
	content, _ := s.text()
	if s.rule != "" || len(content) == 0 {
		return false
	}
	v.text = content
	rule := Rule("")
	switch f.kind {
	case publisher:
		if string(content) != p.policy.Publisher {
			rule = RuleWrongPublisher
		}
	case school:
		if !isSchool(content) {
			rule = RuleNotASchool
		}
	case purpose:
		v.integer, rule = parsePurpose(content)
	case moment:
		v.integer, rule = parseMoment(content)
		if rule == "" && v.integer > p.policy.NowMS+p.policy.ClockSkewMS {
			rule = RuleInFuture
		}
	case date:
		v.integer, rule = parseDate(content)
		// The day begins at most two hours earlier in the Netherlands than in UTC.
		if rule == "" && v.integer*dayMS-2*3600*1000 > p.policy.NowMS+p.policy.ClockSkewMS {
			rule = RuleInFuture
		}
	}
	if rule != "" {
		s.fail(rule)
	}
	return true
}

// isSchool tells whether a code is a BRIN and a vestiging, in ASCII.
func isSchool(code []byte) bool {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	upper := func(c byte) bool { return c >= 'A' && c <= 'Z' }
	return len(code) == 6 && digit(code[0]) && digit(code[1]) && upper(code[2]) && upper(code[3]) && digit(code[4]) && digit(code[5])
}

func parsePurpose(content []byte) (int64, Rule) {
	switch string(content) {
	case "practice":
		return int64(answer.KindPractice), ""
	case "test":
		return int64(answer.KindTest), ""
	case "tracking":
		return int64(answer.KindTracking), ""
	}
	return 0, RuleUnknownValue
}

// Wipe forgets the last line, which identifies a learner.
func (p *Parser) Wipe() {
	clear(p.scan.scratch[:cap(p.scan.scratch)])
	clear(p.values[:])
	clear(p.path[:cap(p.path)])
	clear(p.normKinds[:cap(p.normKinds)])
	p.scan.reset(nil)
	p.known = nil
}
