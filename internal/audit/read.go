package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Filter says which records are wanted; the zero value wants all.
type Filter struct {
	School string
	From   time.Time // the first moment
	Until  time.Time // the first moment that is not wanted any more
}

func (f *Filter) wants(r *Record) bool {
	return (f.School == "" || r.School == f.School) && !r.At.Before(f.From) && (f.Until.IsZero() || r.At.Before(f.Until))
}

// maxLineBytes bounds a line; a record is much shorter.
const maxLineBytes = 64 << 10

// Read hands the wanted records of a log to use, oldest file first, until use
// returns an error. It returns how many lines are no records: one may be left by
// a crash, more are damage. A log that nobody has written yet has no records.
func Read(directory string, filter Filter, use func(*Record) error) (damaged int, err error) {
	names, err := files(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read audit log: %w", err)
	}
	for _, name := range names {
		n, err := readFile(filepath.Join(directory, name), &filter, use)
		damaged += n
		if err != nil {
			return damaged, fmt.Errorf("read audit log: %w", err)
		}
	}
	return damaged, nil
}

func readFile(path string, filter *Filter, use func(*Record) error) (damaged int, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // it has expired in the meantime
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewReaderSize(file, maxLineBytes)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return damaged, nil // what follows the last line end is being written, or torn
		}
		var r Record
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			damaged++
			if err := skipLine(lines); err != nil {
				return damaged, err
			}
			continue
		case err != nil:
			return damaged, err
		case !parse(line, &r):
			damaged++
			continue
		}
		if !filter.wants(&r) {
			continue
		}
		if err := use(&r); err != nil {
			return damaged, err
		}
	}
}

func skipLine(lines *bufio.Reader) error {
	for {
		_, err := lines.ReadSlice('\n')
		if err == nil || errors.Is(err, io.EOF) {
			return nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// parse reads one line strictly.
func parse(line []byte, r *Record) bool {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	return decoder.Decode(r) == nil && !decoder.More() && r.Action != "" && !r.At.IsZero()
}
