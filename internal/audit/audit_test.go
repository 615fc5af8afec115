package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 26, 23, 30, 0, 0, time.UTC)} }

func openLog(t *testing.T, directory string, config Config, c *clock) *Log {
	t.Helper()
	l, err := open(directory, config, nil, c.time)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func appendRecord(t *testing.T, l *Log, r Record) {
	t.Helper()
	if err := l.Append(r); err != nil {
		t.Fatal(err)
	}
}

func records(t *testing.T, directory string, filter Filter) (all []Record, damaged int) {
	t.Helper()
	damaged, err := Read(directory, filter, func(r *Record) error {
		all = append(all, *r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, damaged
}

func about(school string, asked int) Record {
	return Record{Action: ActionPseudonyms, Outcome: OutcomeServed, Key: "key-1", Role: "engine", Purpose: "engine/slim", School: school, Asked: asked, Given: asked - 1}
}

// Many at once, from two processes' worth of logs: every record is there once,
// whole, and across the change of files.
func TestEveryAppendIsOneRecord(t *testing.T) {
	t.Parallel()
	const writers, each = 16, 40
	directory, c := filepath.Join(t.TempDir(), "audit"), newClock()
	logs := []*Log{openLog(t, directory, Config{RotateEvery: time.Hour}, c), openLog(t, directory, Config{RotateEvery: time.Hour}, c)}
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if err := logs[w%2].Append(about(fmt.Sprintf("%02dAB00", w), i+1)); err != nil {
					t.Error(err)
				}
				c.pass(5 * time.Second)
			}
		})
	}
	writing.Wait()
	seen := make(map[string]int)
	all, damaged := records(t, directory, Filter{})
	for _, r := range all {
		seen[fmt.Sprint(r.School, r.Asked)]++
	}
	if len(all) != writers*each || len(seen) != writers*each || damaged != 0 {
		t.Errorf("%d records, %d different, %d damaged lines, want %d, %[4]d, 0", len(all), len(seen), damaged, writers*each)
	}
	names, err := files(directory)
	if err != nil || len(names) < 2 {
		t.Errorf("files = %v, %v, want one per hour", names, err)
	}
	want := about("03AB00", 7)
	mine, _ := records(t, directory, Filter{School: "03AB00"})
	if len(mine) != each {
		t.Fatalf("%d records of one school, want %d", len(mine), each)
	}
	for _, r := range mine {
		if r.Asked == 7 {
			want.At = r.At
			if r != want {
				t.Errorf("record = %+v, want %+v", r, want)
			}
		}
	}
}

func TestRecordsAreKeptAsLongAsConfigured(t *testing.T) {
	t.Parallel()
	directory, c := t.TempDir(), newClock()
	c.now = time.Now() // files have the time of the system
	l := openLog(t, directory, Config{RotateEvery: time.Hour, Keep: 3 * time.Hour}, c)
	for hour := range 6 {
		appendRecord(t, l, about("12AB00", hour+1))
		stamp := c.time()
		name := stamp.UTC().Truncate(time.Hour).Format(fileForm)
		if err := os.Chtimes(filepath.Join(directory, name), stamp, stamp); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Hour)
	}
	if err := os.WriteFile(filepath.Join(directory, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	appendRecord(t, l, about("12AB00", 7))
	all, _ := records(t, directory, Filter{})
	if len(all) != 4 || all[0].Asked != 4 {
		t.Errorf("%d records from %d on are left, want the four of the last three hours", len(all), all[0].Asked)
	}
	if _, err := os.Stat(filepath.Join(directory, "notes.txt")); err != nil {
		t.Errorf("a file that is none of the log's: %v", err)
	}
	from, until := all[1].At, all[3].At
	if some, _ := records(t, directory, Filter{From: from, Until: until}); len(some) != 2 {
		t.Errorf("%d records from the second until before the fourth, want 2", len(some))
	}
}

// A crash leaves half a line: what follows stands on a line of its own.
func TestTornLineHurtsNoOther(t *testing.T) {
	t.Parallel()
	directory, c := t.TempDir(), newClock()
	l := openLog(t, directory, Config{}, c)
	appendRecord(t, l, about("12AB00", 1))
	path := filepath.Join(directory, c.time().Truncate(24*time.Hour).Format(fileForm))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(whole, whole[:len(whole)/2]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, damaged := records(t, directory, Filter{}); len(all) != 1 || damaged != 0 {
		t.Errorf("%d records, %d damaged before anything follows, want 1, 0", len(all), damaged)
	}
	appendRecord(t, openLog(t, directory, Config{}, c), about("12AB00", 2))
	all, damaged := records(t, directory, Filter{})
	if len(all) != 2 || damaged != 1 || all[1].Asked != 2 {
		t.Errorf("%d records, %d damaged, want 2 and the torn one", len(all), damaged)
	}
	status, err := os.Stat(path)
	if err != nil || status.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", status.Mode(), err)
	}
}

// What can't be written is an error, so that the request is not answered; when
// the cause is gone, the log goes on.
func TestFailureIsAnError(t *testing.T) {
	t.Parallel()
	directory, c := t.TempDir(), newClock()
	l := openLog(t, directory, Config{}, c)
	good := l.file
	readOnly, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	l.file = readOnly
	if err := l.Append(about("12AB00", 1)); err == nil {
		t.Error("Append to a file that can't be written = nil, want an error")
	}
	l.file = good
	appendRecord(t, l, about("12AB00", 2))
	if all, damaged := records(t, directory, Filter{}); len(all) != 1 || damaged != 0 {
		t.Errorf("%d records, %d damaged, want 1, 0", len(all), damaged)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(about("12AB00", 3)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Append after Close = %v, want %v", err, os.ErrClosed)
	}
	if _, err := Open(filepath.Join(directory, "file"), Config{RotateEvery: time.Minute}, nil); err == nil || !strings.Contains(err.Error(), "rotate_every") {
		t.Errorf("Open with a file per minute = %v, want an error about rotate_every", err)
	}
	if _, err := Open(filepath.Join(directory, "file"), Config{Keep: time.Hour}, nil); err == nil || !strings.Contains(err.Error(), "keep") {
		t.Errorf("Open that keeps less than a file = %v, want an error about keep", err)
	}
	if n, err := Read(filepath.Join(directory, "none"), Filter{}, nil); n != 0 || err != nil {
		t.Errorf("Read of a log that is not there = %d, %v, want 0, nil", n, err)
	}
}

func TestLongLinesAreDamage(t *testing.T) {
	t.Parallel()
	directory, c := t.TempDir(), newClock()
	if err := os.WriteFile(filepath.Join(directory, "20261125T000000Z.jsonl"), []byte(strings.Repeat("x", 3*maxLineBytes)+"\n{}\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	appendRecord(t, openLog(t, directory, Config{}, c), about("12AB00", 2))
	if all, damaged := records(t, directory, Filter{}); len(all) != 1 || damaged != 3 {
		t.Errorf("%d records, %d damaged, want 1, 3", len(all), damaged)
	}
}

// Whatever stands in a file: no panic, and what is read as a record has what a
// record must have.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"at":"2026-11-26T10:00:00Z","action":"names","outcome":"served","key":"k","role":"school","asked":1,"given":1}`, "\xff", `{"at":1}`, "[1]", "{}{}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var r Record
		if parse(line, &r) && (r.Action == "" || r.At.IsZero()) {
			t.Errorf("parse(%q) = %+v", line, r)
		}
	})
}
