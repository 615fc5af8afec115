// Package vault is the identity registry: which aliases (ECK iD, Basispoort id,
// LAS key, publisher's own id) name which learner of a school, and the random id
// and salt that a learner's tokens are made of.
//
//	topic registry (sealed records) ──fold──▶ State (memory) ──flush──▶ leerstroom_vault.identities
//	      ▲ append: create, link, merge, move, erase, epoch, adopt, name
//
// The registry of a partition is the fold of its log and of nothing else: State
// is a pure function of the records and their order, whoever wrote them. The
// table holds that fold at one offset, so that a restart reads the table and
// replays the rest of the log.
//
// Invariants:
//   - The order of the log decides. The first creation of an alias wins; a
//     record that contradicts the state when its turn comes changes nothing.
//   - Whoever appends learns from the offset that Kafka returns whether others
//     wrote in between, and folds what they wrote before using anything.
//   - A flush is one insert block, which ClickHouse writes whole or not at all:
//     the table is at every moment the fold at the offset of its progress row.
//   - Readable aliases, names and salts exist sealed (AES-256-GCM under the vault
//     key of an epoch) in the log and the table. Aliases and names are in memory no
//     longer than needed.
//     Digests of aliases are keyed. A learner's id is random.
//   - A wrong keyset is recognised by its fingerprint and is an error (ErrKeyset),
//     never an empty registry.
//   - An erased learner keeps a tombstone: the random id without salt, school or
//     alias. It outlives replay, so nothing brings the learner back.
//
// # Rules for conflicts
//
// Learners are per school: the same ECK iD at another school is another learner,
// so a learner who changes school begins anew there, and the data of the former
// school stay with it. An alias that no roster knows makes a provisional learner.
//
//   - A roster line names a provisional learner: it becomes known.
//   - A roster line names several learners of which at most one is known to a
//     roster: the others are merged into it.
//   - A roster line names two learners that rosters know: a conflict. Nothing is
//     changed and the line is reported; a person decides (move or merge).
//   - A link to an alias that another learner has changes nothing: links never
//     steal. Only move takes an alias away. Twins whose keys were swapped are two
//     moves in one message; answers that came before stay where they are.
package vault

import (
	"errors"
	"fmt"
	"log/slog"
)

// Errors that a caller decides on.
var (
	// ErrKeyset reports data sealed under another keyset than the loaded one.
	ErrKeyset = errors.New("sealed under another keyset")
	// ErrSealed reports sealed bytes that were damaged or belong elsewhere.
	ErrSealed = errors.New("sealed bytes are damaged")
	// ErrMalformed reports a record that is not what its version says.
	ErrMalformed = errors.New("malformed registry record")
	// ErrGap reports registry records that are gone before they were folded.
	ErrGap = errors.New("registry log has a gap")
	// ErrErased reports a learner that was erased.
	ErrErased = errors.New("learner was erased")
	// ErrUnknown reports an alias that the registry does not know.
	ErrUnknown = errors.New("alias is unknown")
)

// LearnerID is a learner's random id.
type LearnerID [16]byte

// Secret is what a learner's tokens are made of. It redacts itself when printed.
type Secret struct {
	ID   LearnerID
	Salt [16]byte // zero after an erasure
}

// String redacts the secret.
func (Secret) String() string { return "[learner]" }

// GoString redacts the secret.
func (Secret) GoString() string { return "[learner]" }

// Format redacts the secret for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[learner]")) }

// LogValue redacts the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue("[learner]") }

// MarshalText redacts the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("[learner]"), nil }

// Learner is the index of a learner in the memory of one partition, from 1. It
// means nothing elsewhere and nothing after a restart.
type Learner uint32
