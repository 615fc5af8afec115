package file

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// The formats of files.
const (
	formatCSV     = "csv"
	formatNDJSON  = "ndjson"
	formatParquet = "parquet"
)

// maxRowBytes bounds a line of NDJSON.
const maxRowBytes = 1 << 20

// source gives the rows of a file as texts by column. An empty text is an absent
// value.
type source interface {
	// columns returns the names of the columns, nil when rows may differ.
	columns() []string
	// next reads a row; io.EOF at the end. The row is valid until the next call.
	next() (row, error)
	// position returns how much of the file was read, in units of total.
	position() (read, total int64)
	close() error
}

// row is one row of a source: by position when the source has columns, else by
// name.
type row struct {
	cells  []string
	byName map[string]string
}

// formatOf tells the format by the mapping or the name of the file.
func formatOf(m *Mapping, path string) (string, error) {
	if m.Format != "" {
		return m.Format, nil
	}
	name := strings.TrimSuffix(strings.TrimSuffix(path, ".gz"), ".zst")
	for suffix, format := range map[string]string{".csv": formatCSV, ".ndjson": formatNDJSON, ".jsonl": formatNDJSON, ".parquet": formatParquet} {
		if strings.HasSuffix(name, suffix) {
			return format, nil
		}
	}
	return "", errors.New("format: neither the mapping nor the file's name tells it")
}

// openSource opens a file.
func openSource(m *Mapping, path string) (source, error) {
	format, err := formatOf(m, path)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	var s source
	if format == formatParquet {
		s, err = newParquetSource(file)
	} else {
		s, err = newTextSource(m, format, path, file)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open source: %w", err), file.Close())
	}
	return s, nil
}

// textSource reads CSV and NDJSON, compressed or not.
type textSource struct {
	file   *os.File
	size   int64
	counts *counter
	zstd   *zstd.Decoder
	header []string
	csv    *csv.Reader
	lines  *bufio.Scanner
	flat   map[string]string
}

type counter struct {
	from io.Reader
	n    int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	return n, err
}

func newTextSource(m *Mapping, format, path string, file *os.File) (*textSource, error) {
	status, err := file.Stat()
	if err != nil {
		return nil, err
	}
	s := &textSource{file: file, size: status.Size(), counts: &counter{from: file}}
	var text io.Reader = s.counts
	switch {
	case strings.HasSuffix(path, ".gz"):
		if text, err = gzip.NewReader(s.counts); err != nil {
			return nil, err
		}
	case strings.HasSuffix(path, ".zst"):
		if s.zstd, err = zstd.NewReader(s.counts, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20)); err != nil {
			return nil, err
		}
		text = s.zstd
	}
	if format == formatNDJSON {
		s.lines = bufio.NewScanner(text)
		s.lines.Buffer(make([]byte, 64<<10), maxRowBytes)
		s.flat = make(map[string]string)
		return s, nil
	}
	s.csv = csv.NewReader(text)
	s.csv.ReuseRecord = true
	if m.Delimiter != "" {
		s.csv.Comma = []rune(m.Delimiter)[0]
	}
	header, err := s.csv.Read()
	if err != nil {
		return nil, errors.New("read header line: the file has none")
	}
	s.header = append(s.header, header...)
	s.header[0] = strings.TrimPrefix(s.header[0], "\ufeff")
	return s, nil
}

func (s *textSource) columns() []string { return s.header }

func (s *textSource) position() (read, total int64) { return s.counts.n, s.size }

func (s *textSource) close() error {
	if s.zstd != nil {
		s.zstd.Close()
	}
	return s.file.Close()
}

// errBadRow refuses one row; the next one can be read.
var errBadRow = errors.New("malformed_row")

func (s *textSource) next() (row, error) {
	if s.csv != nil {
		cells, err := s.csv.Read()
		var syntax *csv.ParseError
		if errors.As(err, &syntax) {
			return row{}, errBadRow
		}
		return row{cells: cells}, err
	}
	for s.lines.Scan() {
		line := s.lines.Bytes()
		if len(strings.TrimSpace(string(line))) == 0 {
			continue
		}
		clear(s.flat)
		if err := flatten(s.flat, "", line); err != nil {
			return row{}, errBadRow
		}
		return row{byName: s.flat}, nil
	}
	if errors.Is(s.lines.Err(), bufio.ErrTooLong) {
		return row{}, fmt.Errorf("longer than %d bytes", maxRowBytes)
	}
	if s.lines.Err() != nil {
		return row{}, s.lines.Err()
	}
	return row{}, io.EOF
}

// flatten writes the scalars of an object under their dotted names. Lists are not
// addressable and left out.
func flatten(out map[string]string, prefix string, object []byte) error {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(object, &members); err != nil {
		return err
	}
	for name, value := range members {
		switch value.Kind() {
		case '{':
			if err := flatten(out, prefix+name+".", value); err != nil {
				return err
			}
		case '"':
			var text string
			if err := json.Unmarshal(value, &text); err != nil {
				return err
			}
			out[prefix+name] = text
		case '0', 't', 'f':
			out[prefix+name] = string(value)
		}
	}
	return nil
}
