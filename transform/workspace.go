package transform

import (
	"errors"
	"fmt"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/column"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// Limits of a piece: the messages that are looked up and produced together.
const (
	pieceMessages = 32
	pieceBytes    = 2 << 20 // of their values, unless one alone is larger
)

// workspace is the memory in which one handler works through one piece.
type workspace struct {
	units   [pieceMessages]unit
	late    []int32
	lookups []Lookup
	asked   []asked // late rows that memory doesn't know
	later   []asked
	ids     map[answer.EventID]bool
	encoder *Encoder
	rows    SkillRows
	out     []byte
	memory  column.Memory // of the decoded messages

	checkpoint Checkpoint  // until Persistence has it
	sums       ItemSumRows // of one message of `item-sums`
}

// asked tells which row a lookup is about.
type asked struct {
	unit int
	row  int32
}

// unit is one message of a piece.
type unit struct {
	content   content
	rawOffset int64
	offset    int64 // in `answers`
	decoder   answer.Decoder
	answers   answer.Columns
	tests     answer.TestResults
	commands  answer.Commands
	rows      delivered
	repeat    []bool // rows that move nobody
	skip      []bool // rows that are not archived as new ones
	said      Evidence
	recorded  *recorded
	snapshot  *Snapshot
	rebuild   uint64 // number of the rebuild to switch to
}

// delivered are the columns that tell a delivered answer or test result from
// others. They lie in the message.
type delivered struct {
	rows      int
	rawOffset int64
	id        []answer.EventID
	school    *answer.Strings
	learner   *answer.Tokens
	moment    []int64 // as in Lookup
	revision  []uint32

	days []int64 // memory for moments of test results
}

func (d *delivered) position(row int) answer.Position { return answer.At(d.rawOffset, row) }

// lookup returns the primary key of a row; of row -1 none.
func (d *delivered) lookup(row int) Lookup {
	if row < 0 {
		return Lookup{}
	}
	return Lookup{School: d.school.At(row), Learner: d.learner.At(row), Moment: d.moment[row], ID: d.id[row]}
}

// deliver notes what the decoded message delivers.
func (u *unit) deliver() {
	d := &u.rows
	if u.content == contentAnswers {
		c := &u.answers
		*d = delivered{rows: c.Rows, rawOffset: c.RawOffset, id: c.EventID, school: &c.School, learner: &c.Learner,
			moment: c.AnsweredAt, revision: c.Revision, days: d.days}
	} else {
		c := &u.tests
		days := d.days[:0]
		for _, day := range c.TakenOn[:c.Rows] {
			days = append(days, int64(day))
		}
		*d = delivered{rows: c.Rows, rawOffset: c.RawOffset, id: c.EventID, school: &c.School, learner: &c.Learner,
			moment: days, revision: c.Revision, days: days}
	}
	u.repeat, u.skip = resize(u.repeat, d.rows), resize(u.skip, d.rows)
}

// delivers tells whether a message holds answers or test results.
func (u *unit) delivers() bool { return u.content == contentAnswers || u.content == contentTests }

// archive tells where the rows of a message that delivers go.
func (u *unit) archive() Archive {
	if u.content == contentTests {
		return TestResultsArchive
	}
	return AnswersArchive
}

type content uint8

const (
	contentNothing content = iota // an empty message, or one that went to the dead letters
	contentAnswers
	contentTests
	contentCommands
	contentRebuild
)

func newWorkspace() *workspace {
	w := &workspace{encoder: NewEncoder(), ids: make(map[answer.EventID]bool)}
	for i := range w.units {
		w.units[i].decoder.Use(&w.memory)
	}
	return w
}

// poison says why a message can't be used.
type poison struct {
	reason string
	cause  error
}

func (p *poison) Error() string { return fmt.Sprintf("%s: %v", p.reason, p.cause) }
func (p *poison) Unwrap() error { return p.cause }

var errUnknownSchema = errors.New("unknown schema")

// read decodes a message. Its raw offset was read before.
func (u *unit) read(m *stream.Message, rawOffset int64) error {
	u.content, u.rawOffset, u.offset = contentNothing, rawOffset, m.Offset
	u.recorded, u.snapshot = nil, nil
	if string(m.Header(stream.HeaderSchema)) == answer.SchemaRebuild {
		number, err := m.Int64(answer.HeaderRebuild)
		if err != nil {
			return &poison{ReasonHeaders, err}
		}
		u.content, u.rebuild = contentRebuild, uint64(number)
		return nil
	}
	if len(m.Value) == 0 {
		return nil
	}
	if _, err := m.Int64(stream.HeaderDigest); err != nil {
		return &poison{ReasonHeaders, err}
	}
	if err := m.CheckDigest(); err != nil {
		return &poison{ReasonDigest, err}
	}
	epoch, err := m.Int64(stream.HeaderKeyEpoch)
	if err != nil {
		return &poison{ReasonHeaders, err}
	}
	switch string(m.Header(stream.HeaderSchema)) {
	case answer.SchemaAnswers:
		if err := u.decoder.Answers(m.Value, &u.answers); err != nil {
			return &poison{ReasonMalformed, err}
		}
		u.answers.KeyEpoch, u.answers.RawOffset = uint32(epoch), rawOffset
		u.content = contentAnswers
		u.deliver()
	case answer.SchemaTestResults:
		if err := u.decoder.TestResults(m.Value, &u.tests); err != nil {
			return &poison{ReasonMalformed, err}
		}
		u.tests.KeyEpoch, u.tests.RawOffset = uint32(epoch), rawOffset
		u.content = contentTests
		u.deliver()
	case answer.SchemaCommands:
		if err := u.decoder.Commands(m.Value, &u.commands); err != nil {
			return &poison{ReasonMalformed, err}
		}
		u.commands.KeyEpoch, u.commands.RawOffset = uint32(epoch), rawOffset
		u.content = contentCommands
	default:
		return &poison{ReasonSchema, errUnknownSchema}
	}
	return nil
}

// last returns the position of the unit's last row.
func (u *unit) last() answer.Position {
	rows := 1
	switch u.content {
	case contentAnswers:
		rows = u.answers.Rows
	case contentTests:
		rows = u.tests.Rows
	case contentCommands:
		rows = u.commands.Rows
	case contentNothing, contentRebuild:
	}
	return answer.At(u.rawOffset, max(rows, 1)-1)
}
