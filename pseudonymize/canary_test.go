package pseudonymize_test

import (
	"crypto/sha512"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/canary"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// canaries are identifiers that are looked for in everything that is written.
// They are short enough not to be cut by a block or a dictionary.
func canaries(school string) []raw.Identity {
	eckid := fmt.Sprintf("https://ketenid.nl/201703/%x", sha512.Sum512([]byte("canary pupil")))
	return []raw.Identity{
		{School: school, Identifier: raw.Identifier{Scheme: raw.SchemeECKID, Value: eckid}},
		{School: school, Identifier: raw.Identifier{Scheme: raw.SchemeBasispoort, Value: "bp-canary-8812"}},
		{School: school, Identifier: raw.Identifier{Scheme: raw.SchemeLAS, Value: "las-canary-0815"}},
		{School: school, Publisher: "publisher-0", Identifier: raw.Identifier{Scheme: raw.SchemePublisher, Value: "Jansje.Canaríe@example.nl"}},
	}
}

// TestNoCanaryAnywhere pushes marked identities through the stage, an engine's
// topic, dead letters, the vault and a restart, and looks for them in every byte
// that was written.
func TestNoCanaryAnywhere(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	server := enginetest.StartClickHouse(t)
	connection := server.Database()
	d := deployOn(t, connection, connection.Database)
	d.engines = append(d.engines, d.engineTopic(t, "snappet", func(string) bool { return true }))
	school := schoolsOf(thePart, 1)[0]
	marked := makeAnswers(r, thePart, 40, 10)
	marked.School = answer.Strings{Values: []string{school}, Codes: make([]int32, marked.Rows)}
	marked.Identity = raw.Identities{Values: canaries(school)}
	marked.EventID = raw.Texts{Offsets: []int32{0}}
	for row := range marked.Rows {
		marked.Identity.Codes = append(marked.Identity.Codes, int32(row%len(marked.Identity.Values)))
		marked.EventID.Bytes = append(marked.EventID.Bytes, "las-canary-0815/answer"...) // publishers do such things
		marked.EventID.Offsets = append(marked.EventID.Offsets, int32(len(marked.EventID.Bytes)))
	}
	good := d.sealAnswers(t, thePart, marked)
	broken := d.sealAnswers(t, thePart, marked)
	broken.Value[len(broken.Value)-1] ^= 1
	clear := stream.Message{Value: []byte(marked.Identity.Values[2].Value), Headers: good.Headers} // not sealed at all
	marked.Identity.Values[3].School = schoolsOf(thePart+1, 1)[0]
	misplaced := d.sealAnswers(t, thePart, marked)
	d.send(t, thePart, good, broken, clear, misplaced, good)
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	registry, err := d.vault(t).Open(t.Context(), thePart, vault.Own)
	must(t, err)
	_, err = registry.ImportRoster(t.Context(), roster([][]vault.Alias{canaries(school)}))
	must(t, err)
	must(t, registry.Flush(t.Context()))
	readable := 0
	must(t, registry.ReadableAliases(t.Context(), func(a *raw.Identity, _ vault.Learner) error {
		d.logger().Info("alias", "alias", *a, "pointer", a, "text", fmt.Sprintf("%v %+v", *a, a)) // must redact itself
		readable++
		return nil
	}))
	if readable != len(canaries(school)) {
		t.Fatalf("the vault holds %d aliases, want %d: the hunt would be worth nothing", readable, len(canaries(school)))
	}
	must(t, d.conn.Exec(t.Context(), "SYSTEM FLUSH LOGS"))
	hay := d.everything(t)
	server.Stop()
	hay = append(hay, files(t, server.DataDir())...)
	server.Restart()
	hunter := canary.New()
	for i, c := range canaries(school) {
		hunter.Add(fmt.Sprint("canary ", i), canary.Forms(c.Value))
		hunter.Add(fmt.Sprint("canary ", i, " with its school"), canary.Forms(school+c.Value))
	}
	level1, err := canary.HPGN(canaries(school)[2].Value)
	must(t, err)
	hunter.Add("canary 2", level1)
	total := 0
	for _, h := range hay {
		total += len(h.bytes)
		for _, form := range hunter.Search(h.bytes) {
			t.Errorf("%s holds %s", h.name, form)
		}
	}
	if sealed := d.read(t, d.topics.Raw, thePart)[2].Value; len(hunter.Search(sealed)) == 0 {
		t.Error("the message that was sent unsealed is not found: the hunt sees nothing")
	}
	t.Logf("looked for %d forms in %d bytes of %d places", hunter.Forms(), total, len(hay))
	if total < 10_000 {
		t.Errorf("only %d bytes were searched", total)
	}
}

type haystack struct {
	name  string
	bytes []byte
}

// everything returns what topics and logs hold.
func (d *deployment) everything(t testing.TB) []haystack {
	t.Helper()
	hay := []haystack{{name: "log", bytes: d.logs.bytes()}}
	topics := []string{d.topics.Raw, d.topics.Answers, d.topics.Registry, d.topics.DeadLetters}
	for _, e := range d.engines {
		topics = append(topics, e.Topic)
	}
	for _, topic := range topics {
		messages := d.read(t, topic, thePart)
		if len(messages) == 0 {
			t.Errorf("topic %s is empty: the hunt would be worth nothing", topic)
		}
		for _, m := range messages {
			if topic != d.topics.Raw || m.Offset != 2 { // that one was sent unsealed
				hay = append(hay, haystack{name: fmt.Sprint("topic ", topic, " offset ", m.Offset), bytes: m.Value})
			}
			for _, h := range m.Headers {
				hay = append(hay, haystack{name: fmt.Sprint("header ", h.Key, " in topic ", topic), bytes: h.Value})
			}
		}
		hay = append(hay, d.decoded(t, topic, messages)...)
	}
	return hay
}

// decoded adds messages of answers as they are without compression.
func (d *deployment) decoded(t testing.TB, topic string, messages []stream.Message) (hay []haystack) {
	var decoder answer.Decoder
	for i := range messages {
		var c answer.Columns
		if string(messages[i].Header(stream.HeaderSchema)) == answer.SchemaAnswers && decoder.Answers(messages[i].Value, &c) == nil {
			hay = append(hay, haystack{name: "columns in topic " + topic, bytes: fmt.Appendf(nil, "%+v %x", c, c.EventID)})
		}
	}
	return hay
}

func files(t testing.TB, dir string) (hay []haystack) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		hay = append(hay, haystack{name: "file " + filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path), bytes: content})
		return err
	}))
	return hay
}
