package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedConfiguration loads the documented file: every key in it exists,
// and what it gives as defaults is what an empty file means.
func TestDocumentedConfiguration(t *testing.T) {
	t.Parallel()
	documented, err := loadConfiguration(filepath.Join("..", "..", "docs", "configuration.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	empty, err := loadConfiguration("")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(documented.Topics, empty.Topics) || documented.Listen != empty.Listen || documented.Workers != empty.Workers ||
		documented.SessionTimeout != empty.SessionTimeout || documented.NormInterval != empty.NormInterval {
		t.Errorf("documented defaults %+v, %s, %d differ from those of an empty file %+v, %s, %d",
			documented.Topics, documented.Listen, documented.Workers, empty.Topics, empty.Listen, empty.Workers)
	}
	if documented.Refit != empty.Refit {
		t.Errorf("documented defaults %+v differ from those of an empty file %+v", documented.Refit, empty.Refit)
	}
	if documented.Identities != empty.Identities || documented.Audit != empty.Audit {
		t.Errorf("documented defaults %+v, %+v differ from those of an empty file %+v, %+v", documented.Identities, documented.Audit, empty.Identities, empty.Audit)
	}
	allowed := newAuthorisations(documented, slog.New(slog.DiscardHandler))
	if !allowed.engine("rekentuin", "12AB00") || allowed.engine("rekentuin", "99XX00") || allowed.engine("other", "12AB00") {
		t.Error("engines are not authorised as the file says")
	}
	if want := []engineConfig{{"rekentuin", "engine-rekentuin"}}; !slices.Equal(documented.Engines, want) {
		t.Errorf("engines = %v, want %v", documented.Engines, want)
	}
}

func TestConfigurationRefusesMistakes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":       {"listne: 127.0.0.1:1\n", "listne"},
		"no partitions":     {"topics: {partitions: 5000}\n", "topics.partitions"},
		"short retention":   {"topics: {retention: 10m}\n", "topics.retention"},
		"negative workers":  {"workers: -1\n", "workers"},
		"hasty session":     {"session_timeout: 10ms\n", "session_timeout"},
		"hasty norms":       {"norm_interval: 10ms\n", "norm_interval"},
		"not a school":      {"engine_authorisations: {nowhere: [x]}\n", "engine_authorisations"},
		"not an address":    {"engine: {kafka: {brokers: [nonsense]}}\n", "kafka.brokers"},
		"engine of schools": {"engines: [{name: school}]\n", "engines: entry 1"},
		"engine twice":      {"engines: [{name: a, topic: x}, {name: a, topic: y}]\n", "a is there twice"},
		"topic twice":       {"engines: [{name: a, topic: x}, {name: b, topic: x}]\n", "topic x has another use"},
		"topic of ours":     {"topics: {prefix: p-}\nengines: [{name: a, topic: answers}]\n", "topic p-answers has another use"},
		"topic form":        {"engines: [{name: a, topic: a/b}]\n", "engines: a: topic"},
		"identity limit":    {"identities: {identifiers_per_second: -1}\n", "identifiers_per_second"},
		"request limit":     {"identities: {requests_burst: -1}\n", "requests_burst"},
		"audit":             {"audit: {keep: 1h}\n", "audit: keep"},
		"hasty refits":      {"refit: {every: 10ms}\n", "refit: every"},
		"small refits":      {"refit: {answers: 1}\n", "refit: answers"},
		"ingest limit":      {"ingest: {max_line_bytes: -1}\n", "max_line_bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			config, err := loadConfiguration(path)
			if err == nil {
				config.Engine.DataDir = t.TempDir()
				err = config.Engine.Validate()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("loadConfiguration(%q) = %v, want an error about %q", test.text, err, test.want)
			}
		})
	}
}
