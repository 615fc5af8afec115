package file

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// cell makes the JSON value of one field from a row.
type cell struct {
	field  *Field
	kind   fieldType
	name   string // of the member
	column int    // position in row.cells, -1: by name
	start  time.Time
	since  time.Time
	unit   time.Duration
	zone   *time.Location
}

// renderer turns rows into lines of NDJSON.
type renderer struct {
	plain   []cell
	scheme  cell
	learner cell
	norms   []cell
}

// errUnmapped and errNotATime refuse one row; its other fields are not at fault.
var (
	errUnmapped = errors.New("unmapped_value")
	errNotATime = errors.New("not_a_time")
)

func newRenderer(m *Mapping, columns []string) (*renderer, error) {
	r := &renderer{}
	for _, name := range m.names() {
		f := m.Fields[name]
		t, _ := typeOf(m.Kind, name)
		c, err := newCell(name, &f, t, columns)
		if err != nil {
			return nil, fmt.Errorf("fields: %s: %w", name, err)
		}
		switch {
		case name == "learner.scheme":
			r.scheme = c
		case name == "learner.value":
			r.learner = c
		case strings.HasPrefix(name, normPrefix):
			c.name = strings.TrimPrefix(name, normPrefix)
			r.norms = append(r.norms, c)
		default:
			r.plain = append(r.plain, c)
		}
	}
	return r, nil
}

var units = map[string]time.Duration{"": 0, "d": 24 * time.Hour, "s": time.Second, "ms": time.Millisecond, "us": time.Microsecond, "ns": time.Nanosecond}

func newCell(name string, f *Field, t fieldType, columns []string) (cell, error) {
	c := cell{field: f, kind: t, name: name, column: -1, since: time.Unix(0, 0).UTC(), zone: time.UTC}
	var err error
	if f.Start != "" {
		if c.start, err = time.Parse(time.RFC3339, f.Start); err != nil {
			return c, errors.New("start: want RFC 3339")
		}
	}
	if f.Since != "" {
		if c.since, err = time.Parse(time.RFC3339, f.Since); err != nil {
			return c, errors.New("since: want RFC 3339")
		}
	}
	unit, ok := units[f.Unit]
	if !ok {
		return c, errors.New("unit: want d, s, ms, us or ns")
	}
	c.unit = unit
	if f.Zone != "" {
		if c.zone, err = time.LoadLocation(f.Zone); err != nil {
			return c, errors.New("zone: not known on this system")
		}
	}
	if f.Column != "" && columns != nil {
		if c.column = slices.Index(columns, f.Column); c.column < 0 {
			return c, fmt.Errorf("the file has no column %q", f.Column)
		}
	}
	return c, nil
}

// text returns the value of a row before it becomes JSON, empty when absent.
func (c *cell) text(r row, number int64) (string, error) {
	f := c.field
	switch {
	case f.Value != nil:
		return *f.Value, nil
	case f.Row:
		return f.Prefix + strconv.FormatInt(number, 10), nil
	case f.Start != "":
		return c.moment(c.start.Add(time.Duration(number-1) * f.Step)), nil
	}
	var text string
	if c.column >= 0 {
		text = r.cells[c.column]
	} else {
		text = r.byName[f.Column]
	}
	if text == "" {
		text = f.Default
	}
	if f.Map != nil && text != "" {
		mapped, ok := f.Map[text]
		if !ok {
			return "", errUnmapped
		}
		text = mapped
	}
	if text != "" && (f.Unit != "" || f.Layout != "") {
		return c.parseTime(text)
	}
	if text != "" {
		text = f.Prefix + text
	}
	return text, nil
}

// parseTime turns a count or a local time into the form of the connector.
func (c *cell) parseTime(text string) (string, error) {
	if c.field.Layout != "" {
		at, err := time.ParseInLocation(c.field.Layout, text, c.zone)
		if err != nil {
			return "", errNotATime
		}
		return c.moment(at), nil
	}
	if whole, err := strconv.ParseInt(text, 10, 64); err == nil {
		// Days and seconds apart: a duration holds 292 years.
		perSecond := int64(time.Second / max(1, min(c.unit, time.Second)))
		seconds, rest := whole/perSecond, whole%perSecond
		if seconds > 1<<36 || seconds < -(1<<36) { // over 2,000 years
			return "", errNotATime
		}
		if c.unit > time.Second {
			seconds *= int64(c.unit / time.Second)
		}
		at := time.Unix(c.since.Unix()+seconds, int64(c.since.Nanosecond())+rest*int64(c.unit%time.Second))
		return c.moment(at.UTC()), nil
	}
	count, err := strconv.ParseFloat(text, 64)
	nanoseconds := count * float64(c.unit)
	if err != nil || !(nanoseconds > -1<<62 && nanoseconds < 1<<62) {
		return "", errNotATime
	}
	return c.moment(c.since.Add(time.Duration(nanoseconds))), nil
}

func (c *cell) moment(at time.Time) string {
	if c.kind == typeDate {
		return at.Format(time.DateOnly)
	}
	return at.Format("2006-01-02T15:04:05.999Z07:00")
}

// rowError refuses one row: the field and what is wrong, no value.
type rowError struct {
	field string
	rule  error
}

func (e *rowError) Error() string { return e.field + ": " + e.rule.Error() }
func (e *rowError) Unwrap() error { return e.rule }

// append renders a row as one line.
func (r *renderer) append(dst []byte, from row, number int64) ([]byte, error) {
	begin := len(dst)
	dst = append(dst, '{')
	for i := range r.plain {
		var err error
		if dst, err = r.plain[i].member(dst, from, number); err != nil {
			return dst[:begin], err
		}
	}
	dst = append(dst, `"learner":{`...)
	for _, part := range []struct {
		name string
		cell *cell
	}{{"scheme", &r.scheme}, {"value", &r.learner}} {
		text, err := part.cell.text(from, number)
		if err != nil {
			return dst[:begin], &rowError{"learner." + part.name, err}
		}
		if dst, err = appendText(append(append(append(dst, '"'), part.name...), `":`...), text); err != nil {
			return dst[:begin], &rowError{"learner." + part.name, err}
		}
		dst = append(dst, ',')
	}
	dst[len(dst)-1] = '}'
	dst, err := r.appendNorms(dst, from, number)
	if err != nil {
		return dst[:begin], err
	}
	return append(dst, '}', '\n'), nil
}

// member writes `"name":value,`, or nothing when the value is absent.
func (c *cell) member(dst []byte, from row, number int64) ([]byte, error) {
	text, err := c.text(from, number)
	if err != nil {
		return dst, &rowError{c.name, err}
	}
	if text == "" {
		return dst, nil
	}
	dst = append(append(append(dst, '"'), c.name...), `":`...)
	if c.kind == typeList {
		dst, err = appendList(dst, text, c.field.Split)
	} else if c.kind == typeNumber && isNumber(text) {
		dst = append(dst, text...)
	} else { // a number that is none goes as it is, for the connector to refuse
		dst, err = appendText(dst, text)
	}
	if err != nil {
		return dst, &rowError{c.name, err}
	}
	return append(dst, ','), nil
}

func (r *renderer) appendNorms(dst []byte, from row, number int64) ([]byte, error) {
	opened := false
	for i := range r.norms {
		c := &r.norms[i]
		text, err := c.text(from, number)
		if err == nil && text != "" && !isNumber(text) {
			err = errors.New("wrong_type")
		}
		if err != nil {
			return dst, &rowError{normPrefix + c.name, err}
		}
		if text == "" {
			continue
		}
		if !opened {
			dst, opened = append(dst, `,"norms":[`...), true
		}
		if dst, err = appendText(append(dst, `{"kind":`...), c.name); err != nil {
			return dst, err
		}
		dst = append(append(append(dst, `,"value":`...), text...), "},"...)
	}
	if opened {
		dst[len(dst)-1] = ']'
	}
	return dst, nil
}

func appendText(dst []byte, text string) ([]byte, error) {
	out, err := jsontext.AppendQuote(dst, text)
	if err != nil {
		return dst, errors.New("invalid_utf8")
	}
	return out, nil
}

func appendList(dst []byte, text, separator string) ([]byte, error) {
	parts := []string{text}
	if separator != "" {
		parts = strings.Split(text, separator)
	}
	dst = append(dst, '[')
	for _, part := range parts {
		var err error
		if dst, err = appendText(dst, strings.TrimSpace(part)); err != nil {
			return dst, err
		}
		dst = append(dst, ',')
	}
	dst[len(dst)-1] = ']'
	return dst, nil
}

func isNumber(text string) bool {
	return jsontext.Value(text).Kind() == '0' && jsontext.Value(text).IsValid() && strings.TrimSpace(text) == text
}
