package query

import (
	"fmt"
	"net/url"
	"testing"
)

func TestNegotiate(t *testing.T) {
	t.Parallel()
	offers := []string{mediaJSON, mediaCSV, mediaArrow}
	for accept, want := range map[string]string{
		"":                                    mediaJSON,
		"*/*":                                 mediaJSON,
		"text/csv":                            mediaCSV,
		"TEXT/CSV; charset=utf-8":             mediaCSV,
		"text/*":                              mediaCSV,
		"text/csv;q=0.5, application/json":    mediaJSON,
		"text/csv;q=0.9, */*;q=0.1":           mediaCSV,
		"application/*;q=0.2, text/csv;q=0.3": mediaCSV,
		"application/json;q=0, */*":           mediaCSV,
		"application/vnd.apache.arrow.stream": mediaArrow,
		"application/xml":                     "",
		"application/json;q=0":                "",
		"text/csv;q=2, application/json;q=.1": mediaJSON,
		"text/csv;q=nan":                      "",
		";;;,,,":                              "",
	} {
		if got := negotiate(accept, offers...); got != want {
			t.Errorf("negotiate(%q) = %q, want %q", accept, got, want)
		}
	}
}

func TestParseToken(t *testing.T) {
	t.Parallel()
	good := "00112233445566778899aabbccddeeff"
	if b, ok := parseToken(good); !ok || b[0] != 0 || b[15] != 0xff {
		t.Errorf("parseToken(%s) = %x, %v", good, b, ok)
	}
	for _, bad := range []string{"", good[1:], good + "0", "00112233445566778899AABBCCDDEEFF", "0x112233445566778899aabbccddeeff", "zz112233445566778899aabbccddeeff"} {
		if _, ok := parseToken(bad); ok {
			t.Errorf("parseToken(%s) is accepted", bad)
		}
	}
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"a:1": "[{a 1}]", "a:b:2,c:.5": "[{a:b 2} {c 0.5}]", "a": "", "a:0": "", "a:1,": "", ":1": "", "a:NaN": "", "a:1001": ""} {
		p := &params{values: url.Values{"quota": {text}}}
		got := p.quotas()
		if (p.failed() != nil) != (want == "") || want != "" && fmt.Sprint(got) != want {
			t.Errorf("quota %q = %v, %v, want %s", text, got, p.failed(), want)
		}
	}
}
