package filter_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// fused matches the instructions that multiply and add with one rounding, on
// arm64 and amd64.
var fused = regexp.MustCompile(`\b(FN?M(ADD|SUB)[DS]|VFN?M(ADD|SUB)[0-9]+[SP][DS])\b`)

// assembly returns the machine code of the package in dir for a target.
func assembly(t *testing.T, dir string, env ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", "build", "-gcflags=-S", "-o", filepath.Join(t.TempDir(), "package.a"), ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{"CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off"}, env...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("compile for %v: %v\n%s", env, err, out)
	}
	return out
}

// TestNoFusedArithmetic proves on the machine code that no product is added
// without having been rounded, where a compiler could do so.
func TestNoFusedArithmetic(t *testing.T) {
	t.Parallel()
	control := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":     "module control\n\ngo 1.26\n",
		"control.go": "package control\n\nfunc F(x, y, z float64) float64 { return x*y + z }\n",
	} {
		if err := os.WriteFile(filepath.Join(control, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, env := range [][]string{
		{"GOOS=linux", "GOARCH=arm64"},
		{"GOOS=linux", "GOARCH=amd64", "GOAMD64=v3"},
	} {
		if !fused.Match(assembly(t, control, env...)) {
			t.Errorf("%v: x*y + z is not fused: this test would see nothing", env)
		}
		for _, dir := range []string{".", "forecast"} {
			code := assembly(t, dir, env...)
			for _, at := range fused.FindAllIndex(code, 5) {
				t.Errorf("%s for %v: fused arithmetic near: %s", dir, env, code[max(0, at[0]-120):at[1]])
			}
		}
	}
}
