package arch

import (
	"slices"
	"strings"
)

// everything in an allow-list stands for all packages of the module except cmd
// and bench.
const everything = "…"

// allowed says which packages of the module a package may import outside its
// tests. "x/…" stands for the packages below x. A package that is missing here
// may not exist: a new one needs a line, and a sentence in its commit.
var allowed = map[string][]string{
	"internal/arch":       {},
	"internal/column":     {},
	"internal/answer":     {"internal/column"},
	"internal/seal":       {},
	"internal/access":     {},
	"internal/audit":      {},
	"internal/canary":     {},
	"internal/handover":   {},
	"internal/stream":     {"internal/answer"},
	"internal/deadletter": {"internal/seal", "internal/stream"},
	"internal/engine":     {"internal/stream"},
	"internal/engine/…":   {"internal/engine", "internal/stream"},

	"ingest/raw":  {"internal/answer", "internal/column", "internal/seal"},
	"ingest/line": {"ingest/raw", "internal/answer"},
	"ingest": {"ingest/line", "ingest/raw", "internal/answer", "internal/column", "internal/stream", "internal/seal",
		"internal/access"},
	"ingest/…": {"ingest", "ingest/line", "ingest/raw", "internal/answer", "internal/access"},

	"pseudonymize":   {"ingest/raw", "pseudonymize/…", "internal/answer", "internal/column", "internal/deadletter", "internal/stream", "internal/seal"},
	"pseudonymize/…": {"ingest/line", "ingest/raw", "pseudonymize/…", "internal/answer", "internal/handover", "internal/stream", "internal/seal", "internal/column"},

	"transform/filter":   {},
	"transform/filter/…": {"transform/filter"},
	"transform":          {"transform/filter", "transform/filter/…", "internal/answer", "internal/column", "internal/stream"},

	"store":        {"transform", "transform/filter", "internal/answer", "internal/deadletter", "internal/stream", "internal/seal"},
	"store/export": {"store", "transform", "transform/filter", "internal/answer"},

	"query": {"transform", "transform/filter", "transform/filter/…", "pseudonymize", "pseudonymize/…",
		"internal/answer", "internal/column", "internal/stream", "internal/access", "internal/audit"},

	"bench":   {everything},
	"bench/…": {"bench", everything},
	"cmd/…":   {"bench", "bench/…", everything},
}

// covers tells whether an entry of an allow-list matches a package.
func covers(entry, pkg string) bool {
	if entry == everything {
		return !strings.HasPrefix(pkg, "cmd/") && pkg != "bench" && !strings.HasPrefix(pkg, "bench/")
	}
	if below, ok := strings.CutSuffix(entry, everything); ok {
		return strings.HasPrefix(pkg, below)
	}
	return entry == pkg
}

// listOf returns the allow-list of a package: its own line, else that of the
// longest "x/…" above it.
func listOf(pkg string) (list []string, ok bool) {
	if list, ok = allowed[pkg]; ok {
		return list, true
	}
	best := ""
	for entry := range allowed {
		if strings.HasSuffix(entry, everything) && covers(entry, pkg) && len(entry) > len(best) {
			best = entry
		}
	}
	return allowed[best], best != ""
}

func importRule() rule {
	return rule{
		name: "packages import only what they may",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if f.tree == nil || f.isTest() {
					continue
				}
				list, known := listOf(f.dir())
				if !known {
					found = append(found, finding{f.path, 0, "package is not in the list of packages"})
					continue
				}
				for target := range f.imports() {
					pkg, ours := strings.CutPrefix(target, module+"/")
					if ours && !slices.ContainsFunc(list, func(entry string) bool { return covers(entry, pkg) }) {
						found = append(found, finding{f.path, 0, "may not import " + pkg})
					}
				}
			}
			return found
		},
		breaks: []map[string]string{
			{"transform/x.go": importing("transform", module+"/ingest/raw")},
			{"transform/x.go": importing("transform", module+"/pseudonymize")},
			{"store/x.go": importing("store", module+"/ingest")},
			{"store/export/x.go": importing("export", module+"/pseudonymize/vault")},
			{"internal/answer/x.go": importing("answer", module+"/internal/stream")},
			{"query/x.go": importing("query", module+"/ingest")},
			{"query/x.go": importing("query", module+"/bench")},
			{"ingest/x.go": importing("ingest", module+"/cmd/leerstroom")},
			{"unheard/x.go": "package unheard"},
		},
		keeps: []map[string]string{
			{"transform/x.go": importing("transform", module+"/internal/answer")},
			{"ingest/uwlr/x.go": importing("uwlr", module+"/ingest")},
			{"pseudonymize/vault/x.go": importing("vault", module+"/ingest/raw")},
			{"bench/x.go": importing("bench", module+"/store/export")},
			{"cmd/leerstroom/x.go": importing("main", module+"/bench")},
			{"store/x_test.go": importing("store_test", module+"/internal/engine")},
		},
	}
}

func importing(pkg, target string) string {
	return "package " + pkg + "\n\nimport _ \"" + target + "\"\n"
}

// testImportRule: tests may use everything but the command; internal/engine may
// start only under tests, bench and cmd, which importRule sees to.
func testImportRule() rule {
	return rule{
		name: "tests do not import the command",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if f.tree == nil || !f.isTest() || strings.HasPrefix(f.path, "cmd/") {
					continue
				}
				for target := range f.imports() {
					if strings.HasPrefix(target, module+"/cmd/") {
						found = append(found, finding{f.path, 0, "imports the command"})
					}
				}
			}
			return found
		},
		breaks: []map[string]string{{"store/x_test.go": importing("store", module+"/cmd/leerstroom")}},
		keeps:  []map[string]string{{"store/x_test.go": importing("store", module+"/bench")}},
	}
}

// libraries says which packages may know a library, tests apart. A change of
// library then stays in one place.
var libraries = []struct {
	prefix string
	in     []string
}{
	{"github.com/segmentio/kafka-go", []string{"internal/stream", "internal/engine", "internal/engine/…", "bench"}},
	{"github.com/twmb/franz-go", []string{"internal/engine", "internal/stream", "bench"}},
	{"github.com/ClickHouse/", []string{"store", "query", "pseudonymize/vault", "internal/engine", "internal/engine/…", "bench", "cmd/…"}},
	{"github.com/apache/arrow/", []string{"internal/column", "query"}},
	{"github.com/parquet-go/parquet-go", []string{"store/export", "ingest/file", "bench", "bench/…"}},
	{"github.com/ebitengine/purego", []string{"internal/engine"}},
	{"github.com/spf13/cobra", []string{"cmd/…"}},
	{"crypto/hpke", []string{"internal/seal"}},
}

func libraryRule() rule {
	return rule{
		name: "libraries stay where they belong",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if f.tree == nil || f.isTest() {
					continue
				}
				for target := range f.imports() {
					for _, l := range libraries {
						inside := slices.ContainsFunc(l.in, func(entry string) bool { return covers(entry, f.dir()) })
						if strings.HasPrefix(target, l.prefix) && !inside {
							found = append(found, finding{f.path, 0, "may not import " + target})
						}
					}
				}
			}
			return found
		},
		breaks: []map[string]string{
			{"ingest/x.go": importing("ingest", "github.com/segmentio/kafka-go")},
			{"transform/x.go": importing("transform", "github.com/ClickHouse/ch-go/proto")},
			{"pseudonymize/x.go": importing("pseudonymize", "github.com/ClickHouse/clickhouse-go/v2")},
			{"store/x.go": importing("store", "github.com/apache/arrow/go/v15/arrow")},
			{"query/x.go": importing("query", "github.com/parquet-go/parquet-go")},
		},
		keeps: []map[string]string{
			{"internal/stream/x.go": importing("stream", "github.com/segmentio/kafka-go/protocol")},
			{"store/x.go": importing("store", "github.com/ClickHouse/clickhouse-go/v2")},
		},
	}
}
