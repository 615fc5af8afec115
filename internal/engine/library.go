package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/ebitengine/purego"
)

// LibraryVariable is the environment variable that names the library file.
const LibraryVariable = "LEERSTROOM_LIBCHDB"

// ErrNoLibrary reports that libchdb is not installed.
var ErrNoLibrary = errors.New("libchdb not found")

// libraryName is a file name on all platforms: macOS too gets libchdb.so.
const libraryName = "libchdb.so"

// FindLibrary returns the file libchdb. A path that is given, in the argument or
// in LibraryVariable, is the only one tried. Else it is looked for below
// deploy/engine of the working directory and the directories above it, beside
// the executable, and in the user's cache directory.
func FindLibrary(path string) (string, error) {
	if path == "" {
		path = os.Getenv(LibraryVariable)
	}
	if path != "" {
		if !isFile(path) {
			return "", fmt.Errorf("%w: %s is no file", ErrNoLibrary, path)
		}
		return filepath.Abs(path)
	}
	for _, candidate := range libraryCandidates() {
		if isFile(candidate) {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%w: run `make engine` in the project directory, or set %s to the file %s of a chDB package for %s/%s",
		ErrNoLibrary, LibraryVariable, libraryName, runtime.GOOS, runtime.GOARCH)
}

func libraryCandidates() []string {
	var found []string
	if dir, err := os.Getwd(); err == nil {
		for {
			found = append(found, filepath.Join(dir, "deploy", "engine", "node_modules", "@chdb", packageName(), libraryName))
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	if executable, err := os.Executable(); err == nil {
		found = append(found, filepath.Join(filepath.Dir(executable), libraryName))
	}
	if cache, err := os.UserCacheDir(); err == nil {
		found = append(found, filepath.Join(cache, "leerstroom", libraryName))
	}
	return found
}

// packageName is how npm calls the platform.
func packageName() string {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	if runtime.GOOS == "linux" {
		return "lib-linux-" + arch + "-gnu"
	}
	return "lib-" + runtime.GOOS + "-" + arch
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// runLocal loads the library and runs clickhouse-local with arguments until it
// ends. It may be called once in the life of a process.
func runLocal(library string, arguments []string) error {
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("load %s: %w", library, err)
	}
	var (
		run     func(argc int32, argv **byte) uintptr
		failure func(result uintptr) string
	)
	for name, f := range map[string]any{"chdb_query_cmdline": &run, "chdb_result_error": &failure} {
		symbol, err := purego.Dlsym(handle, name)
		if err != nil {
			return fmt.Errorf("load %s: %w", library, err)
		}
		purego.RegisterFunc(f, symbol)
	}
	argv := make([]*byte, 0, len(arguments)+1)
	for _, a := range arguments {
		argv = append(argv, &append([]byte(a), 0)[0])
	}
	argv = append(argv, nil) // C wants a null after the last
	var pinner runtime.Pinner
	defer pinner.Unpin()
	for _, p := range argv[:len(arguments)] {
		pinner.Pin(p)
	}
	pinner.Pin(&argv[0])
	result := run(int32(len(arguments)), &argv[0])
	if result == 0 {
		return errors.New("run clickhouse: no result")
	}
	if text := failure(result); text != "" {
		return fmt.Errorf("run clickhouse: %s", text)
	}
	return nil
}
