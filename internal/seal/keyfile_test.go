package seal_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/internal/seal"
)

func keyFiles(t *testing.T) (private, public string) {
	t.Helper()
	dir := t.TempDir()
	private, public = filepath.Join(dir, "sealing.key"), filepath.Join(dir, "sealing.pub")
	if _, err := seal.CreateKeyFiles(private, public); err != nil {
		t.Fatal(err)
	}
	return private, public
}

func TestKeyFilesFitTogether(t *testing.T) {
	t.Parallel()
	privatePath, publicPath := keyFiles(t)
	private, err := seal.LoadPrivateKey(privatePath)
	if err != nil {
		t.Fatal(err)
	}
	public, err := seal.LoadPublicKey(publicPath)
	if err != nil {
		t.Fatal(err)
	}
	if private.Public().ID() != public.ID() {
		t.Fatalf("ids differ: %v and %v", private.Public().ID(), public.ID())
	}
	sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: public})
	if err != nil {
		t.Fatal(err)
	}
	opener, err := seal.NewOpener(private)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opener.Open(nil, sealer.Seal(nil, []byte("x"), nil), nil); err != nil || string(got) != "x" {
		t.Errorf("Open = %q, %v", got, err)
	}
	for path, want := range map[string]os.FileMode{privatePath: 0o600, publicPath: 0o644} {
		status, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if status.Mode().Perm() != want {
			t.Errorf("mode of %s = %v, want %v", filepath.Base(path), status.Mode().Perm(), want)
		}
	}
}

func TestKeyFilesAreNotReplaced(t *testing.T) {
	t.Parallel()
	private, public := keyFiles(t)
	before, err := os.ReadFile(private)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.CreateKeyFiles(private, public); err == nil {
		t.Error("CreateKeyFiles over an existing key = nil, want an error")
	}
	after, err := os.ReadFile(private)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the private key file changed (%v)", err)
	}
}

func TestPrivateKeyOpenToOthersIsRefused(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o610} {
		private, _ := keyFiles(t)
		if err := os.Chmod(private, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.LoadPrivateKey(private); err == nil || !strings.Contains(err.Error(), "mode") {
			t.Errorf("LoadPrivateKey(mode %v) = %v, want a complaint about the mode", mode, err)
		}
	}
	_, public := keyFiles(t)
	if err := os.Chmod(public, 0o664); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.LoadPublicKey(public); err == nil {
		t.Error("LoadPublicKey(group-writable) = nil, want an error")
	}
}

func TestDamagedKeyFilesAreRefused(t *testing.T) {
	t.Parallel()
	privatePath, publicPath := keyFiles(t)
	otherPrivate, _ := keyFiles(t)
	private, err := os.ReadFile(privatePath)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(publicPath)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(otherPrivate)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(content []byte) []byte {
		out := bytes.Clone(content)
		at := bytes.Index(out, []byte("\n\n")) + 7 // in the body
		if out[at] == 'A' {
			out[at] = 'B'
		} else {
			out[at] = 'A'
		}
		return out
	}
	mix := append(bytes.Clone(private[:bytes.Index(private, []byte("\n\n"))]), other[bytes.Index(other, []byte("\n\n")):]...)
	for name, content := range map[string][]byte{
		"empty": nil, "truncated": private[:len(private)-40], "public instead": public, "flipped": flip(private),
		"twice": append(bytes.Clone(private), private...), "other body": mix, "text": []byte("no key at all\n"),
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := seal.LoadPrivateKey(path)
		if err == nil {
			t.Errorf("LoadPrivateKey(%s) = nil, want an error", name)
		} else if body := strings.TrimSpace(string(content)); len(body) > 60 && strings.Contains(err.Error(), body[60:]) {
			t.Errorf("LoadPrivateKey(%s): the error quotes the file", name)
		}
	}
	for name, content := range map[string][]byte{"empty": nil, "truncated": public[:len(public)/2], "private instead": private, "flipped": flip(public)} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.LoadPublicKey(path); err == nil {
			t.Errorf("LoadPublicKey(%s) = nil, want an error", name)
		}
	}
	if _, err := seal.LoadPrivateKey(t.TempDir()); err == nil {
		t.Error("LoadPrivateKey(directory) = nil, want an error")
	}
	if _, err := seal.LoadPrivateKey(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadPrivateKey(missing) = %v, want it to say that the file does not exist", err)
	}
}

// FuzzKeyFile: a key file is whole and right, or refused without a word of it.
func FuzzKeyFile(f *testing.F) {
	directory := f.TempDir()
	private, public := filepath.Join(directory, "private"), filepath.Join(directory, "public")
	if _, err := seal.CreateKeyFiles(private, public); err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{private, public} {
		content, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
		f.Add(content[:len(content)/2])
		f.Add(append(content, content...))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		errs := []error{}
		if key, err := seal.LoadPrivateKey(path); err != nil {
			errs = append(errs, err)
		} else if key.Public().ID() == (seal.KeyID{}) {
			t.Fatal("a loaded private key has no id")
		}
		if key, err := seal.LoadPublicKey(path); err != nil {
			errs = append(errs, err)
		} else if key.ID() == (seal.KeyID{}) {
			t.Fatal("a loaded public key has no id")
		}
		if len(errs) == 0 {
			t.Fatal("one file is a private and a public key")
		}
		for _, err := range errs {
			if len(err.Error()) > len(path)+200 {
				t.Fatalf("an error of %d bytes may hold the file", len(err.Error()))
			}
		}
	})
}
