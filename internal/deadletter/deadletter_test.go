package deadletter_test

import (
	"bytes"
	"testing"

	"github.com/leerstroom/leerstroom/internal/deadletter"
	"github.com/leerstroom/leerstroom/internal/stream"
)

func FuzzReadLetter(f *testing.F) {
	for _, m := range []stream.Message{
		{},
		{Value: []byte("value")},
		{Value: []byte("value"), Headers: []stream.Header{{Key: "schema", Value: []byte("raw-answers.v1")}, {Key: "empty"}}},
	} {
		f.Add(deadletter.AppendContent(nil, &m))
	}
	f.Fuzz(func(t *testing.T, letter []byte) {
		m, err := deadletter.Parse(letter)
		if err != nil {
			return
		}
		again, err := deadletter.Parse(deadletter.AppendContent(nil, &m))
		if err != nil || !bytes.Equal(again.Value, m.Value) || len(again.Headers) != len(m.Headers) {
			t.Fatalf("a letter of %d bytes and %d headers came back as another (%v)", len(m.Value), len(m.Headers), err)
		}
		for i := range m.Headers {
			if again.Headers[i].Key != m.Headers[i].Key || !bytes.Equal(again.Headers[i].Value, m.Headers[i].Value) {
				t.Fatalf("header %d came back as another", i)
			}
		}
	})
}
