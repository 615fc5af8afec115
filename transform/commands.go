package transform

import (
	"context"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// Commands: orders about learners. A message of them is followed as one: what
// counts is where everything that was under a token before the message is after
// it. A token that comes to hold the answers of one learner takes its state over
// as it is; one that comes to hold those of several is learnt anew from all of
// them. An event that was delivered for both of two learners who turn out to be
// one counts once, see Doubles.

// tracks follows what is under tokens through the orders of a message.
type tracks struct {
	schools map[answer.Token]string
	named   []answer.Token                  // in the order in which they are first named
	holds   map[answer.Token][]answer.Token // whose answers of before are under a token
	erased  []answer.Token
}

func (t *tracks) name(school string, token answer.Token) {
	if _, known := t.schools[token]; !known {
		t.schools[token] = school
		t.named = append(t.named, token)
		t.holds[token] = []answer.Token{token}
	}
}

func (t *tracks) follow(c *answer.Commands) {
	for row, kind := range c.Kind {
		learner, into := c.Learner.At(row), c.Into.At(row)
		t.name(c.School.At(row), learner)
		switch kind {
		case answer.CommandMove:
			t.name(c.School.At(row), into)
			t.holds[into] = append(t.holds[into], t.holds[learner]...)
		case answer.CommandErase:
			t.erased = append(t.erased, t.holds[learner]...)
		}
		t.holds[learner] = nil
	}
}

func (t *tracks) nameOf(token answer.Token) LearnerName { return LearnerName{t.schools[token], token} }

// rename is a learner whose state goes under another token as it is.
type rename struct{ from, into answer.Token }

func (r *run) planCommands(ctx context.Context, a *amendment) error {
	c := &a.unit.commands
	t := &tracks{schools: make(map[answer.Token]string), holds: make(map[answer.Token][]answer.Token)}
	t.follow(c)
	a.Commands = c.Rows
	a.goes = make(map[answer.Token]answer.Token)
	doubled, err := r.findDoubles(ctx, a, t)
	if err != nil {
		return err
	}
	var renames []rename
	for _, final := range t.named {
		var present []answer.Token
		for _, from := range t.holds[final] {
			if r.state.present(from) {
				present = append(present, from)
			}
			if from != final {
				a.Departures = append(a.Departures, Departure{LearnerName: t.nameOf(from), Into: final, KeyEpoch: c.KeyEpoch})
				a.epochs[final] = c.KeyEpoch
			}
		}
		switch {
		case len(present) == 1 && present[0] != final && !doubled[final]:
			renames = append(renames, rename{present[0], final})
		case len(present) > 1 || doubled[final]:
			for _, from := range present {
				a.goes[from] = final
				a.affected = append(a.affected, t.nameOf(from))
			}
			a.Learners = append(a.Learners, t.nameOf(final))
		}
	}
	for _, from := range t.erased {
		a.Departures = append(a.Departures, Departure{LearnerName: t.nameOf(from)})
		if r.state.present(from) {
			a.goes[from] = answer.Token{}
			a.affected = append(a.affected, t.nameOf(from))
		}
	}
	if err := r.relearn(ctx, a, nil, nil); err != nil {
		return err
	}
	renamed, newest := r.takeOut(a, renames)
	if err := r.exchange(a); err != nil {
		return err
	}
	if err := r.attachAll(a, renamed, newest); err != nil {
		return err
	}
	return nil
}

// findDoubles notes which rows stand twice when learners become one, and returns
// under which tokens there are answers among them.
func (r *run) findDoubles(ctx context.Context, a *amendment, t *tracks) (map[answer.Token]bool, error) {
	var joining []Joining
	for _, final := range t.named {
		holds := t.holds[final]
		if len(holds) < 2 {
			continue
		}
		for _, from := range holds {
			joining = append(joining, Joining{t.nameOf(from), final})
		}
	}
	if len(joining) == 0 {
		return nil, nil
	}
	var err error
	if a.Doubles, err = r.config.Persistence.Doubles(ctx, r.partition, AnswersArchive, joining, a.Order); err != nil {
		return nil, err
	}
	if a.TestDoubles, err = r.config.Persistence.Doubles(ctx, r.partition, TestResultsArchive, joining, a.Order); err != nil {
		return nil, err
	}
	doubled := make(map[answer.Token]bool)
	for _, d := range a.Doubles {
		doubled[d.Into] = true
		a.double(d.Position)
	}
	return doubled, nil
}

// takeOut takes learners out that come back under another token, as the rows
// that it returns.
func (r *run) takeOut(a *amendment, renames []rename) (*SkillRows, map[answer.Token]int64) {
	from := make([]answer.Token, 0, len(renames))
	for _, n := range renames {
		from = append(from, n.from)
	}
	layers := r.state.layersOf(from)
	rows, newest := &SkillRows{}, make(map[answer.Token]int64)
	var rings []uint64
	for _, n := range renames {
		newest[n.into] = r.state.newestOf(n.from)
		first := rows.Len()
		r.state.appendLayers(rows, layers[n.from], &rings)
		for i := first; i < rows.Len(); i++ {
			rows.Learner[i], rows.KeyEpoch[i], rows.Position[i] = n.into, a.epochs[n.into], a.position
		}
		for _, number := range layers[n.from] {
			r.state.appendGone(&a.skills, r.state.layers.at(number), a.position)
		}
		r.state.detach(n.from, layers[n.from])
	}
	return rows, newest
}
