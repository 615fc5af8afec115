// Package audit keeps the log of who saw which learners and who changed what is
// known of them: one record for each request that turned identifiers into tokens
// or tokens into names, or that showed learners of a group, and two for each
// command that changed identities or keys: before it, and how it ended.
//
// The log is a directory of files with one JSON object per line; a file is named
// after the moment at which its period begins, in UTC, such as
// 20261126T000000Z.jsonl. Several processes may append to the same directory.
//
// Invariants:
//   - A record is on disk before the request that it is about is answered, or
//     the command begins: n answers have n records, whenever the machine loses
//     power.
//   - A record says who, what for, which school, how many and when. It holds no
//     identifier, no name and no token.
//   - Files are only appended to. One whose last record is older than it is kept
//     for is deleted as a whole.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Actions of a record.
const (
	ActionPseudonyms = "pseudonyms"     // identifiers became tokens
	ActionNames      = "names"          // tokens of a group became names
	ActionOverview   = "group_overview" // skills of the learners of a group were shown

	ActionRosterImport   = "roster_import"   // of a command: asked and given are lines
	ActionRosterPlan     = "roster_plan"     // the same without a change
	ActionRosterMerge    = "roster_merge"    // two learners became one
	ActionRosterReassign = "roster_reassign" // identifiers were given to other learners
	ActionErase          = "erase"
	ActionKeysCreate     = "keys_create"
	ActionKeysRotate     = "keys_rotate"
	ActionKeysRetire     = "keys_retire"
)

// OutcomeServed is the outcome of a request that was answered; another outcome
// of a request is the code of the problem that the caller got.
const OutcomeServed = "served"

// Outcomes of a command. One that was killed has only begun; one that failed, or
// left lines of a roster out, may have changed what Given counts.
const (
	OutcomeBegun  = "begun"
	OutcomeDone   = "done"
	OutcomeFailed = "failed"
)

// Record is one line of the log.
type Record struct {
	At       time.Time `json:"at"` // UTC, milliseconds; Append fills it in
	Action   string    `json:"action"`
	Outcome  string    `json:"outcome"`
	Key      string    `json:"key,omitempty"`      // id of the API key, not the key
	Operator string    `json:"operator,omitempty"` // account that ran a command
	Role     string    `json:"role"`
	Purpose  string    `json:"purpose,omitempty"` // that the tokens are for
	Subject  string    `json:"subject,omitempty"` // key epoch, or id of a sealing key
	School   string    `json:"school,omitempty"`
	Group    string    `json:"group,omitempty"` // one that exists
	Asked    int       `json:"asked"`           // learners, identifiers or lines that it was about
	Given    int       `json:"given"`           // those that the reply tells about, or that were changed
}

// Config says how long the log is kept.
type Config struct {
	// RotateEvery is how long one file is written to (default 24h).
	RotateEvery time.Duration `yaml:"rotate_every"`
	// Keep is how long a record is kept at least (default 13140h, one and a half
	// years); a file goes as a whole.
	Keep time.Duration `yaml:"keep"`
}

const (
	defaultRotateEvery = 24 * time.Hour
	defaultKeep        = 13140 * time.Hour
	shortest           = time.Hour
)

// SetDefaults fills in what is left out.
func (c *Config) SetDefaults() {
	if c.RotateEvery == 0 {
		c.RotateEvery = defaultRotateEvery
	}
	if c.Keep == 0 {
		c.Keep = defaultKeep
	}
}

// Validate names the first field that is wrong.
func (c *Config) Validate() error {
	switch {
	case c.RotateEvery < shortest:
		return errors.New("rotate_every: at least 1h")
	case c.Keep < c.RotateEvery:
		return errors.New("keep: at least rotate_every")
	}
	return nil
}

// Log appends records. It is safe for concurrent use.
type Log struct {
	directory string
	config    Config
	now       func() time.Time
	logger    *slog.Logger

	mu      sync.Mutex // of what is written
	file    *os.File
	period  time.Time
	line    []byte
	torn    bool // the file ends within a line
	closed  bool
	written int64 // records
	err     error // of a sync: what came before it may be lost

	syncing sync.Mutex // of what is on disk; taken before mu
	synced  int64      // records
}

// Open opens the log in a directory, which it makes when it is missing.
func Open(directory string, config Config, logger *slog.Logger) (*Log, error) {
	return open(directory, config, logger, time.Now)
}

func open(directory string, config Config, logger *slog.Logger, now func() time.Time) (*Log, error) {
	config.SetDefaults()
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	l := &Log{directory: directory, config: config, now: now, logger: logger}
	if err := l.rotate(now()); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return l, nil
}

// Append writes a record and returns when it is on disk. The answer to the
// request waits for that; after an error it must not be given.
func (l *Log) Append(r Record) error {
	number, err := l.write(&r)
	if err == nil {
		err = l.sync(number)
	}
	if err != nil {
		return fmt.Errorf("append to audit log: %w", err)
	}
	return nil
}

// write appends the record to the file and returns its number.
func (l *Log) write(r *Record) (number int64, err error) {
	now := l.now()
	r.At = now.UTC().Truncate(time.Millisecond)
	text, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	if err := l.enter(now); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return 0, os.ErrClosed
	}
	l.line = l.line[:0]
	if l.torn {
		l.line = append(l.line, '\n')
	}
	l.line = append(append(l.line, text...), '\n')
	n, err := l.file.Write(l.line) // one write: appending processes do not mix their lines
	if err != nil {
		l.torn = l.torn || n > 0
		return 0, err
	}
	l.torn = false
	l.written++
	return l.written, nil
}

// enter makes sure that the file is that of the period.
func (l *Log) enter(now time.Time) error {
	period := now.UTC().Truncate(l.config.RotateEvery)
	l.mu.Lock()
	current := l.current(period)
	l.mu.Unlock()
	if current {
		return nil
	}
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current(period) { // somebody else was faster
		return nil
	}
	return l.rotate(now)
}

// current tells whether the file of a period is open, or none ever will be.
func (l *Log) current(period time.Time) bool {
	return l.closed || l.file != nil && period.Equal(l.period)
}

// sync makes the records up to a number durable. Those who wait meanwhile share
// the next turn.
func (l *Log) sync(number int64) error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if l.synced >= number {
		return nil
	}
	l.mu.Lock()
	file, written, err := l.file, l.written, l.err
	l.mu.Unlock()
	switch {
	case err != nil:
		return err
	case file == nil:
		return os.ErrClosed
	}
	if err := file.Sync(); err != nil {
		// The kernel may have dropped the pages: a later success would say nothing
		// about them.
		l.mu.Lock()
		l.err = fmt.Errorf("an earlier record is not on disk, restart the process: %w", err)
		l.mu.Unlock()
		return err
	}
	l.synced = written
	return nil
}

// rotate ends the file of the last period and opens that of the one of now. Both
// locks are held, or nobody has the log yet.
func (l *Log) rotate(now time.Time) error {
	if err := l.finish(); err != nil {
		return err
	}
	period := now.UTC().Truncate(l.config.RotateEvery)
	path := filepath.Join(l.directory, period.Format(fileForm))
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	torn, err := endsInLine(file)
	if err == nil {
		err = syncDirectory(l.directory)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.file, l.period, l.torn = file, period, torn
	return l.expire(now)
}

// finish makes the file durable and closes it.
func (l *Log) finish() error {
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	if err != nil {
		return err
	}
	l.synced = l.written
	return nil
}

// endsInLine tells whether a file ends within a line, as after a crash.
func endsInLine(file *os.File) (bool, error) {
	status, err := file.Stat()
	if err != nil || status.Size() == 0 {
		return false, err
	}
	var last [1]byte
	if _, err := file.ReadAt(last[:], status.Size()-1); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return last[0] != '\n', nil
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// fileForm is the name of a file, as a layout of package time.
const fileForm = "20060102T150405Z.jsonl"

// expire deletes the files whose last record is older than it is kept for.
func (l *Log) expire(now time.Time) error {
	names, err := files(l.directory)
	if err != nil {
		return err
	}
	for _, name := range names {
		status, err := os.Stat(filepath.Join(l.directory, name))
		if errors.Is(err, fs.ErrNotExist) { // another process was faster
			continue
		}
		if err != nil {
			return err
		}
		if name == l.period.Format(fileForm) || now.Sub(status.ModTime()) <= l.config.Keep {
			continue
		}
		if err := os.Remove(filepath.Join(l.directory, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		l.logger.Warn("audit records are older than they are kept for: file deleted", "file", name)
	}
	return nil
}

// files returns the names of the files of a log, oldest first.
func files(directory string) ([]string, error) {
	entries, err := os.ReadDir(directory) // sorted by name, which is by time
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := time.Parse(fileForm, e.Name()); err == nil && e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".jsonl") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Close ends the log. Appending after it is an error.
func (l *Log) Close() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if err := l.finish(); err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}
