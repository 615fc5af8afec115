package export_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/parquet-go/parquet-go"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/store/export"
	"github.com/leerstroom/leerstroom/transform"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

var created = time.Date(2026, 11, 23, 10, 15, 0, 0, time.UTC)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	connection, _ := enginetest.ClickHouse(t)
	db := clickhouse.OpenDB(&clickhouse.Options{Addr: connection.Addresses, Auth: clickhouse.Auth{Username: connection.User, Password: connection.Password}})
	if err := errors.Join(store.Migrate(t.Context(), db, store.Schema(), store.MigrateOptions{Database: connection.Database}, nil), db.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{Addresses: connection.Addresses, User: connection.User, Password: connection.Password,
		Database: connection.Database, MaxDelay: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return s
}

// expected is what brute force makes of the answers to an exercise.
type expected struct {
	goal     string
	answers  int64
	learners map[answer.Token]float64 // score of the first answer
	schools  map[string]bool
}

// archive stores answers to 60 exercises of two publishers by ever more learners
// of ever more schools.
func archive(t *testing.T, s *store.Store, seed uint64) map[string]*expected {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	c, want := named(), make(map[string]*expected)
	for row := range 4000 {
		e := random.IntN(60)
		learner := random.IntN(1+e) * 7 % 80 // the later exercises have more learners
		if e%5 == 0 {
			learner %= 20 // of two schools only
		}
		score := float64(random.IntN(2))
		if e == 59 {
			score = 1
		}
		var id answer.EventID
		binary.BigEndian.PutUint64(id[:], random.Uint64())
		c.EventID = append(c.EventID, id)
		c.Publisher.Codes = append(c.Publisher.Codes, int32(e%2))
		c.School.Codes = append(c.School.Codes, int32(learner/10))
		c.Learner.Codes = append(c.Learner.Codes, int32(learner))
		c.Group.Codes, c.Subject.Codes = append(c.Group.Codes, 0), append(c.Subject.Codes, 0)
		c.Exercise.Codes, c.Goal.Codes = append(c.Exercise.Codes, int32(e)), append(c.Goal.Codes, int32(e))
		c.YearGroup, c.Kind, c.Attempt = append(c.YearGroup, 5), append(c.Kind, 1), append(c.Attempt, 1)
		c.Score, c.ResponseTime = append(c.Score, score), append(c.ResponseTime, -1)
		c.AnsweredAt, c.Revision = append(c.AnsweredAt, 1_795_000_000_000+int64(row)), append(c.Revision, 0)

		key := answer.ItemKey(c.Publisher.Values[e%2], c.Exercise.Values[e])
		if want[key] == nil {
			want[key] = &expected{goal: c.Goal.Values[e], learners: make(map[answer.Token]float64), schools: make(map[string]bool)}
		}
		w := want[key]
		w.answers++
		w.schools[c.School.At(row)] = true
		if _, again := w.learners[c.Learner.At(row)]; !again {
			w.learners[c.Learner.At(row)] = score
		}
	}
	c.Rows = len(c.EventID)
	if err := s.Archive(t.Context(), 0, c, nil, nil); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	if err := s.Checkpoint(t.Context(), &transform.Checkpoint{Position: c.Position(c.Rows - 1), Durable: func(err error) { done <- err }}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return want
}

// named returns columns without rows in which all names are known.
func named() *answer.Columns {
	c := &answer.Columns{RawOffset: 0, KeyEpoch: 1}
	c.Publisher.Values, c.Subject.Values, c.Group.Values = []string{"bingel", "delta"}, []string{"rekenen"}, []string{""}
	for e := range 60 {
		c.Exercise.Values = append(c.Exercise.Values, fmt.Sprintf("opgave-%d", e))
		c.Goal.Values = append(c.Goal.Values, []string{"", "optellen", "tafels"}[e%3])
	}
	for school := range 8 {
		c.School.Values = append(c.School.Values, fmt.Sprintf("%02dXY00", school))
		for learner := range 10 {
			var token [16]byte
			binary.BigEndian.PutUint64(token[:], uint64(100*school+learner+1))
			c.Learner.Values = append(c.Learner.Values, answer.MintToken(token))
		}
	}
	return c
}

// saveDifficulties gives every exercise, goal and the whole a component; some
// come in a later version.
func saveDifficulties(t *testing.T, s *store.Store, want map[string]*expected) map[string]float64 {
	t.Helper()
	difficulty := make(map[string]float64)
	for version := range uint64(2) {
		var rows transform.SnapshotRows
		add := func(component transform.Component, key, goal string, mean float64) {
			rows.Append(&transform.SnapshotRows{Component: []transform.Component{component}, Key: []string{key}, Goal: []string{goal}, Subject: []string{"rekenen"},
				Mean: []float64{mean}, Variance: []float64{0.01}, Gradient: []int64{0}, Information: []int64{0}, Answers: []int64{5}, ScoreSum: []int64{3 << 32}}, 0)
		}
		i := 0
		for key, w := range want {
			own := float64(len(key))/10 + float64(version)
			add(transform.ComponentItem, key, w.goal, own)
			difficulty[key] = own + 0.125
			if w.goal != "" {
				difficulty[key] += 0.25
			}
			i++
		}
		for _, goal := range []string{"optellen", "tafels"} {
			add(transform.ComponentGoal, goal, "", 0.25)
		}
		add(transform.ComponentGlobal, "", "", 0.125)
		if err := s.SaveSnapshot(t.Context(), version+1, &rows); err != nil {
			t.Fatal(err)
		}
	}
	return difficulty
}

func TestWriteDifficulty(t *testing.T) {
	t.Parallel()
	const seed = 5
	t.Logf("seed %d", seed)
	s := openStore(t)
	want := archive(t, s, seed)
	difficulty := saveDifficulties(t, s, want)
	out := filepath.Join(t.TempDir(), "exports")
	directory, err := export.WriteDifficulty(t.Context(), s, out, created)
	if err != nil {
		t.Fatal(err)
	}
	if base := filepath.Base(directory); base != "difficulty-20261123T101500Z" {
		t.Errorf("directory %s, want difficulty-20261123T101500Z", base)
	}
	rows, err := parquet.ReadFile[export.Difficulty](filepath.Join(directory, "difficulty.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	kept, capped := 0, 0
	got := make(map[string]export.Difficulty)
	for _, r := range rows {
		got[answer.ItemKey(r.Publisher, r.Exercise)] = r
	}
	for key, w := range want {
		row, there := got[key]
		if enough := len(w.learners) >= 10 && len(w.schools) >= 3; there != enough {
			t.Errorf("exercise with %d learners of %d schools: there = %v, want %v", len(w.learners), len(w.schools), there, enough)
		}
		if there {
			kept++
			checkRow(t, row, w, difficulty[key])
			if row.ProportionCorrect == 0.95 {
				capped++
			}
		}
	}
	if kept == 0 || kept == len(want) || kept != len(rows) || capped == 0 {
		t.Errorf("%d rows, %d of %d exercises kept, %d capped: the test has to have some of each", len(rows), kept, len(want), capped)
	}
	checkRelease(t, directory, len(rows))
	checkMetadata(t, filepath.Join(directory, "difficulty.parquet"), rows)
	if _, err := export.WriteDifficulty(t.Context(), s, out, created); !errors.Is(err, os.ErrExist) {
		t.Errorf("WriteDifficulty of the same moment = %v, want os.ErrExist", err)
	}
}

// checkRelease holds the checksums against the files and searches them for what
// must not leave.
func checkRelease(t *testing.T, directory string, rows int) {
	t.Helper()
	sums, err := os.ReadFile(filepath.Join(directory, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		content, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			t.Fatal(err)
		}
		if digest := sha256.Sum256(content); hex.EncodeToString(digest[:]) != sum {
			t.Errorf("%s: checksum differs", name)
		}
		if strings.Contains(string(content), "XY00") {
			t.Errorf("%s names a school", name)
		}
		names = append(names, name)
	}
	if want := []string{"LEESMIJ.md", "README.md", "dictionary.json", "difficulty.parquet", "manifest.json"}; !slices.Equal(slices.Sorted(slices.Values(names)), want) {
		t.Errorf("files = %v, want %v", names, want)
	}
	var m export.Manifest
	text, err := os.ReadFile(filepath.Join(directory, "manifest.json"))
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || m.Rows != rows || m.Class != "A" || m.SnapshotVersion != 2 || !m.Created.Equal(created) || len(m.Files) != 4 {
		t.Errorf("manifest = %+v, %v, want %d rows of class A", m, err, rows)
	}
}

// checkMetadata looks for the class in the Parquet file, and for statistics that
// say more than the rows.
func checkMetadata(t *testing.T, path string, rows []export.Difficulty) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parquet.OpenFile(f, stat.Size())
	if err != nil {
		t.Fatal(err)
	}
	if class, ok := file.Lookup("class"); !ok || class != "A" {
		t.Errorf("class = %q, want A", class)
	}
	least, most := int64(math.MaxInt64), int64(0)
	for _, r := range rows {
		least, most = min(least, r.Learners), max(most, r.Learners)
	}
	for _, group := range file.Metadata().RowGroups {
		for _, column := range group.Columns {
			s := column.MetaData.Statistics
			if column.MetaData.BloomFilterOffset != 0 {
				t.Errorf("column %v has a filter", column.MetaData.PathInSchema)
			}
			if column.MetaData.PathInSchema[0] != "learners" {
				continue
			}
			if low, high := binary.LittleEndian.Uint64(s.MinValue), binary.LittleEndian.Uint64(s.MaxValue); int64(low) != least || int64(high) != most {
				t.Errorf("bounds of learners are %d to %d, want those of the rows, %d to %d", low, high, least, most)
			}
		}
	}
}

// TestFailedExportLeavesNothing: nothing appears under a release's name unless it
// is whole.
func TestFailedExportLeavesNothing(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	want := archive(t, s, 6)
	saveDifficulties(t, s, want)
	out := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := export.WriteDifficulty(ctx, s, out, created); err == nil {
		t.Error("WriteDifficulty with an ended context succeeded")
	}
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v, want nothing", entries, err)
	}
}

// checkRow compares a row with what brute force says.
func checkRow(t *testing.T, row export.Difficulty, w *expected, difficulty float64) {
	t.Helper()
	sum := 0.0
	for _, score := range w.learners {
		sum += score
	}
	proportion := min(max(sum/float64(len(w.learners)), 0.05), 0.95)
	if row.Answers != w.answers || row.Learners != int64(len(w.learners)) || row.Schools != int64(len(w.schools)) ||
		math.Abs(row.ProportionCorrect-proportion) > 0.00051 || math.Abs(row.Difficulty-difficulty) > 0.00051 {
		t.Errorf("row = %+v, want answers %d, learners %d, schools %d, proportion %f, difficulty %f", row, w.answers, len(w.learners), len(w.schools), proportion, difficulty)
	}
	if (row.Goal == nil) != (w.goal == "") || row.Goal != nil && *row.Goal != w.goal {
		t.Errorf("goal = %v, want %q", row.Goal, w.goal)
	}
	variance := 0.02
	if w.goal != "" {
		variance = 0.03
	}
	if math.Abs(row.StandardError-math.Sqrt(variance)) > 0.00051 {
		t.Errorf("standard error = %f, want %f", row.StandardError, math.Sqrt(variance))
	}
}
