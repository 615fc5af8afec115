// Package keyring holds the secrets that make identities unlinkable: a keyset
// file with one 256-bit root per key epoch, and the purpose-bound keys derived
// from a root with HKDF-SHA-256.
//
//	root[epoch] ── HKDF(info = "leerstroom/v1/" + purpose) ──▶ key of the purpose
//	anchor      ── HKDF(info = "leerstroom/v1/" + purpose) ──▶ key of event ids
//
// Purposes: analytics; engine/<name>; export/<id>; alias (digests of aliases);
// vault (sealing of registry records and vault rows); event and
// event/engine/<name> (event ids).
//
// Invariants:
//   - A key never leaves the process and is in no error, log line or String.
//   - The file is readable by its owner alone, complete and unedited, or it is
//     refused with a sentence that says what to do. It is replaced atomically. A
//     KeyService may keep its content closed.
//   - Exactly one epoch is primary: the one that writers move to. Active epochs
//     can still be read. A retired epoch has lost its root for good.
//   - Event keys come from the anchor, which no rotation touches. An event id is
//     the idempotency key: under a rotated key a redelivered answer would look
//     new and count twice, and stored ids can't be made again because the
//     publisher's id is gone. The anchor says nothing about learners.
package keyring

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
)

// Key is a derived 256-bit key. It redacts itself when printed.
type Key [32]byte

// String redacts the key.
func (Key) String() string { return "[key]" }

// GoString redacts the key.
func (Key) GoString() string { return "[key]" }

// Format redacts the key for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[key]")) }

// LogValue redacts the key.
func (Key) LogValue() slog.Value { return slog.StringValue("[key]") }

// MarshalText redacts the key.
func (Key) MarshalText() ([]byte, error) { return []byte("[key]"), nil }

// Purpose names what a key is for.
type Purpose string

// Purposes without a recipient.
const (
	Analytics Purpose = "analytics" // tokens in the topic answers and in the store
	Alias     Purpose = "alias"     // keyed digests of aliases
	Vault     Purpose = "vault"     // sealing of registry records and vault rows
	Event     Purpose = "event"     // event ids of the topic answers
)

// Engine is the purpose of the tokens that one adaptive engine sees.
func Engine(name string) Purpose { return Purpose("engine/" + name) }

// Export is the purpose of the tokens of one research export.
func Export(id string) Purpose { return Purpose("export/" + id) }

// EngineEvent is the purpose of the event ids that one adaptive engine sees:
// others than ours, or they would join its data with ours.
func EngineEvent(name string) Purpose { return Purpose("event/engine/" + name) }

var purposePattern = regexp.MustCompile(`^(analytics|alias|vault|event|(engine|export|event/engine)/[a-z0-9][a-z0-9._-]{0,63})$`)

// Validate refuses a purpose outside the list or a name that is not 1 to 64 of
// a-z, 0-9, dot, underscore and hyphen.
func (p Purpose) Validate() error {
	if !purposePattern.MatchString(string(p)) {
		return fmt.Errorf("key purpose %q: want analytics, alias, vault, event, engine/<name>, export/<id> or event/engine/<name>", string(p))
	}
	return nil
}

// MakesTokens tells whether keys of the purpose make tokens of learners.
func (p Purpose) MakesTokens() bool {
	return p.Validate() == nil && (p == Analytics || strings.HasPrefix(string(p), "engine/") || strings.HasPrefix(string(p), "export/"))
}

// anchored tells whether the purpose's key survives rotation.
func (p Purpose) anchored() bool { return p == Event || strings.HasPrefix(string(p), "event/") }

// State is what an epoch may be used for.
type State string

// The states of an epoch.
const (
	StatePrimary State = "primary" // writers move to it
	StateActive  State = "active"  // still read, not written by anyone who knows the primary
	StateRetired State = "retired" // its root is destroyed
)

// Errors that a caller decides on.
var (
	ErrMissing      = errors.New("keyset is missing")
	ErrExists       = errors.New("keyset exists")
	ErrReadable     = errors.New("keyset is readable by others")
	ErrDamaged      = errors.New("keyset is damaged")
	ErrUnknownEpoch = errors.New("key epoch is unknown")
	ErrInUse        = errors.New("key epoch is in use")
)

// Info describes an epoch without its secret.
type Info struct {
	Epoch       uint32
	State       State
	Fingerprint Fingerprint
}

// Fingerprint tells keysets apart without revealing them: 8 bytes derived from
// the root. Sealed data carries it, so that a wrong keyset is recognised as such
// and not taken for damage.
type Fingerprint [8]byte

// String returns the fingerprint in hex.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Ring is a loaded keyset. It is safe for concurrent use.
type Ring struct {
	path    string
	service KeyService

	refreshing sync.Mutex        // taken before mu
	content    [sha256.Size]byte // digest of the file that set was made of

	mu  sync.RWMutex
	set keyset
}

// Path returns the file that the ring was loaded from.
func (r *Ring) Path() string { return r.path }

// String redacts the ring.
func (r *Ring) String() string { return "[keyring]" }

// GoString redacts the ring.
func (r *Ring) GoString() string { return "[keyring]" }

// Format redacts the ring for every verb.
func (r *Ring) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[keyring]")) }

// LogValue redacts the ring.
func (r *Ring) LogValue() slog.Value { return slog.StringValue("[keyring]") }

// Primary returns the epoch that writers move to.
func (r *Ring) Primary() uint32 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.set.primary()
}

// Epochs lists all epochs, oldest first.
func (r *Ring) Epochs() []Info {
	r.mu.RLock()
	defer r.mu.RUnlock()
	infos := make([]Info, len(r.set.Epochs))
	for i, e := range r.set.Epochs {
		infos[i] = Info{Epoch: e.Epoch, State: e.State, Fingerprint: e.fingerprint}
	}
	return infos
}

// Key derives the key of a purpose. The epoch is ignored for event purposes,
// whose keys do not rotate. Deriving costs microseconds: keep the result.
func (r *Ring) Key(purpose Purpose, epoch uint32) (Key, error) {
	if err := purpose.Validate(); err != nil {
		return Key{}, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if purpose.anchored() {
		return derive(r.set.Anchor, purpose)
	}
	e, err := r.set.readable(epoch)
	if err != nil {
		return Key{}, fmt.Errorf("derive key of purpose %s: %w", purpose, err)
	}
	return derive(e.Root, purpose)
}

// Fingerprint returns the fingerprint of an epoch that is not retired.
func (r *Ring) Fingerprint(epoch uint32) (Fingerprint, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, err := r.set.readable(epoch)
	if err != nil {
		return Fingerprint{}, err
	}
	return e.fingerprint, nil
}

// Refresh reads the file again, so that a running process learns of a rotation.
// On an error the ring stays as it was. The key service is asked only when the
// file is another one.
func (r *Ring) Refresh() error {
	r.refreshing.Lock()
	defer r.refreshing.Unlock()
	content, err := read(r.path)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(content)
	if digest == r.content {
		return nil
	}
	set, err := open(r.path, r.service, content)
	if err != nil {
		return err
	}
	r.content = digest
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set = set
	return nil
}

// Rotate adds an epoch, makes it primary, the former primary active, and
// replaces the file. It returns the new epoch.
func (r *Ring) Rotate() (uint32, error) {
	root, err := random()
	if err != nil {
		return 0, err
	}
	var epoch uint32
	err = r.change(func(s *keyset) error {
		for i := range s.Epochs {
			epoch = max(epoch, s.Epochs[i].Epoch)
			if s.Epochs[i].State == StatePrimary {
				s.Epochs[i].State = StateActive
			}
		}
		epoch++
		s.Epochs = append(s.Epochs, generation{Epoch: epoch, State: StatePrimary, Root: root})
		return nil
	})
	return epoch, err
}

// Retire destroys the root of an active epoch. What is still sealed, digested or
// tokenised under it can never be opened or matched again: prove first that
// nothing is. The primary epoch is refused with ErrInUse.
func (r *Ring) Retire(epoch uint32) error {
	return r.change(func(s *keyset) error {
		for i := range s.Epochs {
			e := &s.Epochs[i]
			switch {
			case e.Epoch != epoch:
			case e.State == StatePrimary:
				return fmt.Errorf("retire epoch %d: %w: it is the primary one, rotate first", epoch, ErrInUse)
			default:
				e.State, e.Root = StateRetired, nil
				return nil
			}
		}
		return fmt.Errorf("retire epoch %d: %w", epoch, ErrUnknownEpoch)
	})
}

// change works on the file's newest content, so that two commands that were
// started from one state do not undo each other.
func (r *Ring) change(edit func(*keyset) error) error {
	unlock, err := lock(r.path)
	if err != nil {
		return err
	}
	defer unlock()
	content, err := read(r.path)
	if err != nil {
		return err
	}
	set, err := open(r.path, r.service, content)
	if err != nil {
		return err
	}
	if err := edit(&set); err != nil {
		return err
	}
	if err := write(r.path, r.service, &set); err != nil {
		return err
	}
	return r.Refresh()
}

func derive(root []byte, purpose Purpose) (Key, error) {
	derived, err := hkdf.Key(sha256.New, root, nil, "leerstroom/v1/"+string(purpose), len(Key{}))
	if err != nil {
		return Key{}, fmt.Errorf("derive key of purpose %s: %w", purpose, err)
	}
	return Key(derived), nil
}

func fingerprint(root []byte) Fingerprint {
	// "fingerprint" is no valid purpose, so no key shares these bytes.
	derived, err := hkdf.Key(sha256.New, root, nil, "leerstroom/v1/fingerprint", len(Fingerprint{}))
	if err != nil {
		panic("keyring: HKDF refused 8 bytes: " + err.Error())
	}
	return Fingerprint(derived)
}

func random() ([]byte, error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("draw a root key: %w", err)
	}
	return secret, nil
}
