package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leerstroom/leerstroom/internal/seal"
	"pgregory.net/rapid"
)

func newPair(tb testing.TB, config seal.SealerConfig) (*seal.Sealer, *seal.Opener) {
	tb.Helper()
	key, err := seal.GenerateKey()
	if err != nil {
		tb.Fatal(err)
	}
	config.Recipient = key.Public()
	sealer, err := seal.NewSealer(config)
	if err != nil {
		tb.Fatal(err)
	}
	opener, err := seal.NewOpener(key)
	if err != nil {
		tb.Fatal(err)
	}
	return sealer, opener
}

// encapsulation is the part of a sealed message that changes with the data key.
func encapsulation(sealed []byte) string { return string(sealed[:seal.Overhead-28]) }

func TestSealThenOpen(t *testing.T) {
	t.Parallel()
	sealer, opener := newPair(t, seal.SealerConfig{})
	rapid.Check(t, func(t *rapid.T) {
		plaintext := rapid.SliceOf(rapid.Byte()).Draw(t, "plaintext")
		associated := rapid.SliceOf(rapid.Byte()).Draw(t, "associated")
		before := rapid.SliceOf(rapid.Byte()).Draw(t, "before")
		sealed := sealer.Seal(bytes.Clone(before), plaintext, associated)
		if !bytes.HasPrefix(sealed, before) || len(sealed) != len(before)+len(plaintext)+seal.Overhead {
			t.Fatalf("Seal appended %d bytes to %d, want %d", len(sealed)-len(before), len(before), len(plaintext)+seal.Overhead)
		}
		got, err := opener.Open(bytes.Clone(before), sealed[len(before):], associated)
		if err != nil || !bytes.Equal(got, append(bytes.Clone(before), plaintext...)) {
			t.Fatalf("Open = %x, %v, want %x", got, err, plaintext)
		}
	})
}

func TestOpenRefusesEveryFlippedByte(t *testing.T) {
	t.Parallel()
	sealer, opener := newPair(t, seal.SealerConfig{})
	associated := []byte("place")
	sealed := sealer.Seal(nil, []byte("a pupil's identifier"), associated)
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 0x40
		if got, err := opener.Open(nil, damaged, associated); !errors.Is(err, seal.ErrOpen) || len(got) != 0 {
			t.Fatalf("Open(byte %d flipped) = %d bytes, %v, want ErrOpen", i, len(got), err)
		}
	}
	for n := range len(sealed) {
		if _, err := opener.Open(nil, sealed[:n], associated); !errors.Is(err, seal.ErrOpen) {
			t.Fatalf("Open(first %d bytes) = %v, want ErrOpen", n, err)
		}
	}
	if _, err := opener.Open(nil, sealed, associated); err != nil {
		t.Fatalf("Open(undamaged, after the damaged ones) = %v", err)
	}
}

func TestOpenRefusesAnotherPlace(t *testing.T) {
	t.Parallel()
	sealer, opener := newPair(t, seal.SealerConfig{})
	sealed := sealer.Seal(nil, []byte("x"), seal.AppendContext(nil, "raw", "schema.v1", 3))
	for name, place := range map[string][]byte{
		"topic":     seal.AppendContext(nil, "registry", "schema.v1", 3),
		"schema":    seal.AppendContext(nil, "raw", "schema.v2", 3),
		"partition": seal.AppendContext(nil, "raw", "schema.v1", 4),
		"border":    seal.AppendContext(nil, "raws", "chema.v1", 3),
		"nothing":   nil,
	} {
		if _, err := opener.Open(nil, sealed, place); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("Open(other %s) = %v, want ErrOpen", name, err)
		}
	}
}

func TestSealedMessageShowsNothing(t *testing.T) {
	t.Parallel()
	sealer, _ := newPair(t, seal.SealerConfig{})
	secret := "canary-4711-identifier"
	one, two := sealer.Seal(nil, []byte(secret), nil), sealer.Seal(nil, []byte(secret), nil)
	if bytes.Contains(one, []byte(secret)) {
		t.Error("the plaintext is readable in the sealed message")
	}
	if bytes.Equal(one[len(one)-len(secret)-28:], two[len(two)-len(secret)-28:]) {
		t.Error("the same plaintext sealed twice gives the same bytes")
	}
}

func TestOpenerHoldsSeveralKeys(t *testing.T) {
	t.Parallel()
	old, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	recent, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	both, err := seal.NewOpener(old, recent)
	if err != nil {
		t.Fatal(err)
	}
	onlyRecent, err := seal.NewOpener(recent)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []*seal.PrivateKey{old, recent} {
		sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		sealed := sealer.Seal(nil, []byte("x"), nil)
		if _, err := both.Open(nil, sealed, nil); err != nil {
			t.Errorf("Open with both keys, sealed for %v = %v", sealer.Recipient(), err)
		}
		_, err = onlyRecent.Open(nil, sealed, nil)
		if want := key == recent; (err == nil) != want {
			t.Errorf("Open with the recent key, sealed for %v: %v", sealer.Recipient(), err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", old, old, old, old); strings.Contains(text, "{") {
		t.Errorf("a private key prints more than its id: %d characters", len(text))
	}
}

func TestDataKeyEndsByCount(t *testing.T) {
	t.Parallel()
	sealer, opener := newPair(t, seal.SealerConfig{Messages: 3})
	seen := make(map[string]int)
	for range 9 {
		sealed := sealer.Seal(nil, []byte("x"), nil)
		seen[encapsulation(sealed)]++
		if _, err := opener.Open(nil, sealed, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 3 {
		t.Errorf("9 messages at 3 per data key used %d data keys, want 3", len(seen))
	}
}

func TestDataKeyEndsByTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sealer, _ := newPair(t, seal.SealerConfig{Period: time.Minute})
		first := encapsulation(sealer.Seal(nil, nil, nil))
		time.Sleep(59 * time.Second)
		if encapsulation(sealer.Seal(nil, nil, nil)) != first {
			t.Error("the data key changed before its period ended")
		}
		time.Sleep(2 * time.Second)
		if encapsulation(sealer.Seal(nil, nil, nil)) == first {
			t.Error("the data key outlived its period")
		}
	})
}

func TestManyDataKeysStayOpenable(t *testing.T) {
	t.Parallel()
	sealer, opener := newPair(t, seal.SealerConfig{Messages: 1})
	var kept [][]byte
	for i := range 1100 { // more than an Opener remembers
		sealed := sealer.Seal(nil, []byte{byte(i)}, nil)
		kept = append(kept, sealed)
		if _, err := opener.Open(nil, sealed, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int{0, 1, 500, 1099} {
		got, err := opener.Open(nil, kept[i], nil)
		if err != nil || !bytes.Equal(got, []byte{byte(i)}) {
			t.Errorf("Open(message %d) = %x, %v", i, got, err)
		}
	}
}

func TestSealerAndOpenerAreConcurrent(t *testing.T) {
	t.Parallel()
	sealer, opener := newPair(t, seal.SealerConfig{Messages: 7})
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := range 50 {
				sealed := sealer.Seal(nil, []byte{byte(i)}, nil)
				if got, err := opener.Open(nil, sealed, nil); err != nil || got[0] != byte(i) {
					t.Errorf("Open = %x, %v", got, err)
				}
			}
		})
	}
	workers.Wait()
}

func FuzzOpen(f *testing.F) {
	sealer, opener := newPair(f, seal.SealerConfig{})
	associated := []byte("place")
	sealed := sealer.Seal(nil, []byte("plaintext"), associated)
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add(make([]byte, seal.Overhead))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Equal(data, sealed) {
			return
		}
		if _, err := opener.Open(nil, data, associated); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("Open(forged message) = %v, want ErrOpen", err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			sealer, _ := newPair(b, seal.SealerConfig{})
			plaintext, associated := make([]byte, size), seal.AppendContext(nil, "raw", "answers", 1)
			dst := make([]byte, 0, size+seal.Overhead)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				dst = sealer.Seal(dst[:0], plaintext, associated)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			sealer, opener := newPair(b, seal.SealerConfig{})
			associated := seal.AppendContext(nil, "raw", "answers", 1)
			sealed := sealer.Seal(nil, make([]byte, size), associated)
			dst := make([]byte, 0, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = opener.Open(dst[:0], sealed, associated); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewDataKey(b *testing.B) {
	sealer, opener := newPair(b, seal.SealerConfig{Messages: 1})
	for b.Loop() {
		if _, err := opener.Open(nil, sealer.Seal(nil, nil, nil), nil); err != nil {
			b.Fatal(err)
		}
	}
}
