package arch

import (
	"go/ast"
	"slices"
	"strings"
)

// ban forbids functions of a package in some folders.
type ban struct {
	target string   // import path
	names  []string // functions; none = the whole package
	in     []string // folders, "x/…" with those below; none = everywhere
	except []string // folders or files
	reason string
}

var clockless = []string{"transform", "transform/…", "pseudonymize", "pseudonymize/…", "internal/answer", "internal/column"}

// internal/engine starts the executable again as an engine; there it is main.
var bans = []ban{
	{target: "time", names: []string{"Now", "Since", "Until"}, in: clockless,
		reason: "the same log must give the same bits: pass the time in"},
	{target: "math/rand", in: clockless, reason: "the same log must give the same bits"},
	{target: "math/rand/v2", in: clockless, reason: "the same log must give the same bits"},
	{target: "log", reason: "take a *slog.Logger"},
	{target: "os", names: []string{"Exit"}, except: []string{"cmd/leerstroom", "internal/engine"}, reason: "return an error to main"},
	{target: "log/slog", names: []string{"SetDefault", "Default", "Info", "Warn", "Error", "Debug"}, reason: "take a *slog.Logger"},
	{target: "unsafe", names: []string{"Pointer", "Slice", "SliceData", "String", "StringData", "Add"}, except: []string{"internal/engine", "internal/column"}, reason: "needs a safe twin and a benchmark"},
}

func (b *ban) applies(f *file) bool {
	matches := func(entry string) bool { return entry == f.path || covers(entry, f.dir()) }
	return (len(b.in) == 0 || slices.ContainsFunc(b.in, matches)) && !slices.ContainsFunc(b.except, matches)
}

// uses returns the mentions of names of an imported package; without names, the
// import itself.
func uses(f *file, target string, names []string) []ast.Node {
	local, ok := f.imports()[target]
	if !ok {
		return nil
	}
	var found []ast.Node
	if len(names) == 0 {
		return []ast.Node{f.tree.Name}
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local && slices.Contains(names, s.Sel.Name) {
				found = append(found, s)
			}
		}
		return true
	})
	return found
}

func callRule() rule {
	return rule{
		name: "banned functions are not used",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if f.tree == nil || f.isTest() {
					continue
				}
				for i := range bans {
					if !bans[i].applies(f) {
						continue
					}
					for _, n := range uses(f, bans[i].target, bans[i].names) {
						found = append(found, finding{f.path, f.line(n), "uses " + bans[i].target + " " +
							strings.Join(bans[i].names, ", ") + ": " + bans[i].reason})
					}
				}
			}
			return found
		},
		breaks: []map[string]string{
			{"transform/filter/x.go": "package filter\nimport \"time\"\nvar x = time.Now()"},
			{"pseudonymize/vault/x.go": "package vault\nimport clock \"time\"\nfunc f() { g := clock.Now; _ = g }"},
			{"transform/x.go": importing("transform", "math/rand/v2")},
			{"store/x.go": "package store\nimport \"os\"\nfunc f() { os.Exit(1) }"},
			{"query/x.go": importing("query", "log")},
			{"ingest/x.go": "package ingest\nimport \"log/slog\"\nfunc f() { slog.Info(\"x\") }"},
			{"ingest/x.go": "package ingest\nimport \"unsafe\"\nvar x = unsafe.String(nil, 0)"},
		},
		keeps: []map[string]string{
			{"store/x.go": "package store\nimport \"time\"\nvar x = time.Now()"},
			{"transform/x.go": "package transform\nimport \"time\"\nvar x = time.UnixMilli(1)"},
			{"cmd/leerstroom/main.go": "package main\nimport \"os\"\nfunc main() { os.Exit(1) }"},
			{"query/x_test.go": importing("query", "log")},
		},
	}
}

// minters may make a token of bytes: the package that owns the keys, and codecs
// that read back what it made, from topics and tables; the command does so with
// what a caller of the API names a learner by, the evaluation for learners of a
// file that never leave it, and a measurement for learners of a model that ends with
// it.
var minters = []string{"pseudonymize", "pseudonymize/…", "internal/answer/codec.go", "transform/codec.go", "store/restore.go",
	"cmd/leerstroom/web.go", "bench/evaluate", "bench/readmodel.go"}

func mintRule() rule {
	return rule{
		name: "tokens are made by pseudonymize and the codecs only",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if f.tree == nil || f.isTest() ||
					slices.ContainsFunc(minters, func(entry string) bool { return entry == f.path || covers(entry, f.dir()) }) {
					continue
				}
				for _, n := range uses(f, module+"/internal/answer", []string{"MintToken"}) {
					found = append(found, finding{f.path, f.line(n), "makes a token"})
				}
				if f.dir() != "internal/answer" {
					continue
				}
				ast.Inspect(f.tree, func(n ast.Node) bool {
					call, ok := n.(*ast.CallExpr)
					if !ok {
						return true
					}
					if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "MintToken" {
						found = append(found, finding{f.path, f.line(n), "makes a token"})
					}
					return true
				})
			}
			return found
		},
		breaks: []map[string]string{
			{"query/x.go": "package query\nimport \"" + module + "/internal/answer\"\nvar x = answer.MintToken([16]byte{})"},
			{"ingest/x.go": "package ingest\nimport a \"" + module + "/internal/answer\"\nvar mint = a.MintToken"},
			{"internal/answer/x.go": "package answer\nvar x = MintToken([16]byte{})"},
		},
		keeps: []map[string]string{
			{"pseudonymize/x.go": "package pseudonymize\nimport \"" + module + "/internal/answer\"\nvar x = answer.MintToken([16]byte{})"},
			{"internal/answer/answer.go": "package answer\nfunc MintToken(b [16]byte) Token { return Token{b} }"},
		},
	}
}

func initRule() rule {
	return rule{
		name: "no init functions",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if f.tree == nil {
					continue
				}
				for _, d := range f.tree.Decls {
					if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
						found = append(found, finding{f.path, f.line(fn), "init runs before main can decide anything"})
					}
				}
			}
			return found
		},
		breaks: []map[string]string{{"store/x.go": "package store\nfunc init() {}"}},
		keeps:  []map[string]string{{"store/x.go": "package store\nfunc (s *Store) init() {}"}},
	}
}
