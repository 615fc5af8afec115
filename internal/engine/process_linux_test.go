package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
)

// processesOf returns the living processes that were started with a directory
// below dir as an argument.
func processesOf(t *testing.T, dir string) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, line := range lines {
		raw, err := os.ReadFile(line) // the process may end meanwhile
		if err != nil || !slices.ContainsFunc(bytes.Split(raw, []byte{0}), func(a []byte) bool { return bytes.HasPrefix(a, []byte(dir)) }) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line)))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, pid)
	}
	return found
}

// parentVariable makes this test binary a parent that starts engines and waits
// to be killed.
const parentVariable = "LEERSTROOM_TEST_PARENT_OF"

// TestDeathOfTheParentStopsTheEngine kills a process that runs the embedded
// engines: none may be left, and the data directory must be free.
func TestDeathOfTheParentStopsTheEngine(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv(parentVariable); dir != "" {
		parent(t, dir)
		return
	}
	dir := t.TempDir()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(executable, "-test.run=^TestDeathOfTheParentStopsTheEngine$")
	command.Env = append(os.Environ(), parentVariable+"="+dir)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if _, err := io.CopyN(&said, output, int64(len(upLine))); err != nil || said.String() != upLine {
		rest, readErr := io.ReadAll(output)
		err := errors.Join(err, readErr, command.Wait())
		if bytes.Contains(append(said.Bytes(), rest...), []byte("PASS")) {
			t.Skip("SKIPPED: the parent process skipped; see the other tests for what to install")
		}
		t.Fatalf("parent: %v: %s%s", err, &said, rest)
	}
	if n := len(processesOf(t, dir)); n == 0 {
		t.Fatal("no engine process was found, so the test would prove nothing")
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err == nil {
		t.Error("the parent was not killed")
	}
	enginetest.Eventually(t, 30*time.Second, "end of the engines", func() error {
		if left := processesOf(t, dir); len(left) > 0 {
			return fmt.Errorf("still running: %v", left)
		}
		return nil
	})
	engines, err := engine.Start(t.Context(), engine.Config{DataDir: dir}, nil)
	if err != nil {
		t.Fatalf("start on the data of the dead: %v", err)
	}
	if err := engines.Close(); err != nil {
		t.Error(err)
	}
}

const upLine = "engines are up\n"

func parent(t *testing.T, dir string) {
	engines, err := engine.Start(t.Context(), engine.Config{DataDir: dir}, nil)
	if err != nil {
		enginetest.Missing(t, err)
	}
	fmt.Print(upLine)
	<-engines.Done() // until we are killed
	t.Fatal(engines.Err())
}
