package line

import (
	"bytes"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/leerstroom/leerstroom/ingest/raw"
)

const maxIdentifierCharacters = 256

// identifier checks a learner's identifier and brings it to the one form under
// which the learner is known: surrounding space goes; an ECK iD becomes lower
// case; other values keep their case and become Unicode NFC.
func (p *Parser) identifier(scheme raw.Scheme, value []byte, ascii bool) ([]byte, Rule) {
	value = bytes.TrimSpace(value)
	if len(value) == 0 {
		return nil, RuleRequired
	}
	if scheme == raw.SchemeECKID {
		return p.eckid(value)
	}
	if !ascii && !norm.NFC.IsNormal(value) {
		begin := len(p.scan.scratch)
		p.scan.scratch = norm.NFC.Append(p.scan.scratch, value...)
		value = p.scan.scratch[begin:len(p.scan.scratch):len(p.scan.scratch)]
	}
	switch {
	case len(value) > maxIdentifierCharacters && utf8.RuneCount(value) > maxIdentifierCharacters:
		return nil, RuleTooLong
	case hasControl(value):
		return nil, RuleBadCharacters
	case holdsECKID(value):
		return nil, RuleWrongScheme
	case scheme == raw.SchemeLAS && value[0] == '#':
		return nil, RuleDummyIdentifier
	case scheme != raw.SchemeBasispoort && !p.policy.NineDigitIdentifiers && looksLikeBSN(value):
		return nil, RuleLooksLikeBSN
	}
	return value, ""
}

// looksLikeBSN tells whether a value is nine digits that pass the eleven test:
// weights 9 to 2 and -1, the sum divisible by 11. One in eleven ordinary numbers
// of nine digits passes too. They are refused all the same: a wrong refusal is
// seen at once and ended by naming the publisher in the configuration, a citizen
// service number taken in by mistake is unlawful and nobody sees it. Ids that
// Basispoort issues are not tested: a publisher does not choose them.
func looksLikeBSN(value []byte) bool {
	if len(value) != 9 || !allDigits(value) {
		return false
	}
	sum := -int(value[8] - '0')
	for i := range 8 {
		sum += (9 - i) * int(value[i]-'0')
	}
	return sum%11 == 0
}

// hasControl tells whether valid UTF-8 holds a C0 or C1 control character or DEL.
func hasControl(value []byte) bool {
	for i, c := range value {
		if c < 0x20 || c == 0x7f || c == 0xc2 && i+1 < len(value) && value[i+1] < 0xa0 {
			return true
		}
	}
	return false
}

// minSearchedBytes is the length from which an identifier is looked for in other
// fields: a shorter one occurs in the name of an exercise by chance.
const minSearchedBytes = 8

// elsewhere tells whether a text that leaves pseudonymize in clear holds the
// learner's identifier, or any ECK iD.
func elsewhere(fact, identifier []byte) bool {
	if len(fact) < minSearchedBytes {
		return false
	}
	if len(identifier) >= minSearchedBytes && bytes.Contains(fact, identifier) {
		return true
	}
	return holdsECKID(fact)
}
