package vault_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

func id(t *rapid.T, label string) vault.LearnerID {
	return vault.LearnerID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
}

func drawAlias(t *rapid.T) vault.Alias {
	a := vault.Alias{
		School: rapid.StringMatching(`[0-9]{2}[A-Z]{2}[0-9]{2}`).Draw(t, "school"),
		Identifier: raw.Identifier{
			Scheme: raw.Scheme(rapid.IntRange(1, 4).Draw(t, "scheme")),
			Value:  rapid.StringMatching(`.{1,40}`).Draw(t, "value"),
		},
	}
	if a.Scheme == raw.SchemePublisher {
		a.Publisher = rapid.StringMatching(`[a-z]{1,9}`).Draw(t, "publisher")
	}
	return a
}

func drawTombstone(t *rapid.T) vault.Tombstone {
	grave := vault.Tombstone{School: rapid.StringMatching(`[0-9]{2}[A-Z]{2}[0-9]{2}`).Draw(t, "school"), Epoch: rapid.Uint32Range(1, 1<<31).Draw(t, "epoch")}
	for range rapid.IntRange(1, 4).Draw(t, "learners") {
		grave.Learners = append(grave.Learners, id(t, "learner"))
	}
	for range rapid.IntRange(0, 5).Draw(t, "tokens") {
		grave.Tokens = append(grave.Tokens, vault.IssuedToken{Purpose: rapid.SampledFrom([]keyring.Purpose{keyring.Analytics, keyring.Engine("tutor"), keyring.Export("x")}).Draw(t, "purpose"),
			Epoch: rapid.Uint32Range(1, 1<<31).Draw(t, "epoch of a token"), Token: id(t, "token")})
	}
	return grave
}

func drawName(t *rapid.T) vault.Name {
	text := rapid.StringMatching(`[A-Za-zéü' -]{0,30}`)
	return vault.Name{First: text.Draw(t, "first"), Prefix: text.Draw(t, "prefix"), Last: text.Draw(t, "last"), Group: text.Draw(t, "group"),
		YearGroup: rapid.Uint8Range(0, 8).Draw(t, "year group")}
}

func drawRecord(t *rapid.T) vault.Record {
	r := vault.Record{Kind: vault.Kind(rapid.IntRange(1, 9).Draw(t, "kind"))}
	switch r.Kind {
	case vault.KindCreate:
		r.Alias, r.Rostered = drawAlias(t), rapid.Bool().Draw(t, "rostered")
		r.Secret = vault.Secret{ID: id(t, "id"), Salt: id(t, "salt")}
	case vault.KindLink, vault.KindMove:
		r.Learner, r.Alias = id(t, "learner"), drawAlias(t)
	case vault.KindMerge:
		r.Learner, r.Into = id(t, "from"), id(t, "into")
	case vault.KindErase:
		r.Tombstone = drawTombstone(t)
	case vault.KindAnnounce:
		r.RawOffset, r.Limit = rapid.Int64Range(0, 1<<62).Draw(t, "raw"), rapid.Uint32Range(0, 1<<20).Draw(t, "limit")
	case vault.KindName:
		r.Learner, r.Name = id(t, "learner"), drawName(t)
	case vault.KindEpoch:
		r.Epoch = rapid.Uint32Range(1, 1<<31).Draw(t, "epoch")
	case vault.KindAdopt:
		r.RegistryOffset, r.RawOffset = rapid.Int64Range(0, 1<<62).Draw(t, "registry"), rapid.Int64Range(0, 1<<62).Draw(t, "raw")
	}
	return r
}

func TestRecordsSurviveTheCodec(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawRecord), 0, 9).Draw(t, "records")
		message, err := vault.AppendRecords(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := vault.ReadRecords(message)
		if err != nil || len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%d records came back as %d (%v)", len(want), len(got), err)
		}
		if cut := rapid.IntRange(0, len(message)-1).Draw(t, "cut"); len(want) > 0 {
			if shorter, err := vault.ReadRecords(message[:cut]); err == nil && len(shorter) == len(want) {
				t.Fatalf("%d records were read out of %d of %d bytes", len(shorter), cut, len(message))
			}
		}
	})
}

func FuzzReadRecords(f *testing.F) {
	alias := vault.Alias{School: "12AB00", Publisher: "bingel", Identifier: raw.Identifier{Scheme: raw.SchemePublisher, Value: "synthetic"}}
	seeds := []vault.Record{
		{Kind: vault.KindCreate, Alias: alias, Rostered: true}, {Kind: vault.KindLink, Alias: alias}, {Kind: vault.KindMove, Alias: alias},
		{Kind: vault.KindMerge}, {Kind: vault.KindErase, Tombstone: vault.Tombstone{Learners: make([]vault.LearnerID, 2), School: "12AB00", Epoch: 3,
			Tokens: []vault.IssuedToken{{Purpose: keyring.Analytics, Epoch: 2}, {Purpose: keyring.Engine("tutor"), Epoch: 3}}}}, {Kind: vault.KindAnnounce, RawOffset: 99, Limit: 5000}, {Kind: vault.KindEpoch, Epoch: 3}, {Kind: vault.KindAdopt, RegistryOffset: 300, RawOffset: 1 << 40},
		{Kind: vault.KindName, Name: vault.Name{First: "Sanne", Last: "de Vries", Group: "5A", YearGroup: 5}},
	}
	for i := range seeds {
		message, err := vault.AppendRecords(nil, seeds[i:])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		records, err := vault.ReadRecords(message)
		if err != nil {
			if !errors.Is(err, vault.ErrMalformed) {
				t.Fatalf("ReadRecords = %v, want %v", err, vault.ErrMalformed)
			}
			return
		}
		again, err := vault.AppendRecords(nil, records)
		if err != nil || !bytes.Equal(again, message) {
			t.Fatalf("a message of %d bytes encodes again to %d (%v)", len(message), len(again), err)
		}
	})
}

func TestRecordErrorsQuoteNothing(t *testing.T) {
	t.Parallel()
	const canary = "canary-value"
	for _, a := range []vault.Alias{
		{School: strings.Repeat(canary, 9), Identifier: raw.Identifier{Scheme: 1, Value: canary}},
		{School: "12AB00", Identifier: raw.Identifier{Scheme: 9, Value: canary}},
		{School: "12AB00", Identifier: raw.Identifier{Scheme: 1, Value: strings.Repeat(canary, 99)}},
		{School: "12AB00", Publisher: canary, Identifier: raw.Identifier{Scheme: 1, Value: canary}},
		{School: "12AB00", Identifier: raw.Identifier{Scheme: 4, Value: canary}},
	} {
		_, err := vault.AppendRecords(nil, []vault.Record{{Kind: vault.KindCreate, Alias: a}})
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("AppendRecords = %v, want an error without the value", err)
		}
		printed := fmt.Sprintf("%v %+v %#v %s %x %+v", a, a, a, a, a, vault.Record{Alias: a})
		if strings.Contains(printed, canary) || strings.Contains(printed, hex.EncodeToString([]byte(canary))) {
			t.Error("an alias prints its value")
		}
	}
}

func loadRing(t testing.TB) *keyring.Ring {
	t.Helper()
	content, err := os.ReadFile("../keyring/testdata/keyset.json")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// The vectors were computed by ../keyring/testdata/vectors.py.
func TestDigestsMatchKnownAnswers(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("testdata/aliases.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Epoch                            uint32
		School, Publisher, Value, Digest string
		Scheme                           raw.Scheme
	}
	if err := json.Unmarshal(content, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("read vectors: %d, %v", len(vectors), err)
	}
	ring := loadRing(t)
	for i, v := range vectors {
		digester, err := vault.NewDigester(ring, v.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		digest := digester.Of(&vault.Alias{School: v.School, Publisher: v.Publisher, Identifier: raw.Identifier{Scheme: v.Scheme, Value: v.Value}})
		if got := hex.EncodeToString(digest[:]); got != v.Digest {
			t.Errorf("vector %d: Of = %s, want %s", i, got, v.Digest)
		}
	}
}

func TestOneSpellingPerPupil(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ scheme, a, b string }{
		{"eckid", "https://ketenid.nl/201703/0f3a", "  HTTPS://Ketenid.nl/201703/0F3A\n"},
		{"publisher", "zoe\u0308", "zo\u00eb"},
	} {
		scheme := map[string]raw.Scheme{"eckid": raw.SchemeECKID, "publisher": raw.SchemePublisher}[test.scheme]
		a := vault.Normalise(vault.Alias{School: "12AB00", Publisher: "p", Identifier: raw.Identifier{Scheme: scheme, Value: test.a}})
		b := vault.Normalise(vault.Alias{School: "12AB00", Publisher: "p", Identifier: raw.Identifier{Scheme: scheme, Value: test.b}})
		if a != b {
			t.Errorf("two spellings of one %s identifier differ after Normalise", test.scheme)
		}
	}
	las := vault.Normalise(vault.Alias{School: "12AB00", Publisher: "bingel", Identifier: raw.Identifier{Scheme: raw.SchemeLAS, Value: "4711"}})
	if las.Publisher != "" {
		t.Error("a LAS key depends on the publisher that delivered it")
	}
}

func TestSealBindsContextAndKeyset(t *testing.T) {
	t.Parallel()
	sealer := vault.NewSealer(loadRing(t))
	sealed, err := sealer.Seal(nil, []byte("salt"), []byte("a"), []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := sealer.Open(nil, sealed, []byte("a"), []byte("b")); err != nil || string(plain) != "salt" {
		t.Errorf("Open = %q, %v, want salt", plain, err)
	}
	if vault.SealedEpoch(sealed) != 2 {
		t.Errorf("SealedEpoch = %d, want the primary epoch 2", vault.SealedEpoch(sealed))
	}
	if _, err := sealer.Open(nil, sealed, []byte("ab"), nil); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("Open with another context = %v, want %v", err, vault.ErrSealed)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 0x40
		want := vault.ErrSealed
		if 1 <= i && i < 13 {
			want = vault.ErrKeyset // epoch or fingerprint
		}
		if _, err := sealer.Open(nil, changed, []byte("a"), []byte("b")); !errors.Is(err, want) {
			t.Errorf("Open with byte %d changed = %v, want %v", i, err, want)
		}
	}
	other, err := keyring.Create(filepath.Join(t.TempDir(), "keyset.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Rotate(); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.NewSealer(other).Open(nil, sealed, []byte("a"), []byte("b")); !errors.Is(err, vault.ErrKeyset) {
		t.Errorf("Open with another keyset = %v, want %v", err, vault.ErrKeyset)
	}
}

// FuzzSealed: nothing opens but what was sealed (a worker of the fuzzer seals anew,
// so its seeds are others' sealed bytes), and what is wrong is a wrong keyset or
// damage.
func FuzzSealed(f *testing.F) {
	sealer := vault.NewSealer(loadRing(f))
	sealed, err := sealer.Seal(nil, []byte("salt"), []byte("place"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add(sealed[:13])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = vault.SealedEpoch(data)
		plain, err := sealer.Open(nil, data, []byte("place"))
		if err == nil && string(plain) != "salt" || err != nil && !errors.Is(err, vault.ErrSealed) && !errors.Is(err, vault.ErrKeyset) {
			t.Fatalf("Open of forged bytes = %d bytes, %v", len(plain), err)
		}
	})
}

// FuzzTable: rows of the registry's table that are not what they should be, because
// somebody has the database, are errors.
func FuzzTable(f *testing.F) {
	for kind := range uint8(5) {
		f.Add(kind, uint64(1), []byte(strings.Repeat("0", 94)))
	}
	f.Add(uint8(4), uint64(1), []byte(strings.Repeat("x", 16)+"-0000001"))
	f.Add(uint8(4), uint64(1), []byte(strings.Repeat("x", 16)+"00000041"+strings.Repeat("y", 41)))
	f.Add(uint8(2), uint64(3), []byte(strings.Repeat("z", 96)))
	ring := loadRing(f)
	f.Fuzz(func(t *testing.T, kind uint8, count uint64, packed []byte) {
		if err := vault.RestoreRows(ring, kind%5, count, packed); err != nil && !errors.Is(err, vault.ErrMalformed) &&
			!errors.Is(err, vault.ErrSealed) && !errors.Is(err, vault.ErrKeyset) {
			t.Fatalf("RestoreRows = %v", err)
		}
	})
}
