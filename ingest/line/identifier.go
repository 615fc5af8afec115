package line

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/leerstroom/leerstroom/ingest/raw"
)

// An ECK iD is https://ketenid.nl/<chain>/<128 lower hex>. No official expression
// for it is published; this one is drawn from the values in use. The chain of
// production values is a year and month, such as 201703; test values carry a
// word, such as pilot; a chain that begins with sp marks a stampseudoniem, the
// secret from which ECK iDs are made.
const (
	eckidHost     = "https://ketenid.nl/"
	eckidHexBytes = 128
	maxChainBytes = 32

	maxIdentifierCharacters = 256
)

// Parts of a text that give away an ECK iD in it, of today and of before 2018.
var eckidMarks = [][]byte{[]byte("ketenid.nl/"), []byte("id.school/")}

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

func (p *Parser) eckid(value []byte) ([]byte, Rule) {
	chain, ok := cutECKID(value)
	if !ok {
		begin := len(p.scan.scratch)
		p.scan.scratch = append(p.scan.scratch, value...)
		value = p.scan.scratch[begin:len(p.scan.scratch):len(p.scan.scratch)]
		for i, c := range value {
			if c >= 'A' && c <= 'Z' {
				value[i] = c + 'a' - 'A'
			}
		}
		chain, ok = cutECKID(value)
	}
	switch {
	case !ok:
		return nil, RuleNotECKID
	case bytes.HasPrefix(chain, []byte("sp")):
		return nil, RuleStampseudoniem
	case !allDigits(chain) && !p.policy.TestIdentifiers:
		return nil, RuleTestIdentifier
	}
	return value, ""
}

// cutECKID checks the form of a lower-case value and returns its chain.
func cutECKID(value []byte) (chain []byte, ok bool) {
	rest, ok := bytes.CutPrefix(value, []byte(eckidHost))
	if !ok || len(rest) < eckidHexBytes+2 {
		return nil, false
	}
	cut := len(rest) - eckidHexBytes - 1
	chain, hex := rest[:cut], rest[cut+1:]
	if rest[cut] != '/' || len(chain) > maxChainBytes {
		return nil, false
	}
	for _, c := range chain {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return nil, false
		}
	}
	for len(hex) > 0 {
		if !eightHex(binary.LittleEndian.Uint64(hex)) {
			return nil, false
		}
		hex = hex[8:]
	}
	return chain, true
}

// eightHex tells whether eight bytes are all 0 to 9 or a to f. Adding 0x80 minus a
// bound sets the high bit of a byte from the bound on; bytes that have it already
// are excluded first, so no sum carries into its neighbour.
func eightHex(x uint64) bool {
	if x&highs != 0 {
		return false
	}
	digit := (x + ones*(0x80-'0')) &^ (x + ones*(0x80-'9'-1))
	letter := (x + ones*(0x80-'a')) &^ (x + ones*(0x80-'f'-1))
	return (digit|letter)&highs == highs
}

func allDigits(value []byte) bool {
	for _, c := range value {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
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

func holdsECKID(value []byte) bool {
	if bytes.IndexByte(value, '/') < 0 {
		return false
	}
	low := bytes.ToLower(value)
	for _, mark := range eckidMarks {
		if bytes.Contains(low, mark) {
			return true
		}
	}
	return false
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
