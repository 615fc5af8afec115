package keyring_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

func create(t *testing.T) *keyring.Ring {
	t.Helper()
	ring, err := keyring.Create(filepath.Join(t.TempDir(), "keys", "keyset.json"))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func TestLoadRefusesAnUnfitFile(t *testing.T) {
	t.Parallel()
	edit := func(old, new string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(content), old, new, 1)
			if changed == string(content) {
				t.Fatalf("the keyset holds no %q", old)
			}
			if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	truncate := func(size int64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	chmod := func(mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, path string)
		want  error
		says  string
	}{
		{"missing", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, keyring.ErrMissing, "restore it from its backup"},
		{"empty", truncate(0), keyring.ErrDamaged, "truncated"},
		{"half", truncate(100), keyring.ErrDamaged, "truncated"},
		{"group-readable", chmod(0o640), keyring.ErrReadable, "chmod 600"},
		{"world-readable", chmod(0o604), keyring.ErrReadable, "mode 0604"},
		{"group-writable", chmod(0o620), keyring.ErrReadable, "chmod 600"},
		{"other format", edit("keyset v1", "keyset v2"), keyring.ErrDamaged, "format"},
		{"edited epoch", edit(`"epoch": 1`, `"epoch": 2`), keyring.ErrDamaged, "checksum"},
		{"edited state", edit("primary", "active"), keyring.ErrDamaged, "checksum"},
		{"unknown field", edit(`"anchor"`, `"extra": 1, "anchor"`), keyring.ErrDamaged, "not a keyset"},
		{"followed by another", func(t *testing.T, path string) {
			content, _ := os.ReadFile(path)
			if err := os.WriteFile(path, append(content, content...), 0o600); err != nil {
				t.Fatal(err)
			}
		}, keyring.ErrDamaged, "follows"},
		{"directory", func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		}, keyring.ErrDamaged, "regular"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ring := create(t)
			test.spoil(t, ring.Path())
			for name, load := range map[string]func() error{
				"Load":    func() error { _, err := keyring.Load(ring.Path()); return err },
				"Refresh": ring.Refresh,
			} {
				err := load()
				if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.says) {
					t.Errorf("%s = %v, want %v saying %q", name, err, test.want, test.says)
				}
			}
			if _, err := ring.Key(keyring.Analytics, 1); err != nil {
				t.Errorf("Key after a failed Refresh: %v", err)
			}
		})
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	t.Parallel()
	ring := create(t)
	content, err := os.ReadFile(ring.Path())
	if err != nil {
		t.Fatal(err)
	}
	spoiled := filepath.Join(t.TempDir(), "keyset.json")
	for i := range content {
		if strings.ContainsRune(" \n\t", rune(content[i])) {
			continue // white space between JSON tokens means nothing
		}
		changed := append([]byte(nil), content...)
		changed[i] ^= 1
		if err := os.WriteFile(spoiled, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := keyring.Load(spoiled); !errors.Is(err, keyring.ErrDamaged) {
			t.Fatalf("Load with bit 0 of byte %d flipped = %v, want %v", i, err, keyring.ErrDamaged)
		}
	}
}

func TestCreateOverwritesNothing(t *testing.T) {
	t.Parallel()
	ring := create(t)
	if info, err := os.Stat(ring.Path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat = %v, %v, want mode 0600", info.Mode(), err)
	}
	if _, err := keyring.Create(ring.Path()); !errors.Is(err, keyring.ErrExists) {
		t.Errorf("Create on an existing keyset = %v, want %v", err, keyring.ErrExists)
	}
	again, err := keyring.Load(ring.Path())
	if err != nil {
		t.Fatal(err)
	}
	want, _ := ring.Key(keyring.Analytics, 1)
	if got, err := again.Key(keyring.Analytics, 1); err != nil || got != want {
		t.Errorf("Key of the loaded keyset differs from the created one (%v)", err)
	}
}

// The vector was computed with an independent HKDF (RFC 5869) over HMAC of
// Python's standard library; see testdata/vectors.py.
func TestKeysMatchKnownAnswers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyset.json")
	content, err := os.ReadFile("testdata/keyset.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Purpose keyring.Purpose
		Epoch   uint32
		Key     string
	}
	content, err = os.ReadFile("testdata/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("read vectors: %d, %v", len(vectors), err)
	}
	for _, v := range vectors {
		if v.Purpose == "fingerprint" {
			got, err := ring.Fingerprint(v.Epoch)
			if err != nil || got.String() != v.Key {
				t.Errorf("Fingerprint(%d) = %v, %v, want %s", v.Epoch, got, err, v.Key)
			}
			continue
		}
		got, err := ring.Key(v.Purpose, v.Epoch)
		if err != nil || hex.EncodeToString(got[:]) != v.Key {
			t.Errorf("Key(%s, %d) differs from the vector (%v)", v.Purpose, v.Epoch, err)
		}
	}
}

func TestRotateAndRetire(t *testing.T) {
	t.Parallel()
	ring := create(t)
	other, err := keyring.Load(ring.Path())
	if err != nil {
		t.Fatal(err)
	}
	first, _ := ring.Key(keyring.Analytics, 1)
	event, _ := ring.Key(keyring.Event, 1)
	if epoch, err := ring.Rotate(); err != nil || epoch != 2 || ring.Primary() != 2 {
		t.Fatalf("Rotate = %d, %v, primary %d, want 2", epoch, err, ring.Primary())
	}
	if other.Primary() != 1 {
		t.Error("another ring changed without Refresh")
	}
	if err := other.Refresh(); err != nil || other.Primary() != 2 {
		t.Errorf("Refresh = %v, primary %d, want 2", err, other.Primary())
	}
	if again, err := ring.Key(keyring.Analytics, 1); err != nil || again != first {
		t.Errorf("Key of the active epoch changed (%v)", err)
	}
	if second, err := ring.Key(keyring.Analytics, 2); err != nil || second == first {
		t.Errorf("Key of the new epoch equals the old one (%v)", err)
	}
	if err := ring.Retire(2); !errors.Is(err, keyring.ErrInUse) {
		t.Errorf("Retire(primary) = %v, want %v", err, keyring.ErrInUse)
	}
	if err := ring.Retire(7); !errors.Is(err, keyring.ErrUnknownEpoch) {
		t.Errorf("Retire(7) = %v, want %v", err, keyring.ErrUnknownEpoch)
	}
	if err := ring.Retire(1); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Key(keyring.Analytics, 1); !errors.Is(err, keyring.ErrUnknownEpoch) {
		t.Errorf("Key(retired) = %v, want %v", err, keyring.ErrUnknownEpoch)
	}
	if again, err := ring.Key(keyring.Event, 2); err != nil || again != event {
		t.Errorf("the event key changed with the epoch (%v): redelivered answers would count twice", err)
	}
	reloaded, err := keyring.Load(ring.Path())
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(reloaded.Epochs()); got != fmt.Sprint(ring.Epochs()) {
		t.Errorf("Epochs after Load = %s, want %v", got, ring.Epochs())
	}
}

func TestEveryPurposeHasItsOwnKey(t *testing.T) {
	t.Parallel()
	ring := create(t)
	if _, err := ring.Rotate(); err != nil {
		t.Fatal(err)
	}
	seen := map[keyring.Key]string{}
	for _, purpose := range []keyring.Purpose{keyring.Analytics, keyring.Alias, keyring.Vault, keyring.Event,
		keyring.Engine("a"), keyring.Engine("b"), keyring.Export("a"), keyring.EngineEvent("a")} {
		for epoch := uint32(1); epoch <= 2; epoch++ {
			key, err := ring.Key(purpose, epoch)
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprint(purpose, "/", epoch)
			if purpose == keyring.Event || purpose == keyring.EngineEvent("a") {
				name = string(purpose)
			}
			if before, ok := seen[key]; ok && before != name {
				t.Errorf("%s and %s share a key", before, name)
			}
			seen[key] = name
		}
	}
	for _, bad := range []keyring.Purpose{"", "fingerprint", "engine/", "engine/a/b", "export/A", "engine/" + keyring.Purpose(strings.Repeat("x", 65)), "analytics\n"} {
		if _, err := ring.Key(bad, 1); err == nil {
			t.Errorf("Key(%q) = nil, want an error", string(bad))
		}
	}
}

func TestSecretsRedactThemselves(t *testing.T) {
	t.Parallel()
	ring := create(t)
	key, err := ring.Key(keyring.Analytics, 1)
	if err != nil {
		t.Fatal(err)
	}
	marshalled, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{fmt.Sprint(key), fmt.Sprintf("%x %d %#v %s", key, key, key, key), string(marshalled), fmt.Sprintf("%v %+v %#v %x", ring, ring, ring, ring)} {
		if left := strings.NewReplacer("[keyring]", "", "[key]", "", `"`, "", " ", "").Replace(got); left != "" {
			t.Errorf("printed %q of a secret", got)
		}
	}
}

func FuzzLoad(f *testing.F) {
	content, err := os.ReadFile("testdata/keyset.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add(content[:40])
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "keyset.json")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		ring, err := keyring.Load(path)
		if err != nil {
			if !errors.Is(err, keyring.ErrDamaged) {
				t.Fatalf("Load = %v, want %v", err, keyring.ErrDamaged)
			}
			return
		}
		if _, err := ring.Key(keyring.Analytics, ring.Primary()); err != nil {
			t.Fatalf("a loaded keyset has no primary key: %v", err)
		}
	})
}

func TestMACAllocatesNothing(t *testing.T) {
	ring := create(t)
	key, err := ring.Key(keyring.Alias, 1)
	if err != nil {
		t.Fatal(err)
	}
	mac := keyring.NewMAC(key)
	var last [16]byte
	allocs := testing.AllocsPerRun(1000, func() {
		mac.Begin()
		mac.Byte(1)
		mac.Field("12AB00")
		mac.Text("https://ketenid.nl/201703/0f3a")
		last = mac.Sum()
	})
	if allocs != 0 || last == [16]byte{} {
		t.Errorf("Sum allocates %v times, want 0", allocs)
	}
}

func BenchmarkMAC(b *testing.B) {
	ring, err := keyring.Create(filepath.Join(b.TempDir(), "keyset.json"))
	if err != nil {
		b.Fatal(err)
	}
	key, err := ring.Key(keyring.Alias, 1)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{32, 40, 169} {
		message := make([]byte, size)
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			mac := keyring.NewMAC(key)
			b.ReportAllocs()
			for range b.N {
				mac.Begin()
				mac.Bytes(message)
				mac.Sum()
			}
		})
		b.Run(fmt.Sprintf("bare/bytes=%d", size), func(b *testing.B) {
			mac := hmac.New(sha256.New, key[:])
			var sum [32]byte
			b.ReportAllocs()
			for range b.N {
				mac.Reset()
				mac.Write(message)
				mac.Sum(sum[:0])
			}
		})
	}
}
