package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Errors of Authenticate. A caller learns no more than these tell.
var (
	ErrNoKey       = errors.New("no API key given")
	ErrUnknownKey  = errors.New("API key not known")
	ErrUnavailable = errors.New("API keys can't be read")
	// ErrNoSuchKey reports that Revoke found no key with the id.
	ErrNoSuchKey = errors.New("no key with this id")
)

const (
	keyPrefix = "lsk_"
	keyBytes  = 32

	// recheckInterval is how often the file is looked at for changes.
	recheckInterval = time.Second
)

// Keys are the API keys of a deployment. It is safe for concurrent use.
type Keys struct {
	path string

	mu      sync.RWMutex
	known   map[[8]byte][]entry // by the first bytes of the hash
	state   fileState
	checked time.Time
	failed  error
}

// entry is one key as Authenticate needs it.
type entry struct {
	hash      [sha256.Size]byte
	principal Principal
}

// Open reads the keys of a file; a file that does not exist yet holds none.
func Open(path string) (*Keys, error) {
	k := &Keys{path: path}
	if err := k.load(time.Now()); err != nil {
		return nil, err
	}
	return k, nil
}

// Create makes a key. The returned text is the only copy of it.
func (k *Keys) Create(scope Scope) (text string, key Key, err error) {
	if err := scope.Validate(); err != nil {
		return "", Key{}, fmt.Errorf("create API key: %w", err)
	}
	secret := make([]byte, keyBytes)
	if _, err := rand.Read(secret); err != nil {
		return "", Key{}, fmt.Errorf("create API key: %w", err)
	}
	text = keyPrefix + base64.RawURLEncoding.EncodeToString(secret)
	hash := sha256.Sum256([]byte(text))
	schools := slices.Clone(scope.Schools)
	slices.Sort(schools)
	key = Key{ID: "key-" + strings.ToLower(rand.Text()[:12]), Role: scope.Role, Publisher: scope.Publisher, Engine: scope.Engine,
		Schools: slices.Compact(schools), CreatedAt: time.Now().UTC().Truncate(time.Second)}
	err = k.change(func(content *fileContent) error {
		content.Keys = append(content.Keys, storedKey{Key: key, Hash: hex.EncodeToString(hash[:])})
		return nil
	})
	if err != nil {
		return "", Key{}, fmt.Errorf("create API key: %w", err)
	}
	return text, key, nil
}

// Revoke ends a key.
func (k *Keys) Revoke(id string) error {
	err := k.change(func(content *fileContent) error {
		before := len(content.Keys)
		content.Keys = slices.DeleteFunc(content.Keys, func(s storedKey) bool { return s.ID == id })
		if len(content.Keys) == before {
			return ErrNoSuchKey
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("revoke API key: %w", err)
	}
	return nil
}

// List returns all keys, oldest first.
func (k *Keys) List() ([]Key, error) {
	content, _, err := readFile(k.path)
	if err != nil {
		return nil, fmt.Errorf("list API keys: %w", err)
	}
	var keys []Key
	for i := range content.Keys {
		keys = append(keys, content.Keys[i].Key)
	}
	return keys, nil
}

// Authenticate tells who sent the request, by its header `Authorization: Bearer
// KEY`. It returns ErrNoKey, ErrUnknownKey or ErrUnavailable.
func (k *Keys) Authenticate(r *http.Request) (Principal, error) {
	scheme, text, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return Principal{}, ErrNoKey
	}
	return k.Lookup(strings.TrimSpace(text))
}

// Lookup tells whose key a text is.
func (k *Keys) Lookup(text string) (Principal, error) {
	if !strings.HasPrefix(text, keyPrefix) {
		return Principal{}, ErrUnknownKey
	}
	if err := k.refresh(time.Now()); err != nil {
		return Principal{}, err
	}
	hash := sha256.Sum256([]byte(text))
	k.mu.RLock()
	defer k.mu.RUnlock()
	// The map sees eight bytes of a hash whose input the caller can't steer; the
	// whole of it is compared without telling where it differs.
	for i := range k.known[[8]byte(hash[:8])] {
		candidate := &k.known[[8]byte(hash[:8])][i]
		if subtle.ConstantTimeCompare(candidate.hash[:], hash[:]) == 1 {
			return candidate.principal, nil
		}
	}
	return Principal{}, ErrUnknownKey
}

// refresh loads the file again when it has changed.
func (k *Keys) refresh(now time.Time) error {
	k.mu.RLock()
	fresh, failed := now.Sub(k.checked) < recheckInterval, k.failed
	k.mu.RUnlock()
	if !fresh {
		return k.load(now)
	}
	return failed
}

func (k *Keys) load(now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.checked) < recheckInterval && now.After(k.checked) {
		return k.failed // another caller was faster
	}
	k.checked = now
	state, err := statFile(k.path)
	if err == nil && k.failed == nil && k.known != nil && state == k.state {
		return nil
	}
	var known map[[8]byte][]entry
	if err == nil {
		var content fileContent
		if content, state, err = readFile(k.path); err == nil {
			known, err = content.index()
		}
	}
	if err != nil {
		k.failed = fmt.Errorf("%w: %w", ErrUnavailable, err)
		return k.failed
	}
	k.known, k.state, k.failed = known, state, nil
	return nil
}

// change rewrites the file under its lock.
func (k *Keys) change(edit func(*fileContent) error) error {
	unlock, err := lockFile(k.path)
	if err != nil {
		return err
	}
	defer unlock()
	content, _, err := readFile(k.path)
	if err != nil {
		return err
	}
	if err := edit(&content); err != nil {
		return err
	}
	if err := writeFile(k.path, &content); err != nil {
		return err
	}
	k.mu.Lock()
	k.checked = time.Time{} // this process sees its own change at once
	k.mu.Unlock()
	return nil
}
