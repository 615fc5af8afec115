package answer_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/column"
)

func someCommands() *answer.Commands {
	token := func(b byte) answer.Token { return answer.MintToken([16]byte{b}) }
	return &answer.Commands{Rows: 2, Kind: []answer.CommandKind{answer.CommandMove, answer.CommandErase},
		School:  answer.Strings{Codes: []int32{0, 1}, Values: []string{"12AB00", "99XX01"}},
		Learner: answer.Tokens{Codes: []int32{0, 1}, Values: []answer.Token{token(1), token(2)}},
		Into:    answer.Tokens{Codes: []int32{0, 1}, Values: []answer.Token{token(3), {}}}}
}

func TestCommandsSurviveTheCodec(t *testing.T) {
	t.Parallel()
	var encoder answer.Encoder
	message, err := encoder.AppendCommands(nil, someCommands())
	if err != nil {
		t.Fatal(err)
	}
	var decoder answer.Decoder
	got := new(answer.Commands)
	for range 2 { // reused memory too
		if err := decoder.Commands(message, got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, someCommands()) {
			t.Fatalf("decoded = %+v, want %+v", got, someCommands())
		}
	}
}

// FuzzCommands: no message panics, and one that is decoded keeps the promises of
// its kinds, so that it is encoded to what decodes to the same.
func FuzzCommands(f *testing.F) {
	var encoder answer.Encoder
	for _, c := range []*answer.Commands{someCommands(), {}} {
		message, err := encoder.AppendCommands(nil, c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
		f.Add(message[:len(message)/2])
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var decoder answer.Decoder
		first, second := new(answer.Commands), new(answer.Commands)
		if err := decoder.Commands(message, first); err != nil {
			return
		}
		var encoder answer.Encoder
		again, err := encoder.AppendCommands(nil, first)
		if err != nil {
			t.Fatalf("decoded commands are not encoded: %v", err)
		}
		if err := new(answer.Decoder).Commands(again, second); err != nil || first.Rows != second.Rows {
			t.Fatalf("%d commands became %d, %v", first.Rows, second.Rows, err)
		}
		for row := range first.Rows {
			if first.Kind[row] != second.Kind[row] || first.School.At(row) != second.School.At(row) ||
				first.Learner.At(row) != second.Learner.At(row) || first.Into.At(row) != second.Into.At(row) {
				t.Fatalf("row %d became another", row)
			}
		}
	})
}

func TestCommandsAreRefused(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*answer.Commands){
		"unknown kind":        func(c *answer.Commands) { c.Kind[0] = 3 },
		"no school":           func(c *answer.Commands) { c.School.Values[0] = "" },
		"no learner":          func(c *answer.Commands) { c.Learner.Values[1] = answer.Token{} },
		"move to nobody":      func(c *answer.Commands) { c.Into.Codes[0] = 1 },
		"erase into somebody": func(c *answer.Commands) { c.Into.Codes[1] = 0 },
		"move to itself":      func(c *answer.Commands) { c.Into.Values[0] = c.Learner.Values[0] },
	} {
		c := someCommands()
		spoil(c)
		var encoder answer.Encoder
		if _, err := encoder.AppendCommands(nil, c); !errors.Is(err, column.ErrMalformed) {
			t.Errorf("%s: AppendCommands = %v, want ErrMalformed", name, err)
		}
	}
}
