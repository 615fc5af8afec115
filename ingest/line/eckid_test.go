package line

import (
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/ingest/raw"
)

// FuzzECKID holds the reader of ECK iDs, with its eight bytes at a time, against a
// regular expression: what passes is an ECK iD in its one form and of no test
// chain, and passes again as it is; and whatever the expression knows passes.
func FuzzECKID(f *testing.F) {
	digits := strings.Repeat("0f", 64)
	for _, text := range []string{
		"https://ketenid.nl/201703/" + digits, " HTTPS://KETENID.NL/201703/" + strings.ToUpper(digits) + "\n", "https://ketenid.nl/pilot/" + digits,
		"https://ketenid.nl/sp201703/" + digits, "https://ketenid.nl/201703/" + digits[1:], "https://ketenid.nl/201703/" + digits[1:] + "g",
		"http://ketenid.nl/201703/" + digits, "https://ketenid.nl//" + digits, "https://ketenid.nl/201703/" + digits + "/", digits, "",
	} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, tests bool) {
		parser := NewParser(Policy{TestIdentifiers: tests})
		got, rule := parser.Identifier(raw.SchemeECKID, text)
		want := asciiLower(strings.TrimSpace(text))
		parts := referenceECKID.FindStringSubmatch(want)
		allowed := parts != nil && !strings.HasPrefix(parts[1], "sp") && (tests || strings.Trim(parts[1], "0123456789") == "")
		if (rule == "") != allowed || rule == "" && got != want {
			t.Fatalf("rule %q, the reference allows it: %v, one form: %v", rule, allowed, got == want)
		}
		if rule != "" && got != "" {
			t.Fatal("a refused value is returned")
		}
		if rule == "" {
			if again, rule := parser.Identifier(raw.SchemeECKID, got); rule != "" || again != got {
				t.Fatalf("the one form does not pass as it is: rule %q", rule)
			}
		}
	})
}

// asciiLower lowers letters of ASCII alone: the Kelvin sign is no k.
func asciiLower(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}
