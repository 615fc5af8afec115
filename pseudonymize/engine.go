package pseudonymize

import (
	"context"
	"errors"
	"fmt"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// EngineTopic is an adaptive engine of another party that gets the answers of
// the schools that allow it, with tokens and event ids of its own. Messages have
// the form of those of `answers`, one for each of them; one in which no school
// allows the engine is empty.
type EngineTopic struct {
	Name  string // part of the purpose of its keys
	Topic string // as many partitions as `answers`
	// Allows tells whether a school has instructed that this engine gets its
	// answers. It is asked again for every message.
	Allows func(school string) bool
}

func (e *EngineTopic) validate() error {
	if err := keyring.Engine(e.Name).Validate(); err != nil {
		return fmt.Errorf("pseudonymize: engine: %w", err)
	}
	if e.Topic == "" || e.Allows == nil {
		return errors.New("pseudonymize: engine " + e.Name + ": fields topic and allows are needed")
	}
	return nil
}

// openEngine finds out which message the engine's topic ends with. It may be
// ahead of answers after a crash, and has nothing when the engine is new: then
// it begins with the next message.
func (w *worker) openEngine(ctx context.Context, e *EngineTopic) (output, error) {
	o, err := w.stage.newOutput(e.Topic, keyring.Engine(e.Name), keyring.EngineEvent(e.Name))
	if err != nil {
		return o, err
	}
	last, found, err := w.stage.config.Client.Last(ctx, e.Topic, w.partition)
	if err != nil || !found {
		return o, err
	}
	o.done, err = last.Int64(stream.HeaderRawOffset)
	return o, err
}

// writeEngine produces the run's messages to an engine's topic, but for those
// that it has.
func (w *worker) writeEngine(ctx context.Context, o *output, e *EngineTopic, r *run) error {
	o.begin()
	for _, s := range r.slots[:r.used] {
		if s.offset <= o.done {
			continue
		}
		size, err := 0, error(nil)
		if s.poisoned == nil {
			size, err = o.addAllowed(s, w, e.Allows)
		}
		if err == nil && size > stream.MaxMessageBytes {
			o.drop() // so is the one of answers, which becomes a dead letter
		}
		if err == nil && (size == 0 || size > stream.MaxMessageBytes) {
			err = o.addEmpty(s)
		}
		if err != nil {
			return fmt.Errorf("encode offset %d for engine %s: %w", s.offset, e.Name, err)
		}
	}
	o.finish()
	if len(o.messages) == 0 {
		o.release()
		return nil
	}
	if _, err := w.stage.config.Client.Produce(ctx, o.topic, w.partition, o.messages...); err != nil {
		return err
	}
	o.release()
	o.done = r.slots[r.used-1].offset
	return nil
}

// addAllowed appends the message of a slot with the rows of the schools that
// allow it. Size 0 means that there is no such row and nothing was appended.
func (o *output) addAllowed(s *slot, w *worker, allows func(string) bool) (size int, err error) {
	schools := &s.answers.School
	if s.tests {
		schools = &s.results.School
	}
	allowed, all := make([]bool, len(schools.Values)), true
	for i, school := range schools.Values {
		allowed[i] = allows(school)
		all = all && allowed[i]
	}
	if all {
		return o.add(s, w.registry.State())
	}
	o.gathered.rows = o.gathered.rows[:0]
	for row, code := range schools.Codes {
		if allowed[code] {
			o.gathered.rows = append(o.gathered.rows, row)
		}
	}
	if len(o.gathered.rows) == 0 {
		return 0, nil
	}
	return o.addRows(s, w)
}

// facts gathers some rows of a message.
type facts struct {
	rows    []int
	answers answer.Facts
	results answer.TestFacts
}

// gather copies the rows of a column to dst.
func gather[T any](dst, column []T, rows []int) []T {
	dst = dst[:0]
	for _, row := range rows {
		dst = append(dst, column[row])
	}
	return dst
}

// gatherStrings copies the rows of a dictionary column, and of its dictionary
// only the values that they use: the others belong to schools that did not
// allow it.
func gatherStrings(dst, column *answer.Strings, rows []int) {
	dst.Codes, dst.Values = dst.Codes[:0], dst.Values[:0]
	codes := make([]int32, len(column.Values)) // new code plus one
	for _, row := range rows {
		old := column.Codes[row]
		if codes[old] == 0 {
			dst.Values = append(dst.Values, column.Values[old])
			codes[old] = int32(len(dst.Values))
		}
		dst.Codes = append(dst.Codes, codes[old]-1)
	}
}

func (g *facts) gatherAnswers(f *answer.Facts) {
	d := &g.answers
	d.Rows = len(g.rows)
	for i, column := range []*answer.Strings{&f.Publisher, &f.School, &f.Group, &f.Exercise, &f.Goal, &f.Subject} {
		gatherStrings([]*answer.Strings{&d.Publisher, &d.School, &d.Group, &d.Exercise, &d.Goal, &d.Subject}[i], column, g.rows)
	}
	d.YearGroup = gather(d.YearGroup, f.YearGroup, g.rows)
	d.Kind = gather(d.Kind, f.Kind, g.rows)
	d.Score = gather(d.Score, f.Score, g.rows)
	d.Attempt = gather(d.Attempt, f.Attempt, g.rows)
	d.ResponseTime = gather(d.ResponseTime, f.ResponseTime, g.rows)
	d.AnsweredAt = gather(d.AnsweredAt, f.AnsweredAt, g.rows)
	d.Revision = gather(d.Revision, f.Revision, g.rows)
}

func (g *facts) gatherResults(f *answer.TestFacts) {
	d := &g.results
	d.Rows = len(g.rows)
	for i, column := range []*answer.Strings{&f.Publisher, &f.School, &f.Group, &f.Test, &f.TestName, &f.Subject, &f.Part} {
		gatherStrings([]*answer.Strings{&d.Publisher, &d.School, &d.Group, &d.Test, &d.TestName, &d.Subject, &d.Part}[i], column, g.rows)
	}
	d.Path = gather(d.Path, f.Path, g.rows)
	d.YearGroup = gather(d.YearGroup, f.YearGroup, g.rows)
	d.TakenOn = gather(d.TakenOn, f.TakenOn, g.rows)
	d.Score = gather(d.Score, f.Score, g.rows)
	d.MaxScore = gather(d.MaxScore, f.MaxScore, g.rows)
	d.Made = gather(d.Made, f.Made, g.rows)
	d.Right = gather(d.Right, f.Right, g.rows)
	d.Wrong = gather(d.Wrong, f.Wrong, g.rows)
	d.DurationS = gather(d.DurationS, f.DurationS, g.rows)
	d.NormKinds = gather(d.NormKinds, f.NormKinds, g.rows)
	d.NormValues = gather(d.NormValues, f.NormValues, g.rows)
	d.Revision = gather(d.Revision, f.Revision, g.rows)
}

// addRows appends the message of the gathered rows of a slot.
func (o *output) addRows(s *slot, w *worker) (size int, err error) {
	g, tokens := &o.gathered, &o.answers.Learner
	ids, publisher := s.eventIDs(), s.publisher()
	var events []answer.EventID
	for _, row := range g.rows {
		events = append(events, o.events.ID(publisher.At(row), ids.At(row)))
	}
	if s.tests {
		g.gatherResults(&s.results.TestFacts)
		o.results.TestFacts, o.results.EventID, tokens = g.results, events, &o.results.Learner
	} else {
		g.gatherAnswers(&s.answers.Facts)
		o.answers.Facts, o.answers.EventID = g.answers, events
	}
	// The dictionary of tokens, too, holds only those of the rows.
	tokens.Codes, tokens.Values = nil, tokens.Values[:0]
	codes, identities := make([]int32, len(s.learners)), s.identities()
	for _, row := range g.rows {
		old := identities.Codes[row]
		if codes[old] == 0 {
			tokens.Values = append(tokens.Values, o.token(s.learners[old], w.registry.State()))
			codes[old] = int32(len(tokens.Values))
		}
		tokens.Codes = append(tokens.Codes, codes[old]-1)
	}
	return o.encode(s)
}
