package line_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/ingest/line"
	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
)

var (
	hex128 = strings.Repeat("0f3a91b2", 16)
	eckid  = "https://ketenid.nl/201703/" + hex128
	now    = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

func policy() line.Policy {
	return line.Policy{Publisher: "bingel", NowMS: now.UnixMilli(), ClockSkewMS: 5 * 60 * 1000}
}

// member is one field of a line, as JSON text.
type member struct{ name, value string }

func answerMembers() []member {
	return []member{{"id", `"b-1"`}, {"publisher", `"bingel"`}, {"school", `"12AB00"`}, {"learner", `{"scheme":"eckid","value":"` + eckid + `"}`},
		{"group", `"5A"`}, {"year_group", `5`}, {"exercise", `"wig5-o7"`}, {"goal", `"optellen"`}, {"subject", `"rekenen"`}, {"kind", `"practice"`},
		{"score", `1`}, {"attempt", `1`}, {"response_time_ms", `8200`}, {"answered_at", `"2026-11-23T10:15:00+01:00"`}, {"revision", `0`}}
}

func resultMembers() []member {
	return []member{{"id", `"t-1"`}, {"publisher", `"bingel"`}, {"school", `"12AB00"`}, {"learner", `{"scheme":"las","value":"L-4711-x"}`},
		{"group", `"5A"`}, {"year_group", `5`}, {"test", `"pp4"`}, {"test_name", `"Pluspunt"`}, {"subject", `"rekenen"`}, {"part", `"bewerkingen"`},
		{"path", `["blok 3","bewerkingen"]`}, {"taken_on", `"2026-11-20"`}, {"score", `17`}, {"max_score", `20`}, {"made", `20`}, {"right", `17`},
		{"wrong", `3`}, {"duration_s", `1500`}, {"norms", `[{"kind":"vaardigheidsscore","value":83}]`}, {"revision", `0`}}
}

// render writes the members as a line. With changes "name", "value", … a member
// gets another value; an empty value removes it; a new name is added at the end.
func render(members []member, changes ...string) string {
	members = slices.Clone(members)
	for i := 0; i < len(changes); i += 2 {
		at := slices.IndexFunc(members, func(m member) bool { return m.name == changes[i] })
		switch {
		case at < 0:
			members = append(members, member{changes[i], changes[i+1]})
		case changes[i+1] == "":
			members = slices.Delete(members, at, at+1)
		default:
			members[at].value = changes[i+1]
		}
	}
	var parts []string
	for _, m := range members {
		parts = append(parts, fmt.Sprintf("%q:%s", m.name, m.value))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

type refusalCase struct {
	line  string
	field string
	rule  line.Rule
}

func changed(field string, rule line.Rule, members []member, changes ...string) refusalCase {
	return refusalCase{render(members, changes...), field, rule}
}

// sharedCases hold for both records.
func sharedCases(members func() []member) []refusalCase {
	m := members()
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	who := func(scheme, value string) string { return `{"scheme":"` + scheme + `","value":"` + value + `"}` }
	cases := []refusalCase{
		{"", "", line.RuleMalformed}, {" ", "", line.RuleMalformed}, {"[]", "", line.RuleMalformed}, {`"x"`, "", line.RuleMalformed}, {"null", "", line.RuleMalformed},
		{"{", "", line.RuleMalformed}, {"{}", "id", line.RuleRequired}, {"{,}", "", line.RuleMalformed}, {`{"id"}`, "", line.RuleMalformed},
		{`{"id":}`, "", line.RuleMalformed}, {`{"id":"x",}`, "", line.RuleMalformed}, {`{id:"x"}`, "", line.RuleMalformed}, {`{'id':"x"}`, "", line.RuleMalformed},
		{render(m) + "}", "", line.RuleMalformed}, {render(m) + "{}", "", line.RuleMalformed}, {render(m) + ",", "", line.RuleMalformed},
		{render(m)[:len(render(m))-1], "", line.RuleMalformed}, {"\ufeff" + render(m), "", line.RuleMalformed}, {render(m) + "\x00", "", line.RuleMalformed},
		{"{\"id\":\"a\tb\"}", "", line.RuleMalformed}, {"{\"id\":\"a\xff\"}", "", line.RuleInvalidUTF8}, {"{\"id\":\"\xed\xa0\x80\"}", "", line.RuleInvalidUTF8},
		{`{"id":"\ud800"}`, "", line.RuleInvalidUTF8}, {`{"id":"\ud800\u0041"}`, "", line.RuleInvalidUTF8}, {`{"id":"\udc00\ud800"}`, "", line.RuleInvalidUTF8},
		{`{"id":"\x41"}`, "", line.RuleMalformed}, {`{"id":"\u00g0"}`, "", line.RuleMalformed}, {`{"id":"\`, "", line.RuleMalformed},
		{`{"id":tru}`, "id", line.RuleWrongType}, {`{"id":nul}`, "", line.RuleMalformed}, {`{"id":nullx}`, "", line.RuleMalformed},

		changed("", line.RuleUnknownField, m, "naam", `"Noor"`), changed("", line.RuleUnknownField, m, "ID", `"x"`), changed("", line.RuleUnknownField, m, "", `1`),
		{`{"id":"a","id":"a"}`, "id", line.RuleDuplicateField}, {`{"id":"a","\u0069d":"a"}`, "id", line.RuleDuplicateField},
		changed("id", line.RuleRequired, m, "id", ""), changed("id", line.RuleRequired, m, "id", "null"), changed("id", line.RuleRequired, m, "id", `""`),
		changed("id", line.RuleWrongType, m, "id", "7"), changed("id", line.RuleWrongType, m, "id", "{}"), changed("id", line.RuleTooLong, m, "id", long(257)),
		changed("id", line.RuleBadCharacters, m, "id", `"a\u0000"`), changed("id", line.RuleBadCharacters, m, "id", `"a\u0085"`), changed("id", line.RuleBadCharacters, m, "id", "\"a\x7f\""),
		changed("publisher", line.RuleRequired, m, "publisher", ""), changed("publisher", line.RuleWrongPublisher, m, "publisher", `"baps"`),
		changed("publisher", line.RuleWrongPublisher, m, "publisher", `"Bingel"`), changed("publisher", line.RuleWrongType, m, "publisher", `["bingel"]`),
		changed("school", line.RuleRequired, m, "school", ""), changed("school", line.RuleWrongType, m, "school", "120000"),
		changed("learner", line.RuleRequired, m, "learner", ""), changed("learner", line.RuleRequired, m, "learner", "null"),
		changed("learner", line.RuleWrongType, m, "learner", `"`+eckid+`"`), changed("learner", line.RuleWrongType, m, "learner", `["eckid"]`),
		changed("learner", line.RuleUnknownField, m, "learner", `{"scheme":"las","value":"4711","name":"Noor"}`),
		changed("learner.scheme", line.RuleRequired, m, "learner", `{"value":"4711"}`), changed("learner.scheme", line.RuleRequired, m, "learner", `{}`),
		changed("learner.scheme", line.RuleRequired, m, "learner", `{"scheme":null,"value":"4711"}`), changed("learner.scheme", line.RuleUnknownValue, m, "learner", who("bsn", "4711")),
		changed("learner.scheme", line.RuleUnknownValue, m, "learner", who("ECKID", eckid)), changed("learner.scheme", line.RuleWrongType, m, "learner", `{"scheme":1,"value":"4711"}`),
		changed("learner.scheme", line.RuleDuplicateField, m, "learner", `{"scheme":"las","scheme":"las","value":"4711"}`),
		changed("learner.value", line.RuleDuplicateField, m, "learner", `{"scheme":"las","value":"4711","value":"4711"}`),
		changed("learner.value", line.RuleRequired, m, "learner", `{"scheme":"las"}`), changed("learner.value", line.RuleRequired, m, "learner", `{"scheme":"las","value":null}`),
		changed("learner.value", line.RuleRequired, m, "learner", who("las", " \\t ")), changed("learner.value", line.RuleWrongType, m, "learner", `{"scheme":"las","value":4711}`),
		changed("learner.value", line.RuleTooLong, m, "learner", who("las", strings.Repeat("x", 257))), changed("learner.value", line.RuleBadCharacters, m, "learner", who("las", "a\\u0000b")),
		changed("learner.value", line.RuleDummyIdentifier, m, "learner", who("las", "#1")), changed("learner.value", line.RuleDummyIdentifier, m, "learner", who("las", " #1")),
		changed("learner.value", line.RuleLooksLikeBSN, m, "learner", who("las", "063138219")), changed("learner.value", line.RuleLooksLikeBSN, m, "learner", who("publisher", " 063138219 ")),
		changed("learner.value", line.RuleWrongScheme, m, "learner", who("las", eckid)), changed("learner.value", line.RuleWrongScheme, m, "learner", who("publisher", "x:HTTPS://KETENID.NL/1")),
		changed("learner.value", line.RuleWrongScheme, m, "learner", who("basispoort", "https://id.school/pilot/1")),
		changed("group", line.RuleTooLong, m, "group", long(65)), changed("group", line.RuleWrongType, m, "group", "5"), changed("group", line.RuleBadCharacters, m, "group", `"5\nA"`),
		changed("group", line.RuleIdentifierElsewhere, m, "group", `"x `+eckid[:40]+`"`), changed("subject", line.RuleIdentifierElsewhere, m, "subject", `"https://id.school/x"`),
		changed("subject", line.RuleTooLong, m, "subject", long(257)),
		changed("revision", line.RuleOutOfRange, m, "revision", "-1"), changed("revision", line.RuleOutOfRange, m, "revision", "4294967296"), changed("revision", line.RuleNotInteger, m, "revision", "1.0"),
		changed("revision", line.RuleOutOfRange, m, "revision", "99999999999999999999999"), changed("revision", line.RuleNotInteger, m, "revision", "1e3"),
		changed("", line.RuleMalformed, m, "revision", "01"), changed("", line.RuleMalformed, m, "revision", "-"), changed("", line.RuleMalformed, m, "revision", "+1"), changed("", line.RuleMalformed, m, "revision", "NaN"),
	}
	for _, school := range []string{"12ab00", "12AB", "12AB0", "12AB000", "A2AB00", "121B00", "12ABxx", " 12AB00", "١٢AB00"} {
		cases = append(cases, changed("school", line.RuleNotASchool, m, "school", `"`+school+`"`))
	}
	for _, year := range []string{"0", "9", "-1", "11"} {
		cases = append(cases, changed("year_group", line.RuleOutOfRange, m, "year_group", year))
	}
	for value, rule := range map[string]line.Rule{
		"4711": line.RuleNotECKID, eckid[:len(eckid)-1]: line.RuleNotECKID, eckid + "0": line.RuleNotECKID, "http" + eckid[5:]: line.RuleNotECKID,
		"https://id.school/201703/" + hex128: line.RuleNotECKID, "https://ketenid.nl//" + hex128: line.RuleNotECKID, "https://ketenid.nl/" + hex128: line.RuleNotECKID,
		"https://ketenid.nl/2017-03/" + hex128: line.RuleNotECKID, "https://ketenid.nl/201703/" + hex128[:127] + "g": line.RuleNotECKID, "https://ketenid.nl/a/201703/" + hex128: line.RuleNotECKID,
		"https://ketenid.nl/" + strings.Repeat("1", 33) + "/" + hex128: line.RuleNotECKID, "eckid_L1": line.RuleNotECKID,
		"https://ketenid.nl/pilot/" + hex128: line.RuleTestIdentifier, "https://ketenid.nl/PILOT/" + hex128: line.RuleTestIdentifier,
		"https://ketenid.nl/test/" + hex128: line.RuleTestIdentifier, "https://ketenid.nl/2017o3/" + hex128: line.RuleTestIdentifier, "https://ketenid.nl/sp/" + hex128: line.RuleStampseudoniem,
		hex128: line.RuleNotECKID, "201703/" + hex128: line.RuleNotECKID, "ketenid.nl/201703/" + hex128: line.RuleNotECKID, "https://www.ketenid.nl/201703/" + hex128: line.RuleNotECKID,
		"https://ketenid.nl:443/201703/" + hex128: line.RuleNotECKID, eckid + "/": line.RuleNotECKID, eckid + "?x": line.RuleNotECKID, "https://ketenid.nl/201703/" + hex128[:64]: line.RuleNotECKID,
		"https%3A%2F%2Fketenid.nl%2F201703%2F" + hex128: line.RuleNotECKID, "https://ketenid.nl/201703/" + hex128[:126] + "é": line.RuleNotECKID, "\u200b" + eckid: line.RuleNotECKID,
		"https://ketenid.nl/sp201703/" + hex128: line.RuleStampseudoniem, "https://ketenid.nl/sppilot/" + hex128: line.RuleStampseudoniem,
	} {
		cases = append(cases, changed("learner.value", rule, m, "learner", who("eckid", value)))
	}
	// No form of an ECK iD comes in as an identifier of another kind, or in a text.
	for _, form := range []string{eckid, strings.ToUpper(eckid), "x " + eckid + " y", "https://id.school/201703/" + hex128, "https://ketenid.nl/sppilot/" + hex128,
		"https:\\/\\/ketenid.nl\\/201703\\/" + hex128, "https%3A%2F%2Fketenid.nl%2F201703%2F" + hex128, "https%253A%252F%252Fid.school%252F201703", "https%3a%2f%2fketenid%2enl",
		"ketenid.nl", "KetenId.NL:201703", hex128, "p-" + strings.ToUpper(hex128) + "-1", hex128 + "0"} {
		for _, scheme := range []string{"basispoort", "las", "publisher"} {
			cases = append(cases, changed("learner.value", line.RuleWrongScheme, m, "learner", who(scheme, form)))
		}
		cases = append(cases, changed("subject", line.RuleIdentifierElsewhere, m, "subject", `"`+form+`"`))
	}
	return cases
}

func check(t *testing.T, parse func(text []byte) line.Refusal, cases []refusalCase) {
	t.Helper()
	for _, c := range cases {
		if got := parse([]byte(c.line)); got.Field != c.field || got.Rule != c.rule {
			t.Errorf("parse(%s) = %+v, want %s %s", c.line, got, c.field, c.rule)
		}
	}
}

func TestAnswerRules(t *testing.T) {
	t.Parallel()
	m := answerMembers()
	cases := append(sharedCases(answerMembers),
		changed("exercise", line.RuleRequired, m, "exercise", ""), changed("exercise", line.RuleRequired, m, "exercise", `""`),
		changed("exercise", line.RuleTooLong, m, "exercise", `"`+strings.Repeat("é", 257)+`"`), changed("exercise", line.RuleIdentifierElsewhere, m, "exercise", `"o7?p=`+eckid[8:30]+`"`),
		changed("goal", line.RuleWrongType, m, "goal", `["a"]`), changed("goal", line.RuleIdentifierElsewhere, m, "goal", `"own-4711-aa!"`, "learner", `{"scheme":"publisher","value":"own-4711-aa"}`),
		changed("kind", line.RuleRequired, m, "kind", ""), changed("kind", line.RuleUnknownValue, m, "kind", `"exam"`), changed("kind", line.RuleUnknownValue, m, "kind", `"Practice"`), changed("kind", line.RuleWrongType, m, "kind", "1"),
		changed("score", line.RuleRequired, m, "score", ""), changed("score", line.RuleRequired, m, "score", "null"), changed("score", line.RuleOutOfRange, m, "score", "1.0000001"),
		changed("score", line.RuleOutOfRange, m, "score", "-0.1"), changed("score", line.RuleOutOfRange, m, "score", "1e999"), changed("score", line.RuleWrongType, m, "score", `"1"`), changed("score", line.RuleWrongType, m, "score", "true"),
		changed("", line.RuleMalformed, m, "score", ".5"), changed("", line.RuleMalformed, m, "score", "1."), changed("", line.RuleMalformed, m, "score", "1e"), changed("", line.RuleMalformed, m, "score", "0x1"), changed("", line.RuleMalformed, m, "score", "Infinity"),
		changed("attempt", line.RuleOutOfRange, m, "attempt", "0"), changed("attempt", line.RuleOutOfRange, m, "attempt", "65536"), changed("attempt", line.RuleNotInteger, m, "attempt", "1.5"),
		changed("response_time_ms", line.RuleOutOfRange, m, "response_time_ms", "-1"), changed("response_time_ms", line.RuleOutOfRange, m, "response_time_ms", "86400001"),
		changed("answered_at", line.RuleRequired, m, "answered_at", ""), changed("answered_at", line.RuleWrongType, m, "answered_at", "1790000000"),
		changed("answered_at", line.RuleInFuture, m, "answered_at", `"2026-11-23T12:05:00.001Z"`), changed("answered_at", line.RuleOutOfRange, m, "answered_at", `"1999-12-31T23:59:59Z"`),
		changed("answered_at", line.RuleNoOffset, m, "answered_at", `"2026-11-23T10:15:00"`), changed("answered_at", line.RuleNoOffset, m, "answered_at", `"2026-11-23T10:15:00.5"`),
	)
	for _, at := range []string{"2026-11-23", "2026-11-23 10:15:00Z", "2026-11-23T24:00:00Z", "2026-11-23T10:60:00Z", "2026-11-23T10:15:60Z", "2026-13-01T10:15:00Z", "2026-02-29T10:15:00Z",
		"2026-11-23T10:15Z", "2026-11-23T10:15:00.Z", "2026-11-23T10:15:00+0100", "2026-11-23T10:15:00+15:00", "2026-11-23T10:15:00z", "20261123T101500Z", "x", "2026-11-23T10:15:00+01:00 "} {
		cases = append(cases, changed("answered_at", line.RuleNotATime, m, "answered_at", `"`+at+`"`))
	}
	p := line.NewParser(policy())
	var a line.Answer
	check(t, func(text []byte) line.Refusal { return p.Answer(text, &a) }, cases)
}

func TestTestResultRules(t *testing.T) {
	t.Parallel()
	m := resultMembers()
	norms := func(n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(`{"kind":"k","value":1},`, n), ",") + "]"
	}
	cases := append(sharedCases(resultMembers),
		changed("test", line.RuleRequired, m, "test", ""), changed("test_name", line.RuleTooLong, m, "test_name", `"`+strings.Repeat("x", 129)+`"`),
		changed("part", line.RuleIdentifierElsewhere, m, "part", `"of L-4711-x"`), changed("path", line.RuleIdentifierElsewhere, m, "path", `["a","L-4711-x"]`),
		changed("path", line.RuleWrongType, m, "path", `"blok"`), changed("path", line.RuleWrongType, m, "path", `[1]`), changed("path", line.RuleRequired, m, "path", `["a",""]`),
		changed("path", line.RuleTooLong, m, "path", `["1","2","3","4","5","6","7","8","9"]`), changed("path", line.RuleTooLong, m, "path", `["`+strings.Repeat("x", 257)+`"]`),
		changed("", line.RuleMalformed, m, "path", `["a",]`), changed("path", line.RuleWrongType, m, "path", `["a",null]`), changed("path", line.RuleWrongType, m, "path", `[["a"]]`),
		changed("taken_on", line.RuleRequired, m, "taken_on", ""), changed("taken_on", line.RuleNotADate, m, "taken_on", `"2026-11-20T10:00:00Z"`), changed("taken_on", line.RuleNotADate, m, "taken_on", `"20-11-2026"`),
		changed("taken_on", line.RuleNotADate, m, "taken_on", `"2025-02-29"`), changed("taken_on", line.RuleOutOfRange, m, "taken_on", `"1999-12-31"`), changed("taken_on", line.RuleInFuture, m, "taken_on", `"2026-11-24"`),
		changed("score", line.RuleWrongType, m, "score", `"X"`), changed("score", line.RuleOutOfRange, m, "score", "2e9"), changed("score", line.RuleInconsistent, m, "score", "20.5"),
		changed("max_score", line.RuleOutOfRange, m, "max_score", "-1"), changed("made", line.RuleInconsistent, m, "made", "19"), changed("made", line.RuleOutOfRange, m, "made", "-1"), changed("right", line.RuleNotInteger, m, "right", "1.5"),
		changed("made", line.RuleInconsistent, m, "made", "16", "wrong", ""), changed("wrong", line.RuleOutOfRange, m, "wrong", "100001"), changed("duration_s", line.RuleOutOfRange, m, "duration_s", "604801"),
		changed("norms", line.RuleWrongType, m, "norms", "{}"), changed("norms", line.RuleWrongType, m, "norms", "[1]"), changed("norms", line.RuleTooLong, m, "norms", norms(17)),
		changed("norms", line.RuleUnknownField, m, "norms", `[{"kind":"k","value":1,"label":"x"}]`), changed("norms.kind", line.RuleRequired, m, "norms", `[{"value":1}]`), changed("norms.kind", line.RuleRequired, m, "norms", `[{"kind":"","value":1}]`),
		changed("norms.value", line.RuleRequired, m, "norms", `[{"kind":"k"}]`), changed("norms.value", line.RuleRequired, m, "norms", `[{"kind":"k","value":null}]`), changed("norms.value", line.RuleWrongType, m, "norms", `[{"kind":"k","value":"83"}]`),
		changed("norms.kind", line.RuleDuplicateField, m, "norms", `[{"kind":"k","kind":"k"}]`), changed("norms.value", line.RuleDuplicateField, m, "norms", `[{"value":1,"value":1}]`),
		changed("norms.kind", line.RuleTooLong, m, "norms", `[{"kind":"`+strings.Repeat("x", 65)+`","value":1}]`), changed("norms.kind", line.RuleIdentifierElsewhere, m, "norms", `[{"kind":"L-4711-x","value":1}]`),
		changed("", line.RuleMalformed, m, "norms", `[{"kind":"k","value":1},]`),
		changed("score", line.RuleNoResult, m, "score", "", "right", "", "norms", ""), changed("score", line.RuleNoResult, m, "score", "", "right", "", "norms", "[]"),
	)
	p := line.NewParser(policy())
	var r line.TestResult
	check(t, func(text []byte) line.Refusal { return p.TestResult(text, &r) }, cases)
}

func TestAnswerValues(t *testing.T) {
	t.Parallel()
	p := line.NewParser(policy())
	var a line.Answer
	text := render(answerMembers())
	if refusal := p.Answer([]byte(text), &a); refusal.Rule != "" {
		t.Fatalf("Answer = %+v", refusal)
	}
	got := fmt.Sprintf("%s %s %v %s %s %d %d %s %s %s %v %v %d %d %d", a.ID, a.School, a.Scheme, a.Learner, a.Group, a.YearGroup, a.Revision,
		a.Exercise, a.Goal, a.Subject, a.Kind, a.Score, a.Attempt, a.ResponseTime, a.AnsweredAt)
	want := "b-1 12AB00 eckid " + eckid + " 5A 5 0 wig5-o7 optellen rekenen practice 1 1 8200 1795425300000"
	if got != want {
		t.Errorf("Answer = %s, want %s", got, want)
	}
}

func TestUnknownIsNotZero(t *testing.T) {
	t.Parallel()
	p := line.NewParser(policy())
	for _, absent := range []string{"", "null"} {
		var a line.Answer
		text := render(answerMembers(), "group", absent, "year_group", absent, "goal", absent, "subject", absent, "attempt", absent, "response_time_ms", absent, "revision", absent)
		if refusal := p.Answer([]byte(text), &a); refusal.Rule != "" {
			t.Fatalf("Answer(%s) = %+v", text, refusal)
		}
		if len(a.Group)+len(a.Goal)+len(a.Subject) != 0 || a.YearGroup != 0 || a.Attempt != 0 || a.ResponseTime != -1 || a.Revision != 0 {
			t.Errorf("Answer(%s) = %+v", text, a)
		}
		var r line.TestResult
		text = render(resultMembers(), "max_score", absent, "made", absent, "right", absent, "wrong", absent, "duration_s", absent, "norms", absent, "path", absent, "test_name", absent, "part", absent)
		if refusal := p.TestResult([]byte(text), &r); refusal.Rule != "" {
			t.Fatalf("TestResult(%s) = %+v", text, refusal)
		}
		if !math.IsNaN(r.MaxScore) || r.Score != 17 || r.Made != -1 || r.Right != -1 || r.Wrong != -1 || r.DurationS != -1 || len(r.NormKinds)+len(r.Path)+len(r.TestName) != 0 {
			t.Errorf("TestResult(%s) = %+v", text, r)
		}
	}
}

func TestIdentifiersAreNormalised(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, scheme, value, want string
		change                    func(*line.Policy)
	}{
		{"upper case", "eckid", strings.ToUpper(eckid), eckid, nil},
		{"spaces", "eckid", "  " + eckid + "\\t", eckid, nil},
		{"case and Unicode spaces", "eckid", "\\u00a0\\u2003HTTPS://KetenID.nl/201703/" + strings.ToUpper(hex128) + "\\n", eckid, nil},
		{"another chain of digits", "eckid", "https://ketenid.nl/202608/" + hex128, "https://ketenid.nl/202608/" + hex128, nil},
		{"as many digits as no ECK iD has", "publisher", hex128[:127], hex128[:127], nil},
		{"a word that ends like the old host", "publisher", "kid.school", "kid.school", nil},
		{"a percent sign", "publisher", "100%-club%20a", "100%-club%20a", nil},
		{"a test chain in a test", "eckid", "https://ketenid.nl/pilot/" + hex128, "https://ketenid.nl/pilot/" + hex128, func(p *line.Policy) { p.TestIdentifiers = true }},
		{"case of other ids", "las", " L-4711 ", "L-4711", nil},
		{"escapes", "las", "L\\u002d4711", "L-4711", nil},
		{"decomposed", "publisher", "e\\u0301le\\u0300ve", "élève", nil},
		{"composed", "publisher", "élève", "élève", nil},
		{"nine digits of no BSN", "las", "123456789", "123456789", nil},
		{"nine digits of a named publisher", "publisher", "063138219", "063138219", func(p *line.Policy) { p.NineDigitIdentifiers = true }},
		{"Basispoort id", "basispoort", "063138219", "063138219", nil},
		{"a hash is a dummy in a LAS only", "publisher", "#1", "#1", nil},
	} {
		rules := policy()
		if c.change != nil {
			c.change(&rules)
		}
		p := line.NewParser(rules)
		var a line.Answer
		refusal := p.Answer([]byte(render(answerMembers(), "learner", `{"value":"`+c.value+`","scheme":"`+c.scheme+`"}`)), &a)
		scheme, err := raw.ParseScheme(c.scheme)
		if err != nil {
			t.Fatal(err)
		}
		if refusal.Rule != "" || string(a.Learner) != c.want || a.Scheme != scheme {
			t.Errorf("%s: learner = %v %q, %+v, want %q", c.name, a.Scheme, a.Learner, refusal, c.want)
		}
	}
	p := line.NewParser(line.Policy{Publisher: "bingel", NowMS: now.UnixMilli(), TestIdentifiers: true})
	var a line.Answer
	text := render(answerMembers(), "learner", `{"scheme":"eckid","value":"https://ketenid.nl/sppilot/`+hex128+`"}`)
	if got := p.Answer([]byte(text), &a); got.Rule != line.RuleStampseudoniem {
		t.Errorf("a stampseudoniem in a test = %+v, want it refused", got)
	}
}

func TestAcceptedForms(t *testing.T) {
	t.Parallel()
	p := line.NewParser(policy())
	var a line.Answer
	for _, text := range []string{
		" \t" + strings.ReplaceAll(strings.ReplaceAll(render(answerMembers()), `":`, `" : `), `,"`, ` , "`) + "\r",
		render(answerMembers(), "group", `"\ud83d\ude00 é \"\\\/\u0041"`),
		render(answerMembers(), "exercise", `"`+strings.Repeat("é", 256)+`"`),
		render(answerMembers(), "answered_at", `"2026-11-23T12:05:00.000999Z"`), render(answerMembers(), "answered_at", `"2024-02-29T23:59:59.9-14:00"`),
		render(answerMembers(), "score", "0.5e0"), render(answerMembers(), "score", "-0"), render(answerMembers(), "score", "0.3333333333333333333333333333"), render(answerMembers(), "revision", "-0"),
	} {
		if got := p.Answer([]byte(text), &a); got.Rule != "" {
			t.Errorf("Answer(%s) = %+v, want it accepted", text, got)
		}
	}
	if math.Signbit(a.Score) {
		t.Error("minus zero stays minus")
	}
	for text, want := range map[string]answer.Kind{"practice": answer.KindPractice, "test": answer.KindTest, "tracking": answer.KindTracking} {
		if got := p.Answer([]byte(render(answerMembers(), "kind", `"`+text+`"`)), &a); got.Rule != "" || a.Kind != want {
			t.Errorf("kind %s = %v, %+v", text, a.Kind, got)
		}
	}
	var r line.TestResult
	for _, text := range []string{render(resultMembers(), "taken_on", `"2026-11-23"`), render(resultMembers(), "score", "", "right", "", "wrong", ""), render(resultMembers(), "score", "-3.5")} {
		if got := p.TestResult([]byte(text), &r); got.Rule != "" {
			t.Errorf("TestResult(%s) = %+v, want it accepted", text, got)
		}
	}
}

// A refusal must not repeat what the line says.
func TestRefusalsHoldNoValue(t *testing.T) {
	t.Parallel()
	p := line.NewParser(policy())
	var a line.Answer
	fields := []string{"", "learner", "learner.scheme", "learner.value"}
	for _, m := range answerMembers() {
		fields = append(fields, m.name)
	}
	for _, c := range append(sharedCases(answerMembers), refusalCase{line: render(answerMembers(), "canary-4711", `1`)}) {
		got := p.Answer([]byte(c.line), &a)
		if !slices.Contains(fields, got.Field) {
			t.Errorf("refusal of %s names %q, no field of the list", c.line, got.Field)
		}
	}
}

func TestParsingAllocatesNothing(t *testing.T) {
	p := line.NewParser(policy())
	var a line.Answer
	text := []byte(render(answerMembers()))
	if n := testing.AllocsPerRun(100, func() { p.Answer(text, &a) }); n != 0 {
		t.Errorf("a line allocates %v times, want 0", n)
	}
}

func BenchmarkAnswer(b *testing.B) {
	p := line.NewParser(policy())
	var a line.Answer
	text := []byte(render(answerMembers()))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if refusal := p.Answer(text, &a); refusal.Rule != "" {
			b.Fatal(refusal)
		}
	}
}
