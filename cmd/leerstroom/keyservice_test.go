package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestKeyServiceByCommand keeps the keyset closed with openssl, which knows
// nothing of us: keys are made, used by a stage, rotated and listed, and without
// the service, or with another key, nothing starts.
func TestKeyServiceByCommand(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: %v", err)
	}
	data, directory := embedded(t), t.TempDir()
	config := func(name, passphrase string) string {
		t.Helper()
		secret := filepath.Join(directory, name+".key")
		command := []string{openssl, "enc", "-aes-256-cbc", "-pbkdf2", "-pass", "file:" + secret}
		settings := map[string]any{"topics": map[string]any{"partitions": 2}}
		if passphrase != "" {
			settings["keys"] = map[string]any{"wrap_command": command, "unwrap_command": append([]string{openssl, "enc", "-d"}, command[2:]...)}
		}
		text, err := yaml.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(directory, name+".yaml")
		for file, content := range map[string][]byte{secret: []byte(passphrase), path: text} {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	ours := []string{"--data", data, "--config", config("ours", "one passphrase")}
	must := func(want string, args ...string) {
		t.Helper()
		if code, out, errs := called(t, "", append(args, ours...)...); code != 0 || !strings.Contains(out, want) {
			t.Fatalf("%v = %d, %s%s; want %q", args, code, out, errs, want)
		}
	}
	must("epoch 1", "keys", "create")
	roster := filepath.Join(directory, "roster.csv")
	if err := os.WriteFile(roster, []byte("las\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must("line 2: created", "roster", "import", roster, "--school", "12AB00")
	must("epoch 2 is primary", "keys", "rotate")
	must("primary", "keys", "list")
	if content, err := os.ReadFile(layout{data}.tokenKeys()); err != nil || !bytes.HasPrefix(content, []byte("Salted__")) {
		t.Errorf("the keyset is not what openssl wrote (%v)", err)
	}
	up := []string{"up", "--listen", "127.0.0.1:0", "--data", data}
	if code, _, errs := called(t, "", append(up, "--config", config("none", ""))...); code != 1 || !strings.Contains(errs, "keys.unwrap_command") {
		t.Errorf("up without the service = %d, %s; want 1 and what to configure", code, errs)
	}
	// This cipher has no seal of its own: one wrong key in 256 gives garbage
	// instead of an error, and the keyset's checksum finds that.
	code, _, errs := called(t, "", append(up, "--config", config("other", "another passphrase"))...)
	if code != 1 || !strings.Contains(errs, "exit status 1") && !strings.Contains(errs, "damaged") {
		t.Errorf("up with another key of the service = %d, %s; want 1 and why", code, errs)
	}
}
