package pseudonymize_test

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// vectorRing loads the public keyset of the known answers.
func vectorRing(t testing.TB) *keyring.Ring {
	t.Helper()
	content, err := os.ReadFile("keyring/testdata/keyset.json")
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

func freshRing(t testing.TB) *keyring.Ring {
	t.Helper()
	ring, err := keyring.Create(filepath.Join(t.TempDir(), "keyset.json"))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func tokenizer(t testing.TB, ring *keyring.Ring, purpose keyring.Purpose, epoch uint32) *pseudonymize.Tokenizer {
	t.Helper()
	tokens, err := pseudonymize.NewTokenizer(ring, purpose, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func unhex(t testing.TB, text string) (out [16]byte) {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 16 {
		t.Fatalf("vector %q is not 16 bytes of hex", text)
	}
	return [16]byte(b)
}

// The vectors were computed by keyring/testdata/vectors.py.
func TestTokensAndEventIDsMatchKnownAnswers(t *testing.T) {
	t.Parallel()
	var vectors struct {
		Tokens []struct {
			Purpose              keyring.Purpose
			Epoch                uint32
			Learner, Salt, Token string
		}
		Events []struct {
			Purpose              keyring.Purpose
			Publisher, ID, Event string
		}
	}
	content, err := os.ReadFile("testdata/tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &vectors); err != nil || len(vectors.Tokens) == 0 || len(vectors.Events) == 0 {
		t.Fatalf("read vectors: %d tokens, %d events, %v", len(vectors.Tokens), len(vectors.Events), err)
	}
	ring := vectorRing(t)
	for _, v := range vectors.Tokens {
		secret := vault.Secret{ID: unhex(t, v.Learner), Salt: unhex(t, v.Salt)}
		if got := tokenizer(t, ring, v.Purpose, v.Epoch).Token(&secret).String(); got != v.Token {
			t.Errorf("Token(%s, %d) = %s, want %s", v.Purpose, v.Epoch, got, v.Token)
		}
	}
	for _, v := range vectors.Events {
		events, err := pseudonymize.NewEventDigester(ring, v.Purpose)
		if err != nil {
			t.Fatal(err)
		}
		if got := events.ID(v.Publisher, []byte(v.ID)); hex.EncodeToString(got[:]) != v.Event {
			t.Errorf("ID(%s, %q, %q) = %x, want %s", v.Purpose, v.Publisher, v.ID, got, v.Event)
		}
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	ring := freshRing(t)
	tokens := tokenizer(t, ring, keyring.Analytics, 1)
	events, err := pseudonymize.NewEventDigester(ring, keyring.Event)
	if err != nil {
		t.Fatal(err)
	}
	secret, id := &vault.Secret{ID: vault.LearnerID{1}}, []byte("b-0001")
	if allocs := testing.AllocsPerRun(1000, func() {
		tokens.Token(secret)
		events.ID("bingel", id)
	}); allocs != 0 {
		t.Errorf("Token and ID allocate %v times, want 0", allocs)
	}
}

func TestKeysOfOtherPurposesMakeNoTokens(t *testing.T) {
	t.Parallel()
	ring := freshRing(t)
	for _, purpose := range []keyring.Purpose{keyring.Alias, keyring.Vault, keyring.Event, keyring.EngineEvent("a"), "", "engine/"} {
		if _, err := pseudonymize.NewTokenizer(ring, purpose, 1); err == nil {
			t.Errorf("NewTokenizer(%q) = nil, want an error", string(purpose))
		}
	}
	for _, purpose := range []keyring.Purpose{keyring.Analytics, keyring.Engine("a")} {
		if _, err := pseudonymize.NewEventDigester(ring, purpose); err == nil {
			t.Errorf("NewEventDigester(%q) = nil, want an error", string(purpose))
		}
	}
}

func secrets(t testing.TB, n int) []vault.Secret {
	t.Helper()
	out := make([]vault.Secret, n)
	for i := range out {
		if _, err := rand.Read(out[i].ID[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := rand.Read(out[i].Salt[:]); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// ranks returns the rank of every token in sorted order.
func ranks(tokens []answer.Token) []float64 {
	order := make([]int, len(tokens))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := tokens[a].Bytes(), tokens[b].Bytes()
		return slices.Compare(x[:], y[:])
	})
	out := make([]float64, len(tokens))
	for rank, i := range order {
		out[i] = float64(rank)
	}
	return out
}

// TestRecipientsCannotLink: the token sets of any two recipients, and of any two
// epochs, have nothing in common, and their orders are unrelated.
func TestRecipientsCannotLink(t *testing.T) {
	t.Parallel()
	const learners = 20_000
	ring := freshRing(t)
	if _, err := ring.Rotate(); err != nil {
		t.Fatal(err)
	}
	all := secrets(t, learners)
	var names []string
	var sets [][]answer.Token
	for _, purpose := range []keyring.Purpose{keyring.Analytics, keyring.Engine("a"), keyring.Engine("b"), keyring.Export("x")} {
		for epoch := uint32(1); epoch <= 2; epoch++ {
			tokens := tokenizer(t, ring, purpose, epoch)
			set := make([]answer.Token, learners)
			for i := range all {
				set[i] = tokens.Token(&all[i])
			}
			names, sets = append(names, fmt.Sprint(purpose, "/", epoch)), append(sets, set)
		}
	}
	// The measure sees a link that is there: one learner in ten keeps the place.
	linked := slices.Clone(sets[1])
	for i := 0; i < learners; i += 10 {
		linked[i] = sets[0][i]
	}
	if rho := correlation(ranks(sets[0]), ranks(linked)); rho < 6/math.Sqrt(learners-1) {
		t.Errorf("rank correlation of a set and one that shares a tenth of it = %.4f, want more than chance", rho)
	}
	for a := range sets {
		seen := make(map[answer.Token]bool, learners)
		for _, token := range sets[a] {
			seen[token] = true
		}
		if len(seen) != learners {
			t.Errorf("%s: %d different tokens of %d learners", names[a], len(seen), learners)
		}
		for b := a + 1; b < len(sets); b++ {
			for _, token := range sets[b] {
				if seen[token] {
					t.Fatalf("%s and %s share a token", names[a], names[b])
				}
			}
			// Spearman's rho of independent orders has deviation 1/sqrt(n-1); six of them
			// happen by chance once in 5·10^8.
			if rho := correlation(ranks(sets[a]), ranks(sets[b])); math.Abs(rho) > 6/math.Sqrt(learners-1) {
				t.Errorf("rank correlation of %s and %s = %.4f, want 0", names[a], names[b], rho)
			}
		}
	}
}

func correlation(x, y []float64) float64 {
	mean := float64(len(x)-1) / 2
	var xy, xx float64
	for i := range x {
		xy += (x[i] - mean) * (y[i] - mean)
		xx += (x[i] - mean) * (x[i] - mean)
	}
	return xy / xx
}

// TestDictionaryAttack: somebody who knows every identifier, the code, and
// everything that leaked but the keys, recovers nobody: neither a digest of the
// vault nor a token nor an event id is an unkeyed function of what is known, nor
// one under a key that can be guessed.
func TestDictionaryAttack(t *testing.T) {
	t.Parallel()
	const learners = 300
	ring := freshRing(t)
	digester, err := vault.NewDigester(ring, 1)
	if err != nil {
		t.Fatal(err)
	}
	tokens := tokenizer(t, ring, keyring.Analytics, 1)
	events, err := pseudonymize.NewEventDigester(ring, keyring.Event)
	if err != nil {
		t.Fatal(err)
	}
	leaked := make(map[string]string) // hex of 16 bytes → what it is
	known := make([]string, 0, learners)
	all := secrets(t, learners)
	for i := range learners {
		value := fmt.Sprintf("https://ketenid.nl/201703/%x", sha512.Sum512(fmt.Append(nil, "synthetic pupil ", i)))
		a := raw.Identity{School: "12AB00", Identifier: raw.Identifier{Scheme: raw.SchemeECKID, Value: value}}
		digest, event := digester.Of(&a), events.ID("bingel", []byte(value))
		token := tokens.Token(&all[i])
		known = append(known, value)
		leaked[hex.EncodeToString(digest[:])] = "alias digest"
		leaked[hex.EncodeToString(event[:])] = "event id"
		leaked[token.String()] = "token"
		// The learner's id is in the vault's table, readable; its salt is sealed.
		known = append(known, string(all[i].ID[:]))
	}
	guesses := [][]byte{nil, make([]byte, 32), []byte("leerstroom"), []byte("secret"), []byte("leerstroom/v1/alias"), []byte("leerstroom/v1/analytics")}
	if other, err := freshRing(t).Key(keyring.Alias, 1); err == nil { // another deployment's
		guesses = append(guesses, other[:])
	}
	if found := recovered(known, leaked, guesses); len(found) != 0 {
		t.Fatalf("recovered without a key: %v", found)
	}
	// The same attack with the keys finds what each of them protects, so it would
	// have found them without.
	for _, stolen := range []struct {
		purpose keyring.Purpose
		epoch   uint32
		what    string
	}{{keyring.Alias, 1, "alias digest"}, {keyring.Event, 0, "event id"}} {
		key, err := ring.Key(stolen.purpose, stolen.epoch)
		if err != nil {
			t.Fatal(err)
		}
		if found := recovered(known, leaked, [][]byte{key[:]}); len(found) != 1 || found[stolen.what] != learners {
			t.Errorf("with the key of %s the attack finds %v, want %d of %s", string(stolen.purpose), found, learners, stolen.what)
		}
	}
	// A token needs the salt beside the key.
	key, err := ring.Key(keyring.Analytics, 1)
	if err != nil {
		t.Fatal(err)
	}
	if found := recovered(known, leaked, [][]byte{key[:]}); len(found) != 0 {
		t.Errorf("with the key of the tokens and no salt the attack finds %v, want nothing", found)
	}
	for i := range all {
		known = append(known, string(all[i].ID[:])+string(all[i].Salt[:]))
	}
	if found := recovered(known, leaked, [][]byte{key[:]}); found["token"] != learners {
		t.Errorf("with key and salts the attack finds %v, want all %d tokens", found, learners)
	}
}

// recovered counts, by what they are, the leaked values that are a hash of a known
// one, plain or under a guessed key.
func recovered(known []string, leaked map[string]string, keys [][]byte) map[string]int {
	found, seen := make(map[string]int), make(map[string]bool)
	for _, value := range known {
		for _, form := range forms(value) {
			for _, sum := range digests(form, keys) {
				for at := 0; at+16 <= len(sum); at += 16 {
					piece := hex.EncodeToString(sum[at : at+16])
					if what, hit := leaked[piece]; hit && !seen[piece] {
						seen[piece] = true
						found[what]++
					}
				}
			}
		}
	}
	return found
}

// forms are the messages that somebody who read the code would try.
func forms(value string) [][]byte {
	frame := func(parts ...string) []byte {
		var out []byte
		for _, p := range parts[:len(parts)-1] {
			out = append(out, byte(len(p)), 0, 0, 0)
			out = append(out, p...)
		}
		return append(out, parts[len(parts)-1]...)
	}
	return [][]byte{[]byte(value), frame("bingel", value), append([]byte{1}, frame("12AB00", "", value)...),
		[]byte("12AB00" + value), []byte(value + string(make([]byte, 16)))}
}

func digests(message []byte, keys [][]byte) map[string][]byte {
	out := map[string][]byte{}
	for name, h := range map[string]func() hash.Hash{"MD5": md5.New, "SHA-1": sha1.New, "SHA-256": sha256.New, "SHA-512": sha512.New} {
		plain := h()
		plain.Write(message)
		out[name] = plain.Sum(nil)
		for i, key := range keys {
			keyed := hmac.New(h, key)
			keyed.Write(message)
			out[fmt.Sprintf("HMAC-%s with guessed key %d", name, i)] = keyed.Sum(nil)
		}
	}
	return out
}

func BenchmarkToken(b *testing.B) {
	ring := freshRing(b)
	tokens := tokenizer(b, ring, keyring.Analytics, 1)
	all := secrets(b, 4096)
	b.Run("bare-hmac", func(b *testing.B) {
		key, err := ring.Key(keyring.Analytics, 1)
		if err != nil {
			b.Fatal(err)
		}
		mac, sum, message := hmac.New(sha256.New, key[:]), [32]byte{}, [32]byte{}
		b.ReportAllocs()
		for i := range b.N {
			copy(message[:], all[i&4095].ID[:])
			copy(message[16:], all[i&4095].Salt[:])
			mac.Reset()
			mac.Write(message[:])
			mac.Sum(sum[:0])
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
	})
	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			tokens.Token(&all[i&4095])
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
	})
}
