package transform

import (
	"context"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// piece works through some of the messages and returns how many: read, find
// repeats, apply, produce, archive. Nothing of it is durable before a
// checkpoint; an error leaves it to the next start.
func (r *run) piece(ctx context.Context, w *workspace, messages []stream.Message) (n int, err error) {
	units, n, err := r.read(ctx, w, messages)
	if err != nil {
		return 0, err
	}
	if len(units) == 1 && units[0].amends() {
		if err := r.amend(ctx, w, &units[0]); err != nil {
			return 0, err
		}
		r.answersOffset = messages[n-1].Offset
		return n, nil
	}
	if err := r.findRepeats(ctx, w, units); err != nil {
		return 0, err
	}
	if err := r.apply(ctx, w, units); err != nil {
		return 0, err
	}
	for i := range units {
		if err := r.archive(ctx, &units[i]); err != nil {
			return 0, err
		}
	}
	r.answersOffset = messages[n-1].Offset
	return n, nil
}

// read decodes as many messages as a piece holds; one that amends is a piece of
// its own. One that was seen before is passed over, one that can't be used goes
// to the dead letters and counts as empty from then on.
func (r *run) read(ctx context.Context, w *workspace, messages []stream.Message) (units []unit, n int, err error) {
	used, bytes, mark := 0, 0, r.mark
	for n < len(messages) && used < pieceMessages && (n == 0 || bytes+len(messages[n].Value) <= pieceBytes) {
		m := &messages[n]
		n++
		bytes += len(m.Value)
		rawOffset, err := m.Int64(stream.HeaderRawOffset)
		if err != nil || rawOffset < 0 {
			if err := r.deadLetter(ctx, m, ReasonHeaders); err != nil {
				return nil, 0, err
			}
			continue
		}
		if rawOffset <= mark {
			continue // produced twice
		}
		mark = rawOffset
		u := &w.units[used]
		used++
		if err := u.read(m, rawOffset); err != nil {
			var poison *poison
			if !errors.As(err, &poison) {
				return nil, 0, err
			}
			r.config.Logger.ErrorContext(ctx, "message can't be used", "topic", r.config.Topics.Answers,
				"partition", r.partition, "offset", m.Offset, "error", err)
			if err := r.deadLetter(ctx, m, poison.reason); err != nil {
				return nil, 0, err
			}
		}
		if u.amends() {
			if used > 1 {
				used, n = used-1, n-1
			}
			break
		}
	}
	return w.units[:used], n, nil
}

func (r *run) deadLetter(ctx context.Context, m *stream.Message, reason string) error {
	if err := r.config.DeadLetter(ctx, r.partition, reason, m); err != nil {
		return fmt.Errorf("dead letter of %s/%d offset %d: %w", r.config.Topics.Answers, r.partition, m.Offset, err)
	}
	r.stage.metrics.deadLetters.WithLabelValues(reason).Inc()
	return nil
}

// findRepeats marks the rows that were delivered before. Only an answer that is
// not newer than everything of its learner can be one; test results are so few
// that all are asked about. Corrections are decided on elsewhere.
func (r *run) findRepeats(ctx context.Context, w *workspace, units []unit) error {
	w.late, w.asked = w.late[:0], w.asked[:0]
	// Ids are remembered first, so that a repeat within the piece is found too.
	for i := range units {
		u := &units[i]
		if !u.delivers() {
			continue
		}
		r.pending.add(&u.rows)
		first := len(w.late)
		if u.content == contentAnswers {
			w.late = r.state.Scan(&u.answers, w.late)
		} else {
			for row := range u.rows.rows {
				w.late = append(w.late, int32(row))
			}
		}
		for _, row := range w.late[first:] {
			r.ask(w, u, i, row)
		}
	}
	for len(w.asked) > 0 {
		if err := r.lookUp(ctx, w, units); err != nil {
			return err
		}
	}
	return nil
}

// lookUp asks the store about late rows of one archive. It tells of an event id,
// so rows that share one, as a confused publisher may send them, are asked about
// one at a time; those that remain are left in w.asked.
func (r *run) lookUp(ctx context.Context, w *workspace, units []unit) error {
	w.lookups, w.later = w.lookups[:0], w.later[:0]
	clear(w.ids)
	now, archive := w.asked[:0], units[w.asked[0].unit].archive()
	for _, a := range w.asked {
		u := &units[a.unit]
		lookup := u.rows.lookup(int(a.row))
		if u.archive() != archive || w.ids[lookup.ID] {
			w.later = append(w.later, a)
			continue
		}
		w.ids[lookup.ID] = true
		now = append(now, a)
		w.lookups = append(w.lookups, lookup)
	}
	known, err := r.config.Persistence.Known(ctx, archive, w.lookups)
	if err != nil {
		return fmt.Errorf("look for repeats in partition %d: %w", r.partition, err)
	}
	r.stage.metrics.lookups.Add(float64(len(w.lookups)))
	for i, a := range now {
		u, row := &units[a.unit], int(a.row)
		if earliest, found := known[w.lookups[i].ID]; found && earliest < u.rows.position(row) {
			u.repeat[row], u.skip[row] = true, true
		}
	}
	w.asked, w.later = w.later, w.asked
	return nil
}

// ask settles a late row from memory or notes the question for the store.
func (r *run) ask(w *workspace, u *unit, index int, row int32) {
	d := &u.rows
	if d.revision[row] > 0 {
		return
	}
	key := pendingKeyOf(&d.id[row], d.learner.At(int(row)), d.moment[row])
	if earliest, found := r.pending.earliest(key); found && earliest < d.position(int(row)) {
		u.repeat[row], u.skip[row] = true, true
		return
	}
	w.asked = append(w.asked, asked{unit: index, row: row})
}

// apply moves the state and produces the messages of `skills`.
func (r *run) apply(ctx context.Context, w *workspace, units []unit) error {
	newest := r.config.Snapshots.Newest()
	w.out = w.out[:0]
	var produced []outgoing
	for i := range units {
		u := &units[i]
		if err := r.adopt(ctx, u, newest); err != nil {
			return err
		}
		w.rows.Reset()
		var applied Applied
		if u.content == contentAnswers {
			applied = r.state.Apply(&u.answers, u.repeat, u.snapshot)
			r.state.SwapEvidence(&u.said)
			r.state.Changes(&w.rows)
			r.stage.metrics.count(applied)
			r.countFirsts(applied.First)
			r.moved = r.moved || applied.Rows > 0
		}
		r.state.Pass(u.last())
		first, begin := len(produced), len(w.out)
		var err error
		if produced, err = r.encode(w, u, produced, &w.rows); err != nil {
			return fmt.Errorf("encode skills of partition %d, raw offset %d: %w", r.partition, u.rawOffset, err)
		}
		if u.recorded != nil && u.recorded.complete {
			r.compare(ctx, u, applied, w.out[begin:], len(produced)-first)
			produced, w.out = produced[:first], w.out[:begin]
			continue
		}
		for k := first; k < len(produced); k++ {
			produced[k].remaining = int64(len(produced) - 1 - k)
		}
	}
	return r.produce(ctx, w, produced)
}

// adopt chooses the snapshot of a message: the recorded one in a replay, by the
// log or, where that was lost, by the store, else the newest.
func (r *run) adopt(ctx context.Context, u *unit, newest *Snapshot) error {
	u.snapshot = newest
	if len(r.recorded) > 0 {
		if r.recorded[0].rawOffset != u.rawOffset {
			return fmt.Errorf("replay partition %d: raw offset %d in %s, but %d in %s", r.partition, u.rawOffset,
				r.config.Topics.Answers, r.recorded[0].rawOffset, r.config.Topics.Skills)
		}
		u.recorded = &r.recorded[0]
		r.recorded = r.recorded[1:]
		snapshot, err := r.config.Snapshots.At(ctx, u.recorded.version)
		if err != nil {
			return err
		}
		u.snapshot = snapshot
	} else if version, known := r.lost.version(u.rawOffset); known {
		snapshot, err := r.config.Snapshots.At(ctx, version)
		if err != nil {
			return err
		}
		u.snapshot = snapshot
	}
	if version := u.snapshot.Version(); version != r.version {
		r.version = version
		r.adoptions = append(r.adoptions, Adoption{Position: answer.At(u.rawOffset, 0), Version: version, Generation: r.assignment.Generation})
	}
	return nil
}

func (r *run) countFirsts(n int) {
	if n > 0 && r.firsts == 0 {
		r.firstsFrom = r.config.Now()
	}
	r.firsts += n
}

// outgoing is one message of `skills` in the making.
type outgoing struct {
	unit       *unit
	begin, end int   // in workspace.out
	remaining  int64 // further messages of the same raw offset
}

// encode appends the message of the rows, or several when one would be too
// large.
func (r *run) encode(w *workspace, u *unit, produced []outgoing, rows *SkillRows) ([]outgoing, error) {
	begin := len(w.out)
	var err error
	if w.out, err = w.encoder.AppendSkills(w.out, rows); err != nil {
		return produced, err
	}
	if len(w.out)-begin <= r.config.MaxSkillsBytes || rows.Len() < 2 {
		return append(produced, outgoing{unit: u, begin: begin, end: len(w.out)}), nil
	}
	w.out = w.out[:begin]
	half := rows.Len() / 2
	left, right := rows.slice(0, half), rows.slice(half, rows.Len())
	if produced, err = r.encode(w, u, produced, &left); err != nil {
		return produced, err
	}
	return r.encode(w, u, produced, &right)
}

// compare holds a replay against what the log says. A difference means that the
// program, its parameters or its input are not what they were.
func (r *run) compare(ctx context.Context, u *unit, applied Applied, value []byte, parts int) {
	r.skillsOffset = u.recorded.offset
	if parts != 1 || applied.Replayed > 0 || u.recorded.digest == xxhash.Sum64(value) {
		return
	}
	r.stage.metrics.differing.Inc()
	r.config.Logger.WarnContext(ctx, "replay differs from the log", "topic", r.config.Topics.Skills,
		"partition", r.partition, "offset", u.recorded.offset, "raw_offset", u.rawOffset)
}

// archive hands a message to the store and notes that it has passed.
func (r *run) archive(ctx context.Context, u *unit) error {
	var err error
	rows := 0
	switch u.content {
	case contentAnswers:
		rows = u.answers.Rows
		err = r.config.Persistence.Archive(ctx, r.partition, &u.answers, u.skip, &u.said)
	case contentTests:
		rows = u.tests.Rows
		err = r.config.Persistence.ArchiveTestResults(ctx, r.partition, &u.tests, u.skip)
		r.stage.metrics.countTestResults(u.skip)
	case contentNothing, contentCommands, contentRebuild:
	}
	if err != nil {
		return fmt.Errorf("archive partition %d, raw offset %d: %w", r.partition, u.rawOffset, err)
	}
	r.arrived = r.config.Now()
	if r.messages == 0 {
		r.since = r.arrived
	}
	r.messages++
	r.rows += rows
	r.mark, r.position = u.rawOffset, u.last()
	return nil
}
