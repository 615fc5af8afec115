package arch

import (
	"go/ast"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// namedTest is how docs/delivery.md names a test: its folder, a dot, its name.
var namedTest = regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")

// TestFailureModesNameTheirTests holds docs/delivery.md against the tests: every
// test that it names is there, and every failure mode has a line that names one,
// or says why it can't occur or that it is open.
func TestFailureModesNameTheirTests(t *testing.T) {
	t.Parallel()
	tests := make(map[string]bool)
	for _, f := range load(t) {
		if f.tree == nil || !f.isTest() {
			continue
		}
		for _, d := range f.tree.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				tests[f.dir()+"."+fn.Name.Name] = true
			}
		}
	}
	page, err := os.ReadFile("../../docs/delivery.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range namedTest.FindAllStringSubmatch(string(page), -1) {
		if name := found[1] + "." + found[2]; !tests[name] {
			t.Errorf("docs/delivery.md names %s, which is no test", name)
		}
	}
	next := 1
	for line := range strings.Lines(string(page)) {
		number, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(strings.TrimPrefix(line, "|"), "|", 2)[0]))
		if err != nil || !strings.HasPrefix(line, "| ") {
			continue
		}
		if number != next {
			t.Errorf("failure mode %d follows %d", number, next-1)
		}
		next = number + 1
		if !namedTest.MatchString(line) && !strings.Contains(line, "can't occur") && !strings.Contains(line, "open") && !strings.Contains(line, "rounds") {
			t.Errorf("failure mode %d names no test and no reason", number)
		}
	}
	if next != 65 {
		t.Errorf("the last failure mode is %d, want 64", next-1)
	}
}
