package query

import "testing"

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
