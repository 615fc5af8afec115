package line

import (
	"bytes"
	"encoding/binary"
	"net/url"
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
)

// Names of hosts that give away an ECK iD in a text: that of today, and that of
// before 2018, which is also the end of other words and so has its slash.
var eckidMarks = []string{"ketenid.nl", "id.school/"}

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

// maxUnescaping is how often a text is freed of percent signs: once for the URL
// that it stood in, once for the one around that, and once more.
const maxUnescaping = 3

// holdsECKID tells whether a text holds an ECK iD, or a stampseudoniem, in a form
// that senders are known to make: whatever its case, inside a longer text, escaped
// for a URL, or as the 128 hex digits alone.
func holdsECKID(value []byte) bool {
	if bytes.IndexByte(value, '%') < 0 {
		return showsECKID(value)
	}
	text := string(value)
	for range maxUnescaping {
		if showsECKID([]byte(text)) {
			return true
		}
		plain, err := url.PathUnescape(text)
		if err != nil || plain == text {
			return false
		}
		text = plain
	}
	return showsECKID([]byte(text))
}

func showsECKID(value []byte) bool {
	if bytes.IndexByte(value, '.') >= 0 {
		for _, mark := range eckidMarks {
			if containsFolded(value, mark) {
				return true
			}
		}
	}
	return hasHexRun(value, eckidHexBytes)
}

// containsFolded tells whether a text holds a mark, in whatever case of its
// letters. The mark is lower-case ASCII.
func containsFolded(value []byte, mark string) bool {
	for begin := 0; begin+len(mark) <= len(value); begin++ {
		n := 0
		for n < len(mark) && lowered(value[begin+n]) == mark[n] {
			n++
		}
		if n == len(mark) {
			return true
		}
	}
	return false
}

func lowered(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// hasHexRun tells whether a text holds n hex digits in a row.
func hasHexRun(value []byte, n int) bool {
	// Every n-th byte is in each run of n: most texts have no hex digit there.
	for at := n - 1; at < len(value); at += n {
		if !isHex(value[at]) {
			continue
		}
		begin, end := at, at+1
		for begin > 0 && isHex(value[begin-1]) {
			begin--
		}
		for end < len(value) && isHex(value[end]) {
			end++
		}
		if end-begin >= n {
			return true
		}
	}
	return false
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || lowered(c) >= 'a' && lowered(c) <= 'f'
}
