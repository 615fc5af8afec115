package transform_test

import (
	"testing"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform"
)

// TestSkillsFrom: reading goes on after the durable state, and further back when
// a loss of power has cut the log, which has grown again since.
func TestSkillsFrom(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	topic := enginetest.Topic(t, brokers, "skills", 1)
	client, err := stream.NewClient(stream.Config{Brokers: brokers})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const messages = 40
	for offset := range int64(messages) {
		// Two messages of each raw offset.
		m := stream.Message{Value: []byte("x"), Headers: []stream.Header{stream.Int64Header(stream.HeaderRawOffset, offset/2)}}
		if _, err := client.Produce(t.Context(), topic, 0, m); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		skills, raw int64
		atMost      int64 // messages from here on are newer than the state
		exact       bool
	}{
		"nothing stored":         {skills: -1, raw: -1, atMost: 0, exact: true},
		"in the middle":          {skills: 21, raw: 10, atMost: 22, exact: true},
		"everything stored":      {skills: messages - 1, raw: messages/2 - 1, atMost: messages, exact: true},
		"cut, nothing since":     {skills: 1000, raw: messages/2 - 1, atMost: messages, exact: true},
		"cut and grown again":    {skills: 1000, raw: 12, atMost: 26},
		"cut to nothing":         {skills: 1000, raw: -1, atMost: 0},
		"grown past what it was": {skills: 30, raw: 3, atMost: 8},
	} {
		from, end, err := transform.SkillsFrom(t.Context(), client, topic, 0, &transform.Restored{SkillsOffset: c.skills, RawOffset: c.raw})
		if err != nil || end != messages || from > c.atMost || c.exact && from != c.atMost {
			t.Errorf("%s: from %d, end %d, %v, want at most %d", name, from, end, err, c.atMost)
		}
	}
}
