package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// ErrDifference reports that a check found something missing, doubled or not
// adding up. The lines say what.
var ErrDifference = errors.New("store and log differ")

// Sources is what Check compares the store with.
type Sources struct {
	Client     *stream.Client
	Topics     stream.Topics
	Partitions int // of raw and answers

	// Wait is how long Check waits until what was acknowledged before it began
	// has passed all stages; 0 means 30 s.
	Wait time.Duration

	// UnknownTokens tells how many of the tokens of a partition no learner in
	// the registry has. Nil leaves the check out.
	UnknownTokens func(ctx context.Context, partition int, tokens []answer.Token) (int, error)
}

// Line is the outcome of one check.
type Line struct {
	Check  string // a few words
	OK     bool
	Detail string // how much was compared, or what differs; never a value of a record
}

// Check compares, for everything that was acknowledged before it began, the log
// with the store, and the tables of the store with each other. It reports one
// line per check and returns ErrDifference when any is not OK. It may run beside
// writers; what they write meanwhile is left out, or, where that can't be told
// apart, read again until it stands still.
func (s *Store) Check(ctx context.Context, sources Sources, report func(Line)) error {
	c := &check{store: s, sources: sources, report: report}
	if sources.Wait == 0 {
		c.sources.Wait = 30 * time.Second
	}
	if err := c.readLog(ctx); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	for _, step := range []func(context.Context) error{
		c.passed, c.oneToOne, c.accounted, c.archived, c.moved, c.sums, c.norms, c.tokens,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("check: %w", err)
		}
	}
	if c.differences > 0 {
		return fmt.Errorf("check: %w: %d of %d checks", ErrDifference, c.differences, c.lines)
	}
	return nil
}

type check struct {
	store              *Store
	sources            Sources
	report             func(Line)
	logs               []partitionLog
	lines, differences int
}

// partitionLog is what the topics raw and answers say of a partition.
type partitionLog struct {
	first, end int64           // offsets of raw
	rawRows    map[int64]int64 // raw offset → rows, where the message says
	answers    []answersMessage
	disorder   int   // messages of answers that skip a raw offset
	repeats    int   // messages of answers that repeat one
	progress   int64 // raw offset up to which the store has come
}

type answersMessage struct {
	offset, rawOffset, rows int64 // rows = -1 when the message doesn't say
	empty, commands         bool
}

// line reports a check: it holds when problems is empty.
func (c *check) line(name, fine string, problems []string) {
	c.lines++
	l := Line{Check: name, OK: len(problems) == 0, Detail: fine}
	if !l.OK {
		c.differences++
		l.Detail = problems[0]
		if n := len(problems) - 1; n > 0 {
			l.Detail += fmt.Sprintf(" (and %d more)", n)
		}
	}
	c.report(l)
}

// readLog reads the topics up to where raw ends now.
func (c *check) readLog(ctx context.Context) error {
	c.logs = make([]partitionLog, c.sources.Partitions)
	for p := range c.logs {
		l := &c.logs[p]
		var err error
		if l.first, l.end, err = c.sources.Client.Offsets(ctx, c.sources.Topics.Raw, p); err != nil {
			return err
		}
		l.rawRows = make(map[int64]int64)
		err = c.scan(ctx, c.sources.Topics.Raw, p, l.first, l.end, func(m *stream.Message) error {
			if rows, err := m.Int64(stream.HeaderRows); err == nil {
				l.rawRows[m.Offset] = rows
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := c.waitForProgress(ctx); err != nil {
		return err
	}
	for p := range c.logs {
		if err := c.readAnswers(ctx, p, &c.logs[p]); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) readAnswers(ctx context.Context, partition int, l *partitionLog) error {
	topic := c.sources.Topics.Answers
	first, end, err := c.sources.Client.Offsets(ctx, topic, partition)
	if err != nil {
		return err
	}
	last := int64(-1)
	return c.scan(ctx, topic, partition, first, end, func(m *stream.Message) error {
		raw, err := m.Int64(stream.HeaderRawOffset)
		if err != nil {
			return fmt.Errorf("read %s/%d: %w", topic, partition, err)
		}
		if raw <= last {
			l.repeats++
			return nil
		}
		if last >= 0 && raw != last+1 {
			l.disorder++
		}
		last = raw
		rows, err := m.Int64(stream.HeaderRows)
		if err != nil {
			rows = -1
		}
		if raw < l.end {
			l.answers = append(l.answers, answersMessage{offset: m.Offset, rawOffset: raw, rows: rows, empty: len(m.Value) == 0,
				commands: string(m.Header(stream.HeaderSchema)) == answer.SchemaCommands})
		}
		return nil
	})
}

// scan calls see for every message of a range of offsets.
func (c *check) scan(ctx context.Context, topic string, partition int, from, end int64, see func(*stream.Message) error) error {
	var batch stream.Batch
	for from < end {
		if err := c.sources.Client.Fetch(ctx, topic, partition, from, time.Second, &batch); err != nil {
			return err
		}
		for i := range batch.Messages {
			m := &batch.Messages[i]
			if m.Offset >= end {
				return nil
			}
			if err := see(m); err != nil {
				return err
			}
			from = m.Offset + 1
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read %s/%d: %w", topic, partition, err)
		}
	}
	return nil
}

// waitForProgress waits until the store has come to the end of raw, or for as
// long as the caller allows.
func (c *check) waitForProgress(ctx context.Context) error {
	deadline := time.Now().Add(c.sources.Wait)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		behind, err := c.readProgress(ctx)
		if err != nil || !behind || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func (c *check) readProgress(ctx context.Context) (behind bool, err error) {
	for p := range c.logs {
		c.logs[p].progress = -1
	}
	rows, err := c.store.integers(ctx, 2, "SELECT toInt64(partition) AS c0, raw_offset AS c1 FROM "+c.store.table("progress")+" FINAL", nil)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		if int(r[0]) < len(c.logs) {
			c.logs[r[0]].progress = r[1]
		}
	}
	for p := range c.logs {
		behind = behind || c.logs[p].behind() > 0
	}
	return behind, nil
}

// behind is how many acknowledged messages the store does not have yet.
func (l *partitionLog) behind() int64 {
	if l.end == l.first {
		return 0
	}
	return max(l.end-1-l.progress, 0)
}

// passed: everything acknowledged has passed all stages.
func (c *check) passed(context.Context) error {
	var problems []string
	messages := int64(0)
	for p := range c.logs {
		l := &c.logs[p]
		messages += l.end - l.first
		if n := l.behind(); n > 0 {
			problems = append(problems, fmt.Sprintf("partition %d: the last %d of %d raw messages are not in the store", p, n, l.end-l.first))
		}
	}
	c.line("acknowledged messages are in the store", fmt.Sprintf("%d raw messages in %d partitions", messages, len(c.logs)), problems)
	return nil
}

// oneToOne: every raw message has one answers message with as many rows.
func (c *check) oneToOne(context.Context) error {
	var problems []string
	messages, repeats := 0, 0
	for p := range c.logs {
		l := &c.logs[p]
		messages += len(l.answers)
		repeats += l.repeats
		next := l.first
		if len(l.answers) > 0 && l.answers[0].rawOffset > l.first {
			problems = append(problems, fmt.Sprintf("partition %d: raw offsets from %d to %d have no message in answers", p, l.first, l.answers[0].rawOffset-1))
		}
		if l.disorder > 0 {
			problems = append(problems, fmt.Sprintf("partition %d: answers skips raw offsets at %d places", p, l.disorder))
		}
		for _, m := range l.answers {
			next = m.rawOffset + 1
			if rows, said := l.rawRows[m.rawOffset]; said && m.rows > 0 && rows != m.rows {
				problems = append(problems, fmt.Sprintf("partition %d, raw offset %d: %d rows became %d", p, m.rawOffset, rows, m.rows))
			}
		}
		if next < l.end {
			problems = append(problems, fmt.Sprintf("partition %d: raw offsets from %d to %d have no message in answers", p, next, l.end-1))
		}
	}
	c.line("one message in, one message out", fmt.Sprintf("%d messages of answers, %d repeats beside them", messages, repeats), problems)
	return nil
}

// accounted: every answers message is in the ledger with its rows, or in the
// dead letters.
func (c *check) accounted(ctx context.Context) error {
	var problems []string
	messages, letters := 0, 0
	for p := range c.logs {
		l := &c.logs[p]
		ledger, err := c.ledgerRows(ctx, p, l)
		if err != nil {
			return err
		}
		dead, err := c.deadOffsets(ctx, p)
		if err != nil {
			return err
		}
		for _, m := range l.answers {
			rows, archived := ledger[m.rawOffset]
			isDead := dead.raw[m.rawOffset] || dead.answers[m.offset]
			switch {
			case archived && m.rows >= 0 && rows != m.rows:
				problems = append(problems, fmt.Sprintf("partition %d, raw offset %d: %d rows of %d were taken over", p, m.rawOffset, rows, m.rows))
			case archived && rows > 0:
				messages++
			case isDead:
				letters++
			case archived && l.rawRows[m.rawOffset] == 0, m.commands && m.rows == 0:
				messages++ // it had no rows, or no commands, from the start
			default:
				problems = append(problems, fmt.Sprintf("partition %d, raw offset %d: neither archived nor a dead letter", p, m.rawOffset))
			}
		}
	}
	c.line("every message is archived once or a dead letter", fmt.Sprintf("%d archived, %d dead letters", messages, letters), problems)
	return nil
}

func (c *check) ledgerRows(ctx context.Context, partition int, l *partitionLog) (map[int64]int64, error) {
	rows, err := c.store.integers(ctx, 2, "SELECT toInt64(raw_offset) AS c0, toInt64(rows) AS c1 FROM "+c.store.table("raw_ledger")+
		" FINAL WHERE partition = {partition:UInt16} AND raw_offset >= {first:UInt64}", parameters{"partition": partition, "first": l.first})
	if err != nil {
		return nil, err
	}
	ledger := make(map[int64]int64, len(rows))
	for _, r := range rows {
		ledger[r[0]] = r[1]
	}
	return ledger, nil
}

// deadMessages are the offsets of dead letters of a partition, by topic.
type deadMessages struct{ raw, answers map[int64]bool }

func (c *check) deadOffsets(ctx context.Context, partition int) (deadMessages, error) {
	dead := deadMessages{raw: make(map[int64]bool), answers: make(map[int64]bool)}
	for topic, offsets := range map[string]map[int64]bool{c.sources.Topics.Raw: dead.raw, c.sources.Topics.Answers: dead.answers} {
		rows, err := c.store.integers(ctx, 1, "SELECT offset AS c0 FROM "+c.store.table("dead_letters")+
			" WHERE partition = {partition:UInt16} AND topic = {topic:String}", parameters{"partition": partition, "topic": topic})
		if err != nil {
			return dead, err
		}
		for _, r := range rows {
			offsets[r[0]] = true
		}
	}
	return dead, nil
}

// tokens: every token in the archive belongs to a learner of the registry. The
// registry forgets a learner before the order to erase what the store has of them
// is in the log, so that for a moment a token of theirs explains itself: unknown
// ones are asked for again until the time is over.
func (c *check) tokens(ctx context.Context) error {
	if c.sources.UnknownTokens == nil {
		return nil
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(c.sources.Wait); ; {
		problems, total, err := c.unknownTokens(ctx)
		if err != nil {
			return err
		}
		if len(problems) == 0 || time.Now().After(deadline) {
			c.line("tokens are those of the registry", fmt.Sprintf("%d tokens", total), problems)
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-again.C:
		}
	}
}

func (c *check) unknownTokens(ctx context.Context) (problems []string, total int, err error) {
	for p := range c.logs {
		tokens, err := c.store.archivedTokens(ctx, p)
		if err != nil {
			return nil, 0, err
		}
		slices.SortFunc(tokens, compareTokens)
		unknown, err := c.sources.UnknownTokens(ctx, p, slices.Compact(tokens))
		if err != nil {
			return nil, 0, fmt.Errorf("ask the registry about partition %d: %w", p, err)
		}
		total += len(tokens)
		if unknown > 0 {
			problems = append(problems, fmt.Sprintf("partition %d: %d tokens belong to no learner of the registry", p, unknown))
		}
	}
	return problems, total, nil
}
