package vault

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// Alias is an identifier that one school knows a learner by. It redacts itself
// when printed. Publisher is empty but for raw.SchemePublisher. The numbers of
// the schemes are part of sealed records and of digests.
type Alias = raw.Identity

// Limits of an alias, in bytes.
const (
	maxSchoolBytes    = 16
	maxPublisherBytes = 128
	maxValueBytes     = 512
)

var errAlias = errors.New("alias is malformed")

// Normalise gives every spelling of an identifier one form, or one pupil would
// get two tokens: no white space around it, Unicode NFC, and an ECK iD in lower
// case. The publisher is dropped where the scheme is not the publisher's own.
// A form that is normal already is returned as it is, without allocating.
func Normalise(a Alias) Alias {
	a.Value = strings.TrimSpace(a.Value)
	if !isASCII(a.Value) {
		a.Value = norm.NFC.String(a.Value)
	}
	if a.Scheme == raw.SchemeECKID {
		a.Value = strings.ToLower(a.Value)
	}
	if a.Scheme != raw.SchemePublisher {
		a.Publisher = ""
	}
	return a
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// Check refuses what can't be stored; it names the field, not the value.
func Check(a *Alias) error {
	switch {
	case a.School == "" || len(a.School) > maxSchoolBytes:
		return fmt.Errorf("%w: school of %d bytes", errAlias, len(a.School))
	case a.Scheme < raw.SchemeECKID || a.Scheme > raw.SchemePublisher:
		return fmt.Errorf("%w: unknown scheme", errAlias)
	case a.Value == "" || len(a.Value) > maxValueBytes:
		return fmt.Errorf("%w: value of %d bytes", errAlias, len(a.Value))
	case (a.Publisher != "") != (a.Scheme == raw.SchemePublisher) || len(a.Publisher) > maxPublisherBytes:
		return fmt.Errorf("%w: publisher of %d bytes", errAlias, len(a.Publisher))
	}
	return nil
}

// Digest is the keyed digest of an alias: what memory and database know it by.
type Digest [16]byte

// Digester computes digests under the alias key of one epoch. It is for one
// goroutine and allocates nothing.
type Digester struct{ mac *keyring.MAC }

// NewDigester makes a digester for the alias key of an epoch.
func NewDigester(ring *keyring.Ring, epoch uint32) (Digester, error) {
	key, err := ring.Key(keyring.Alias, epoch)
	if err != nil {
		return Digester{}, fmt.Errorf("make alias digester: %w", err)
	}
	return Digester{mac: keyring.NewMAC(key)}, nil
}

// Of returns the digest of a normalised alias.
func (d Digester) Of(a *Alias) Digest {
	d.mac.Begin()
	d.mac.Byte(byte(a.Scheme))
	d.mac.Field(a.School)
	d.mac.Field(a.Publisher)
	d.mac.Text(a.Value)
	return d.mac.Sum()
}

// Sums returns how many digests were computed.
func (d Digester) Sums() uint64 { return d.mac.Sums() }

// Wipe clears the last alias from the digester's memory.
func (d Digester) Wipe() { d.mac.Wipe() }
