package arch

import (
	"bytes"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

func nameRule() rule {
	vague := []string{"util", "utils", "common", "helper", "helpers", "manager", "types", "model", "models", "misc", "shared", "mock", "mocks"}
	return rule{
		name: "packages have names that say something",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if f.tree != nil && slices.Contains(vague, strings.TrimSuffix(f.tree.Name.Name, "_test")) {
					found = append(found, finding{f.path, 1, "package name " + f.tree.Name.Name + " says nothing"})
				}
			}
			return found
		},
		breaks: []map[string]string{{"store/util/x.go": "package util"}, {"query/types/x_test.go": "package types_test"}},
		keeps:  []map[string]string{{"store/x.go": "package store"}},
	}
}

func commentRule() rule {
	return rule{
		name: "every package has one package comment",
		check: func(files []*file) []finding {
			comments := map[string]int{}
			for _, f := range files {
				if f.tree == nil || f.isTest() {
					continue
				}
				n := comments[f.dir()]
				if f.tree.Doc != nil && len(strings.Fields(f.tree.Doc.Text())) >= 5 {
					n++
				}
				comments[f.dir()] = n
			}
			var found []finding
			for dir, n := range comments {
				if n != 1 {
					found = append(found, finding{dir, 0, "want one package comment of a sentence or more"})
				}
			}
			return found
		},
		breaks: []map[string]string{
			{"store/x.go": "package store"},
			{"store/x.go": "// Package store.\npackage store"},
			{"store/x.go": "// Package store keeps what was computed.\npackage store", "store/y.go": "// Package store keeps it again, twice.\npackage store"},
		},
		keeps: []map[string]string{{"store/x.go": "// Package store keeps what was computed.\npackage store", "store/y.go": "package store"}},
	}
}

// isText tells whether the rules about text apply.
func isText(f *file) bool {
	switch path.Ext(f.path) {
	case ".png", ".gz", ".zst", ".parquet", ".jar", ".ico", ".pdf":
		return false
	}
	return !bytes.Contains(f.data[:min(len(f.data), 8000)], []byte{0})
}

// deceptive are characters that look like another or like nothing.
func deceptive(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < utf8.RuneSelf:
		return r < ' ' || r == 0x7f
	case unicode.Is(unicode.Cc, r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
		return true
	case unicode.Is(unicode.Zs, r) && r != ' ', unicode.Is(unicode.Cyrillic, r), r == 0x037e, r == utf8.RuneError:
		return true
	}
	return false
}

// perLine gives a finding for each line that matches.
func perLine(f *file, match func(line []byte) bool, text string) []finding {
	var found []finding
	for i, line := range bytes.Split(f.data, []byte("\n")) {
		if match(line) {
			found = append(found, finding{f.path, i + 1, text})
		}
	}
	return found
}

func letterRule() rule {
	return rule{
		name: "no deceptive characters, identifiers in ASCII",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if !isText(f) {
					continue
				}
				if bytes.ContainsFunc(f.data, deceptive) {
					found = append(found, perLine(f, func(line []byte) bool { return bytes.ContainsFunc(line, deceptive) },
						"a character that looks like another, or like nothing")...)
				}
				if f.tree == nil {
					continue
				}
				ast.Inspect(f.tree, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok && strings.ContainsFunc(id.Name, func(r rune) bool { return r > unicode.MaxASCII }) {
						found = append(found, finding{f.path, f.line(id), "identifier " + id.Name + " is not ASCII"})
					}
					return true
				})
			}
			return found
		},
		breaks: []map[string]string{
			{"docs/x.md": "a\u202eb"}, {"docs/x.md": "a\u200bb"}, {"docs/x.md": "a\u00a0b"}, {"docs/x.md": "\u0430"},
			{"docs/x.md": "a\r\n"}, {"store/x.go": "package store\nvar \u03c3 = 1"},
		},
		keeps: []map[string]string{{"docs/x.md": "vakgebied → é θ σ ½ ▶\n"}, {"store/x.go": "package store\n// σ of the skill\nvar sigma = 1"}},
	}
}

// places are parts of texts that belong to one machine or one team. They are put
// together here so that this file does not contain them.
var places = regexp.MustCompile(strings.Join([]string{
	`/` + `(work|root|Users)/`, `(^|[\s"'=(:])/` + `home/[a-z]`, `(^|[\s"'=(:])/` + `tmp/`,
	`(?i)artifac` + `tory`, `(?i)\b` + `nex` + `us\b`, `GOPROXY` + `=http`, `_auth` + `Token`,
	`"resolved": *"https?://[^"]*` + `:[0-9]+/`,
	`https?://(10|172|192)\.[0-9]+\.[0-9]+\.[0-9]+`, `https?://[a-z0-9.-]+\.` + `(internal|local|corp|lan)\b`,
}, "|"))

// hints are in every text that places can match: looking for them is quick.
var hints = [][]byte{
	[]byte("/" + "work"), []byte("/" + "root"), []byte("/" + "Users"), []byte("/" + "home"), []byte("/" + "tmp"),
	[]byte("rtifac"), []byte("RTIFAC"), []byte("ex" + "us"), []byte("EX" + "US"), []byte("GOPROXY"), []byte("_auth"), []byte("resol" + "ved"), []byte("http"),
}

func hinted(text []byte) bool {
	return slices.ContainsFunc(hints, func(hint []byte) bool { return bytes.Contains(text, hint) })
}

func placeRule() rule {
	return rule{
		name: "no paths or hosts of one machine",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if !isText(f) {
					continue
				}
				if hinted(f.data) {
					found = append(found, perLine(f, func(line []byte) bool { return hinted(line) && places.Match(line) },
						"names a path or host of one machine")...)
				}
			}
			return found
		},
		breaks: []map[string]string{
			{"docs/x.md": "see /" + "work/main"}, {"docs/x.md": "in /" + "root/x"}, {"Makefile": "OUT=/" + "tmp/x"},
			{"docs/x.md": "\"/" + "home/jan\""}, {"package-lock.json": `"resol` + `ved": "http://mirror:8081/x.tgz"`},
			{".npmrc": "//r/:_auth" + "Token=x"}, {"docs/x.md": "http://10.1" + ".2.3/"}, {"docs/x.md": "https://npm.build" + ".internal/x"},
		},
		keeps: []map[string]string{
			{"docs/x.md": "http://127.0.0.1:8080/v1/homework/answers"}, {"x.go": "package x\nconst p = \"/v1/answers\""},
		},
	}
}

// maxLines is far above the guide of 500, so that a file that crosses it has more
// than one subject.
const maxLines = 700

func lengthRule() rule {
	return rule{
		name: "files have one subject",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				if f.tree != nil && !ast.IsGenerated(f.tree) && bytes.Count(f.data, []byte("\n")) > maxLines {
					found = append(found, finding{f.path, 0, "longer than 700 lines"})
				}
			}
			return found
		},
		breaks: []map[string]string{{"store/x.go": "package store\n" + strings.Repeat("// x\n", maxLines)}},
		keeps: []map[string]string{
			{"store/x.go": "package store\n" + strings.Repeat("// x\n", maxLines-1)},
			{"store/x.go": "// Code generated by x. DO NOT EDIT.\npackage store\n" + strings.Repeat("// x\n", maxLines)},
		},
	}
}

func topLevelRule() rule {
	dirs := []string{"ingest", "transform", "pseudonymize", "store", "query", "bench", "deploy", "cmd", "docs", "internal", ".ci", ".github"}
	plain := []string{"README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "SECURITY.md", "Makefile", "go.mod", "go.sum",
		".gitignore", ".gitattributes", ".golangci.yml", ".editorconfig"}
	return rule{
		name: "the top level is fixed",
		check: func(files []*file) []finding {
			var found []finding
			for _, f := range files {
				dir, _, below := strings.Cut(f.path, "/")
				if below && !slices.Contains(dirs, dir) || !below && !slices.Contains(plain, f.path) {
					found = append(found, finding{f.path, 0, "does not belong at the top level"})
				}
				if dir == "deploy" && f.tree != nil {
					found = append(found, finding{f.path, 0, "deploy holds no Go"})
				}
			}
			return found
		},
		breaks: []map[string]string{{"pkg/x.go": "package x"}, {"notes.txt": ""}, {"deploy/x.go": "package deploy"}},
		keeps:  []map[string]string{{"README.md": ""}, {"store/schema/0001.sql": ""}},
	}
}
