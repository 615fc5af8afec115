package keyring_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// asKeyService as the first argument makes the test binary a program that wraps
// and unwraps: how it behaves, and the file with its key, follow.
const asKeyService = "key-service"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == asKeyService {
		os.Exit(keyService(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// canary is what the program says beside its work; nobody may repeat it.
const canary = "canary-of-the-key-service"

// keyService is the program. It notes every call in the file of its key.
func keyService(behaviour, keyFile string) int {
	fmt.Fprintln(os.Stderr, canary)
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return 9
	}
	log, err := os.OpenFile(keyFile+".calls", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 9
	}
	fmt.Fprintln(log, behaviour)
	_ = log.Close()
	input, err := io.ReadAll(os.Stdin)
	block, failed := aes.NewCipher(key)
	if err != nil || failed != nil {
		return 9
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return 9
	}
	switch behaviour {
	case "wrap":
		_, _ = os.Stdout.Write(aead.Seal(nil, nil, input, nil))
	case "unwrap":
		plain, err := aead.Open(nil, nil, input, nil)
		if err != nil {
			return 3
		}
		_, _ = os.Stdout.Write(plain)
	case "forgetful": // wraps something else
		_, _ = os.Stdout.Write(aead.Seal(nil, nil, input[:len(input)/2], nil))
	case "fails":
		fmt.Println(canary)
		return 3
	case "hangs":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGHUP)
		<-signals
	case "floods":
		for range 200 {
			_, _ = os.Stdout.Write(bytes.Repeat([]byte(canary), 1000))
		}
	case "silent":
	case "babbles":
		fmt.Println(canary)
	}
	return 0
}

// service is a deployment's configuration of the program.
func service(t *testing.T, wrap, unwrap string) (s keyring.Command, calls func() int) {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte("a key of thirty-two bytes length"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = keyring.Command{WrapCommand: []string{executable, asKeyService, wrap, keyFile}, UnwrapCommand: []string{executable, asKeyService, unwrap, keyFile}}
	return s, func() int {
		content, err := os.ReadFile(keyFile + ".calls")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return bytes.Count(content, []byte("\n"))
	}
}

// TestKeyServiceKeepsTheFileClosed creates, rotates and retires through a real
// program: the file never holds a key, every content is unwrapped once, and
// another process reads what this one wrote.
func TestKeyServiceKeepsTheFileClosed(t *testing.T) {
	t.Parallel()
	program, calls := service(t, "wrap", "unwrap")
	path := filepath.Join(t.TempDir(), "keyset.json")
	ring, err := keyring.CreateWith(path, program.Service())
	if err != nil {
		t.Fatal(err)
	}
	other, err := keyring.LoadWith(path, program.Service())
	if err != nil {
		t.Fatal(err)
	}
	closed := func(when string) {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := program.Unwrap(content)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range strings.FieldsFunc(string(plain), func(r rune) bool { return strings.ContainsRune("{}[]:, \n\t\"", r) }) {
			secret, err := base64.StdEncoding.DecodeString(field)
			if len(field) < 40 || err != nil {
				continue
			}
			if bytes.Contains(content, []byte(field)) || bytes.Contains(content, secret) {
				t.Errorf("%s: the file holds a secret", when)
			}
		}
		if bytes.Contains(content, []byte("epoch")) {
			t.Errorf("%s: the file can be read", when)
		}
	}
	closed("created")
	if epoch, err := ring.Rotate(); err != nil || epoch != 2 {
		t.Fatalf("Rotate = %d, %v", epoch, err)
	}
	closed("rotated")
	if err := other.Refresh(); err != nil || other.Primary() != 2 {
		t.Fatalf("Refresh after a rotation by another process = %v, epoch %d, want 2", err, other.Primary())
	}
	mine, err := ring.Key(keyring.Analytics, 2)
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err := other.Key(keyring.Analytics, 2); err != nil || theirs != mine {
		t.Errorf("another process derives another key (%v)", err)
	}
	before := calls()
	for range 5 {
		if err := other.Refresh(); err != nil {
			t.Fatal(err)
		}
	}
	if n := calls() - before; n != 0 {
		t.Errorf("the service was asked %d times about a file that had not changed", n)
	}
	if err := ring.Retire(1); err != nil {
		t.Fatal(err)
	}
	closed("retired")
	if _, err := keyring.Load(path); !errors.Is(err, keyring.ErrDamaged) || !strings.Contains(err.Error(), "keys.unwrap_command") {
		t.Errorf("Load without the service = %v, want %v and what to configure", err, keyring.ErrDamaged)
	}
}

// TestFailuresOfAKeyService: each is named, none repeats what the program wrote,
// and none touches the file.
func TestFailuresOfAKeyService(t *testing.T) {
	t.Parallel()
	good, _ := service(t, "wrap", "unwrap")
	for _, c := range []struct {
		wrap, unwrap string
		want         error
		says         string
	}{
		{"wrap", "fails", keyring.ErrService, "exit status 3"},
		{"wrap", "hangs", keyring.ErrService, "not done within"},
		{"wrap", "floods", keyring.ErrService, "more than"},
		{"wrap", "silent", keyring.ErrService, "wrote nothing"},
		{"wrap", "babbles", keyring.ErrDamaged, "not a keyset"},
		{"wrap", "no such program", keyring.ErrService, "keys.unwrap_command"},
		{"fails", "unwrap", keyring.ErrService, "keys.wrap_command"},
		{"forgetful", "unwrap", keyring.ErrService, "unwraps to something else"},
		{"babbles", "unwrap", keyring.ErrService, "exit status 3"},
		{"", "unwrap", keyring.ErrService, "keys.wrap_command is not configured"},
	} {
		t.Run(c.wrap+" "+c.unwrap, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "keyset.json")
			if _, err := keyring.CreateWith(path, good.Service()); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bad := good
			bad.WrapCommand, bad.UnwrapCommand = behaving(good.WrapCommand, c.wrap), behaving(good.UnwrapCommand, c.unwrap)
			if c.unwrap == "hangs" {
				bad.Timeout = 200 * time.Millisecond
			}
			ring, err := keyring.LoadWith(path, bad.Service())
			if err == nil {
				_, err = ring.Rotate()
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), canary) {
				t.Errorf("error = %v, want %v saying %q and nothing of the program's output", err, c.want, c.says)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the keyset was changed (%v)", err)
			}
		})
	}
}

// behaving is a command with another behaviour; the empty one is none, and one
// that the program does not have is a program that there is not.
func behaving(command []string, behaviour string) []string {
	switch behaviour {
	case "":
		return nil
	case "no such program":
		return []string{"/nonexistent/leerstroom-key-service"}
	}
	return []string{command[0], command[1], behaviour, command[3]}
}

func TestKeyServiceConfiguration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		command keyring.Command
		says    string
	}{
		{keyring.Command{}, ""},
		{keyring.Command{UnwrapCommand: []string{"age", "--decrypt"}}, ""},
		{keyring.Command{WrapCommand: []string{"age"}}, "unwrap_command"},
		{keyring.Command{UnwrapCommand: []string{""}}, "unwrap_command"},
		{keyring.Command{UnwrapCommand: []string{"age"}, WrapCommand: []string{""}}, "wrap_command"},
		{keyring.Command{Timeout: -1}, "timeout"},
	} {
		if err := c.command.Validate(); (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("Validate of %+v = %v, want an error about %q", c.command, err, c.says)
		}
	}
}
