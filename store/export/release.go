package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Manifest says what a release is and what it was made of. It stands in
// manifest.json.
type Manifest struct {
	Name            string    `json:"name"`
	Schema          string    `json:"schema"`
	Class           string    `json:"class"` // A: aggregates over learners and schools
	Label           string    `json:"label"`
	Created         time.Time `json:"created"`
	Rows            int       `json:"rows"`
	MinLearners     int       `json:"min_learners"`
	MinSchools      int       `json:"min_schools"`
	Cap             float64   `json:"cap"`              // of proportions, on both sides
	SnapshotVersion uint64    `json:"snapshot_version"` // newest item snapshot in the rows
	Files           []File    `json:"files"`
}

// File is one file of a release.
type File struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// release is a directory in the making. It has a temporary name, which readers
// ignore, until publish.
type release struct {
	out, name, temporary string
	files                []File
}

// temporaryPrefix begins the name of what a crash may leave behind.
const temporaryPrefix = ".partial-"

func begin(out, name string, created time.Time) (*release, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, fmt.Errorf("make output directory: %w", err)
	}
	r := &release{out: out, name: name + "-" + created.UTC().Format("20060102T150405Z")}
	if _, err := os.Lstat(filepath.Join(out, r.name)); !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("release %s: %w", r.name, os.ErrExist), err)
	}
	temporary, err := os.MkdirTemp(out, temporaryPrefix+name+"-")
	if err != nil {
		return nil, fmt.Errorf("make release: %w", err)
	}
	r.temporary = temporary
	return r, nil
}

// abandon removes what was not published.
func (r *release) abandon() {
	if r.temporary != "" {
		// What stays has a temporary name and misleads nobody.
		_ = os.RemoveAll(r.temporary)
	}
}

// write adds a file, synced to disk.
func (r *release) write(name string, content func(io.Writer) error) (err error) {
	f, err := os.OpenFile(filepath.Join(r.temporary, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("make file of release: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	digest := sha256.New()
	size := &counter{}
	if err := content(io.MultiWriter(f, digest, size)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	r.files = append(r.files, File{Name: name, Bytes: size.n, SHA256: hex.EncodeToString(digest.Sum(nil))})
	return nil
}

func (r *release) writeBytes(name string, content []byte) error {
	return r.write(name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// publish adds manifest and checksums and gives the directory its name.
func (r *release) publish(m Manifest) (directory string, err error) {
	m.Files = r.files
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write manifest: %w", err)
	}
	if err := r.writeBytes("manifest.json", append(text, '\n')); err != nil {
		return "", err
	}
	var sums bytes.Buffer
	for _, f := range r.files {
		fmt.Fprintf(&sums, "%s  %s\n", f.SHA256, f.Name)
	}
	if err := r.writeBytes("SHA256SUMS", sums.Bytes()); err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(r.temporary, 0o755), syncDirectory(r.temporary)); err != nil {
		return "", fmt.Errorf("finish release: %w", err)
	}
	directory = filepath.Join(r.out, r.name)
	if err := os.Rename(r.temporary, directory); err != nil {
		return "", fmt.Errorf("publish release: %w", err)
	}
	r.temporary = ""
	if err := syncDirectory(r.out); err != nil {
		return "", fmt.Errorf("publish release: %w", err)
	}
	return directory, nil
}

func syncDirectory(path string) (err error) {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}
