package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	format       = "leerstroom keyset v1"
	maxFileBytes = 1 << 20
)

// keyset is the content of the file.
type keyset struct {
	Format   string       `json:"format"`
	Anchor   secret       `json:"anchor"` // 32 bytes, root of what must not rotate
	Epochs   []generation `json:"epochs"` // ascending
	Checksum string       `json:"checksum"`
}

// generation is one epoch with its secret.
type generation struct {
	Epoch uint32 `json:"epoch"` // from 1
	State State  `json:"state"`
	Root  secret `json:"root,omitempty"` // 32 bytes; none when retired

	fingerprint Fingerprint // of the root; made when the file is read
}

// secret is in the file as base64, in its one canonical form: two files that
// differ never hold the same keys.
type secret []byte

// MarshalText encodes the secret.
func (s secret) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, s), nil
}

// UnmarshalText decodes the secret.
func (s *secret) UnmarshalText(text []byte) (err error) {
	*s, err = base64.StdEncoding.Strict().AppendDecode(nil, text)
	return err
}

func (s *keyset) primary() uint32 {
	for _, e := range s.Epochs {
		if e.State == StatePrimary {
			return e.Epoch
		}
	}
	panic("keyring: a keyset without primary epoch passed its check")
}

// readable returns an epoch that still has its root.
func (s *keyset) readable(epoch uint32) (*generation, error) {
	for i := range s.Epochs {
		if e := &s.Epochs[i]; e.Epoch == epoch {
			if e.State == StateRetired {
				return nil, fmt.Errorf("%w: epoch %d is retired, its root is destroyed", ErrUnknownEpoch, epoch)
			}
			return e, nil
		}
	}
	return nil, fmt.Errorf("%w: epoch %d is not in the keyset", ErrUnknownEpoch, epoch)
}

// checksum notices truncation and editing. The roots are uniform secrets in the
// same file, so an unkeyed digest gives nothing away.
func (s *keyset) checksum() string {
	h := sha256.New()
	field := func(b []byte) {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(b)))
		h.Write(length[:])
		h.Write(b)
	}
	field([]byte(s.Format))
	field(s.Anchor)
	for _, e := range s.Epochs {
		var number [4]byte
		binary.BigEndian.PutUint32(number[:], e.Epoch)
		field(number[:])
		field([]byte(e.State))
		field(e.Root)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (s *keyset) check() error {
	switch {
	case s.Format != format:
		return fmt.Errorf("format is not %q", format)
	case s.Checksum != s.checksum():
		return errors.New("the checksum does not match the content")
	case len(s.Anchor) != 32:
		return errors.New("the anchor is not 32 bytes")
	}
	primaries, last := 0, uint32(0)
	for _, e := range s.Epochs {
		if e.Epoch <= last {
			return errors.New("epochs do not ascend from 1")
		}
		last = e.Epoch
		switch e.State {
		case StatePrimary:
			primaries++
		case StateActive, StateRetired:
		default:
			return fmt.Errorf("epoch %d has no known state", e.Epoch)
		}
		if e.State == StateRetired && len(e.Root) != 0 || e.State != StateRetired && len(e.Root) != 32 {
			return fmt.Errorf("epoch %d has a root of the wrong length", e.Epoch)
		}
	}
	if primaries != 1 {
		return fmt.Errorf("%d epochs are primary, want 1", primaries)
	}
	return nil
}

// Create draws a keyset with epoch 1, writes it to the file with mode 0600 and
// loads it. An existing file is refused with ErrExists: overwriting it would cut
// every stored token from its learner.
func Create(path string) (*Ring, error) { return CreateWith(path, Unwrapped{}) }

// CreateWith does what Create does, with a keyset that a key service keeps closed.
func CreateWith(path string, service KeyService) (*Ring, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create keyset: %w", err)
	}
	unlock, err := lock(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("create keyset %s: %w", path, ErrExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create keyset: %w", err)
	}
	anchor, err := random()
	if err != nil {
		return nil, err
	}
	root, err := random()
	if err != nil {
		return nil, err
	}
	set := keyset{Format: format, Anchor: anchor, Epochs: []generation{{Epoch: 1, State: StatePrimary, Root: root}}}
	if err := write(path, service, &set); err != nil {
		return nil, err
	}
	return LoadWith(path, service)
}

// Load reads a keyset. It refuses a missing file (ErrMissing), one that others
// may read or write (ErrReadable) and one that is truncated, edited or foreign
// (ErrDamaged).
func Load(path string) (*Ring, error) { return LoadWith(path, Unwrapped{}) }

// LoadWith does what Load does, with a keyset that a key service keeps closed. It
// fails with ErrService when the service does.
func LoadWith(path string, service KeyService) (*Ring, error) {
	r := &Ring{path: path, service: service}
	if err := r.Refresh(); err != nil {
		return nil, err
	}
	return r, nil
}

// read returns the content of the file, as it lies there.
func read(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("load keyset %s: %w: restore it from its backup; only a deployment without data may create a new one", path, ErrMissing)
	case err != nil:
		return nil, fmt.Errorf("load keyset: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("load keyset: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("load keyset %s: %w: it is not a regular file", path, ErrDamaged)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("load keyset %s: %w (mode %04o): chmod 600 it, and rotate the keys if anyone may have read it", path, ErrReadable, mode)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFileBytes))
	if err != nil {
		return nil, fmt.Errorf("load keyset: %w", err)
	}
	return content, nil
}

// open makes a keyset of the content of the file.
func open(path string, service KeyService, content []byte) (keyset, error) {
	plain, err := service.Unwrap(content)
	if err != nil {
		return keyset{}, fmt.Errorf("load keyset %s: %w", path, err)
	}
	defer clear(plain)
	return parse(path, plain)
}

func parse(path string, content []byte) (keyset, error) {
	const advice = "restore it from its backup"
	var set keyset
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	// The decoder's own words may quote the file, so they are not passed on.
	if err := decoder.Decode(&set); err != nil {
		return keyset{}, fmt.Errorf("load keyset %s: %w: it is truncated or not a keyset (one that a key service has wrapped needs keys.unwrap_command), %s", path, ErrDamaged, advice)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return keyset{}, fmt.Errorf("load keyset %s: %w: something follows the keyset, %s", path, ErrDamaged, advice)
	}
	if err := set.check(); err != nil {
		return keyset{}, fmt.Errorf("load keyset %s: %w: %w, %s", path, ErrDamaged, err, advice)
	}
	for i := range set.Epochs {
		if e := &set.Epochs[i]; e.State != StateRetired {
			e.fingerprint = fingerprint(e.Root)
		}
	}
	return set, nil
}

// write replaces the file so that a crash leaves the old or the new content. What
// a service has wrapped is unwrapped again before it takes the place of the only
// other copy.
func write(path string, service KeyService, set *keyset) error {
	set.Checksum = set.checksum()
	if err := set.check(); err != nil {
		return fmt.Errorf("write keyset: %w", err)
	}
	plain, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return fmt.Errorf("write keyset: %w", err)
	}
	plain = append(plain, '\n')
	defer clear(plain)
	content, err := service.Wrap(plain)
	if err != nil {
		return fmt.Errorf("write keyset: %w", err)
	}
	again, err := service.Unwrap(content)
	if err == nil && !bytes.Equal(again, plain) {
		err = fmt.Errorf("%w: what it wrapped unwraps to something else", ErrService)
	}
	clear(again)
	if err != nil {
		return fmt.Errorf("write keyset: %w: the file was left as it is", err)
	}
	return replace(path, content)
}

// replace puts content in the place of the file.
func replace(path string, content []byte) error {
	dir := filepath.Dir(path)
	temporary, err := os.CreateTemp(dir, ".keyset-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write keyset: %w", err)
	}
	_, err = temporary.Write(content)
	if err == nil {
		err = temporary.Sync()
	}
	err = errors.Join(err, temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write keyset: %w", errors.Join(err, os.Remove(temporary.Name())))
	}
	return syncDirectory(dir)
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// lock keeps two commands from changing the keyset at once.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock keyset: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock keyset %s: another command is changing it: %w", path, err), file.Close())
	}
	// Unlocking comes first: a process that is just being started holds a copy of
	// the descriptor for a moment, so closing ours alone might not release it.
	return func() {
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		_ = file.Close() // nothing was written through it
	}, nil
}
