package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

const testPartitions = 8

// hexDigits is the last part of a made-up ECK iD.
var hexDigits = strings.Repeat("0f3a91b2", 16)

// rig is a connector whose messages end in memory instead of in Kafka.
type rig struct {
	t         testing.TB
	connector *Connector
	server    *httptest.Server
	keys      *access.Keys
	key       string
	sealer    *seal.Sealer
	opener    *seal.Opener
	topicName string
	registry  *prometheus.Registry
	log       *lockedBuffer
	topic     memoryTopic
}

// memoryTopic keeps what was produced. hold, when set, is called first.
type memoryTopic struct {
	mu       sync.Mutex
	messages []memoryMessage
	hold     func(ctx context.Context, partition int) error
}

type memoryMessage struct {
	partition int
	schema    string
	value     []byte
}

func (m *memoryTopic) produce(ctx context.Context, partition int, message stream.Message) error {
	m.mu.Lock()
	hold := m.hold
	m.mu.Unlock()
	if hold != nil {
		if err := hold(ctx, partition); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, memoryMessage{partition, string(message.Header(stream.HeaderSchema)), bytes.Clone(message.Value)})
	return nil
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newRig(t testing.TB, config Config) *rig {
	t.Helper()
	r := &rig{t: t, topicName: "raw", registry: prometheus.NewRegistry(), log: new(lockedBuffer)}
	private, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if r.sealer, err = seal.NewSealer(seal.SealerConfig{Recipient: private.Public()}); err != nil {
		t.Fatal(err)
	}
	if r.opener, err = seal.NewOpener(private); err != nil {
		t.Fatal(err)
	}
	if r.keys, err = access.Open(filepath.Join(t.TempDir(), "apikeys.json")); err != nil {
		t.Fatal(err)
	}
	r.key = r.newKey(access.Scope{Role: access.RolePublisher, Publisher: "bingel"})
	if config.Authorisations == nil {
		config.Authorisations = Authorisations{"12AB00": {"bingel", "baps"}, "12AB01": {"bingel"}, "99XX00": {"baps"}}
	}
	r.connector, err = newConnector(config, Parts{Topic: "raw", Partitions: testPartitions, Sealer: r.sealer, Keys: r.keys,
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Registry: r.registry}, r.topic.produce)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	r.connector.Register(mux)
	r.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		r.server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r.connector.Close(ctx)
	})
	return r
}

func (r *rig) newKey(scope access.Scope) string {
	r.t.Helper()
	text, _, err := r.keys.Create(scope)
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

// reply is what the connector answered.
type reply struct {
	Status       int
	Header       http.Header
	Text         string
	Accepted     int       `json:"accepted"`
	RefusedCount int       `json:"refused_count"`
	Refused      []refusal `json:"refused"`
	Code         string    `json:"code"`
}

func (r *rig) post(path string, body io.Reader, headers ...string) reply {
	r.t.Helper()
	out, err := r.try(path, body, headers...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// try is post that may end without a reply.
func (r *rig) try(path string, body io.Reader, headers ...string) (reply, error) {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodPost, r.server.URL+path, body)
	if err != nil {
		return reply{}, err
	}
	request.Header.Set("Authorization", "Bearer "+r.key)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}, err
	}
	out := reply{Status: response.StatusCode, Header: response.Header, Text: string(text)}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("reply %d is not JSON: %w", out.Status, err)
	}
	return out, nil
}

// rows opens everything that was produced and renders each row.
func (r *rig) rows() (answers, results []string) {
	r.t.Helper()
	r.topic.mu.Lock()
	defer r.topic.mu.Unlock()
	reader := raw.NewReader(r.opener, r.topicName)
	for _, m := range r.topic.messages {
		var a raw.Answers
		var t raw.TestResults
		if err := reader.Read(m.schema, m.partition, m.value, &a, &t); err != nil {
			r.t.Fatalf("open message of partition %d: %v", m.partition, err)
		}
		for i := range a.Rows {
			answers = append(answers, renderAnswer(&a, i))
			if want := answer.PartitionOf(a.School.At(i), testPartitions); want != m.partition {
				r.t.Errorf("a row of %s lies in partition %d, want %d", a.School.At(i), m.partition, want)
			}
		}
		for i := range t.Rows {
			results = append(results, renderResult(&t, i))
		}
	}
	return answers, results
}

func renderAnswer(a *raw.Answers, i int) string {
	id := a.Identity.At(i)
	return fmt.Sprint(string(a.EventID.At(i)), " ", id.School, " ", id.Publisher, " ", id.Scheme, " ", id.Value, " ", a.Publisher.At(i), " ", a.School.At(i), " ",
		a.Group.At(i), " ", a.YearGroup[i], " ", a.Exercise.At(i), " ", a.Goal.At(i), " ", a.Subject.At(i), " ", a.Kind[i], " ", a.Score[i], " ", a.Attempt[i], " ",
		a.ResponseTime[i], " ", a.AnsweredAt[i], " ", a.Revision[i])
}

func renderResult(t *raw.TestResults, i int) string {
	id := t.Identity.At(i)
	return fmt.Sprint(string(t.EventID.At(i)), " ", id.School, " ", id.Publisher, " ", id.Scheme, " ", id.Value, " ", t.Publisher.At(i), " ", t.School.At(i), " ",
		t.Group.At(i), " ", t.YearGroup[i], " ", t.Test.At(i), " ", t.TestName.At(i), " ", t.Subject.At(i), " ", t.Part.At(i), " ", t.Path[i], " ", t.TakenOn[i], " ",
		t.Score[i], " ", t.MaxScore[i], " ", t.Made[i], " ", t.Right[i], " ", t.Wrong[i], " ", t.DurationS[i], " ", t.NormKinds[i], " ", t.NormValues[i], " ", t.Revision[i])
}

// answerLine is a valid line with an id, for a school.
func answerLine(id, school string) string {
	return `{"id":"` + id + `","publisher":"bingel","school":"` + school + `","learner":{"scheme":"eckid","value":"https://ketenid.nl/201703/` + hexDigits +
		`"},"group":"5A","year_group":5,"exercise":"wig5-b3-l2-o7","goal":"optellen-tot-1000","subject":"rekenen","kind":"practice","score":1,"attempt":1,` +
		`"response_time_ms":8200,"answered_at":"2026-11-23T10:15:00+01:00"}` + "\n"
}

const resultLine = `{"id":"t-0001","publisher":"bingel","school":"12AB00","learner":{"scheme":"publisher","value":"4711"},"group":"5A","year_group":5,"test":"pp4-blok3",` +
	`"test_name":"Pluspunt 4 blok 3","subject":"rekenen","part":"bewerkingen","path":["blok 3","bewerkingen"],"taken_on":"2026-11-20","score":17,"max_score":20,` +
	`"made":20,"right":17,"wrong":3,"duration_s":1500,"norms":[{"kind":"vaardigheidsscore","value":83}]}` + "\n"

func TestAnswersArriveSealed(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	got := r.post("/v1/answers", strings.NewReader(answerLine("b-1", "12AB00")+"\r\n"+answerLine("b-2", "12AB01")))
	if got.Status != 200 || got.Accepted != 2 || got.RefusedCount != 0 {
		t.Fatalf("reply = %+v", got)
	}
	answers, _ := r.rows()
	want := "b-1 12AB00  eckid https://ketenid.nl/201703/" + hexDigits + " bingel 12AB00 5A 5 wig5-b3-l2-o7 optellen-tot-1000 rekenen 1 1 1 8200 1795425300000 0"
	if len(answers) != 2 || (answers[0] != want && answers[1] != want) {
		t.Errorf("stored %q, want %q among them", answers, want)
	}
}

func TestTestResultsArriveSealed(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	got := r.post("/v1/test-results", strings.NewReader(resultLine))
	if got.Status != 200 || got.Accepted != 1 {
		t.Fatalf("reply = %+v", got)
	}
	_, results := r.rows()
	want := "t-0001 12AB00 bingel publisher 4711 bingel 12AB00 5A 5 pp4-blok3 Pluspunt 4 blok 3 rekenen bewerkingen [blok 3 bewerkingen] 20777 17 20 20 17 3 1500 [vaardigheidsscore] [83] 0"
	if len(results) != 1 || results[0] != want {
		t.Errorf("stored %q, want %q", results, want)
	}
}

func TestABadLineRefusesItselfOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{})
	body := answerLine("b-1", "12AB00") +
		strings.Replace(answerLine("b-2", "12AB00"), `"score":1`, `"score":1.5`, 1) +
		answerLine("b-3", "99XX00") + // authorised another publisher
		"{\n\n" +
		strings.Replace(answerLine("b-4", "12AB00"), `"group"`, `"naam"`, 1) +
		answerLine("b-5", "12AB00")
	got := r.post("/v1/answers", strings.NewReader(body))
	want := []refusal{{2, "score", "out_of_range"}, {3, "school", "not_authorised"}, {4, "", "malformed_json"}, {6, "", "unknown_field"}}
	if got.Status != 200 || got.Accepted != 2 || got.RefusedCount != 4 || fmt.Sprint(got.Refused) != fmt.Sprint(want) {
		t.Errorf("reply = %+v, want refused %v", got, want)
	}
	if answers, _ := r.rows(); len(answers) != 2 {
		t.Errorf("stored %d rows, want 2", len(answers))
	}
}
