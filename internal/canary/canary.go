// Package canary finds marked identities in bytes: the tests push identities that
// stand out through the system and search everything that it wrote. A form is what
// a careless stage could leave of an identity: it in another case, encoded, or an
// unkeyed hash of it, which everybody who knows the identity can compute, too.
package canary

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/scrypt"
)

// Form is one form of an identity, with its name.
type Form struct {
	Name  string
	Bytes []byte
}

// minFormBytes is the length from which a find is no chance: a form is eight given
// bytes or more, and in a terabyte of random ones eight given bytes occur with a
// chance of 1 to 10 million.
const minFormBytes = 8

// hashBytes is how much of a hash is looked for: a column of 16 bytes holds no more.
const hashBytes = 16

// Forms returns the forms of an identity that is at least minFormBytes long.
func Forms(value string) []Form {
	var forms []Form
	for _, spelling := range []struct{ name, text string }{{"plain", value}, {"lower case", strings.ToLower(value)}, {"upper case", strings.ToUpper(value)},
		{"URL query", url.QueryEscape(value)}, {"URL path", url.PathEscape(value)}} {
		forms = append(forms, encodings(spelling.name, []byte(spelling.text))...)
		text := []byte(spelling.text)
		m, s1, s2, s3, s5 := md5.Sum(text), sha1.Sum(text), sha256.Sum256(text), sha512.Sum384(text), sha512.Sum512(text)
		for _, hash := range []struct {
			name string
			sum  []byte
		}{{"MD5", m[:]}, {"SHA-1", s1[:]}, {"SHA-256", s2[:]}, {"SHA-384", s3[:]}, {"SHA-512", s5[:]}} {
			forms = append(forms, encodings(hash.name+" of "+spelling.name, hash.sum[:hashBytes])...)
		}
	}
	slices.SortStableFunc(forms, func(a, b Form) int { return bytes.Compare(a.Bytes, b.Bytes) })
	return slices.CompactFunc(forms, func(a, b Form) bool { return bytes.Equal(a.Bytes, b.Bytes) })
}

// HPGN returns the forms of what an ECK iD is made of in the end: scrypt of a
// person number, level 1 of the chain, with the salt of the public test
// environment and both sets of parameters that were in use. It takes 128 MiB and
// about a second.
func HPGN(number string) ([]Form, error) {
	salt, err := base64.StdEncoding.DecodeString("rktYml0MIp9TC9u6Ny6uqw==")
	if err != nil {
		return nil, fmt.Errorf("decode salt: %w", err)
	}
	var forms []Form
	for _, cost := range []struct{ n, p int }{{131072, 4}, {16384, 1}} {
		key, err := scrypt.Key([]byte(strings.ToLower(number)), salt, cost.n, 8, cost.p, 32)
		if err != nil {
			return nil, fmt.Errorf("hash number: %w", err)
		}
		forms = append(forms, encodings(fmt.Sprintf("scrypt with N=%d", cost.n), key[:hashBytes])...)
	}
	return forms, nil
}

// encodings returns a value as it is, and in hex and base64 as they stand in a
// longer text, wherever the value begins in it.
func encodings(name string, value []byte) []Form {
	digits := hex.EncodeToString(value)
	forms := []Form{{name, value}, {name + " in hex", []byte(digits)}, {name + " in upper-case hex", []byte(strings.ToUpper(digits))}}
	for skip := range 3 { // base64 encodes three bytes at a time: those that a neighbour shares are left out
		if len(value) < skip+6 {
			break
		}
		whole := value[skip : skip+(len(value)-skip)/3*3]
		forms = append(forms, Form{fmt.Sprintf("%s in base64 from byte %d", name, skip), []byte(base64.StdEncoding.EncodeToString(whole))},
			Form{fmt.Sprintf("%s in base64url from byte %d", name, skip), []byte(base64.URLEncoding.EncodeToString(whole))})
	}
	return forms
}

// Hunter looks for many forms at once. It is for one goroutine while forms are
// added, and for any number afterwards.
type Hunter struct {
	first  [1 << 16]bool // of the first two bytes of a form, with the next two folded in
	byHead map[uint64][]needle
	forms  int
}

type needle struct {
	name string
	rest []byte
}

// New makes a hunter that looks for nothing yet.
func New() *Hunter { return &Hunter{byHead: make(map[uint64][]needle)} }

// Forms returns how many forms the hunter looks for.
func (h *Hunter) Forms() int { return h.forms }

// Add adds the forms of an identity. The label stands for it in findings.
func (h *Hunter) Add(label string, forms []Form) {
	for _, f := range forms {
		if len(f.Bytes) < minFormBytes {
			panic("canary: a form that chance finds: " + f.Name)
		}
		head := binary.LittleEndian.Uint64(f.Bytes)
		h.first[fold(head)] = true
		h.byHead[head] = append(h.byHead[head], needle{label + ": " + f.Name, f.Bytes[minFormBytes:]})
		h.forms++
	}
}

func fold(head uint64) uint16 { return uint16(head) ^ uint16(head>>16)*40503 }

// Search returns the names of the forms that the content holds, each once.
func (h *Hunter) Search(content []byte) (found []string) {
	for at := 0; at+minFormBytes <= len(content); at++ {
		head := binary.LittleEndian.Uint64(content[at:])
		if !h.first[fold(head)] {
			continue
		}
		for _, n := range h.byHead[head] {
			if bytes.HasPrefix(content[at+minFormBytes:], n.rest) && !slices.Contains(found, n.name) {
				found = append(found, n.name)
			}
		}
	}
	return found
}
