// Package file imports answers and test results from CSV, NDJSON and Parquet
// files into a running server, over the same HTTP connector that publishers use:
// nothing passes that a publisher could not have sent.
//
// A mapping says how the columns of a file become the fields of a record; see
// Mapping. Rows are sent in chunks, in order. After each acknowledged chunk a
// small state file says how far the import came, so that it can be interrupted
// and run again. Ids of events come from the file or from row numbers, so rows
// that are sent twice change nothing.
//
// Invariants:
//   - Errors, refusals and the state file hold row numbers, fields and rules,
//     never a value from a row.
//   - Memory is bounded by a chunk; files may be larger than memory.
package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Mapping says how a file becomes records.
//
//	kind: answers                    # or test-results
//	format: csv                      # csv, ndjson or parquet; else the file's name tells
//	delimiter: ";"                   # of CSV; default a comma
//	fields:
//	  id: {row: true, prefix: set-a-}             # number of the row, from 1
//	  publisher: {value: example}                 # the same in every row
//	  learner.value: {column: person}
//	  score: {column: correct, map: {"yes": "1", "no": "0"}}
//	  answered_at: {column: seconds, unit: s, since: 2005-08-01T00:00:00Z}
//	  norms.vaardigheidsscore: {column: skill}    # one entry of norms
//	  path: {column: chapter, split: "/"}
//
// Fields are those of the record; learner has learner.scheme and learner.value. In
// NDJSON a column of a nested object is written a.b.
type Mapping struct {
	Kind      string           `yaml:"kind"`
	Format    string           `yaml:"format"`
	Delimiter string           `yaml:"delimiter"`
	Fields    map[string]Field `yaml:"fields"`
}

// Field says where the value of one field comes from: exactly one of Value,
// Column, Row and Start.
type Field struct {
	Value  *string `yaml:"value"`  // constant
	Column string  `yaml:"column"` // column of the file
	Row    bool    `yaml:"row"`    // number of the row, from 1
	Start  string  `yaml:"start"`  // RFC 3339: a time that advances by Step with every row, for files without times

	Step    time.Duration     `yaml:"step"`
	Prefix  string            `yaml:"prefix"`  // put before the value of a column or row
	Map     map[string]string `yaml:"map"`     // replaces values of the column; a value that is not here refuses the row
	Default string            `yaml:"default"` // for an empty column
	Unit    string            `yaml:"unit"`    // the column counts d, s, ms, us or ns …
	Since   string            `yaml:"since"`   // … since this time, RFC 3339; default 1970
	Layout  string            `yaml:"layout"`  // the column is a time in this form, as package time of Go writes it …
	Zone    string            `yaml:"zone"`    // … in this time zone; default UTC
	Split   string            `yaml:"split"`   // the column is a list with this separator; for path
}

const (
	kindAnswers     = "answers"
	kindTestResults = "test-results"
)

// fieldType says how a field is written in JSON.
type fieldType uint8

const (
	typeText fieldType = iota
	typeNumber
	typeMoment
	typeDate
	typeList
)

var commonFields = map[string]fieldType{"id": typeText, "publisher": typeText, "school": typeText, "learner.scheme": typeText, "learner.value": typeText,
	"group": typeText, "year_group": typeNumber, "revision": typeNumber, "subject": typeText, "score": typeNumber}

var kindFields = map[string]map[string]fieldType{
	kindAnswers: {"exercise": typeText, "goal": typeText, "kind": typeText, "attempt": typeNumber, "response_time_ms": typeNumber, "answered_at": typeMoment},
	kindTestResults: {"test": typeText, "test_name": typeText, "part": typeText, "path": typeList, "taken_on": typeDate, "max_score": typeNumber,
		"made": typeNumber, "right": typeNumber, "wrong": typeNumber, "duration_s": typeNumber},
}

const normPrefix = "norms."

// typeOf returns the type of a field of a kind of record.
func typeOf(kind, name string) (fieldType, bool) {
	if strings.HasPrefix(name, normPrefix) && kind == kindTestResults && len(name) > len(normPrefix) {
		return typeNumber, true
	}
	if t, ok := commonFields[name]; ok {
		return t, true
	}
	t, ok := kindFields[kind][name]
	return t, ok
}

// maxMappingBytes bounds a mapping file.
const maxMappingBytes = 1 << 20

// LoadMapping reads a mapping from a YAML file.
func LoadMapping(path string) (*Mapping, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read mapping: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxMappingBytes))
	if err != nil {
		return nil, fmt.Errorf("read mapping: %w", err)
	}
	m, err := ParseMapping(text)
	if err != nil {
		return nil, fmt.Errorf("read mapping %s: %w", path, err)
	}
	return m, nil
}

// ParseMapping reads a mapping; unknown keys are refused.
func ParseMapping(text []byte) (*Mapping, error) {
	var m Mapping
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&m); err != nil {
		return nil, err
	}
	return &m, m.Validate()
}

// Validate names the field that is wrong.
func (m *Mapping) Validate() error {
	if m.Kind != kindAnswers && m.Kind != kindTestResults {
		return errors.New("kind: want answers or test-results")
	}
	switch m.Format {
	case "", formatCSV, formatNDJSON, formatParquet:
	default:
		return errors.New("format: want csv, ndjson or parquet")
	}
	if len([]rune(m.Delimiter)) > 1 {
		return errors.New("delimiter: want one character")
	}
	for _, name := range m.names() {
		f := m.Fields[name]
		t, ok := typeOf(m.Kind, name)
		if !ok {
			return fmt.Errorf("fields: %s has no field %q", m.Kind, name)
		}
		if err := f.validate(t); err != nil {
			return fmt.Errorf("fields: %s: %w", name, err)
		}
	}
	for _, name := range []string{"id", "publisher", "school", "learner.scheme", "learner.value"} {
		if _, ok := m.Fields[name]; !ok {
			return fmt.Errorf("fields: %s is missing", name)
		}
	}
	return nil
}

// names returns the mapped fields in a fixed order.
func (m *Mapping) names() []string {
	names := make([]string, 0, len(m.Fields))
	for name := range m.Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (f *Field) validate(t fieldType) error {
	sources := 0
	for _, given := range []bool{f.Value != nil, f.Column != "", f.Row, f.Start != ""} {
		if given {
			sources++
		}
	}
	timely := t == typeMoment || t == typeDate
	switch {
	case sources != 1:
		return errors.New("give exactly one of value, column, row and start")
	case f.Start != "" && !timely:
		return errors.New("start is for times only")
	case (f.Unit != "" || f.Layout != "") && (!timely || f.Column == ""):
		return errors.New("unit and layout are for times from a column")
	case f.Unit != "" && f.Layout != "":
		return errors.New("give unit or layout, not both")
	case f.Split != "" && t != typeList:
		return errors.New("split is for lists only")
	case (f.Map != nil || f.Default != "") && f.Column == "":
		return errors.New("map and default need a column")
	}
	_, err := newCell("", f, t, nil)
	return err
}
