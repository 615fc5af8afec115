// Package roster reads a school's roster: a CSV file with a header, one learner a
// line, all aliases and the name that the school knows the learner by.
//
//	eckid;las;publisher:bingel;first_name;name_prefix;last_name;group;year_group
//
// Columns may stand in any order; eckid, basispoort, las and publisher:NAME name
// aliases, and at least one of them must be there. Commas, semicolons and tabs
// separate; the header tells which. An empty cell means that the school says
// nothing.
//
// Invariants:
//   - A refusal holds the number of the line, the column and a rule, never a
//     value; nor does an error. Line numbers count lines of the file, header
//     included.
//   - An identifier is held against the rules that publishers' lines are held
//     against; a line with one bad identifier is refused whole.
//   - An alias that stands on two lines refuses both: a roster that contradicts
//     itself decides nothing.
//   - Memory is bounded by MaxBytes and MaxLines.
package roster

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/leerstroom/leerstroom/ingest/line"
	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// Limits of a file.
const (
	MaxBytes = 64 << 20
	MaxLines = 200_000
)

// ErrFormat reports a file that is no roster.
var ErrFormat = errors.New("not a roster")

// Rules that a roster can break beside those of identifiers.
const (
	RuleNoAlias   line.Rule = "no_identifier"   // no identifier on the line
	RuleTwice     line.Rule = "duplicate_alias" // the alias stands on another line, too
	RuleColumns   line.Rule = "wrong_columns"   // more or fewer cells than the header
	RuleYearGroup line.Rule = "out_of_range"    // not 1 to 8
	RuleName      line.Rule = "bad_name"        // too long, or control characters
)

// Line is one learner of a roster.
type Line struct {
	Number int // in the file, from 1
	vault.RosterLine

	Column string    // what is refused, if anything
	Rule   line.Rule // empty when the line is good
}

// Config says how to read.
type Config struct {
	School          string // BRIN + vestiging, such as 12AB00
	TestIdentifiers bool   // accept ECK iDs of test chains
}

// column is what a column of the file means.
type column struct {
	name      string
	scheme    raw.Scheme // 0 = no alias
	publisher string
	part      int // of the name, when it is no alias
}

// Parts of a name.
const (
	partFirst = iota
	partPrefix
	partLast
	partGroup
	partYearGroup
)

var nameColumns = map[string]int{"first_name": partFirst, "name_prefix": partPrefix, "last_name": partLast, "group": partGroup, "year_group": partYearGroup}

// Read reads a whole roster. Lines that break a rule are among the lines; an
// error means that the file as a whole can't be used.
func Read(in io.Reader, config Config) ([]Line, error) {
	if !line.IsSchool(config.School) {
		return nil, fmt.Errorf("read roster: school: %s: want a BRIN and a vestiging, such as 12AB00", line.RuleNotASchool)
	}
	source, err := open(in)
	if err != nil {
		return nil, err
	}
	header, err := source.Read()
	if err != nil {
		return nil, fmt.Errorf("read roster: %w: no header", ErrFormat)
	}
	columns, err := parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	parser := parser{config: config, columns: columns, identifiers: line.NewParser(line.Policy{TestIdentifiers: config.TestIdentifiers})}
	lines, err := parser.readAll(source)
	if err != nil {
		return nil, err
	}
	refuseTwice(lines)
	return lines, nil
}

// open finds the separator in the header.
func open(in io.Reader) (*csv.Reader, error) {
	buffered := bufio.NewReaderSize(&bounded{in: in, left: MaxBytes}, 64<<10)
	if mark, err := buffered.Peek(3); err == nil && bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		if _, err := buffered.Discard(3); err != nil {
			return nil, fmt.Errorf("read roster: %w", err)
		}
	}
	head, err := buffered.Peek(4 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read roster: %w", err)
	}
	if end := bytes.IndexByte(head, '\n'); end >= 0 {
		head = head[:end]
	}
	source := csv.NewReader(buffered)
	for _, separator := range []rune{';', '\t'} {
		if bytes.ContainsRune(head, separator) {
			source.Comma = separator
		}
	}
	source.FieldsPerRecord = -1
	source.ReuseRecord = true
	return source, nil
}

// bounded ends with an error when there is more than expected.
type bounded struct {
	in   io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxBytes)
	}
	n, err := b.in.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// parseHeader gives every column its meaning. It names an unknown column by its
// place: its name could be a value when the header is missing.
func parseHeader(header []string) ([]column, error) {
	columns, seen, aliases := make([]column, len(header)), make(map[string]bool), 0
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		c := column{name: name}
		part, isName := nameColumns[name]
		publisher, isPublisher := strings.CutPrefix(name, "publisher:")
		scheme, err := raw.ParseScheme(name)
		switch {
		case isName:
			c.part = part
		case isPublisher && publisher != "":
			c.scheme, c.publisher = raw.SchemePublisher, publisher
		case err == nil && scheme != raw.SchemePublisher:
			c.scheme = scheme
		default:
			return nil, fmt.Errorf("%w: column %d of the header is none of eckid, basispoort, las, publisher:NAME, first_name, name_prefix, last_name, group, year_group", ErrFormat, i+1)
		}
		if seen[name] {
			return nil, fmt.Errorf("%w: column %d of the header is there twice", ErrFormat, i+1)
		}
		seen[name] = true
		if c.scheme != 0 {
			aliases++
		}
		columns[i] = c
	}
	if aliases == 0 {
		return nil, fmt.Errorf("%w: the header names no identifier (eckid, basispoort, las, publisher:NAME)", ErrFormat)
	}
	return columns, nil
}

type parser struct {
	config      Config
	columns     []column
	identifiers *line.Parser
}

func (p *parser) readAll(source *csv.Reader) ([]Line, error) {
	var lines []Line
	for {
		cells, err := source.Read()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		var malformed *csv.ParseError
		if errors.As(err, &malformed) {
			// What it says may quote the line.
			return nil, fmt.Errorf("read roster: %w: line %d is malformed CSV", ErrFormat, malformed.StartLine)
		}
		if err != nil {
			return nil, fmt.Errorf("read roster: %w", err)
		}
		if len(lines) == MaxLines {
			return nil, fmt.Errorf("read roster: %w: more than %d lines", ErrFormat, MaxLines)
		}
		number, _ := source.FieldPos(0)
		l := Line{Number: number}
		p.parse(&l, cells)
		lines = append(lines, l)
	}
}

func (p *parser) parse(l *Line, cells []string) {
	if len(cells) != len(p.columns) {
		l.Rule = RuleColumns
		return
	}
	for i := range p.columns {
		c, text := &p.columns[i], strings.Clone(strings.TrimSpace(cells[i]))
		if text == "" {
			continue
		}
		rule := line.Rule("")
		if c.scheme == 0 {
			rule = setPart(&l.Name, c.part, text)
		} else {
			var normal string
			normal, rule = p.identifiers.Identifier(c.scheme, text)
			l.Aliases = append(l.Aliases, vault.Alias{School: p.config.School, Publisher: c.publisher, Identifier: raw.Identifier{Scheme: c.scheme, Value: normal}})
		}
		if rule != "" {
			*l = Line{Number: l.Number, Column: c.name, Rule: rule}
			return
		}
	}
	switch {
	case len(l.Aliases) == 0:
		*l = Line{Number: l.Number, Rule: RuleNoAlias}
	case l.Name.Validate() != nil:
		*l = Line{Number: l.Number, Rule: RuleName}
	}
}

func setPart(name *vault.Name, part int, text string) line.Rule {
	switch part {
	case partFirst:
		name.First = text
	case partPrefix:
		name.Prefix = text
	case partLast:
		name.Last = text
	case partGroup:
		name.Group = text
	case partYearGroup:
		number, err := strconv.ParseUint(text, 10, 8)
		if err != nil || number < 1 || number > 8 {
			return RuleYearGroup
		}
		name.YearGroup = uint8(number)
	}
	return ""
}

// refuseTwice refuses all lines that share an alias.
func refuseTwice(lines []Line) {
	first := make(map[vault.Alias]int)
	for i := range lines {
		for _, a := range lines[i].Aliases {
			a = vault.Normalise(a)
			other, there := first[a]
			if !there {
				first[a] = i
				continue
			}
			if other == i {
				continue
			}
			lines[other].Rule, lines[i].Rule = RuleTwice, RuleTwice
			lines[other].Column, lines[i].Column = columnOf(a), columnOf(a)
		}
	}
}

func columnOf(a vault.Alias) string {
	if a.Scheme == raw.SchemePublisher {
		return "publisher:" + a.Publisher
	}
	return a.Scheme.String()
}

// ParseAlias reads an alias of a school from a text such as las:4711,
// eckid:https://… or publisher:bingel:17. An error names the rule.
func ParseAlias(config Config, text string) (vault.Alias, error) {
	name, value, found := strings.Cut(strings.TrimSpace(text), ":")
	scheme, err := raw.ParseScheme(name)
	if !found || err != nil {
		return vault.Alias{}, errors.New("identifier: want eckid:VALUE, basispoort:VALUE, las:VALUE or publisher:NAME:VALUE")
	}
	a := vault.Alias{School: config.School, Identifier: raw.Identifier{Scheme: scheme}}
	if scheme == raw.SchemePublisher {
		if a.Publisher, value, found = strings.Cut(value, ":"); !found || a.Publisher == "" {
			return vault.Alias{}, errors.New("identifier: want publisher:NAME:VALUE")
		}
	}
	if !line.IsSchool(config.School) {
		return vault.Alias{}, fmt.Errorf("school: %s: want a BRIN and a vestiging, such as 12AB00", line.RuleNotASchool)
	}
	parser := line.NewParser(line.Policy{TestIdentifiers: config.TestIdentifiers})
	normal, rule := parser.Identifier(scheme, value)
	if rule != "" {
		return vault.Alias{}, fmt.Errorf("identifier of scheme %s: %s", scheme, rule)
	}
	a.Value = normal
	return a, nil
}
