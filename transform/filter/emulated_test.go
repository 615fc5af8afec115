package filter_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSameBitsOnArm64 runs the test that holds the hash of forecasts as an arm64
// program, on an emulator (Debian's qemu-user) when there is one.
func TestSameBitsOnArm64(t *testing.T) {
	t.Parallel()
	emulator, err := exec.LookPath("qemu-aarch64")
	if err != nil {
		t.Skip("SKIPPED: qemu-aarch64 is not installed; the machine code is inspected by TestNoFusedArithmetic")
	}
	program := filepath.Join(t.TempDir(), "arm64.test")
	build := exec.Command("go", "test", "-c", "-o", program, "./forecast")
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("compile for arm64: %v\n%s", err, out)
	}
	out, err := exec.Command(emulator, program, "-test.run", "SameBitsEverywhere", "-test.v").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: Test") {
		t.Errorf("run on arm64: %v\n%s", err, out)
	}
}
