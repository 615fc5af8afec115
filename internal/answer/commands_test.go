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
