package evaluate

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
)

// none marks an answer or item without a skill.
const none = -1

// Answers are the answers of one or two files, as columns, in the order in which
// they are replayed. Learners, items and skills are numbered from 0 in order of
// appearance.
type Answers struct {
	Learner []int32
	Item    []int32
	Skill   []int32 // the skill, or set of skills, of the answer; -1 = unknown
	Time    []int64 // seconds; equal everywhere when the file has none
	Score   []float64
	Took    []float64 // response time in the file's unit, 0 = unknown; nil = not in the files
	Scored  int       // answers from here on are scored, those before only teach

	Learners []string // names, by number
	Items    []string
	Skills   []string
	Tags     [][]int32 // single skills per item from the skills file, numbered apart; nil = none
	TagCount int
}

// Len returns the number of answers.
func (a *Answers) Len() int { return len(a.Learner) }

// namesOf are the headers by which the columns are known.
var namesOf = map[string][]string{
	"learner": {"learner", "user_id", "person", "student", "user", "learner_id", "student_id"},
	"item":    {"item", "item_id", "exercise", "problem_id", "question_id", "problem", "question"},
	"time":    {"timestamp", "time", "answered_at"},
	"score":   {"correct", "score"},
	"took":    {"response_time_ms", "response_time", "elapsed_time", "duration"},
	"skill":   {"skillset", "skill_id", "skill", "goal"},
}

// numbering gives names numbers in order of appearance.
type numbering struct {
	number map[string]int32
	names  []string
}

func newNumbering() *numbering { return &numbering{number: make(map[string]int32)} }

func (n *numbering) of(name string) int32 {
	if i, ok := n.number[name]; ok {
		return i
	}
	i := int32(len(n.names))
	name = strings.Clone(name)
	n.number[name] = i
	n.names = append(n.names, name)
	return i
}

// table reads a delimited file with a header: gzipped or not, as the first bytes
// say; separated by tab, semicolon or comma, as the header says.
type table struct {
	file   *os.File
	reader *csv.Reader
	header []string
	line   int
}

func openTable(path string) (*table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open data: %w", err)
	}
	t := &table{file: f, line: 1}
	if err := t.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("read header: %w", err), f.Close())
	}
	return t, nil
}

func (t *table) start() error {
	b := bufio.NewReaderSize(t.file, 1<<16)
	if magic, err := b.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return fmt.Errorf("decompress: %w", err)
		}
		b = bufio.NewReaderSize(z, 1<<16)
	}
	first, err := b.ReadString('\n')
	if err != nil && (err != io.EOF || first == "") {
		return err
	}
	separator := ','
	for _, s := range []rune{'\t', ';'} {
		if strings.ContainsRune(first, s) {
			separator = s
			break
		}
	}
	first = strings.TrimPrefix(strings.TrimRight(first, "\r\n"), "\ufeff")
	for name := range strings.SplitSeq(first, string(separator)) {
		t.header = append(t.header, strings.Trim(strings.TrimSpace(name), `"`))
	}
	t.reader = csv.NewReader(b)
	t.reader.Comma = separator
	t.reader.FieldsPerRecord = len(t.header)
	t.reader.ReuseRecord = true
	return nil
}

// next returns the fields of a line, valid until the next call, or io.EOF.
func (t *table) next() ([]string, error) {
	fields, err := t.reader.Read()
	t.line++
	switch {
	case err == nil:
		return fields, nil
	case err == io.EOF:
		return nil, io.EOF
	case errors.Is(err, csv.ErrFieldCount):
		return nil, fmt.Errorf("read line %d: want %d fields", t.line, len(t.header))
	}
	// The text of other errors may quote the line.
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return nil, fmt.Errorf("read line %d: %w", t.line, parse.Err)
	}
	return nil, fmt.Errorf("read line %d: %w", t.line, err)
}

// column returns the index of the column that is known by one of the names of
// kind, or none.
func (t *table) column(kind string) int {
	for _, name := range namesOf[kind] {
		for i, h := range t.header {
			if strings.EqualFold(h, name) {
				return i
			}
		}
	}
	return none
}

func (t *table) close() error { return t.file.Close() }

// Load reads the answers that teach (may be "") and those that are scored, and
// the skills of items (may be ""). A learner of both files is the same learner.
func Load(ctx context.Context, train, answers, skills string) (*Answers, error) {
	l := &loader{
		answers:  &Answers{},
		learners: newNumbering(), items: newNumbering(), skills: newNumbering(), tags: newNumbering(),
	}
	if train != "" {
		if err := l.read(ctx, train); err != nil {
			return nil, fmt.Errorf("load training answers: %w", err)
		}
		l.answers.Scored = l.answers.Len()
	}
	if err := l.read(ctx, answers); err != nil {
		return nil, fmt.Errorf("load answers: %w", err)
	}
	if skills != "" {
		if err := l.readSkills(ctx, skills); err != nil {
			return nil, fmt.Errorf("load skills: %w", err)
		}
	}
	a := l.answers
	a.Learners, a.Items, a.Skills = l.learners.names, l.items.names, l.skills.names
	a.TagCount = len(l.tags.names)
	if a.Took != nil {
		a.Took = append(a.Took, make([]float64, a.Len()-len(a.Took))...) // the last file has none
	}
	if a.Len() == a.Scored {
		return nil, errors.New("load answers: the file holds none")
	}
	return a, nil
}

type loader struct {
	answers                       *Answers
	learners, items, skills, tags *numbering
}

// checkEvery is how many lines pass between two looks at the context.
const checkEvery = 1 << 14

func (l *loader) read(ctx context.Context, path string) (err error) {
	t, err := openTable(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	learner, item, score := t.column("learner"), t.column("item"), t.column("score")
	at, skill, took := t.column("time"), t.column("skill"), t.column("took")
	if learner < 0 || item < 0 || score < 0 {
		return errors.New("find columns: want a learner, an item and a score (learner,item,correct)")
	}
	a := l.answers
	for {
		if t.line%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		fields, err := t.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		y, err := strconv.ParseFloat(fields[score], 64)
		if err != nil || !(y >= 0 && y <= 1) {
			return fmt.Errorf("read line %d: score: want a number from 0 to 1", t.line)
		}
		var seconds float64
		if at >= 0 && fields[at] != "" {
			seconds, err = strconv.ParseFloat(fields[at], 64)
			if err != nil || !(seconds > -1e15 && seconds < 1e15) {
				return fmt.Errorf("read line %d: timestamp: want seconds", t.line)
			}
		}
		k := int32(none)
		if skill >= 0 && fields[skill] != "" {
			k = l.skills.of(fields[skill])
		}
		a.Learner = append(a.Learner, l.learners.of(fields[learner]))
		a.Item = append(a.Item, l.items.of(fields[item]))
		a.Skill = append(a.Skill, k)
		a.Time = append(a.Time, int64(seconds))
		a.Score = append(a.Score, y)
		if took >= 0 {
			a.takeTime(fields[took])
		}
	}
}

// takeTime appends a response time; what isn't a number above 0 is unknown, and so
// are the times of answers before the first that has one.
func (a *Answers) takeTime(text string) {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !(x > 0 && x < 1e12) {
		x = 0
	}
	a.Took = append(append(a.Took, make([]float64, a.Len()-1-len(a.Took))...), x)
}

// readSkills reads lines (item, skill), several per item, or one line per item
// with a column of 0 and 1 per skill. Answers whose file names no skill get the
// set of their item's.
func (l *loader) readSkills(ctx context.Context, path string) (err error) {
	t, err := openTable(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	item, skill := t.column("item"), t.column("skill")
	if item < 0 {
		return errors.New("find columns: want an item")
	}
	tags := make([][]int32, len(l.items.names))
	for {
		if t.line%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		fields, err := t.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		i, known := l.items.number[fields[item]]
		if !known {
			continue // nobody answered it
		}
		if skill >= 0 {
			tags[i] = append(tags[i], l.tags.of(fields[skill]))
			continue
		}
		for c, v := range fields {
			if c != item && strings.TrimSpace(v) == "1" {
				tags[i] = append(tags[i], l.tags.of(t.header[c]))
			}
		}
	}
	l.answers.Tags = tags
	l.nameSets()
	return nil
}

// nameSets gives the answers without a skill the set of their item's skills.
func (l *loader) nameSets() {
	set := make(map[int32]int32)
	for j, k := range l.answers.Skill {
		item := l.answers.Item[j]
		if k != none || len(l.answers.Tags[item]) == 0 {
			continue
		}
		number, known := set[item]
		if !known {
			number = l.skills.of(l.setName(l.answers.Tags[item]))
			set[item] = number
		}
		l.answers.Skill[j] = number
	}
}

// setName returns one name for a set of skills, whatever their order.
func (l *loader) setName(tags []int32) string {
	sort.Slice(tags, func(x, y int) bool { return tags[x] < tags[y] })
	var name strings.Builder
	for _, tag := range tags {
		name.WriteString(l.tags.names[tag])
		name.WriteByte(0x1f)
	}
	return name.String()
}

// sortByTime puts the answers that teach, and those that are scored, in the order
// of time; answers of the same second keep their order.
func (a *Answers) sortByTime() {
	order := make([]int, a.Len())
	for i := range order {
		order[i] = i
	}
	byTime := func(part []int) {
		sort.SliceStable(part, func(x, y int) bool { return a.Time[part[x]] < a.Time[part[y]] })
	}
	byTime(order[:a.Scored])
	byTime(order[a.Scored:])
	a.Learner = pick(a.Learner, order)
	a.Item = pick(a.Item, order)
	a.Skill = pick(a.Skill, order)
	a.Time = pick(a.Time, order)
	a.Score = pick(a.Score, order)
	if a.Took != nil {
		a.Took = pick(a.Took, order)
	}
}

func pick[T any](column []T, order []int) []T {
	out := make([]T, len(order))
	for i, j := range order {
		out[i] = column[j]
	}
	return out
}
