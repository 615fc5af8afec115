package answer

import (
	"fmt"

	"github.com/leerstroom/leerstroom/internal/column"
)

// SchemaCommands names the messages of `answers` that carry commands.
const SchemaCommands = "commands.v1"

// SchemaRebuild names the messages of `raw` and `answers` that order a partition
// to switch to a rebuild. They have no content.
const SchemaRebuild = "rebuild.v1"

// HeaderRebuild is their header: the number of the rebuild, an int64.
const HeaderRebuild = "rebuild"

// CommandKind tells what a command orders.
type CommandKind uint8

// The kinds of commands. The numbers are part of the format.
const (
	// CommandMove: all that is stored under Learner belongs under Into from the
	// command's position on. Into may be new (a key was rotated) or have answers of
	// its own (two learners turned out to be one).
	CommandMove CommandKind = 1
	// CommandErase: all that is stored under Learner is to vanish, and what it did
	// to sums and histograms is to be taken back. Into is zero.
	CommandErase CommandKind = 2
)

// Commands is one message of orders about learners whose answers may be stored
// already. They stand in the log of answers, so that every reader follows them
// at the same position. Every column has Rows entries. Orders are followed row
// by row; following one again changes nothing.
type Commands struct {
	Rows      int
	Kind      []CommandKind
	School    Strings
	Learner   Tokens // the token that goes
	Into      Tokens // the token that stays, made under KeyEpoch; zero for an erasure
	KeyEpoch  uint32 // travels in a header
	RawOffset int64  // of the message in `raw`; travels in a header
}

// Position returns the position of a row.
func (c *Commands) Position(row int) Position { return At(c.RawOffset, row) }

// check tells whether the columns are what the kinds promise.
func (c *Commands) check() error {
	for row, kind := range c.Kind {
		switch {
		case kind != CommandMove && kind != CommandErase:
			return fmt.Errorf("%w: unknown command in row %d", column.ErrMalformed, row)
		case c.School.At(row) == "" || c.Learner.At(row).IsZero():
			return fmt.Errorf("%w: command without school or learner in row %d", column.ErrMalformed, row)
		case (kind == CommandMove) == c.Into.At(row).IsZero(), c.Into.At(row) == c.Learner.At(row):
			return fmt.Errorf("%w: command with a wrong target in row %d", column.ErrMalformed, row)
		}
	}
	return nil
}

func commandsSchema() *column.Schema {
	return column.NewSchema(
		column.Field{Name: "kind", Kind: column.Uint8},
		column.Field{Name: "school", Kind: column.Dictionary},
		column.Field{Name: "learner", Kind: column.Dictionary16},
		column.Field{Name: "into", Kind: column.Dictionary16},
	)
}

// AppendCommands appends the message of the commands to dst. KeyEpoch and
// RawOffset are not part of it: they travel in headers.
func (e *Encoder) AppendCommands(dst []byte, c *Commands) ([]byte, error) {
	if err := c.check(); err != nil {
		return dst, err
	}
	kinds := make([]uint8, len(c.Kind))
	for i, kind := range c.Kind {
		kinds[i] = uint8(kind)
	}
	e.columns.Begin(e.schemas.of(SchemaCommands), c.Rows)
	e.columns.Uint8(kinds)
	e.columns.Dictionary(c.School.Codes, c.School.Values)
	for _, tokens := range []*Tokens{&c.Learner, &c.Into} {
		e.columns.Dictionary16(tokens.Codes, appendTokens(nil, tokens.Values))
	}
	return e.columns.AppendTo(dst)
}

// Commands decodes a message whose digest was checked. It sets everything but
// KeyEpoch and RawOffset.
func (d *Decoder) Commands(message []byte, c *Commands) error {
	rows, err := d.columns.Open(d.schemas.of(SchemaCommands), message)
	if err != nil {
		return err
	}
	if rows > MaxRows {
		return fmt.Errorf("%w: more than %d rows", column.ErrMalformed, MaxRows)
	}
	c.Rows, c.Kind = rows, c.Kind[:0]
	for _, kind := range d.columns.Uint8() {
		c.Kind = append(c.Kind, CommandKind(kind))
	}
	c.School.Codes, c.School.Values = d.columns.Dictionary(c.School.Values)
	for _, tokens := range []*Tokens{&c.Learner, &c.Into} {
		codes, packed := d.columns.Dictionary16()
		tokens.Codes, tokens.Values = codes, readTokens(tokens.Values[:0], packed)
	}
	if err := d.columns.Close(); err != nil {
		return err
	}
	return c.check()
}

func appendTokens(dst []byte, tokens []Token) []byte {
	for i := range tokens {
		dst = append(dst, tokens[i].bytes[:]...)
	}
	return dst
}

func readTokens(dst []Token, packed []byte) []Token {
	for i := 0; i+16 <= len(packed); i += 16 {
		dst = append(dst, Token{bytes: [16]byte(packed[i : i+16])})
	}
	return dst
}
