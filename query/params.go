package query

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what a request may hold.
const (
	maxName        = 256 // characters of a goal, group or school, as in a delivery
	maxItemKey     = 330 // characters of publisher:exercise
	maxQueryBytes  = 8192
	defaultPage    = 100
	maxPage        = 1000
	lowestTarget   = 0.05
	highestTarget  = 0.95
	defaultTarget  = 0.75
	tokenHexDigits = 32
)

// violation says which parameter breaks which rule, never with what value.
type violation struct{ field, rule string }

func (v *violation) Error() string { return v.field + ": " + v.rule }

// params are the query parameters of a request. The first violation sticks.
type params struct {
	values url.Values
	err    *violation
}

// readParams reads the query string. A parameter that the endpoint does not
// know, or one that comes twice, is a violation: a misspelt filter must not
// quietly select everything.
func readParams(r *http.Request, known ...string) *params {
	p := &params{}
	if r.URL.RawQuery == "" {
		return p
	}
	if len(r.URL.RawQuery) > maxQueryBytes {
		p.fail("query", "too long")
		return p
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		p.fail("query", "malformed")
		return p
	}
	for name, given := range values {
		switch {
		case !slices.Contains(known, name):
			p.fail("query", "unknown parameter")
		case len(given) > 1:
			p.fail(name, "given more than once")
		}
	}
	p.values = values
	return p
}

func (p *params) fail(field, rule string) {
	if p.err == nil {
		p.err = &violation{field, rule}
	}
}

// name reads a goal, group or school; "" when it is absent.
func (p *params) name(field string) string {
	if !p.values.Has(field) {
		return ""
	}
	value := p.values.Get(field)
	if !validName(value) {
		p.fail(field, nameRule)
		return ""
	}
	return value
}

// required reads a name that must be there.
func (p *params) required(field string) string {
	if !p.values.Has(field) {
		p.fail(field, "required")
		return ""
	}
	return p.name(field)
}

// integer reads a whole number between low and high.
func (p *params) integer(field string, low, high, absent int) int {
	if !p.values.Has(field) {
		return absent
	}
	value, err := strconv.ParseUint(p.values.Get(field), 10, 31)
	if err != nil || int(value) < low || int(value) > high {
		p.fail(field, "must be a whole number from "+strconv.Itoa(low)+" to "+strconv.Itoa(high))
		return absent
	}
	return int(value)
}

// target reads a probability of success.
func (p *params) target() float64 {
	if !p.values.Has("target") {
		return defaultTarget
	}
	value, err := strconv.ParseFloat(p.values.Get("target"), 64)
	if err != nil || !(value >= lowestTarget && value <= highestTarget) {
		p.fail("target", "must be a number from 0.05 to 0.95")
		return defaultTarget
	}
	return value
}

// quotas reads goals with their shares, as goal:share,goal:share.
func (p *params) quotas() []Quota {
	if !p.values.Has("quota") {
		return nil
	}
	parts := strings.Split(p.values.Get("quota"), ",")
	quotas := make([]Quota, 0, len(parts))
	for _, part := range parts {
		at := strings.LastIndexByte(part, ':')
		goal := part[:max(at, 0)]
		share, err := strconv.ParseFloat(part[at+1:], 64)
		if at < 1 || !validName(goal) || err != nil || !(share > 0 && share <= 1000) || len(quotas) == maxQuotas {
			p.fail("quota", "must be goal:share,goal:share, at most 50, with shares above 0 up to 1000")
			return nil
		}
		quotas = append(quotas, Quota{goal, share})
	}
	return quotas
}

// maxQuotas is how many goals a request may name.
const maxQuotas = 50

// cursor reads the place where a page begins: an id or a token of an earlier
// reply.
func (p *params) cursor(field string) string {
	if !p.values.Has(field) {
		return ""
	}
	value := p.values.Get(field)
	if !validText(value, maxItemKey) {
		p.fail(field, "must be the value of next in an earlier reply")
		return ""
	}
	return value
}

// nameRule is what validName asks.
const nameRule = "must be 1 to 256 characters without control characters"

// schoolRule is what access.ValidSchool asks.
const schoolRule = "must be BRIN and vestiging, such as 12AB00"

func validName(s string) bool { return validText(s, maxName) }

// validText tells whether s is 1 to most characters without control characters.
func validText(s string, most int) bool {
	if s == "" || len(s) > most*utf8.UTFMax || !utf8.ValidString(s) || utf8.RuneCountInString(s) > most {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

// parseToken reads the text of a token: 32 lower-case hex digits, so that a
// token has one spelling.
func parseToken(text string) (token [16]byte, ok bool) {
	if len(text) != tokenHexDigits {
		return token, false
	}
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return token, false
		}
	}
	_, err := hex.Decode(token[:], []byte(text))
	return token, err == nil
}

// failed returns the first violation, if any.
func (p *params) failed() error {
	if p.err == nil {
		return nil
	}
	return p.err
}
