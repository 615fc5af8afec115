package canary_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/internal/canary"
)

const value = "Kanarie/las-0815"

// Every form is found wherever it is planted, and nothing where none is.
func TestHunterFindsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	const seed = 20261126
	r := rand.New(rand.NewPCG(seed, 1))
	forms, h := canary.Forms(value), canary.New()
	h.Add("canary", forms)
	h.Add("other", canary.Forms("another canary"))
	noise := make([]byte, 1<<16)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	if found := h.Search(noise); len(found) != 0 {
		t.Errorf("found in noise: %v", found)
	}
	for _, f := range forms {
		for _, at := range []int{0, 1 + r.IntN(1000), len(noise) - len(f.Bytes)} {
			content := slices.Clone(noise)
			copy(content[at:], f.Bytes)
			if found := h.Search(content); !slices.Contains(found, "canary: "+f.Name) {
				t.Errorf("%s at %d is not found (found %v), seed %d", f.Name, at, found, seed)
			}
		}
	}
}

// What encoders really write is found, wherever in a longer text it begins.
func TestHunterFindsWhatEncodersWrite(t *testing.T) {
	t.Parallel()
	h := canary.New()
	h.Add("canary", canary.Forms(value))
	sum := sha256.Sum256([]byte(strings.ToLower(value)))
	for name, content := range map[string]string{
		"plain": "x" + value, "upper": strings.ToUpper(value), "url": "q=Kanarie%2Flas-0815&", "hex": "0" + hex.EncodeToString([]byte("id="+value+";")),
		"hash": string(sum[:]), "hash in hex": hex.EncodeToString(sum[:]), "hash in HEX": fmt.Sprintf("%X", sum), "half a hash": string(sum[:16]),
	} {
		if len(h.Search([]byte(content))) == 0 {
			t.Errorf("%s is not found", name)
		}
	}
	for begin := range 7 {
		for end := range 7 {
			text := strings.Repeat("~", begin) + value + strings.Repeat("?", end)
			hashed := strings.Repeat("~", begin) + string(sum[:]) + strings.Repeat("?", end)
			for name, encoding := range map[string]*base64.Encoding{"std": base64.StdEncoding, "url": base64.URLEncoding, "raw": base64.RawStdEncoding, "raw url": base64.RawURLEncoding} {
				for _, content := range []string{text, hashed} {
					if len(h.Search([]byte(encoding.EncodeToString([]byte(content))))) == 0 {
						t.Errorf("base64 %s with %d bytes before and %d after is not found", name, begin, end)
					}
				}
			}
		}
	}
}

// The hash of a person number is the one of the public test vectors.
func TestHPGN(t *testing.T) {
	t.Parallel()
	forms, err := canary.HPGN("063138219")
	if err != nil {
		t.Fatal(err)
	}
	h := canary.New()
	h.Add("number", forms)
	if found := h.Search([]byte("9735dfd2235eaeb5f0300886bcc99c82ffc1d6420c4e0bde8de7218def2135fa")); len(found) != 1 {
		t.Errorf("found %v, want the published vector", found)
	}
}
