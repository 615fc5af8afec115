package file

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// state is what the state file holds: how far which import came.
type state struct {
	Fingerprint string `json:"fingerprint"` // of file and mapping
	Rows        int64  `json:"rows"`        // acknowledged or refused
	Accepted    int64  `json:"accepted"`
	Refused     int64  `json:"refused"`
}

var errOtherImport = errors.New("the state file belongs to another file or mapping: remove it to begin anew")

// openState reads the state of an earlier run, or begins one.
func openState(config *Config) (state, error) {
	fingerprint, err := fingerprintOf(config)
	if err != nil {
		return state{}, err
	}
	text, err := os.ReadFile(config.StatePath)
	if errors.Is(err, fs.ErrNotExist) {
		return state{Fingerprint: fingerprint}, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("read state: %w", err)
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil || s.Rows < 0 {
		return state{}, fmt.Errorf("read state %s: the file is damaged", config.StatePath)
	}
	if s.Fingerprint != fingerprint {
		return state{}, fmt.Errorf("read state %s: %w", config.StatePath, errOtherImport)
	}
	return s, nil
}

// fingerprintBytes is how much of the beginning and of the end of a file makes its
// fingerprint, beside its size.
const fingerprintBytes = 1 << 20

func fingerprintOf(config *Config) (string, error) {
	file, err := os.Open(config.Path)
	if err != nil {
		return "", fmt.Errorf("read source: %w", err)
	}
	defer file.Close()
	status, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("read source: %w", err)
	}
	mapping, err := json.Marshal(config.Mapping)
	if err != nil {
		return "", fmt.Errorf("encode mapping: %w", err)
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%d %d ", status.Size(), len(mapping))
	hash.Write(mapping)
	size := status.Size()
	for _, from := range []int64{0, max(0, size-fingerprintBytes)} {
		if _, err := io.Copy(hash, io.NewSectionReader(file, from, fingerprintBytes)); err != nil {
			return "", fmt.Errorf("read source: %w", err)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// save replaces the state file.
func (s *state) save(path string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".import-*")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(append(text, '\n'))
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
