package raw

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Scheme says what kind of identifier a learner is known by.
type Scheme uint8

// The schemes.
const (
	SchemeECKID      Scheme = 1 // ECK iD: one per pupil in primary education
	SchemeBasispoort Scheme = 2 // Basispoort id
	SchemeLAS        Scheme = 3 // key in the school administration, unique in the school
	SchemePublisher  Scheme = 4 // the publisher's own id, unique with that publisher
)

// ErrScheme reports a text that names no scheme.
var ErrScheme = errors.New("unknown identifier scheme")

// ParseScheme reads the text form of a scheme.
func ParseScheme(text string) (Scheme, error) {
	for s := SchemeECKID; s <= SchemePublisher; s++ {
		if s.String() == text {
			return s, nil
		}
	}
	return 0, ErrScheme
}

// String returns eckid, basispoort, las or publisher.
func (s Scheme) String() string {
	switch s {
	case SchemeECKID:
		return "eckid"
	case SchemeBasispoort:
		return "basispoort"
	case SchemeLAS:
		return "las"
	case SchemePublisher:
		return "publisher"
	}
	return "unknown"
}

// Identifier is what a publisher knows a learner by, normalised. It shows its
// scheme only, in every form of printing, logging and encoding. A struct that
// holds one in an unexported field is the exception that fmt makes: it then
// prints by reflection and asks nobody. Hold it in exported fields.
type Identifier struct {
	Scheme Scheme
	Value  string
}

func (i Identifier) redacted() string { return i.Scheme.String() + ":redacted" }

// String hides the value.
func (i Identifier) String() string { return i.redacted() }

// GoString hides the value.
func (i Identifier) GoString() string { return i.redacted() }

// Format hides the value whatever the verb.
func (i Identifier) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, i.redacted()) }

// LogValue hides the value.
func (i Identifier) LogValue() slog.Value { return slog.StringValue(i.redacted()) }

// MarshalJSON hides the value.
func (i Identifier) MarshalJSON() ([]byte, error) { return []byte(`"` + i.redacted() + `"`), nil }

// MarshalText hides the value.
func (i Identifier) MarshalText() ([]byte, error) { return []byte(i.redacted()), nil }

// Identity is a distinct learner as delivered: the identifier with what it is
// unique in. Publisher is set for SchemePublisher only, so that two publishers
// that send the same ECK iD send the same Identity. It hides itself like
// Identifier.
type Identity struct {
	School    string
	Publisher string
	Identifier
}

// Texts is a column of texts, laid end to end: row i is
// Bytes[Offsets[i]:Offsets[i+1]]. It holds ids that publishers gave to events,
// which may say something about a learner, so it hides itself.
type Texts struct {
	Offsets []int32
	Bytes   []byte
}

// Len returns the number of rows.
func (t *Texts) Len() int { return max(0, len(t.Offsets)-1) }

// At returns the text of a row. It must not be written to.
func (t *Texts) At(row int) []byte { return t.Bytes[t.Offsets[row]:t.Offsets[row+1]] }

// String hides the texts.
func (t Texts) String() string { return fmt.Sprintf("%d texts:redacted", t.Len()) }

// GoString hides the texts.
func (t Texts) GoString() string { return t.String() }

// Format hides the texts whatever the verb.
func (t Texts) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue hides the texts.
func (t Texts) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON hides the texts.
func (t Texts) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// MarshalText hides the texts.
func (t Texts) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
