package query

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// Identifier is what a caller of POST /v1/pseudonyms knows a learner by. It is
// passed on to the registry and kept nowhere; printed or logged it shows its
// scheme only.
type Identifier struct {
	Scheme string // eckid, basispoort or las
	Value  string
}

func (i Identifier) redacted() string { return i.Scheme + ":redacted" }

// String redacts the identifier.
func (i Identifier) String() string { return i.redacted() }

// GoString redacts the identifier.
func (i Identifier) GoString() string { return i.redacted() }

// Format redacts the identifier for every verb.
func (i Identifier) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(i.redacted())) }

// LogValue redacts the identifier.
func (i Identifier) LogValue() slog.Value { return slog.StringValue(i.redacted()) }

// MarshalText redacts the identifier.
func (i Identifier) MarshalText() ([]byte, error) { return []byte(i.redacted()), nil }

// Identities maps identifiers and tokens. The pseudonymize package has what it
// takes.
type Identities struct {
	// Tokens returns the token of each identifier of a school for a purpose, the
	// zero token for one that gets none: unknown, or known from answers alone where
	// that is not enough. It creates no learner.
	Tokens func(ctx context.Context, purpose keyring.Purpose, school string, identifiers []Identifier) ([]answer.Token, error)
	// Learner returns the analytics tokens, newest key epoch first, and the school
	// of the learner whom a token of a purpose means; no token when nobody is
	// meant. There are several while keys are rotated.
	Learner func(ctx context.Context, purpose keyring.Purpose, token [16]byte) (analytics []answer.Token, school string, err error)
	// Present returns the tokens for a purpose of learners of one school, given
	// by their analytics tokens; the zero token for one who is no longer known.
	Present func(ctx context.Context, purpose keyring.Purpose, school string, analytics []answer.Token) ([]answer.Token, error)
	// Names returns the names of the learners of one group of a school, as its
	// roster has it, with their tokens for a purpose.
	Names func(ctx context.Context, purpose keyring.Purpose, school, group string) ([]pseudonymize.NamedLearner, error)
}
