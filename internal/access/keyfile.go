package access

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// maxFileBytes bounds the file: about 100,000 keys.
const maxFileBytes = 32 << 20

// fileContent is the file of keys.
type fileContent struct {
	Keys []storedKey `json:"keys"`
}

type storedKey struct {
	Key
	Hash string `json:"hash"` // SHA-256 of the key, hex
}

// fileState changes whenever the file is replaced.
type fileState struct {
	inode    uint64
	size     int64
	modified time.Time
}

// index makes what Authenticate looks up. A file with an impossible entry is
// refused as a whole: half of it would be a guess.
func (c *fileContent) index() (map[[8]byte][]entry, error) {
	known := make(map[[8]byte][]entry, len(c.Keys))
	for i := range c.Keys {
		s := &c.Keys[i]
		scope := Scope{Role: s.Role, Publisher: s.Publisher, Engine: s.Engine, Schools: s.Schools}
		if err := scope.Validate(); err != nil {
			return nil, fmt.Errorf("key number %d: %w", i+1, err)
		}
		hash, err := hex.DecodeString(s.Hash)
		if err != nil || len(hash) != 32 || s.ID == "" {
			return nil, fmt.Errorf("key number %d: id or hash is malformed", i+1)
		}
		slices.Sort(s.Schools)
		known[[8]byte(hash[:8])] = append(known[[8]byte(hash[:8])], entry{hash: [32]byte(hash),
			principal: Principal{KeyID: s.ID, Role: s.Role, Publisher: s.Publisher, Engine: s.Engine, Schools: s.Schools}})
	}
	return known, nil
}

func statFile(path string) (fileState, error) {
	status, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fileState{}, nil
	}
	if err != nil {
		return fileState{}, fmt.Errorf("read API keys: %w", err)
	}
	return stateOf(status), nil
}

func stateOf(status fs.FileInfo) fileState {
	s := fileState{size: status.Size(), modified: status.ModTime()}
	if system, ok := status.Sys().(*syscall.Stat_t); ok {
		s.inode = system.Ino
	}
	return s
}

// readFile reads the file; one that does not exist holds no keys.
func readFile(path string) (fileContent, fileState, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fileContent{}, fileState{}, nil
	}
	if err != nil {
		return fileContent{}, fileState{}, fmt.Errorf("read API keys: %w", err)
	}
	defer file.Close()
	status, err := file.Stat()
	if err != nil {
		return fileContent{}, fileState{}, fmt.Errorf("read API keys: %w", err)
	}
	if mode := status.Mode().Perm(); mode&0o077 != 0 {
		return fileContent{}, fileState{}, fmt.Errorf("read API keys: mode %#o of %s lets others in, want 0600", mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFileBytes))
	if err != nil {
		return fileContent{}, fileState{}, fmt.Errorf("read API keys: %w", err)
	}
	var content fileContent
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&content); err != nil || decoder.More() {
		return fileContent{}, fileState{}, fmt.Errorf("read API keys: %s is damaged", path)
	}
	return content, stateOf(status), nil
}

// writeFile replaces the file: readers see the old or the new one, whole.
func writeFile(path string, content *fileContent) error {
	text, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return fmt.Errorf("write API keys: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".apikeys-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write API keys: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(append(text, '\n'))
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write API keys: %w", err)
	}
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write API keys: %w", err)
	}
	if err := errors.Join(directory.Sync(), directory.Close()); err != nil {
		return fmt.Errorf("write API keys: %w", err)
	}
	return nil
}

// lockFile waits for the lock beside the file. The system drops it when the
// process ends.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock API keys: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock API keys: %w", err), file.Close())
	}
	return func() { _ = file.Close() }, nil // closing drops the lock
}
