package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/leerstroom/leerstroom/ingest"
	"github.com/leerstroom/leerstroom/ingest/file"
	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

const partitions = 4

// destination is a connector on a real broker.
type destination struct {
	t      *testing.T
	url    string
	key    string
	client *stream.Client
	topic  string
	opener *seal.Opener
	fail   atomic.Int32 // requests to fail with 503 …
	after  atomic.Int32 // … after so many, counted down
}

func newDestination(t *testing.T) *destination {
	t.Helper()
	brokers := enginetest.Kafka(t)
	d := &destination{t: t, topic: enginetest.Topic(t, brokers, "raw", partitions)}
	private, err := seal.GenerateKey()
	must(t, err)
	d.opener, err = seal.NewOpener(private)
	must(t, err)
	sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: private.Public()})
	must(t, err)
	keys, err := access.Open(filepath.Join(t.TempDir(), "apikeys.json"))
	must(t, err)
	d.key, _, err = keys.Create(access.Scope{Role: access.RolePublisher, Publisher: "timss"})
	must(t, err)
	d.client, err = stream.NewClient(stream.Config{Brokers: brokers})
	must(t, err)
	t.Cleanup(d.client.Close)
	connector, err := ingest.New(ingest.Config{Authorisations: ingest.Authorisations{"99XX00": {"timss"}}},
		ingest.Parts{Client: d.client, Topic: d.topic, Partitions: partitions, Sealer: sealer, Keys: keys})
	must(t, err)
	mux := http.NewServeMux()
	connector.Register(mux)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.after.Add(-1) < 0 && d.fail.Add(-1) >= 0 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	d.url = server.URL
	t.Cleanup(func() {
		server.Close()
		connector.Close(context.Background())
	})
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rows opens everything in the topic.
func (d *destination) rows() (answers, results []string) {
	d.t.Helper()
	reader := raw.NewReader(d.opener, d.topic)
	for partition := range partitions {
		next, end, err := d.client.Offsets(d.t.Context(), d.topic, partition)
		must(d.t, err)
		var batch stream.Batch
		for next < end {
			must(d.t, d.client.Fetch(d.t.Context(), d.topic, partition, next, time.Second, &batch))
			for i := range batch.Messages {
				m := &batch.Messages[i]
				var a raw.Answers
				var r raw.TestResults
				must(d.t, reader.Read(string(m.Header(stream.HeaderSchema)), partition, m.Value, &a, &r))
				for i := range a.Rows {
					answers = append(answers, fmt.Sprint(string(a.EventID.At(i)), " ", a.Identity.At(i).Value, " ", a.Exercise.At(i), " ", a.Score[i], " ", a.AnsweredAt[i], " ", a.Group.At(i)))
				}
				for i := range r.Rows {
					results = append(results, fmt.Sprint(string(r.EventID.At(i)), " ", r.Identity.At(i).Value, " ", r.Test.At(i), " ", r.TakenOn[i], " ", r.Score[i], " ", r.Path[i], " ", r.NormKinds[i], " ", r.NormValues[i]))
				}
				next = m.Offset + 1
			}
		}
	}
	slices.Sort(answers)
	slices.Sort(results)
	return answers, results
}

func (d *destination) config(path, mapping string) file.Config {
	d.t.Helper()
	m, err := file.ParseMapping([]byte(mapping))
	must(d.t, err)
	return file.Config{Path: path, Mapping: m, BaseURL: d.url, Key: d.key, ChunkRows: 10}
}

const mapping = `
kind: answers
fields:
  id: {row: true, prefix: set-}
  publisher: {value: timss}
  school: {value: 99XX00}
  learner.scheme: {value: publisher}
  learner.value: {column: person, prefix: p-}
  group: {column: class, default: none}
  exercise: {column: item}
  kind: {value: practice}
  score: {column: correct, map: {"yes": "1", "no": "0", "half": "0.5"}}
  answered_at: {column: at, unit: s, since: "2005-08-01T00:00:00Z"}
`

type sample struct {
	Person  int64   `parquet:"person"`
	Item    string  `parquet:"item,dict"`
	Correct string  `parquet:"correct"`
	At      float64 `parquet:"at"`
	Class   *string `parquet:"class,optional"`
}

func samples(n int) []sample {
	out := make([]sample, n)
	class := "5A"
	for i := range out {
		out[i] = sample{Person: int64(i % 7), Item: fmt.Sprint("item ", i%11), Correct: []string{"yes", "no", "half"}[i%3], At: float64(i) + 0.25}
		if i%2 == 0 {
			out[i].Class = &class
		}
	}
	return out
}

// wanted is what the samples become.
func wanted(n int) []string {
	var out []string
	for i, s := range samples(n) {
		class := "none"
		if s.Class != nil {
			class = *s.Class
		}
		out = append(out, fmt.Sprint("set-", i+1, " p-", s.Person, " ", s.Item, " ", []float64{1, 0, 0.5}[i%3], " ", 1122854400000+int64(i)*1000+250, " ", class))
	}
	slices.Sort(out)
	return out
}

// write writes the samples in a format.
func write(t *testing.T, name string, n int) string {
	t.Helper()
	var text bytes.Buffer
	switch {
	case strings.Contains(name, ".parquet"):
		must(t, parquet.Write(&text, samples(n), parquet.MaxRowsPerRowGroup(16)))
	case strings.Contains(name, ".csv"):
		text.WriteString("\ufeffat,person,class,correct,item\n")
		for _, s := range samples(n) {
			class := ""
			if s.Class != nil {
				class = *s.Class
			}
			fmt.Fprintf(&text, "%v,%d,%s,%s,\"%s\"\n", s.At, s.Person, class, s.Correct, s.Item)
		}
	default:
		for _, s := range samples(n) {
			class := "null"
			if s.Class != nil {
				class = `"` + *s.Class + `"`
			}
			fmt.Fprintf(&text, "{\"person\":%d,\"item\":%q,\"correct\":%q,\"at\":%v,\"class\":%s,\"more\":[1,{\"x\":2}]}\n\n", s.Person, s.Item, s.Correct, s.At, class)
		}
	}
	content := text.Bytes()
	switch {
	case strings.HasSuffix(name, ".gz"):
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, err := w.Write(content)
		must(t, errors.Join(err, w.Close()))
		content = packed.Bytes()
	case strings.HasSuffix(name, ".zst"):
		w, err := zstd.NewWriter(nil)
		must(t, err)
		content = w.EncodeAll(content, nil)
	}
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, content, 0o600))
	return path
}

func TestFormatsGiveTheSameRows(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a.csv", "a.csv.gz", "a.ndjson", "a.jsonl.gz", "a.ndjson.zst", "a.parquet"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDestination(t)
			var last file.Progress
			config := d.config(write(t, name, 35), mapping)
			config.Progress = func(p file.Progress) { last = p }
			got, err := file.Run(t.Context(), config)
			if err != nil || got.Rows != 35 || got.Accepted != 35 || got.Refused != 0 || got.Read != got.Total || got != last {
				t.Fatalf("Run = %+v, %v; last progress %+v", got, err, last)
			}
			if answers, _ := d.rows(); !slices.Equal(answers, wanted(35)) {
				t.Errorf("stored %q, want %q", answers, wanted(35))
			}
			// A second run finds nothing to do.
			if again, err := file.Run(t.Context(), config); err != nil || again.Rows != 35 {
				t.Errorf("second Run = %+v, %v", again, err)
			}
			if answers, _ := d.rows(); len(answers) != 35 {
				t.Errorf("the second run sent rows again: %d stored", len(answers))
			}
		})
	}
}

func TestInterruptedImportGoesOn(t *testing.T) {
	t.Parallel()
	d := newDestination(t)
	config := d.config(write(t, "a.csv.gz", 95), mapping)
	ctx, cancel := context.WithCancel(t.Context())
	config.Progress = func(p file.Progress) {
		if p.Rows == 30 {
			d.after.Store(1) // the fourth chunk arrives, its successors do not
			d.fail.Store(1 << 20)
		}
		if p.Rows == 40 {
			cancel()
		}
	}
	d.after.Store(1 << 20)
	if got, err := file.Run(ctx, config); err == nil || got.Rows != 40 {
		t.Fatalf("interrupted Run = %+v, %v, want 40 rows and an error", got, err)
	}
	d.fail.Store(2) // the first attempts are turned away
	d.after.Store(0)
	config.Progress = nil
	if got, err := file.Run(t.Context(), config); err != nil || got.Rows != 95 || got.Accepted != 95 {
		t.Fatalf("second Run = %+v, %v", got, err)
	}
	if answers, _ := d.rows(); !slices.Equal(answers, wanted(95)) {
		t.Errorf("stored %d rows, want 95, each once", len(answers))
	}
}

func TestBadRowsAreCountedAndNamed(t *testing.T) {
	t.Parallel()
	d := newDestination(t)
	path := filepath.Join(t.TempDir(), "a.csv")
	must(t, os.WriteFile(path, []byte("person,item,correct,at,class\n"+
		"1,a,yes,1,x\n"+
		"2,canary4711,perhaps,1,x\n"+ // not in the map
		"3,b,no,canary4711,x\n"+ // no time
		"4,c\n"+ // too few columns
		"5,,no,1,x\n"+ // no exercise
		"canary4711"+strings.Repeat("x", 300)+",d,no,1,x\n"+
		"7,e,half,1,x\n"), 0o600))
	config := d.config(path, mapping)
	config.ChunkRows = 3
	var refused []string
	config.Refused = func(r file.Refusal) { refused = append(refused, fmt.Sprint(r.Row, " ", r.Field, " ", r.Rule)) }
	got, err := file.Run(t.Context(), config)
	if err != nil || got.Rows != 7 || got.Accepted != 2 || got.Refused != 5 {
		t.Errorf("Run = %+v, %v, want 2 accepted and 5 refused", got, err)
	}
	slices.Sort(refused)
	want := []string{"2 score unmapped_value", "3 answered_at not_a_time", "4  malformed_row", "5 exercise required", "6 learner.value too_long"}
	if !slices.Equal(refused, want) {
		t.Errorf("refused %q, want %q", refused, want)
	}
	state, err := os.ReadFile(path + ".import.json")
	if err != nil || bytes.Contains(state, []byte("canary")) {
		t.Errorf("state file: %v, or it holds a value", err)
	}
}

func TestTestResultsFromAFile(t *testing.T) {
	t.Parallel()
	d := newDestination(t)
	path := filepath.Join(t.TempDir(), "a.csv")
	must(t, os.WriteFile(path, []byte("nr;pupil;test;chapter;day;points;skill\nr1;P1;t1;blok 3/bewerkingen;20-11-2024;17;83,5\nr2;P2;t1;;21-11-2024;9;\n"), 0o600))
	config := d.config(path, `
kind: test-results
delimiter: ";"
fields:
  id: {column: nr}
  publisher: {value: timss}
  school: {value: 99XX00}
  learner.scheme: {value: las}
  learner.value: {column: pupil}
  test: {column: test}
  path: {column: chapter, split: "/"}
  taken_on: {column: day, layout: "02-01-2006"}
  score: {column: points}
  norms.vaardigheidsscore: {column: skill, map: {"83,5": "83.5"}}
`)
	if got, err := file.Run(t.Context(), config); err != nil || got.Accepted != 2 {
		t.Fatalf("Run = %+v, %v", got, err)
	}
	_, results := d.rows()
	want := []string{"r1 P1 t1 20047 17 [blok 3 bewerkingen] [vaardigheidsscore] [83.5]", "r2 P2 t1 20048 9 [] [] []"}
	if !slices.Equal(results, want) {
		t.Errorf("stored %q, want %q", results, want)
	}
}

func TestAChangedFileIsNotContinued(t *testing.T) {
	t.Parallel()
	d := newDestination(t)
	config := d.config(write(t, "a.csv", 5), mapping)
	if _, err := file.Run(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(config.Path, []byte("person,item,correct,at,class\n9,z,yes,1,x\n"), 0o600))
	if _, err := file.Run(t.Context(), config); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("Run on a changed file = %v, want a complaint", err)
	}
	must(t, os.Remove(config.Path+".import.json"))
	if got, err := file.Run(t.Context(), config); err != nil || got.Accepted != 1 {
		t.Errorf("Run after removing the state = %+v, %v", got, err)
	}
}

func TestRefusedForGood(t *testing.T) {
	t.Parallel()
	d := newDestination(t)
	config := d.config(write(t, "a.csv", 5), mapping)
	config.Key = "lsk_wrong"
	if got, err := file.Run(t.Context(), config); err == nil || got.Rows != 0 || strings.Contains(err.Error(), "lsk_") {
		t.Errorf("Run with a wrong key = %+v, %v", got, err)
	}
}

func TestMappingsAreValidated(t *testing.T) {
	t.Parallel()
	base := strings.TrimSpace(mapping)
	for name, text := range map[string]string{
		"unknown key":          base + "\nmore: 1",
		"unknown field":        base + "\n  naam: {column: x}",
		"unknown field option": base + "\n  goal: {kolom: x}",
		"kind":                 strings.Replace(base, "kind: answers", "kind: notes", 1),
		"two sources":          base + "\n  goal: {column: x, value: y}",
		"no source":            base + "\n  goal: {prefix: x}",
		"missing field":        strings.Replace(base, "  school: {value: 99XX00}\n", "", 1),
		"start of a text":      base + "\n  goal: {start: \"2020-01-01T00:00:00Z\"}",
		"bad start":            strings.Replace(base, `{column: at, unit: s, since: "2005-08-01T00:00:00Z"}`, `{start: yesterday}`, 1),
		"bad unit":             strings.Replace(base, "unit: s", "unit: fortnight", 1),
		"norms of answers":     base + "\n  norms.x: {column: x}",
		"delimiter":            base + "\ndelimiter: \"ab\"",
		"not YAML":             "{",
	} {
		if _, err := file.ParseMapping([]byte(text)); err == nil {
			t.Errorf("%s: ParseMapping = nil, want an error", name)
		}
	}
	d := &destination{t: t}
	config := d.config(write(t, "a.csv", 1), base+"\n  goal: {column: nowhere}")
	if _, err := file.Run(t.Context(), config); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("Run with a missing column = %v, want it named", err)
	}
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(path, []byte("lsk_abc\n"), 0o600))
	if key, err := file.ReadKey(path); err != nil || key != "lsk_abc" {
		t.Errorf("ReadKey = %q, %v", key, err)
	}
	must(t, os.Chmod(path, 0o644))
	if _, err := file.ReadKey(path); err == nil {
		t.Error("ReadKey(world-readable) = nil, want an error")
	}
}

// The example mapping on the real data set, which is not part of the repository.
func TestTIMSS(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("LEERSTROOM_DATASETS")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("LEERSTROOM_DATASETS does not name a directory")
		}
		t.Skip("SKIPPED: LEERSTROOM_DATASETS does not name the directory that holds timss2011_g4")
	}
	d := newDestination(t)
	m, err := file.LoadMapping(filepath.Join("testdata", "timss.yaml"))
	must(t, err)
	got, err := file.Run(t.Context(), file.Config{Path: filepath.Join(dir, "timss2011_g4", "answers.csv.gz"), Mapping: m, BaseURL: d.url, Key: d.key,
		StatePath: filepath.Join(t.TempDir(), "state.json"), Refused: func(r file.Refusal) { t.Errorf("refused: %+v", r) }})
	if err != nil || got.Rows != 115983 || got.Accepted != got.Rows {
		t.Fatalf("Run = %+v, %v, want 115983 rows accepted", got, err)
	}
	if answers, _ := d.rows(); len(answers) != 115983 {
		t.Errorf("stored %d rows, want 115983", len(answers))
	}
}
