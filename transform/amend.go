package transform

import (
	"context"
	"errors"
	"fmt"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// learnersAtOnce is how many learners' answers are in memory at the same time.
const learnersAtOnce = 256

// amends tells whether a message may change what is durable already.
func (u *unit) amends() bool {
	if u.content == contentCommands {
		return u.commands.Rows > 0
	}
	if u.content == contentRebuild {
		return true
	}
	if !u.delivers() {
		return false
	}
	for _, revision := range u.rows.revision {
		if revision > 0 {
			return true
		}
	}
	return false
}

// amendment is one in the making.
type amendment struct {
	Amendment
	relearner
	unit     *unit
	affected []LearnerName // in the order in which the message names them
	goes     map[answer.Token]answer.Token
	epochs   map[answer.Token]uint32
	doubles  map[answer.Position]bool // of Doubles
	skills   SkillRows                // of the affected, as they become
}

// amend works through a message that may change what is durable already, the
// only one of the workspace. What was before it is durable when it begins, and it
// is when it returns.
func (r *run) amend(ctx context.Context, w *workspace, u *unit) error {
	if err := r.drain(ctx); err != nil {
		return err
	}
	if err := r.adopt(ctx, u, r.config.Snapshots.Newest()); err != nil {
		return err
	}
	a := &amendment{unit: u, epochs: make(map[answer.Token]uint32),
		relearner: relearner{partition: r.state, snapshot: u.snapshot, position: u.last()}}
	a.Order, a.RawOffset = answer.At(u.rawOffset, 0), u.rawOffset
	_, global := r.state.global.of(0)
	a.SumsDone = global.seen() && global.position >= a.Order
	var err error
	switch u.content {
	case contentCommands:
		err = r.planCommands(ctx, a)
	case contentRebuild:
		err = r.planRebuild(ctx, a)
	case contentTests:
		err = r.planTestResults(ctx, w, a)
	case contentAnswers:
		err = r.planAnswers(ctx, w, a)
	case contentNothing: // amends nothing
	}
	if err != nil {
		return fmt.Errorf("amend partition %d by raw offset %d: %w", r.partition, u.rawOffset, err)
	}
	if !a.SumsDone && u.content != contentTests {
		r.state.amendSums(a.delta, a.position)
	}
	a.skills = together(&a.skills)
	r.state.Pass(a.position)
	if err := r.announce(ctx, w, a); err != nil {
		return err
	}
	return r.settleAmendment(ctx, a)
}

// drain makes durable what was handled, and waits for it.
func (r *run) drain(ctx context.Context) error {
	for asked := false; ; {
		if err := r.settle(); err != nil {
			return err
		}
		position, any, _ := r.durable.state() // an error was reported by settle
		if r.messages == 0 && (r.mark < 0 || any && position >= r.position) {
			return nil
		}
		if !asked {
			if err := r.checkpoint(ctx, r.config.Now(), true); err != nil {
				return err
			}
			asked = true
			continue
		}
		select {
		case <-r.durable.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// announce produces the messages of `skills`: what the amendment leads to is
// decided, and seen by readers, before it is durable in the store.
func (r *run) announce(ctx context.Context, w *workspace, a *amendment) error {
	u := a.unit
	w.rows.Reset()
	var applied Applied
	if u.content == contentAnswers {
		r.state.Changes(&w.rows)
	}
	w.rows.AppendRange(&a.skills, 0, a.skills.Len())
	w.out = w.out[:0]
	produced, err := r.encode(w, u, nil, &w.rows)
	if err != nil {
		return fmt.Errorf("encode skills of partition %d, raw offset %d: %w", r.partition, u.rawOffset, err)
	}
	if u.recorded != nil && u.recorded.complete {
		// Of a message that was followed in part, what is left may be less.
		applied.Replayed = 1
		r.compare(ctx, u, applied, nil, len(produced))
		return nil
	}
	for k := range produced {
		produced[k].remaining = int64(len(produced) - 1 - k)
	}
	return r.produce(ctx, w, produced)
}

// settleAmendment makes the amendment durable.
func (r *run) settleAmendment(ctx context.Context, a *amendment) error {
	u, now := a.unit, r.config.Now()
	a.Partition, a.Generation = r.partition, r.assignment.Generation
	a.AnswersOffset, a.SkillsOffset, a.SnapshotVersion, a.Adoptions = u.offset, r.skillsOffset, r.version, r.adoptions
	if r.state.NormsDue() || due(now, r.norms, r.config.NormInterval) {
		r.state.TakeNorms(&a.Norms)
		r.norms, r.moved = now, false
	} else {
		r.moved = true
	}
	r.state.Checkpoint(&a.Checkpoint)
	a.Skills.AppendRange(&a.skills, 0, a.skills.Len())
	if err := r.config.Persistence.Amend(ctx, &a.Amendment); err != nil {
		if errors.Is(err, ErrAmended) {
			err = errors.Join(errOvertaken, err)
		}
		return fmt.Errorf("amend partition %d by raw offset %d: %w", r.partition, u.rawOffset, err)
	}
	r.adoptions = nil
	r.mark, r.position = u.rawOffset, u.last()
	r.durable.done(r.position, nil)
	r.assignment.Commit(u.offset + 1)
	r.pending.cut()
	r.countFirsts(1)
	if len(a.Departures) > 0 {
		r.amended = now
	}
	r.stage.metrics.amendments.Inc()
	return nil
}

// relearn learns the affected learners anew, some at a time. Answers at replaced
// positions are those of the message instead; extra are further rows of the
// message. goes says under which token an affected learner's answers are learnt,
// zero = nowhere; a token that it doesn't name keeps them.
func (r *run) relearn(ctx context.Context, a *amendment, replaced map[answer.Position]bool, extra map[answer.Token][]source) error {
	for _, group := range a.groups() {
		archived, err := r.config.Persistence.LearnerAnswers(ctx, r.partition, group, a.Order)
		if err != nil {
			return err
		}
		var sources []source
		for row := range archived.Rows {
			if a.arrived(archived, row) {
				continue
			}
			a.takeBack(archived, row)
			target := a.targetOf(archived.Learner.At(row))
			if target.IsZero() || replaced[archived.Position[row]] || a.doubles[archived.Position[row]] {
				continue
			}
			if _, known := a.epochs[target]; !known {
				a.epochs[target] = archived.Epoch[row]
			}
			sources = append(sources, source{position: archived.Position[row], learner: target, row: int32(row)})
		}
		for _, name := range group {
			sources = append(sources, extra[name.Learner]...)
		}
		said := a.learn(sources, archived, &a.unit.answers, a.epochs)
		a.note(sources, archived, &said)
	}
	return nil
}

func (a *amendment) double(position answer.Position) {
	if a.doubles == nil {
		a.doubles = make(map[answer.Position]bool)
	}
	a.doubles[position] = true
}

// targetOf returns the token that everything under a token goes to.
func (a *amendment) targetOf(token answer.Token) answer.Token {
	if target, moves := a.goes[token]; moves {
		return target
	}
	return token
}

// arrived tells whether a row was moved by an earlier attempt and has not left
// where it was: then the row there counts, which says what it said before.
func (a *amendment) arrived(archived *ArchivedAnswers, row int) bool {
	for _, beside := range []int{row - 1, row + 1} {
		if beside >= 0 && beside < archived.Rows && archived.Position[beside] == archived.Position[row] {
			token := archived.Learner.At(row)
			return a.targetOf(token) == token
		}
	}
	return false
}

// groups cuts the affected learners into groups, never those that become one.
func (a *amendment) groups() [][]LearnerName {
	byTarget := make(map[answer.Token][]LearnerName)
	var order []answer.Token
	for _, name := range a.affected {
		target := a.targetOf(name.Learner)
		if byTarget[target] == nil {
			order = append(order, target)
		}
		byTarget[target] = append(byTarget[target], name)
	}
	var groups [][]LearnerName
	for _, target := range order {
		if n := len(groups); n > 0 && len(groups[n-1])+len(byTarget[target]) <= learnersAtOnce {
			groups[n-1] = append(groups[n-1], byTarget[target]...)
		} else {
			groups = append(groups, byTarget[target])
		}
	}
	return groups
}

// note keeps what the rows say now: with the rows of the message, and for those
// of the archive where it is something else than before.
func (a *amendment) note(sources []source, archived *ArchivedAnswers, said *Evidence) {
	for i := range sources {
		s := &sources[i]
		switch {
		case s.message:
			a.Said.Gradient[s.row], a.Said.Information[s.row] = said.Gradient[i], said.Information[i]
		case said.Gradient[i] != archived.Gradient[s.row] || said.Information[i] != archived.Information[s.row]:
			a.Rescored = append(a.Rescored, Rescored{s.position, said.Gradient[i], said.Information[i]})
		}
	}
}

// exchange puts the relearnt learners into the state, in the place of those that
// were affected, and gathers the rows that tell readers.
func (r *run) exchange(a *amendment) error {
	tokens := make([]answer.Token, 0, len(a.affected))
	for _, name := range a.affected {
		tokens = append(tokens, name.Learner)
	}
	stays := make(map[learnerLayer]bool, a.rows.Len())
	for i := range a.rows.Len() {
		stays[learnerLayer{a.rows.Learner[i], a.rows.Layer[i], a.rows.Key[i]}] = true
	}
	layers, newest := r.state.layersOf(tokens), make(map[answer.Token]int64)
	for _, token := range tokens {
		if target := a.targetOf(token); !target.IsZero() {
			newest[target] = max(newest[target], r.state.newestOf(token))
		}
		for _, number := range layers[token] {
			l := r.state.layers.at(number)
			if !stays[learnerLayer{token, l.kind, r.state.layerKey(l)}] {
				r.state.appendGone(&a.skills, l, a.position)
			}
		}
		r.state.detach(token, layers[token])
	}
	if err := r.attachAll(a, &a.rows, newest); err != nil {
		return err
	}
	for _, name := range a.affected {
		if a.targetOf(name.Learner) == name.Learner {
			r.state.raiseNewest(name.Learner, newest[name.Learner])
		}
	}
	return nil
}

type learnerLayer struct {
	learner answer.Token
	layer   Layer
	key     string
}

// attachAll puts learners in and tells readers. newest are the newest moments
// that the learners were seen to answer at, also those corrected since: what is
// newer is no repeat.
func (r *run) attachAll(a *amendment, rows *SkillRows, newest map[answer.Token]int64) error {
	for first := 0; first < rows.Len(); {
		last := first + 1
		for last < rows.Len() && rows.Learner[last] == rows.Learner[first] {
			last++
		}
		token := rows.Learner[first]
		seen := max(newest[token], r.state.newestOf(token))
		r.state.detach(token, nil) // known, but without answers
		if err := r.state.attach(rows, first, last); err != nil {
			return err
		}
		r.state.raiseNewest(token, seen)
		first = last
	}
	a.skills.AppendRange(rows, 0, rows.Len())
	return nil
}

// together brings the rows of a learner together, and leaves out that a layer is
// gone when the same message brings it back.
func together(rows *SkillRows) SkillRows {
	lives := make(map[learnerLayer]bool, rows.Len())
	places := make(map[answer.Token][]int)
	var order []answer.Token
	for i, token := range rows.Learner {
		if places[token] == nil {
			order = append(order, token)
		}
		places[token] = append(places[token], i)
		if rows.Answers[i] > 0 {
			lives[learnerLayer{token, rows.Layer[i], rows.Key[i]}] = true
		}
	}
	var sorted SkillRows
	for _, token := range order {
		for _, i := range places[token] {
			if rows.Answers[i] > 0 || !lives[learnerLayer{token, rows.Layer[i], rows.Key[i]}] {
				sorted.Append(rows, i)
			}
		}
	}
	return sorted
}
