package pseudonymize_test

import (
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize"
)

func (d *deployment) engineTopic(t testing.TB, name string, allows func(string) bool) pseudonymize.EngineTopic {
	return pseudonymize.EngineTopic{Name: name, Topic: d.topic(t, "engine-"+name), Allows: allows}
}

// TestEnginesGetTheirOwn: an engine sees the rows of the schools that allow it,
// and neither a token nor an event id that anybody else sees.
func TestEnginesGetTheirOwn(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	schools := schoolsOf(thePart, 3)
	d.engines = []pseudonymize.EngineTopic{
		d.engineTopic(t, "all", func(string) bool { return true }),
		d.engineTopic(t, "one", func(school string) bool { return school == schools[1] }),
		d.engineTopic(t, "none", func(string) bool { return false }),
	}
	l := d.push(t, r, thePart, 20)
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	d.checkAnswers(t, l, d.read(t, d.topics.Answers, thePart))
	seen := map[[16]byte]string{}
	d.collect(t, "answers", d.topics.Answers, seen, nil)
	rows := map[string]int{}
	for _, e := range d.engines {
		rows[e.Name] = d.collect(t, e.Name, e.Topic, seen, e.Allows)
	}
	total, one := 0, 0
	for i := range l.n {
		if a := l.answers[i]; a != nil {
			total += a.Rows
			for row := range a.Rows {
				if a.School.At(row) == schools[1] {
					one++
				}
			}
		} else {
			total += l.results[i].Rows
			for row := range l.results[i].Rows {
				if l.results[i].School.At(row) == schools[1] {
					one++
				}
			}
		}
	}
	if rows["all"] != total || rows["one"] != one || rows["none"] != 0 {
		t.Errorf("engines got %v rows, want all %d, one %d, none 0", rows, total, one)
	}
}

// collect reads a topic, checks that its tokens and event ids are its own, and
// that only allowed schools appear, also in dictionaries.
func (d *deployment) collect(t testing.TB, name, topic string, seen map[[16]byte]string, allows func(string) bool) (rows int) {
	t.Helper()
	messages := d.dropRepeats(t, d.read(t, topic, thePart))
	if len(messages) != 20 {
		t.Fatalf("%s holds %d messages, want 20", name, len(messages))
	}
	var decoder answer.Decoder
	mine := func(id [16]byte) {
		if other, ok := seen[id]; ok && other != name {
			t.Fatalf("%s and %s share a token or event id", name, other)
		}
		seen[id] = name
	}
	for i := range messages {
		var c answer.Columns
		var r answer.TestResults
		ids, tokens, schools, n := &c.EventID, &c.Learner, &c.School, &c.Rows
		if string(messages[i].Header("schema")) == answer.SchemaTestResults {
			must(t, decoder.TestResults(messages[i].Value, &r))
			ids, tokens, schools, n = &r.EventID, &r.Learner, &r.School, &r.Rows
		} else {
			must(t, decoder.Answers(messages[i].Value, &c))
		}
		rows += *n
		for _, id := range *ids {
			mine(id)
		}
		for _, token := range tokens.Values {
			mine(token.Bytes())
		}
		for _, school := range schools.Values {
			if allows != nil && !allows(school) {
				t.Fatalf("%s sees a school that did not allow it", name)
			}
		}
	}
	return rows
}
