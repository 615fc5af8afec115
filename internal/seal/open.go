package seal

import (
	"container/list"
	"crypto/cipher"
	"crypto/hpke"
	"errors"
	"fmt"
	"sync"
)

// cachedDataKeys bounds the data keys that an Opener remembers: a connector uses
// one an hour, so this covers many connectors and a long backlog. An entry takes
// about 2 KiB.
const cachedDataKeys = 1024

// Opener opens messages sealed for any of its keys: during a rotation there are
// several. It is safe for concurrent use.
type Opener struct {
	mu     sync.Mutex
	keys   map[KeyID]*PrivateKey
	cached map[string]*list.Element // by key id and encapsulated key
	recent *list.List               // of *openedKey, most recently used first
}

type openedKey struct {
	name string
	aead cipher.AEAD
}

// NewOpener makes an Opener that holds the keys.
func NewOpener(keys ...*PrivateKey) (*Opener, error) {
	if len(keys) == 0 {
		return nil, errors.New("make opener: no private key")
	}
	o := &Opener{keys: make(map[KeyID]*PrivateKey, len(keys)), cached: make(map[string]*list.Element), recent: list.New()}
	for _, k := range keys {
		if k == nil {
			return nil, errors.New("make opener: missing private key")
		}
		o.keys[k.public.id] = k
	}
	return o, nil
}

// Add lets the Opener open with further keys.
func (o *Opener) Add(keys ...*PrivateKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range keys {
		o.keys[k.public.id] = k
	}
}

// Holds tells whether the Opener has a key.
func (o *Opener) Holds(id KeyID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.keys[id] != nil
}

// Open appends the plaintext of a sealed message to dst and returns the extended
// slice; with ErrOpen it returns dst as it was. dst must not overlap sealed or
// associated.
func (o *Opener) Open(dst, sealed, associated []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != formatVersion {
		return dst, ErrOpen
	}
	name, body := sealed[1:headBytes], sealed[headBytes:]
	aead, known := o.lookup(name)
	if !known {
		var err error
		if aead, err = o.decapsulate(name); err != nil {
			return dst, err
		}
	}
	opened, err := aead.Open(dst, nil, body, associated)
	if err != nil {
		return dst, ErrOpen
	}
	if !known {
		// Only now: anybody can make an encapsulated key that yields something,
		// and must not push out the ones in use.
		o.remember(name, aead)
	}
	return opened, nil
}

func (o *Opener) lookup(name []byte) (cipher.AEAD, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	element, ok := o.cached[string(name)]
	if !ok {
		return nil, false
	}
	o.recent.MoveToFront(element)
	return element.Value.(*openedKey).aead, true
}

func (o *Opener) remember(name []byte, aead cipher.AEAD) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.cached[string(name)]; ok {
		return
	}
	entry := &openedKey{name: string(name), aead: aead}
	o.cached[entry.name] = o.recent.PushFront(entry)
	for o.recent.Len() > cachedDataKeys {
		oldest := o.recent.Back()
		delete(o.cached, o.recent.Remove(oldest).(*openedKey).name)
	}
}

func (o *Opener) decapsulate(name []byte) (cipher.AEAD, error) {
	o.mu.Lock()
	key, ok := o.keys[KeyID(name[:keyIDBytes])]
	o.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%w: no key with id %x", ErrOpen, name[:keyIDBytes])
	}
	recipient, err := hpke.NewRecipient(name[keyIDBytes:], key.key, hpke.HKDFSHA256(), hpke.ExportOnly(), []byte(suiteInfo))
	if err != nil {
		return nil, ErrOpen
	}
	secret, err := recipient.Export(exportContext, dataKeyBytes)
	if err != nil {
		return nil, ErrOpen
	}
	return newAEAD(secret)
}
