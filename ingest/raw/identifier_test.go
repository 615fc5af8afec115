package raw_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/ingest/raw"
)

func TestIdentifiersShowNothing(t *testing.T) {
	t.Parallel()
	const canary = "canary-4711"
	identifier := raw.Identifier{Scheme: raw.SchemeLAS, Value: canary}
	identity := raw.Identity{School: "12AB00", Identifier: identifier}
	answers := *smallAnswers(canary)
	answers.EventID.Bytes = []byte("canary")
	holders := map[string]any{
		"identifier": identifier, "pointer": &identifier, "identity": identity, "slice": []raw.Identity{identity},
		"map": map[string]raw.Identifier{"k": identifier}, "struct": struct{ Learner raw.Identifier }{identifier},
		"texts": answers.EventID, "answers": answers, "identities": answers.Identity, "error": fmt.Errorf("wrapped: %v", identifier),
		"any": []any{identifier, identity},
	}
	for name, holder := range holders {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10v", "%T"} {
			if text := fmt.Sprintf(verb, holder); strings.Contains(text, "canary") || strings.Contains(text, fmt.Sprintf("%x", "canary")) || strings.Contains(text, fmt.Sprintf("%X", "canary")) {
				t.Errorf("Sprintf(%s, %s) shows the identifier", verb, name)
			}
		}
		if text, err := json.Marshal(holder); err != nil && name != "error" || bytes.Contains(text, []byte("canary")) || bytes.Contains(text, []byte("Y2FuYXJ5")) {
			t.Errorf("json.Marshal(%s) shows the identifier or fails: %v", name, err)
		}
		for _, handler := range []func(*bytes.Buffer) slog.Handler{
			func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var log bytes.Buffer
			slog.New(handler(&log)).Info("message", "holder", holder)
			if log.Len() == 0 || strings.Contains(log.String(), "canary") {
				t.Errorf("slog shows %s", name)
			}
		}
	}
	if identifier.Value != canary || identifier.String() != "las:redacted" {
		t.Errorf("String = %q", identifier.String())
	}
}

func TestSchemesHaveOneName(t *testing.T) {
	t.Parallel()
	for _, s := range []raw.Scheme{raw.SchemeECKID, raw.SchemeBasispoort, raw.SchemeLAS, raw.SchemePublisher} {
		if got, err := raw.ParseScheme(s.String()); err != nil || got != s {
			t.Errorf("ParseScheme(%q) = %v, %v", s, got, err)
		}
	}
	for _, text := range []string{"", "unknown", "ECKID", "eckid ", "bsn"} {
		if _, err := raw.ParseScheme(text); !errors.Is(err, raw.ErrScheme) {
			t.Errorf("ParseScheme(%q) = %v, want ErrScheme", text, err)
		}
	}
}
