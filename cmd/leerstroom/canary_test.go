package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/parquet-go/parquet-go"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/canary"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// The canaries: what a publisher knows a learner by, in every scheme, and names.
// They stand out, so that finding one anywhere is proof of a leak.
func canaryIdentifier(scheme string, learner int) string {
	if scheme == "eckid" {
		return "https://ketenid.nl/201703/" + strings.Repeat(fmt.Sprintf("c0ffee%02x", learner), 16)
	}
	return fmt.Sprintf("kanarie-%s-%02d", scheme, learner)
}

const (
	canaryName   = "Roodborstje van Kanarie"
	canaryNumber = "063138219" // passes the eleven test; the number of the public test vectors
)

// canarySchemes are the schemes of the identifiers that publishers deliver.
var canarySchemes = []string{"eckid", "basispoort", "las", "publisher"}

const canaryLearners = 10

// newHunter returns a hunter for every text whose traces must be nowhere.
func newHunter(t *testing.T, schools []string) *canary.Hunter {
	t.Helper()
	h := canary.New()
	add := func(text string) { h.Add(fmt.Sprintf("canary %d", h.Forms()), canary.Forms(text)) }
	for _, text := range []string{canaryName, "Achternaam-Kanarie", "kanarie-roster", "kanarie-event", canaryNumber, strings.Repeat("c0ffee01", 4)} { // the last: an ECK iD without its common front
		add(text)
	}
	number, err := canary.HPGN(canaryNumber)
	if err != nil {
		t.Fatal(err)
	}
	h.Add("hashed number", number)
	for _, scheme := range canarySchemes {
		for learner := range canaryLearners {
			id := canaryIdentifier(scheme, learner)
			add(id)
			for _, school := range schools { // what an unkeyed hash of a careless stage would be made of
				for _, separator := range []string{"", ":", "|"} {
					h.Add("canary with its school", canary.Forms(school+separator+id))
				}
			}
		}
	}
	return h
}

// TestNoCanaryLeavesTheVault pushes marked identifiers through the whole system
// and looks for their traces in every byte that it wrote: files of the engines
// as they are, tables and topics without their compression, logs, audit log,
// metrics, replies and export.
func TestNoCanaryLeavesTheVault(t *testing.T) {
	t.Parallel()
	s := newSystem(t, newPopulation(t, 3, canaryLearners))
	s.change(func(config map[string]any) {
		config["engines"] = []map[string]string{{"name": "rival"}}
		for school, engines := range config["engine_authorisations"].(map[string]any) {
			config["engine_authorisations"].(map[string]any)[school] = append(engines.([]any), "rival")
		}
	})
	s.up()
	schools := slices.Sorted(maps.Keys(s.population.Authorisations()))
	hunt := &hunt{t: t, hunter: newHunter(t, schools)}
	answers := s.pushCanaries(hunt)
	enginetest.Eventually(t, 2*time.Minute, "answers stored", func() error {
		if n := s.count(t, "answers FINAL"); n != answers {
			return fmt.Errorf("%d of %d", n, answers)
		}
		return nil
	})
	s.pseudonym(hunt)
	s.names(schools[0])
	hunt.tables(s)
	client := s.kafka()
	for _, topic := range []string{"raw", "answers", "registry", "skills", "item-sums", "items", "deadletters", "engine-rival"} {
		hunt.topic(client, topic)
	}
	hunt.search("metrics", s.get(hunt, "/metrics", ""))
	hunt.parquet(strings.TrimSpace(s.must("export", "difficulty", "--out", filepath.Join(s.directory, "data", "exports", "canary"), "--data", s.data(), "--config", s.config())))
	s.terminate()
	hunt.search("output of all processes", []byte(s.printed()))
	hunt.files(s.data())
	for _, f := range hunt.found {
		t.Error(f)
	}
	// A hunt that can't find what is there proves nothing.
	if hunt.searched < 20 || hunt.controls < 3 {
		t.Errorf("searched %d places and found the name of the goal in %d, want at least 20 and 3", hunt.searched, hunt.controls)
	}
	t.Logf("%d forms, %d places, %d bytes", hunt.hunter.Forms(), hunt.searched, hunt.bytes)
	s.up()
	s.findPlanted(hunt.hunter)
	s.terminate()
}

// names imports a roster of marked names and waits until a key of the school, and
// no other, sees them: in that reply they may be.
func (s *system) names(school string) {
	s.t.Helper()
	var lines []vault.RosterLine
	for learner := range 5 {
		lines = append(lines, vault.RosterLine{Aliases: []vault.Alias{lasAlias(school, fmt.Sprint("kanarie-roster-", learner))},
			Name: vault.Name{First: canaryName, Last: fmt.Sprint("Achternaam-Kanarie ", learner), Group: "7B", YearGroup: 7}})
	}
	s.importRoster(school, lines)
	key := func(school string) string {
		return strings.TrimSpace(s.must("apikey", "create", "--role", "school", "--school", school, "--data", s.data()))
	}
	mine, other := key(school), key("99XX99")
	ask := func(key string) ([]byte, error) {
		return s.send(http.MethodPost, "/v1/groups/7B/names", key, "application/json", fmt.Appendf(nil, `{"school":%q}`, school))
	}
	enginetest.Eventually(s.t, 2*time.Minute, "names of a group", func() error {
		reply, err := ask(mine)
		if err == nil && (bytes.Count(reply, []byte(canaryName)) != len(lines) || !bytes.Contains(reply, []byte("Achternaam-Kanarie 4"))) {
			err = errNotYet
		}
		return err
	})
	if reply, err := ask(other); err == nil || !strings.Contains(err.Error(), "404") || bytes.Contains(reply, []byte(canaryName)) {
		s.t.Errorf("names for a key of another school: %v, want 404", err)
	}
}

// findPlanted leaves a canary behind where careless stages would, and hunts again:
// what compression and encodings hide must be found.
func (s *system) findPlanted(hunter *canary.Hunter) {
	client, control := s.kafka(), &hunt{t: s.t, hunter: hunter}
	places := s.plant(client)
	control.tables(s)
	control.topic(client, "planted")
	control.files(s.data())
	for _, place := range places {
		if !slices.ContainsFunc(control.found, func(f string) bool { return strings.HasPrefix(f, place) }) {
			s.t.Errorf("%s holds a canary that is not found", place)
		}
	}
}

// hunt looks for canaries, and for a text that may be found, to prove that it can.
type hunt struct {
	t                         *testing.T
	hunter                    *canary.Hunter
	searched, controls, bytes int
	found                     []string
}

func (h *hunt) search(place string, content []byte) {
	h.searched++
	h.bytes += len(content)
	if bytes.Contains(content, []byte("optellen")) {
		h.controls++
	}
	if h.hunter == nil {
		return
	}
	for _, form := range h.hunter.Search(content) {
		h.found = append(h.found, place+" holds "+form)
	}
}

// plant leaves a canary behind as careless stages would: in a compressed message,
// a compressed table and a file. It returns the names of these places.
func (s *system) plant(client *stream.Client) (places []string) {
	s.t.Helper()
	const rows = 1000
	columns := answer.Columns{}
	columns.Rows = rows
	for range rows {
		columns.EventID = append(columns.EventID, answer.EventID{})
		columns.Score, columns.AnsweredAt = append(columns.Score, 1), append(columns.AnsweredAt, 0)
		columns.YearGroup, columns.Kind = append(columns.YearGroup, 5), append(columns.Kind, 1)
		columns.Attempt, columns.ResponseTime, columns.Revision = append(columns.Attempt, 1), append(columns.ResponseTime, 1), append(columns.Revision, 0)
	}
	careless := answer.Strings{Codes: make([]int32, rows), Values: []string{strings.Repeat("o", 500) + canaryIdentifier("las", 3)}}
	for _, column := range []*answer.Strings{&columns.Publisher, &columns.School, &columns.Group, &columns.Exercise, &columns.Goal, &columns.Subject} {
		*column = careless
	}
	columns.Learner.Codes, columns.Learner.Values = make([]int32, rows), make([]answer.Token, 1)
	var encoder answer.Encoder
	value, err := encoder.AppendAnswers(nil, &columns)
	if err == nil {
		err = client.EnsureTopics(s.t.Context(), stream.TopicSpec{Name: "planted", Partitions: 1, ReplicationFactor: 1})
	}
	if err == nil {
		_, err = client.Produce(s.t.Context(), "planted", 0, stream.Message{Value: value})
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(s.data(), "planted.state"), []byte("last="+hex.EncodeToString([]byte(canaryIdentifier("las", 3)))), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.ask(s.t, "CREATE TABLE leerstroom.planted (h String CODEC(ZSTD)) ENGINE = MergeTree ORDER BY tuple()")
	s.ask(s.t, "INSERT INTO leerstroom.planted SELECT base64Encode('"+canaryIdentifier("eckid", 4)+"') FROM numbers(5000)")
	return []string{"topic planted", "table leerstroom.planted", "file /planted.state"}
}

// tables searches all tables, columns that are computed included.
func (h *hunt) tables(s *system) {
	const list = "SELECT concat(database, '.', name) FROM system.tables WHERE NOT is_temporary AND database NOT IN ('INFORMATION_SCHEMA', 'information_schema')" +
		" AND (database != 'system' OR name LIKE '%\\_log%')"
	for _, table := range strings.Fields(s.ask(s.t, list)) {
		h.search("table "+table, []byte(s.ask(s.t, "SELECT * FROM "+table+" FORMAT TSVRaw SETTINGS asterisk_include_materialized_columns = 1, asterisk_include_alias_columns = 1")))
	}
}

// topic searches the messages of a topic as they are and without their
// compression. One without messages would prove nothing.
func (h *hunt) topic(client *stream.Client, topic string) {
	h.t.Helper()
	count := 0
	for partition := range partitionsOfSystem {
		if partition > 0 && (topic == "items" || topic == "item-sums" || topic == "planted") {
			break
		}
		for _, m := range messages(h.t, client, topic, partition) {
			count++
			h.search("topic "+topic, m.Value)
			for _, header := range m.Headers {
				h.search("header "+header.Key+" in topic "+topic, header.Value)
			}
			for _, buffer := range buffersOf(h.t, m.Value) {
				h.search("topic "+topic+", decompressed", buffer)
			}
		}
	}
	if count == 0 && topic != "deadletters" {
		h.t.Errorf("topic %s is empty", topic)
	}
}

// buffersOf returns the memory of the columns of a message, as it is after the
// Arrow library has undone the compression; nothing for a sealed message.
func buffersOf(t *testing.T, message []byte) (buffers [][]byte) {
	reader, err := ipc.NewReader(bytes.NewReader(message))
	if err != nil {
		return nil
	}
	defer reader.Release()
	for reader.Next() {
		record := reader.Record()
		for _, column := range record.Columns() {
			buffers = appendBuffers(buffers, column.Data())
		}
		for _, field := range record.Schema().Fields() {
			buffers = append(buffers, []byte(field.String()))
		}
	}
	if err := reader.Err(); err != nil {
		t.Errorf("read columns: %v", err)
	}
	return buffers
}

func appendBuffers(dst [][]byte, data arrow.ArrayData) [][]byte {
	for _, b := range data.Buffers() {
		if b != nil {
			dst = append(dst, bytes.Clone(b.Bytes()))
		}
	}
	for _, child := range data.Children() {
		dst = appendBuffers(dst, child)
	}
	if dictionary := data.Dictionary(); dictionary != nil && dictionary.(*array.Data) != nil {
		dst = appendBuffers(dst, dictionary)
	}
	return dst
}

// parquet searches the rows and the metadata of a Parquet file.
func (h *hunt) parquet(path string) {
	h.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	file, err := parquet.OpenFile(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		h.t.Fatal(err)
	}
	h.search("metadata of the export", fmt.Append(nil, file.Metadata().KeyValueMetadata, file.Schema()))
	for _, group := range file.RowGroups() {
		rows, buffer := group.Rows(), make([]parquet.Row, 64)
		for {
			n, err := rows.ReadRows(buffer)
			for _, row := range buffer[:n] {
				for _, v := range row {
					h.search("export", []byte(v.String()))
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					h.t.Error(err)
				}
				break
			}
		}
		if err := rows.Close(); err != nil {
			h.t.Error(err)
		}
	}
}

func (h *hunt) files(root string) {
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // a part that was merged meanwhile
			return nil
		}
		h.search("path of a file", []byte(path))
		h.search("file "+strings.TrimPrefix(path, root), content)
		return err
	})
	if err != nil {
		h.t.Error(err)
	}
}

// pushCanaries sends answers of marked learners, with marked event ids, among
// them lines that are refused. It returns the number of good lines.
func (s *system) pushCanaries(h *hunt) (accepted int) {
	schemes := canarySchemes
	for code, publishers := range s.population.Authorisations() {
		publisher := publishers[0]
		var body bytes.Buffer
		good := 0
		for learner := range canaryLearners {
			for exercise := range 4 {
				line := map[string]any{"id": fmt.Sprintf("kanarie-event-%s-%d-%d", canaryIdentifier(schemes[exercise], learner), learner, exercise), "publisher": publisher,
					"school": code, "learner": map[string]string{"scheme": schemes[exercise], "value": canaryIdentifier(schemes[exercise], learner)},
					"group": "5A", "year_group": 5, "exercise": fmt.Sprintf("o%d", exercise), "goal": "optellen", "subject": "rekenen", "kind": "practice",
					"score": (learner + exercise) % 2, "attempt": 1, "answered_at": time.Now().Add(-time.Hour).Format(time.RFC3339)}
				s.line(&body, line)
				good++
			}
		}
		// A number that may be a person's comes in where Basispoort issues it, only.
		line := map[string]any{"id": "kanarie-event-number", "publisher": publisher, "school": code, "learner": map[string]string{"scheme": "basispoort", "value": canaryNumber},
			"group": "5A", "year_group": 5, "exercise": "o1", "goal": "optellen", "subject": "rekenen", "kind": "practice", "score": 1, "attempt": 1,
			"answered_at": time.Now().Add(-time.Hour).Format(time.RFC3339)}
		s.line(&body, line)
		good++
		line["learner"] = map[string]string{"scheme": "las", "value": canaryNumber}
		s.line(&body, line)
		// Refused: a field that is not allowed, with a name in it; a score off scale.
		s.line(&body, map[string]any{"id": "kanarie-event-bad", "publisher": publisher, "school": code, "name": canaryName})
		s.line(&body, map[string]any{"id": "kanarie-event-bad", "publisher": publisher, "school": code,
			"learner": map[string]string{"scheme": "las", "value": canaryIdentifier("las", 1)}, "exercise": "o1", "kind": "practice", "score": 7, "answered_at": canaryName})
		reply := s.post(h, "/v1/answers", s.publishers[publisher], body.Bytes())
		var result struct {
			Accepted int               `json:"accepted"`
			Refused  []json.RawMessage `json:"refused"`
		}
		if err := json.Unmarshal(reply, &result); err != nil || result.Accepted != good || len(result.Refused) != 3 {
			s.t.Fatalf("reply: %s (%v), want %d accepted and the bad lines refused", reply, err, good)
		}
		accepted += good
	}
	return accepted
}

func (s *system) line(body *bytes.Buffer, line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		s.t.Fatal(err)
	}
	body.Write(append(text, '\n'))
}

// pseudonym asks for tokens of canaries and for the next exercise of one.
func (s *system) pseudonym(h *hunt) {
	for code := range s.population.Authorisations() {
		request, err := json.Marshal(map[string]any{"school": code, "identifiers": []map[string]string{
			{"scheme": "las", "value": canaryIdentifier("las", 1)}, {"scheme": "las", "value": "kanarie-las-unknown"}}})
		if err != nil {
			s.t.Fatal(err)
		}
		var reply struct{ Tokens []*string }
		if err := json.Unmarshal(s.post(h, "/v1/pseudonyms", s.engineKey, request), &reply); err != nil || len(reply.Tokens) != 2 || reply.Tokens[0] == nil || reply.Tokens[1] != nil {
			s.t.Fatalf("pseudonyms: %+v, %v, want a token and null", reply, err)
		}
		for _, question := range []string{"next-exercise?goal=optellen", "percentiles"} {
			path := "/v1/learners/" + *reply.Tokens[0] + "/" + question
			enginetest.Eventually(s.t, time.Minute, "answer to "+question, func() error {
				_, err := s.try(path, s.engineKey)
				return err
			})
			s.get(h, path, s.engineKey)
		}
	}
}

func (s *system) post(h *hunt, path, key string, body []byte) []byte {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url()+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", map[bool]string{true: "application/json", false: "application/x-ndjson"}[path == "/v1/pseudonyms"])
	return s.do(h, request, key)
}

func (s *system) get(h *hunt, path, key string) []byte {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url()+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.do(h, request, key)
}

var errNotYet = errors.New("not yet")

// try gets a path that may not answer yet.
func (s *system) try(path, key string) ([]byte, error) {
	return s.send(http.MethodGet, path, key, "", nil)
}

// send makes a request that may be refused.
func (s *system) send(method, path, key, media string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	if media != "" {
		request.Header.Set("Content-Type", media)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%w: status %s", errNotYet, response.Status)
	}
	return reply, err
}

func (s *system) do(h *hunt, request *http.Request, key string) []byte {
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %s: %v, status %s: %s", request.Method, request.URL.Path, err, response.Status, body)
	}
	h.search("reply of "+request.URL.Path, body)
	for name, values := range response.Header {
		h.search("reply header "+name, []byte(strings.Join(values, " ")))
	}
	return body
}
