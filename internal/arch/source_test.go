package arch

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/leerstroom/leerstroom"

// file is one file of the repository. Go files are parsed.
type file struct {
	path string // slash-separated, from the root
	data []byte
	set  *token.FileSet
	tree *ast.File // nil when it is not a Go file
}

// dir is the package directory of a file.
func (f *file) dir() string { return path.Dir(f.path) }

func (f *file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

func (f *file) line(n ast.Node) int { return f.set.Position(n.Pos()).Line }

// imports gives the import paths, with the name that each has in the file.
func (f *file) imports() map[string]string {
	names := make(map[string]string, len(f.tree.Imports))
	for _, spec := range f.tree.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser accepts only string literals
		}
		name := path.Base(target)
		if len(name) > 1 && name[0] == 'v' && name[1] >= '0' && name[1] <= '9' {
			name = path.Base(path.Dir(target))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[target] = name
	}
	return names
}

// finding is one breach of a rule.
type finding struct {
	path string
	line int // 0 = the whole file
	text string
}

func (f finding) String() string {
	if f.line == 0 {
		return f.path + ": " + f.text
	}
	return fmt.Sprintf("%s:%d: %s", f.path, f.line, f.text)
}

// rule is one promise about the repository.
type rule struct {
	name  string
	check func(files []*file) []finding
	// breaks are files, path to text, of which each must give a finding.
	breaks []map[string]string
	// keeps are files that must give none.
	keeps []map[string]string
}

// parse makes a file of a path and its text.
func parse(name string, data []byte) (*file, error) {
	f := &file{path: name, data: data}
	if !strings.HasSuffix(name, ".go") {
		return f, nil
	}
	f.set = token.NewFileSet()
	tree, err := parser.ParseFile(f.set, name, data, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	f.tree = tree
	return f, nil
}

// load reads the files of the repository: those that git tracks or would track,
// or, without git, all but the folders that no release contains.
func load(t *testing.T) []*file {
	t.Helper()
	root := os.DirFS("../..")
	names, err := tracked()
	if err != nil {
		t.Logf("no list of files from git (%v): walking the tree", err)
		names, err = walk(root)
	}
	if err != nil {
		t.Fatalf("list files: %v", err)
	}
	var files []*file
	for _, name := range names {
		data, err := fs.ReadFile(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
		f, err := parse(name, data)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if len(files) < 20 {
		t.Fatalf("only %d files found: the rules would hold of nothing", len(files))
	}
	return files
}

func tracked() ([]string, error) {
	command := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	command.Dir = "../.."
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("run git ls-files: %w", err)
	}
	names := strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
	sort.Strings(names)
	return names, nil
}

func walk(root fs.FS) ([]string, error) {
	skip := map[string]bool{".git": true, "bin": true, "data": true, "node_modules": true, "target": true}
	var names []string
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && skip[d.Name()]:
			return fs.SkipDir
		case d.Type().IsRegular():
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// TestRepository applies every rule to the repository.
func TestRepository(t *testing.T) {
	t.Parallel()
	files := load(t)
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			for _, f := range r.check(files) {
				t.Error(f)
			}
		})
	}
}

// TestRulesCanFail shows that each rule finds what it forbids and nothing else.
func TestRulesCanFail(t *testing.T) {
	t.Parallel()
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			if len(r.breaks) == 0 {
				t.Error("no example that breaks the rule")
			}
			for i, example := range r.breaks {
				if got := r.check(parseAll(t, example)); len(got) == 0 {
					t.Errorf("example %d breaks the rule, but it has no finding: %v", i, example)
				}
			}
			for i, example := range r.keeps {
				if got := r.check(parseAll(t, example)); len(got) != 0 {
					t.Errorf("example %d keeps the rule, but: %v", i, got)
				}
			}
		})
	}
}

func parseAll(t *testing.T, example map[string]string) []*file {
	t.Helper()
	var files []*file
	for name, text := range example {
		f, err := parse(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	sort.Slice(files, func(i, j int) bool { return files[i].path < files[j].path })
	return files
}

func rules() []rule {
	return []rule{
		importRule(), testImportRule(), libraryRule(), callRule(), mintRule(), initRule(),
		nameRule(), commentRule(), letterRule(), placeRule(), lengthRule(), topLevelRule(),
	}
}
