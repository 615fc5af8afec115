package line

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/text/unicode/norm"
)

var errRefused = errors.New("refused")

var (
	referencePolicy = Policy{Publisher: "bingel", NowMS: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixMilli(), ClockSkewMS: 300_000}
	referenceECKID  = regexp.MustCompile(`^https://ketenid\.nl/([0-9a-z]{1,32})/[0-9a-f]{128}$`)
	referenceMoment = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`)
	referenceSchool = regexp.MustCompile(`^[0-9]{2}[A-Z]{2}[0-9]{2}$`)
)

// reference reads a line slowly, with a general JSON library, and renders every
// field; an absent one is not rendered. It shares the table with the parser and
// nothing else.
func reference(text []byte, fields []field) (map[string]string, error) {
	decoder := jsontext.NewDecoder(bytes.NewReader(text))
	whole, err := decoder.ReadValue()
	if err != nil {
		return nil, err
	}
	whole = whole.Clone()
	if _, err := decoder.ReadToken(); err != io.EOF {
		return nil, errRefused
	}
	members, err := referenceObject(whole, namesOf(fields)...)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for i := range fields {
		f := &fields[i]
		value, ok := members[f.name]
		if ok && string(value) != "null" {
			rendered, err := referenceField(f, value)
			if err != nil {
				return nil, err
			}
			if rendered != "" {
				out[f.name] = rendered
			}
		}
		if f.required && out[f.name] == "" {
			return nil, errRefused
		}
	}
	_, identifier, _ := strings.Cut(out["learner"], " ")
	for i := range fields {
		if fields[i].fact && elsewhere([]byte(out[fields[i].name]), []byte(identifier)) {
			return nil, errRefused
		}
	}
	return out, nil
}

func namesOf(fields []field) []string {
	var names []string
	for i := range fields {
		names = append(names, fields[i].name)
	}
	return names
}

func referenceObject(value jsontext.Value, names ...string) (map[string]jsontext.Value, error) {
	var members map[string]jsontext.Value
	if value.Kind() != '{' {
		return nil, errRefused
	}
	if err := json.Unmarshal(value, &members); err != nil {
		return nil, err
	}
	known := make(map[string]bool)
	for _, n := range names {
		known[n] = true
	}
	for n := range members {
		if !known[n] {
			return nil, errRefused
		}
	}
	return members, nil
}

func referenceText(value jsontext.Value, limit int) (string, error) {
	var text string
	if value.Kind() != '"' {
		return "", errRefused
	}
	if err := json.Unmarshal(value, &text); err != nil {
		return "", err
	}
	if utf8.RuneCountInString(text) > limit {
		return "", errRefused
	}
	for _, r := range text {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return "", errRefused
		}
	}
	return text, nil
}

func referenceField(f *field, value jsontext.Value) (string, error) {
	switch f.kind {
	case text:
		return referenceText(value, int(f.max))
	case decimal, integer:
		return referenceNumber(f, value)
	case learner:
		return referenceLearner(value)
	case path, norms:
		return referenceList(f, value)
	}
	content, err := referenceText(value, math.MaxInt)
	if err != nil || content == "" {
		return "", err
	}
	ok := false
	switch f.kind {
	case publisher:
		ok = content == referencePolicy.Publisher
	case school:
		ok = referenceSchool.MatchString(content)
	case purpose:
		ok = content == "practice" || content == "test" || content == "tracking"
	case moment, date:
		return referenceTime(f.kind, content)
	}
	if !ok {
		return "", errRefused
	}
	return content, nil
}

func referenceNumber(f *field, value jsontext.Value) (string, error) {
	if value.Kind() != '0' || f.kind == integer && bytes.ContainsAny(value, ".eE") {
		return "", errRefused
	}
	if f.kind == integer {
		n, ok := new(big.Int).SetString(string(value), 10)
		if !ok || n.Cmp(big.NewInt(int64(f.min))) < 0 || n.Cmp(big.NewInt(int64(f.max))) > 0 {
			return "", errRefused
		}
		return n.String(), nil
	}
	n, err := strconv.ParseFloat(string(value), 64)
	if err != nil || n < f.min || n > f.max {
		return "", errRefused
	}
	if n == 0 {
		n = 0
	}
	return fmt.Sprint(math.Float64bits(n + 0)), nil
}

func referenceTime(k kind, content string) (string, error) {
	form, year := content, content
	if k == date {
		form += "T00:00:00Z"
	}
	var at time.Time
	// time.Time reads forms that RFC 3339 has not, such as an hour of one digit.
	if !referenceMoment.MatchString(form) {
		return "", errRefused
	}
	if err := at.UnmarshalText([]byte(form)); err != nil || len(year) < 4 || year[:4] < "2000" || year[:4] > "2199" {
		return "", errRefused
	}
	if _, offset := at.Zone(); offset > 14*3600+59*60 || offset < -14*3600-59*60 {
		return "", errRefused
	}
	limit := referencePolicy.NowMS + referencePolicy.ClockSkewMS
	if k == date {
		if at.Add(-2*time.Hour).UnixMilli() > limit {
			return "", errRefused
		}
		return fmt.Sprint(at.Unix() / 86400), nil
	}
	if at.UnixMilli() > limit {
		return "", errRefused
	}
	return fmt.Sprint(at.UnixMilli()), nil
}

var referenceMark = regexp.MustCompile(`[kK][eE][tT][eE][nN][iI][dD]\.[nN][lL]|[iI][dD]\.[sS][cC][hH][oO][oO][lL]/|[0-9a-fA-F]{128}`)

func referenceHoldsECKID(text string) bool {
	for range 4 {
		if referenceMark.MatchString(text) {
			return true
		}
		plain, err := url.PathUnescape(text)
		if err != nil {
			return false
		}
		text = plain
	}
	return false
}

func referenceLearner(value jsontext.Value) (string, error) {
	members, err := referenceObject(value, "scheme", "value")
	if err != nil {
		return "", err
	}
	var scheme, id string
	if err := errors.Join(json.Unmarshal(orNull(members["scheme"]), &scheme), json.Unmarshal(orNull(members["value"]), &id)); err != nil {
		return "", err
	}
	id = norm.NFC.String(strings.TrimSpace(id))
	if scheme == "eckid" {
		// Only ASCII is lowered: a letter that Unicode lowers to a hex digit is none.
		id = strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' {
				return r + 'a' - 'A'
			}
			return r
		}, strings.TrimSpace(id))
		found := referenceECKID.FindStringSubmatch(id)
		if found == nil || strings.Trim(found[1], "0123456789") != "" {
			return "", errRefused
		}
		return scheme + " " + id, nil
	}
	if _, err := referenceText(append(jsontext.Value(nil), mustQuote(id)...), 256); err != nil || id == "" {
		return "", errRefused
	}
	if referenceHoldsECKID(id) {
		return "", errRefused
	}
	switch scheme {
	case "las":
		if id[0] == '#' || looksLikeBSN([]byte(id)) {
			return "", errRefused
		}
	case "publisher":
		if looksLikeBSN([]byte(id)) {
			return "", errRefused
		}
	case "basispoort":
	default:
		return "", errRefused
	}
	return scheme + " " + id, nil
}

func orNull(value jsontext.Value) jsontext.Value {
	if value == nil {
		return jsontext.Value("null")
	}
	return value
}

func mustQuote(text string) []byte {
	quoted, err := jsontext.AppendQuote(nil, text)
	if err != nil {
		panic(err)
	}
	return quoted
}

func referenceList(f *field, value jsontext.Value) (string, error) {
	var list []jsontext.Value
	if value.Kind() != '[' {
		return "", errRefused
	}
	if err := json.Unmarshal(value, &list); err != nil {
		return "", err
	}
	var out []string
	for _, entry := range list {
		if f.kind == path {
			part, err := referenceText(entry, int(f.max))
			if err != nil || part == "" {
				return "", errRefused
			}
			out = append(out, part)
			continue
		}
		members, err := referenceObject(entry, "kind", "value")
		if err != nil || string(orNull(members["kind"])) == "null" || string(orNull(members["value"])) == "null" {
			return "", errRefused
		}
		kind, err1 := referenceText(members["kind"], int(normKindField.max))
		number, err2 := referenceNumber(&normValueField, members["value"])
		if err1 != nil || err2 != nil || kind == "" {
			return "", errRefused
		}
		out = append(out, kind+"="+number)
	}
	if f.kind == path && len(out) > maxPath || f.kind == norms && len(out) > maxNorms {
		return "", errRefused
	}
	return strings.Join(out, "\x00"), nil
}

// parsed renders what the parser read in the same way.
func parsed(p *Parser, o *order) map[string]string {
	out := make(map[string]string)
	for i := range o.fields {
		f, v := &o.fields[i], &p.values[i]
		if p.set&(1<<i) == 0 {
			continue
		}
		switch f.kind {
		case text, publisher, school:
			out[f.name] = string(v.text)
		case purpose:
			out[f.name] = []string{"", "practice", "test", "tracking"}[v.integer]
		case integer, moment, date:
			out[f.name] = fmt.Sprint(v.integer)
		case decimal:
			out[f.name] = fmt.Sprint(math.Float64bits(v.number))
		case learner:
			out[f.name] = p.scheme.String() + " " + string(p.known)
		case path:
			out[f.name] = string(bytes.Join(p.path, []byte{0}))
		case norms:
			var parts []string
			for j := range p.normKinds {
				parts = append(parts, fmt.Sprintf("%s=%d", p.normKinds[j], math.Float64bits(p.normValues[j])))
			}
			out[f.name] = strings.Join(parts, "\x00")
		}
		if out[f.name] == "" {
			delete(out, f.name)
		}
	}
	return out
}

func compare(t *testing.T, text []byte, fields []field) {
	t.Helper()
	p := NewParser(referencePolicy)
	o := &p.answers
	if len(fields) == len(resultFields) {
		o = &p.results
	}
	refusal := p.record(o, text)
	want, err := reference(text, fields)
	if (err == nil) != (refusal.Rule == "") {
		t.Fatalf("record(%q) = %+v, the reference says %v", text, refusal, err)
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) && refusal.Rule == "" {
		t.Fatalf("record(%q) accepts what is not JSON: %v", text, err)
	}
	if (refusal.Rule == RuleMalformed || refusal.Rule == RuleInvalidUTF8) && err == nil {
		t.Fatalf("record(%q) = %+v, but it is JSON", text, refusal)
	}
	if err == nil {
		if got := parsed(p, o); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("record(%q) = %q, the reference says %q", text, got, want)
		}
	}
	// The same parser again: nothing of a line may reach the next.
	if again := p.record(o, text); again != refusal {
		t.Fatalf("record(%q) = %+v, then %+v", text, refusal, again)
	}
}

var hexTail = strings.Repeat("0f3a91b2", 16)

var seedLines = []string{
	`{"id":"b-1","publisher":"bingel","school":"12AB00","learner":{"scheme":"eckid","value":"https://ketenid.nl/201703/` + hexTail + `"},"group":"5A","year_group":5,"exercise":"wig5-o7","goal":"optellen","subject":"rekenen","kind":"practice","score":1,"attempt":1,"response_time_ms":8200,"answered_at":"2026-11-23T10:15:00+01:00","revision":3}`,
	`{"score":0.25,"answered_at":"2024-02-29T23:59:59.9999999-14:00","kind":"test","exercise":"\u00e9\ud83d\ude00","learner":{"value":" e\u0301 ","scheme":"publisher"},"school":"99XX01","publisher":"bingel","id":"x"}`,
	`{"id":"t-1","publisher":"bingel","school":"12AB00","learner":{"scheme":"las","value":"4711"},"group":"5A","year_group":5,"test":"pp4","test_name":"Pluspunt","subject":"rekenen","part":"bew","path":["blok 3","bew"],"taken_on":"2026-11-20","score":17,"max_score":20,"made":20,"right":17,"wrong":3,"duration_s":1500,"norms":[{"kind":"v","value":83.5}],"revision":1}`,
	`{"id":"a","id":"b"}`, `{"id":"\ud800"}`, `{"score":1e-400}`, "{\"id\":\"\xff\"}", `{"learner":{"scheme":"las","value":"063138219"}}`, `{} `, `[1]`, ``,
	` { "id" : "q" , "publisher":"bingel","school":"12AB00","learner":{"scheme":"basispoort","value":"10000001"},"exercise":"e","kind":"tracking","score":-0.0e1,"answered_at":"2026-11-23T12:04:59.9Z" } `,
}

func TestSeedsAgainstReference(t *testing.T) {
	t.Parallel()
	accepted := 0
	for _, text := range seedLines {
		for _, fields := range [][]field{answerFields, resultFields} {
			compare(t, []byte(text), fields)
			if _, err := reference([]byte(text), fields); err == nil {
				accepted++
			}
		}
	}
	if accepted < 4 {
		t.Errorf("the reference accepts %d seeds, want at least 4: it compares too little", accepted)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, text := range seedLines {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { compare(t, text, answerFields) })
}

func FuzzTestResult(f *testing.F) {
	for _, text := range seedLines {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { compare(t, text, resultFields) })
}

// FuzzText holds the reader of texts, with its eight bytes at a time, against the
// library.
func FuzzText(f *testing.F) {
	for _, text := range []string{`"12345678"`, `"1234567"x`, "\"abcdefgh\x7f\"", `"abcdefg\n"`, "\"0123456789é0123456789\"", `"01234567890123456\u00e9"`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s scanner
		s.reset(text)
		got, _ := s.text()
		s.end()
		decoder := jsontext.NewDecoder(bytes.NewReader(text))
		var want string
		value, err := decoder.ReadValue()
		if err == nil {
			value = value.Clone()
			if _, more := decoder.ReadToken(); more != io.EOF || value.Kind() != '"' {
				err = errRefused
			} else {
				err = json.Unmarshal(value, &want)
			}
		}
		if (err == nil) != (s.rule == "") || err == nil && string(got) != want {
			t.Fatalf("text(%q) = %q %s, the reference says %q %v", text, got, s.rule, want, err)
		}
	})
}

// The library on the same line, reading tokens and nothing else, is the bar for
// reading by hand.
func BenchmarkLibraryTokens(b *testing.B) {
	text := []byte(seedLines[0])
	reader := bytes.NewReader(text)
	decoder := jsontext.NewDecoder(reader)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(text)
		decoder.Reset(reader)
		for {
			if _, err := decoder.ReadToken(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// Pieces that damage a line in interesting places.
var atoms = []string{`"`, `\`, `,`, `:`, `{`, `}`, `[`, `]`, `null`, `true`, `0`, `-`, `1e5`, `0.1`, `01`, `1.`, `\u0000`, `\ud83d`, `\ude00`, `\u00e9`, "é", "\xff", "\x7f", "\x00",
	" ", "\t", "\n", `"id":"x",`, `"naam":1,`, `"group":null,`, `"group":"",`, `"score":0,`, `999999999999999999999`, `2026-11-23T10:15:00Z`, `2026-11-20`, `12AB00`,
	`063138219`, `#`, `ketenid.nl/`, `/ID.school/`, `sp201703`, `pilot`, `b-1`, hexTail, strings.Repeat("x", 260), `["a","b"],`, `{"kind":"k","value":1},`}

// TestDamagedLinesAgainstReference mutates valid lines. A failure prints the seed;
// LEERSTROOM_SEED repeats it.
func TestDamagedLinesAgainstReference(t *testing.T) {
	t.Parallel()
	seed := uint64(1)
	if text := os.Getenv("LEERSTROOM_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with LEERSTROOM_SEED=%d go test -run TestDamagedLinesAgainstReference ./ingest/line", seed)
		}
	})
	random := rand.New(rand.NewPCG(seed, 1))
	for range 8000 {
		text := []byte(seedLines[random.IntN(3)])
		for range 1 + random.IntN(3) {
			at := random.IntN(len(text) + 1)
			switch atom := atoms[random.IntN(len(atoms))]; random.IntN(4) {
			case 0:
				text = slices.Insert(text, at, []byte(atom)...)
			case 1:
				text = slices.Replace(text, at, min(at+len(atom), len(text)), []byte(atom)...)
			case 2:
				text = slices.Delete(text, at, min(at+random.IntN(12), len(text)))
			default: // the value after a colon
				if colon := bytes.IndexByte(text[at:], ':'); colon >= 0 {
					from := at + colon + 1
					if end := bytes.IndexAny(text[from:], ",}"); end >= 0 {
						text = slices.Replace(text, from, from+end, []byte(atom)...)
					}
				}
			}
		}
		compare(t, text, answerFields)
		compare(t, text, resultFields)
	}
}
