package bench

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func testPopulation(t testing.TB, config PopulationConfig) *Population {
	t.Helper()
	p, err := NewPopulation(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testWorkload(t testing.TB, p *Population, config WorkloadConfig) *Workload {
	t.Helper()
	w, err := NewWorkload(p, config)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// drain returns the rows of a school.
func drain(w *Workload, school int) []Row {
	var rows []Row
	s := w.School(school)
	for more := true; more; {
		rows, more = s.NextSlot(rows)
	}
	return rows
}

// TestGolden holds the stream against a stored hash and a few stored lines: a
// changed simulator would silently make figures incomparable.
func TestGolden(t *testing.T) {
	t.Parallel()
	p := testPopulation(t, PopulationConfig{Seed: 7, Schools: 3, Learners: 40})
	w := testWorkload(t, p, WorkloadConfig{Answers: 3000, LateShare: 0.05, RepeatShare: 0.05})
	lines := newLineWriter(p)
	var answers, tests []byte
	for school := range p.Schools {
		for _, row := range drain(w, school) {
			answers = lines.appendAnswer(answers, &row)
		}
	}
	results := p.TestResults(200)
	for i := range results {
		tests = lines.appendTestResult(tests, &results[i])
	}
	sum := func(b []byte) string { h := sha256.Sum256(b); return hex.EncodeToString(h[:]) }
	head := func(b []byte) string { return string(bytes.Join(bytes.SplitAfterN(b, []byte("\n"), 4)[:3], nil)) }
	got := head(answers) + head(tests) + "answers " + sum(answers) + "\ntest results " + sum(tests) + "\n"
	file := filepath.Join("testdata", "workload.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("workload of seed 7 =\n%s\nwant\n%s\nrun with -update when the change is meant", got, want)
	}
}

// TestLinesAreJSON reads the hand-rendered lines with the standard library and
// compares them with the rows.
func TestLinesAreJSON(t *testing.T) {
	t.Parallel()
	p := testPopulation(t, PopulationConfig{Seed: 1, Schools: 2, Learners: 60})
	w := testWorkload(t, p, WorkloadConfig{Answers: 2000})
	lines := newLineWriter(p)
	for _, row := range drain(w, 1) {
		var got struct {
			ID, Publisher, School, Group, Exercise, Goal, Subject, Kind string
			Learner                                                     struct{ Scheme, Value string }
			YearGroup                                                   uint8 `json:"year_group"`
			Score                                                       float64
			Attempt                                                     uint16
			ResponseTime                                                *int32    `json:"response_time_ms"`
			AnsweredAt                                                  time.Time `json:"answered_at"`
		}
		line := lines.appendAnswer(nil, &row)
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatalf("decode line: %v", err)
		}
		learner := p.Learners[row.Learner]
		if got.AnsweredAt.UnixMilli() != row.AnsweredAt || (got.ResponseTime == nil) != (row.ResponseTime < 0) ||
			got.Publisher+":"+got.Exercise != p.ItemKey(int(row.Item)) || got.School != p.Schools[1].Code ||
			got.Learner.Value != p.Identifier(int(row.Learner), got.Learner.Scheme) ||
			got.Group != learner.Group || got.YearGroup != learner.YearGroup || got.Attempt != row.Attempt ||
			(got.Score == 1) != row.Right || got.Kind != "practice" || got.Goal != p.Goals[p.Items[row.Item].Goal].Key {
			t.Fatalf("line differs from row %+v: %+v", row, got)
		}
		if hour := got.AnsweredAt.In(time.FixedZone("local", amsterdamOffset(int(row.AnsweredAt/dayMS))*60)).Hour(); hour < 8 || hour > 15 {
			t.Fatalf("answered at %v, outside school hours", got.AnsweredAt)
		}
	}
	results := p.TestResults(300)
	for i := range results {
		var got map[string]any
		if err := json.Unmarshal(lines.appendTestResult(nil, &results[i]), &got); err != nil {
			t.Fatalf("decode test result: %v", err)
		}
		if got["right"].(float64)+got["wrong"].(float64) != got["made"].(float64) || got["score"] != got["right"] {
			t.Fatalf("counts of a test result do not add up: %v", got)
		}
	}
}

// TestOrder checks that a learner's answers leave in order of time, that event
// ids are unique, and that the untidy shares do what they say.
func TestOrder(t *testing.T) {
	t.Parallel()
	p := testPopulation(t, PopulationConfig{Seed: 2, Schools: 1, Learners: 100})
	check := func(config WorkloadConfig) (backward, repeats int) {
		w := testWorkload(t, p, config)
		newest := map[int32]int64{}
		seen := map[uint32]bool{}
		for _, row := range drain(w, 0) {
			if seen[row.Sequence] {
				repeats++
				continue
			}
			seen[row.Sequence] = true
			if row.AnsweredAt <= newest[row.Learner] {
				backward++
			}
			newest[row.Learner] = max(newest[row.Learner], row.AnsweredAt)
		}
		if len(seen) != config.Answers {
			t.Errorf("distinct answers = %d, want %d", len(seen), config.Answers)
		}
		return backward, repeats
	}
	if backward, repeats := check(WorkloadConfig{Answers: 20_000}); backward != 0 || repeats != 0 {
		t.Errorf("tidy stream: %d backward, %d repeats, want none", backward, repeats)
	}
	backward, repeats := check(WorkloadConfig{Answers: 20_000, LateShare: 0.1, RepeatShare: 0.1})
	if share := float64(repeats) / 20_000; share < 0.07 || share > 0.13 {
		t.Errorf("repeat share = %.3f, want about 0.1", share)
	}
	if backward == 0 {
		t.Errorf("a stream with late sessions has no answer out of order")
	}
}

// TestAfter checks that a workload and what comes after it are the longer one,
// each answer once.
func TestAfter(t *testing.T) {
	t.Parallel()
	p := testPopulation(t, PopulationConfig{Seed: 8, Schools: 3, Learners: 30})
	short := testWorkload(t, p, WorkloadConfig{Answers: 1000})
	long := testWorkload(t, p, WorkloadConfig{Answers: 5000})
	rest := long.After(short, 2)
	for school := range p.Schools {
		want := drain(long, school)
		got := append(drain(short, school), drain(rest, school)...)
		if school == 2 {
			want = drain(short, school)
		}
		less := func(a, b Row) int { return int(a.Sequence) - int(b.Sequence) }
		slices.SortFunc(want, less)
		slices.SortFunc(got, less)
		if !slices.Equal(got, want) {
			t.Errorf("school %d: %d answers in two workloads differ from %d in one", school, len(got), len(want))
		}
	}
}

// TestFeedKeepsAll compares the bodies of all feeds with the rows of all
// schools.
func TestFeedKeepsAll(t *testing.T) {
	t.Parallel()
	p := testPopulation(t, PopulationConfig{Seed: 3, Schools: 7, Learners: 50})
	w := testWorkload(t, p, WorkloadConfig{Answers: 9_999, LateShare: 0.03})
	ids := map[string]bool{}
	id := regexp.MustCompile(`^\{"id":"([^"]+)"`)
	for index := range 3 {
		f := newFeed(w, newLineWriter(p), index, 3, 500)
		for bodies := f.next(); len(bodies) > 0; bodies = f.next() {
			for _, b := range bodies {
				lines := strings.Split(strings.TrimSuffix(string(b.data), "\n"), "\n")
				if len(lines) != b.rows || b.rows > 500 {
					t.Fatalf("body has %d lines, says %d, limit 500", len(lines), b.rows)
				}
				for _, line := range lines {
					if !strings.Contains(line, `"publisher":"`+p.Publishers[b.publisher].ID+`"`) {
						t.Fatalf("line of another publisher in a body of %s", p.Publishers[b.publisher].ID)
					}
					ids[id.FindStringSubmatch(line)[1]] = true
				}
			}
		}
	}
	if len(ids) != w.Answers() {
		t.Errorf("feeds gave %d distinct answers, want %d", len(ids), w.Answers())
	}
}

// TestTruth checks that success follows the logistic model: the expected and
// the observed share of right answers agree, over all and in bins.
func TestTruth(t *testing.T) {
	t.Parallel()
	p := testPopulation(t, PopulationConfig{Seed: 4, Schools: 4, Learners: 200})
	w := testWorkload(t, p, WorkloadConfig{Answers: 200_000})
	var expected, right, n [10]float64
	for school := range p.Schools {
		for _, row := range drain(w, school) {
			difficulty, ok := p.TrueDifficulty(p.ItemKey(int(row.Item)))
			if !ok {
				t.Fatalf("no difficulty of an item that was answered")
			}
			skill := p.TrueSkill(int(row.Learner), p.Goals[p.Items[row.Item].Goal].Key)
			chance := 1 / (1 + math.Exp(difficulty-skill))
			bin := min(int(chance*10), 9)
			expected[bin] += chance
			n[bin]++
			if row.Right {
				right[bin]++
			}
		}
	}
	for bin := range n {
		if n[bin] < 500 {
			continue
		}
		e := expected[bin] / n[bin]
		if se := math.Sqrt(e * (1 - e) / n[bin]); math.Abs(right[bin]/n[bin]-e) > 5*se {
			t.Errorf("bin %d: success %.4f, model says %.4f (%.0f answers)", bin, right[bin]/n[bin], e, n[bin])
		}
	}
}

// TestIdentifiers checks form and uniqueness of the synthetic identifiers.
func TestIdentifiers(t *testing.T) {
	t.Parallel()
	p := testPopulation(t, PopulationConfig{Seed: 5, Schools: 5, Learners: 100})
	form := map[string]*regexp.Regexp{
		"eckid":      regexp.MustCompile(`^https://ketenid\.nl/201703/[0-9a-f]{128}$`),
		"basispoort": regexp.MustCompile(`^[0-9]{8}$`),
		"las":        regexp.MustCompile(`^L-[0-9]{4,}$`),
		"publisher":  regexp.MustCompile(`^u-[0-9a-f]{16}$`),
	}
	for scheme, want := range form {
		seen := map[string]bool{}
		for i := range p.Learners {
			value := p.Identifier(i, scheme)
			if !want.MatchString(value) {
				t.Fatalf("identifier of scheme %s has another form than %s", scheme, want)
			}
			if scheme == "las" {
				value += p.Schools[p.Learners[i].School].Code
			}
			if seen[value] {
				t.Fatalf("two learners share an identifier of scheme %s", scheme)
			}
			seen[value] = true
		}
	}
	codes := map[string]bool{}
	for i := range maxSchools {
		codes[schoolCode(i)] = true
	}
	if len(codes) != maxSchools {
		t.Errorf("school codes: %d distinct, want %d", len(codes), maxSchools)
	}
}

func TestCalendar(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		start, want string // want: the first slot in UTC
	}{
		{"2026-11-23", "2026-11-23T07:45:00Z"}, // winter time
		{"2026-09-05", "2026-09-07T06:45:00Z"}, // Saturday, summer time
		{"2026-10-15", "2026-10-22T06:45:00Z"}, // autumn holiday
		{"2026-12-22", "2027-01-05T07:45:00Z"}, // Christmas
		{"2027-03-28", "2027-03-29T06:45:00Z"}, // clocks changed on Sunday
	} {
		start, err := time.Parse(time.DateOnly, test.start)
		if err != nil {
			t.Fatal(err)
		}
		c := newCalendar(start)
		if got := time.UnixMilli(c.start()).UTC().Format(time.RFC3339); got != test.want {
			t.Errorf("first slot from %s = %s, want %s", test.start, got, test.want)
		}
	}
	c := newCalendar(time.Date(2026, time.November, 25, 0, 0, 0, 0, time.UTC)) // a Wednesday
	c.next()
	c.next()
	if got := time.UnixMilli(c.start()).UTC().Format(time.RFC3339); got != "2026-11-26T07:45:00Z" {
		t.Errorf("third slot from a Wednesday = %s, want Thursday morning", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []PopulationConfig{{Schools: -1}, {Schools: 1 << 20}, {Learners: 5001}, {ExercisesPerGoal: -1}} {
		if _, err := NewPopulation(c); err == nil {
			t.Errorf("NewPopulation(%+v) = nil error", c)
		}
	}
	p := testPopulation(t, PopulationConfig{Schools: 1, Learners: 10})
	for _, c := range []WorkloadConfig{{Answers: -1}, {SessionAnswers: 101}, {LateShare: 0.8, RepeatShare: 0.3}, {LateShare: math.NaN()}} {
		if _, err := NewWorkload(p, c); err == nil {
			t.Errorf("NewWorkload(%+v) = nil error", c)
		}
	}
}

func BenchmarkLines(b *testing.B) {
	p := testPopulation(b, PopulationConfig{Schools: 4})
	w := testWorkload(b, p, WorkloadConfig{Answers: 1 << 30})
	lines := newLineWriter(p)
	s := w.School(0)
	var rows []Row
	var dst []byte
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		rows, _ = s.NextSlot(rows[:0])
		dst = dst[:0]
		for i := range rows {
			dst = lines.appendAnswer(dst, &rows[i])
		}
		n += len(rows)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(len(dst))/float64(len(rows)), "B/row")
}
