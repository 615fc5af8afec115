package seal

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// PublicKey seals for the holder of the PrivateKey that belongs to it.
type PublicKey struct {
	key hpke.PublicKey
	id  KeyID
}

// ID returns the id of the key.
func (k *PublicKey) ID() KeyID { return k.id }

// PrivateKey opens what was sealed with its public key. It prints as its id.
type PrivateKey struct {
	key    hpke.PrivateKey
	public *PublicKey
}

// Public returns the key to seal with.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// String returns the id: a private key must not get into a log.
func (k *PrivateKey) String() string { return "private key " + k.public.id.String() }

// GoString returns the id.
func (k *PrivateKey) GoString() string { return k.String() }

// GenerateKey makes a key pair.
func GenerateKey() (*PrivateKey, error) {
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("generate sealing key: %w", err)
	}
	return newPrivateKey(key), nil
}

func newPrivateKey(key hpke.PrivateKey) *PrivateKey {
	return &PrivateKey{key: key, public: newPublicKey(key.PublicKey())}
}

func newPublicKey(key hpke.PublicKey) *PublicKey {
	digest := sha256.Sum256(key.Bytes())
	return &PublicKey{key: key, id: KeyID(digest[:keyIDBytes])}
}

// Key files are PEM blocks with the id of the key pair as a header, so that a
// damaged or mismatched file is recognised before it is used.
const (
	privateBlock = "LEERSTROOM SEALING PRIVATE KEY"
	publicBlock  = "LEERSTROOM SEALING PUBLIC KEY"
	idHeader     = "Key-Id"

	maxKeyFileBytes = 16 << 10
)

// CreateKeyFiles makes a key pair and writes it: the private key with mode 0600,
// the public one with 0644. It refuses to replace a file.
func CreateKeyFiles(privatePath, publicPath string) (*PrivateKey, error) {
	key, err := GenerateKey()
	if err != nil {
		return nil, err
	}
	if err := WritePrivateKey(privatePath, key); err != nil {
		return nil, err
	}
	if err := WritePublicKey(publicPath, key.public); err != nil {
		return nil, err
	}
	return key, nil
}

// WritePublicKey writes the public key file of a pair with mode 0644. It refuses
// to replace a file.
func WritePublicKey(path string, key *PublicKey) error {
	return writeKeyFile(path, 0o644, publicBlock, key.id, key.key.Bytes())
}

// WritePrivateKey writes the private key file of a pair with mode 0600. It refuses
// to replace a file.
func WritePrivateKey(path string, key *PrivateKey) error {
	secret, err := key.key.Bytes()
	if err != nil {
		return fmt.Errorf("encode private key: %w", err)
	}
	defer clear(secret)
	return writeKeyFile(path, 0o600, privateBlock, key.public.id, secret)
}

// ReplacePublicKey puts a public key in the place of another, so that a crash
// leaves one or the other.
func ReplacePublicKey(path string, key *PublicKey) error {
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) { // a crash left it
		return fmt.Errorf("replace key file %s: %w", path, err)
	}
	if err := WritePublicKey(temporary, key); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("replace key file %s: %w", path, err)
	}
	return syncDirectory(filepath.Dir(path))
}

// DestroyPrivateKey overwrites and removes a private key file. Copies that a file
// system or a backup keeps are beyond it.
func DestroyPrivateKey(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("destroy key file: %w", err)
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = file.WriteAt(make([]byte, size), 0)
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("destroy key file %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("destroy key file: %w", err)
	}
	return syncDirectory(filepath.Dir(path))
}

// writeKeyFile makes the whole file durable under a temporary name and then
// links it to its own, so that a crash leaves no truncated key behind.
func writeKeyFile(path string, mode fs.FileMode, block string, id KeyID, content []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: block, Headers: map[string]string{idHeader: id.String()}, Bytes: content})
	defer clear(text)
	temporary, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(text)
	err = errors.Join(err, temporary.Chmod(mode), temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Link(temporary.Name(), path) // fails when the file exists
	}
	if err != nil {
		return fmt.Errorf("write key file %s: %w", path, err)
	}
	return syncDirectory(filepath.Dir(path))
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	if err := errors.Join(directory.Sync(), directory.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}

// LoadPrivateKey reads a private key file. It refuses one that its group or
// others may read, and one that is damaged.
func LoadPrivateKey(path string) (*PrivateKey, error) {
	content, id, err := readKeyFile(path, privateBlock, 0o077)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	key, err := hpke.MLKEM768X25519().NewPrivateKey(content)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: not a private key of this suite", path)
	}
	private := newPrivateKey(key)
	if private.public.id.String() != id {
		return nil, fmt.Errorf("read key file %s: key does not match its id: the file is damaged", path)
	}
	return private, nil
}

// LoadPublicKey reads a public key file. It refuses one that its group or others
// may write: who replaces it reads what is sealed from then on.
func LoadPublicKey(path string) (*PublicKey, error) {
	content, id, err := readKeyFile(path, publicBlock, 0o022)
	if err != nil {
		return nil, err
	}
	key, err := hpke.MLKEM768X25519().NewPublicKey(content)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: not a public key of this suite", path)
	}
	public := newPublicKey(key)
	if public.id.String() != id {
		return nil, fmt.Errorf("read key file %s: key does not match its id: the file is damaged", path)
	}
	return public, nil
}

func readKeyFile(path, block string, forbidden fs.FileMode) (content []byte, id string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("read key file: %w", err)
	}
	defer file.Close()
	status, err := file.Stat()
	if err != nil {
		return nil, "", fmt.Errorf("read key file: %w", err)
	}
	if !status.Mode().IsRegular() {
		return nil, "", fmt.Errorf("read key file %s: not a regular file", path)
	}
	if mode := status.Mode().Perm(); mode&forbidden != 0 {
		return nil, "", fmt.Errorf("read key file %s: mode %#o lets others in, want at most %#o", path, mode, 0o777&^forbidden)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFileBytes))
	if err != nil {
		return nil, "", fmt.Errorf("read key file %s: %w", path, err)
	}
	defer clear(text)
	decoded, rest := pem.Decode(text)
	if decoded == nil || decoded.Type != block || len(rest) != 0 {
		return nil, "", fmt.Errorf("read key file %s: not exactly one block %q: truncated or another kind of file", path, block)
	}
	return decoded.Bytes, decoded.Headers[idHeader], nil
}
