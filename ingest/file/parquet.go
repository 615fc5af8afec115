package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// parquetSource reads the flat columns of a Parquet file. Repeated columns are
// not addressable.
type parquetSource struct {
	file   *os.File
	groups []parquet.RowGroup // still to read
	reader parquet.Rows       // of the group that is being read, nil between two
	total  int64
	read   int64
	names  []string
	at     []int // position in cells of each leaf column, -1 for a repeated one
	buffer []parquet.Row
	filled int
	used   int
	cells  []string
}

const parquetRows = 256

func newParquetSource(file *os.File) (*parquetSource, error) {
	status, err := file.Stat()
	if err != nil {
		return nil, err
	}
	opened, err := parquet.OpenFile(file, status.Size())
	if err != nil {
		return nil, errors.New("not a Parquet file, or damaged")
	}
	s := &parquetSource{file: file, groups: opened.RowGroups(), total: opened.NumRows(), buffer: make([]parquet.Row, parquetRows)}
	for _, path := range opened.Schema().Columns() {
		leaf, ok := opened.Schema().Lookup(path...)
		if !ok {
			return nil, fmt.Errorf("column %d is not in the schema", len(s.at))
		}
		if leaf.MaxRepetitionLevel > 0 {
			s.at = append(s.at, -1)
			continue
		}
		s.at = append(s.at, len(s.names))
		s.names = append(s.names, strings.Join(path, "."))
	}
	s.cells = make([]string, len(s.names))
	return s, nil
}

func (s *parquetSource) columns() []string             { return s.names }
func (s *parquetSource) position() (read, total int64) { return s.read, s.total }

func (s *parquetSource) close() error {
	if s.reader != nil {
		return errors.Join(s.reader.Close(), s.file.Close())
	}
	return s.file.Close()
}

// fill reads the next rows into the buffer; io.EOF at the end of the file.
func (s *parquetSource) fill() error {
	for {
		if s.reader == nil {
			if len(s.groups) == 0 {
				return io.EOF
			}
			s.reader, s.groups = s.groups[0].Rows(), s.groups[1:]
		}
		n, err := s.reader.ReadRows(s.buffer)
		if n > 0 {
			s.filled, s.used = n, 0
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return errors.New("read Parquet: the file is damaged") // the text may quote a value
		}
		closing := s.reader.Close()
		if s.reader = nil; closing != nil {
			return errors.New("read Parquet: the file is damaged")
		}
	}
}

func (s *parquetSource) next() (row, error) {
	if s.used == s.filled {
		if err := s.fill(); err != nil {
			return row{}, err
		}
	}
	clear(s.cells)
	for _, value := range s.buffer[s.used] {
		if at := s.at[value.Column()]; at >= 0 {
			s.cells[at] = parquetText(value)
		}
	}
	s.used++
	s.read++
	return row{cells: s.cells}, nil
}

// parquetText renders a value: numbers and booleans as JSON does, times as the
// number that the file holds, for which the mapping says the unit.
func parquetText(v parquet.Value) string {
	if v.IsNull() {
		return ""
	}
	switch v.Kind() {
	case parquet.Boolean:
		return strconv.FormatBool(v.Boolean())
	case parquet.Int32:
		return strconv.FormatInt(int64(v.Int32()), 10)
	case parquet.Int64:
		return strconv.FormatInt(v.Int64(), 10)
	case parquet.Float:
		return strconv.FormatFloat(float64(v.Float()), 'g', -1, 32)
	case parquet.Double:
		return strconv.FormatFloat(v.Double(), 'g', -1, 64)
	}
	return string(v.ByteArray())
}
