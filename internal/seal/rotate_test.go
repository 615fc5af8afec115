package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/seal"
)

func generate(t *testing.T) *seal.PrivateKey {
	t.Helper()
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestSealerFollowsARotation: a running Sealer takes the key that its source has,
// keeps the last one while the source fails, and an Opener opens both.
func TestSealerFollowsARotation(t *testing.T) {
	t.Parallel()
	old, next := generate(t), generate(t)
	current, broken := old.Public(), error(nil)
	sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: old.Public(), RefreshEvery: time.Nanosecond,
		Refresh: func() (*seal.PublicKey, error) { return current, broken }})
	if err != nil {
		t.Fatal(err)
	}
	opener, err := seal.NewOpener(old)
	if err != nil {
		t.Fatal(err)
	}
	first := sealer.Seal(nil, []byte("1"), nil)
	broken = errors.New("the file is away")
	second := sealer.Seal(nil, []byte("2"), nil)
	current, broken = next.Public(), nil
	third := sealer.Seal(nil, []byte("3"), nil)
	for i, c := range []struct {
		sealed []byte
		want   seal.KeyID
	}{{first, old.Public().ID()}, {second, old.Public().ID()}, {third, next.Public().ID()}} {
		if id, ok := seal.RecipientOf(c.sealed); !ok || id != c.want {
			t.Errorf("message %d is sealed for %v (%v), want %v", i, id, ok, c.want)
		}
	}
	if sealer.Recipient() != next.Public().ID() || opener.Holds(next.Public().ID()) {
		t.Error("the Sealer has not moved, or the Opener has a key that nobody gave it")
	}
	if _, err := opener.Open(nil, third, nil); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("Open without the key = %v, want %v", err, seal.ErrOpen)
	}
	opener.Add(next)
	for i, sealed := range [][]byte{first, second, third} {
		if got, err := opener.Open(nil, sealed, nil); err != nil || !bytes.Equal(got, []byte{byte('1' + i)}) {
			t.Errorf("Open of message %d = %q, %v", i, got, err)
		}
	}
	if _, ok := seal.RecipientOf([]byte("order")); ok {
		t.Error("RecipientOf finds a key in what is no sealed message")
	}
}

func TestKeyFilesAreReplacedAndDestroyed(t *testing.T) {
	t.Parallel()
	private, public := keyFiles(t)
	next := generate(t)
	for range 2 { // the second time after a crash in the middle
		if err := os.WriteFile(public+".new", []byte("half a key"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := seal.ReplacePublicKey(public, next.Public()); err != nil {
			t.Fatal(err)
		}
	}
	if key, err := seal.LoadPublicKey(public); err != nil || key.ID() != next.Public().ID() {
		t.Errorf("LoadPublicKey after ReplacePublicKey = %v, want the new key", err)
	}
	another := filepath.Join(filepath.Dir(private), "next.private")
	if err := seal.WritePrivateKey(another, next); err != nil {
		t.Fatal(err)
	}
	if err := seal.WritePrivateKey(another, next); err == nil {
		t.Error("WritePrivateKey over a key = nil, want an error")
	}
	if key, err := seal.LoadPrivateKey(another); err != nil || key.Public().ID() != next.Public().ID() {
		t.Errorf("LoadPrivateKey = %v, want the key that was written", err)
	}
	if err := seal.DestroyPrivateKey(another); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(another); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat of a destroyed key = %v, want that it is gone", err)
	}
	if err := seal.DestroyPrivateKey(another); err == nil {
		t.Error("DestroyPrivateKey of nothing = nil, want an error")
	}
}
