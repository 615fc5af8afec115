package line

import (
	"unicode/utf8"

	"github.com/leerstroom/leerstroom/ingest/raw"
)

// Identifier holds an identifier that comes from elsewhere than a line, such as
// a roster, against the rules of the learner's identifier, and returns it in the
// form under which the learner is known. An empty rule means that it is good.
func (p *Parser) Identifier(scheme raw.Scheme, value string) (normal string, rule Rule) {
	if !utf8.ValidString(value) {
		return "", RuleInvalidUTF8
	}
	p.scan.scratch = p.scan.scratch[:0]
	text, rule := p.identifier(scheme, []byte(value), false)
	normal = string(text)
	p.Wipe()
	return normal, rule
}

// IsSchool tells whether a code is a BRIN and a vestiging, such as 12AB00.
func IsSchool(code string) bool { return isSchool([]byte(code)) }
