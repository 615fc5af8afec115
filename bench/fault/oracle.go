package fault

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// oracle is what one partition must become, slowly and plainly: the whole archive
// in memory, every learner a computation of its own, sums counted answer by
// answer. It shares the arithmetic of one learner with the program, and nothing of
// how corrections, orders and repeats are followed.
type oracle struct {
	catalog    *transform.Catalog
	parameters filter.Parameters
	archive    map[answer.Position]*archived
	seen       map[primaryKey]bool // that were ever in the archive
	pupils     map[answer.Token]*pupil
	sums       map[string]*sum
	corrected  int
	moved      int
	erased     int
}

// archived is an answer as it stands in the archive.
type archived struct {
	columns     answer.Columns // of one row
	gradient    int32
	information uint16
}

func (a *archived) token() answer.Token { return a.columns.Learner.At(0) }

// pupil is the state of one learner.
type pupil struct {
	state *transform.Partition
	rows  map[string]transform.SkillRows // one row each, by layer and key
}

type sum struct {
	goal, subject                            string
	gradient, information, answers, scoreSum int64
	position                                 answer.Position
}

func newOracle(catalog *transform.Catalog) *oracle {
	return &oracle{catalog: catalog, parameters: filter.DefaultParameters(), archive: make(map[answer.Position]*archived), seen: make(map[primaryKey]bool),
		pupils: make(map[answer.Token]*pupil), sums: make(map[string]*sum)}
}

// primaryKey names an answer.
type primaryKey struct {
	school     string
	learner    answer.Token
	answeredAt int64
	id         answer.EventID
}

func keyOf(c *answer.Columns, row int) primaryKey {
	return primaryKey{strings.Clone(c.School.At(row)), c.Learner.At(row), c.AnsweredAt[row], c.EventID[row]}
}

// rowOf copies a row of a message.
func rowOf(c *answer.Columns, row int) answer.Columns {
	text := func(s *answer.Strings) answer.Strings {
		return answer.Strings{Codes: []int32{0}, Values: []string{strings.Clone(s.At(row))}}
	}
	out := answer.Columns{EventID: []answer.EventID{c.EventID[row]}, KeyEpoch: c.KeyEpoch,
		Learner: answer.Tokens{Codes: []int32{0}, Values: []answer.Token{c.Learner.At(row)}}}
	out.Facts = answer.Facts{Rows: 1, Publisher: text(&c.Publisher), School: text(&c.School), Group: text(&c.Group), Exercise: text(&c.Exercise),
		Goal: text(&c.Goal), Subject: text(&c.Subject), YearGroup: []uint8{c.YearGroup[row]}, Kind: []uint8{c.Kind[row]}, Score: []float64{c.Score[row]},
		Attempt: []uint16{c.Attempt[row]}, ResponseTime: []int32{c.ResponseTime[row]}, AnsweredAt: []int64{c.AnsweredAt[row]}, Revision: []uint32{c.Revision[row]}}
	return out
}

// answers follows a message of answers, read against a version.
func (o *oracle) answers(c *answer.Columns, version *transform.Snapshot) {
	corrections := o.corrections(c)
	fresh := make(map[answer.Token][]int)
	for row := range c.Rows {
		if corrections.covers[row] || o.seen[keyOf(c, row)] {
			continue
		}
		o.seen[keyOf(c, row)] = true
		o.archive[c.Position(row)] = &archived{columns: rowOf(c, row)}
		if token := c.Learner.At(row); !corrections.affected[token] {
			fresh[token] = append(fresh[token], row)
		}
	}
	for token, rows := range fresh {
		others := make([]bool, c.Rows)
		for row := range others {
			others[row] = !slices.Contains(rows, row)
		}
		p := o.pupil(token)
		p.state.Apply(c, others, version)
		var said transform.Evidence
		p.state.SwapEvidence(&said)
		p.take()
		for _, row := range rows {
			a := o.archive[c.Position(row)]
			a.gradient, a.information = said.Gradient[row], said.Information[row]
			o.count(a, 1, c.Position(row))
		}
	}
	if corrections.any {
		o.carryOut(corrections, c, version)
	}
}

func (o *oracle) pupil(token answer.Token) *pupil {
	p := o.pupils[token]
	if p == nil {
		p = &pupil{state: transform.NewPartition(o.parameters, o.catalog), rows: make(map[string]transform.SkillRows)}
		o.pupils[token] = p
	}
	return p
}

// take keeps the rows that have changed.
func (p *pupil) take() {
	var c transform.Checkpoint
	p.state.Checkpoint(&c)
	for i := range c.Skills.Len() {
		var one transform.SkillRows
		one.Append(&c.Skills, i)
		p.rows[fmt.Sprintf("%d %s", one.Layer[0], one.Key[0])] = one
	}
}

// all returns the rows of a learner.
func (p *pupil) all() transform.SkillRows {
	var rows transform.SkillRows
	for _, one := range p.rows {
		rows.Append(&one, 0)
	}
	return rows
}

// corrections are those of one message.
type corrections struct {
	any      bool // whether there is a row with a revision
	covers   map[int]bool
	affected map[answer.Token]bool
	places   map[int]answer.Position // of what a row takes the place of
}

// corrections decides what the corrections of a message do: of one event the
// highest revision counts, then the first.
func (o *oracle) corrections(c *answer.Columns) *corrections {
	k := &corrections{covers: make(map[int]bool), affected: make(map[answer.Token]bool), places: make(map[int]answer.Position)}
	winners := make(map[string]int)
	event := func(row int) string { return fmt.Sprint(c.School.At(row), c.EventID[row]) }
	for row := range c.Rows {
		if c.Revision[row] == 0 {
			continue
		}
		k.any = true
		if best, known := winners[event(row)]; !known || c.Revision[row] > c.Revision[best] {
			winners[event(row)] = row
		}
	}
	for name, winner := range winners {
		place, best := answer.Position(0), (*archived)(nil)
		for position, a := range o.archive {
			if fmt.Sprint(a.columns.School.At(0), a.columns.EventID[0]) == name &&
				(best == nil || a.columns.Revision[0] > best.columns.Revision[0] || a.columns.Revision[0] == best.columns.Revision[0] && position < place) {
				place, best = position, a
			}
		}
		o.decide(k, c, winner, place, best, event)
	}
	return k
}

func (o *oracle) decide(k *corrections, c *answer.Columns, winner int, place answer.Position, best *archived, event func(int) string) {
	for row := range c.Rows {
		if row == winner || event(row) != event(winner) {
			continue
		}
		k.covers[row] = true
		if best == nil && c.Revision[row] == 0 && row < winner && !o.seen[keyOf(c, row)] {
			// Delivered and corrected in the same message.
			o.seen[keyOf(c, row)] = true
			best, place = &archived{columns: rowOf(c, row)}, c.Position(row)
		}
	}
	switch {
	case best == nil: // an answer like others
	case best.columns.Revision[0] >= c.Revision[winner]:
		k.covers[winner] = true
	default:
		k.covers[winner] = true
		k.places[winner] = place
		k.affected[best.token()], k.affected[c.Learner.At(winner)] = true, true
	}
}

func (o *oracle) carryOut(k *corrections, c *answer.Columns, version *transform.Snapshot) {
	last := c.Position(c.Rows - 1)
	o.takeBack(k.affected, last)
	for row, place := range k.places {
		o.clear(keyOf(c, row))
		o.archive[place] = &archived{columns: rowOf(c, row)}
		o.seen[keyOf(c, row)] = true
		o.corrected++
	}
	o.learn(k.affected, last, version)
	o.touchGlobal(last)
}

// clear makes room at a key, where a row of the same event may stand that was
// delivered for another learner once.
func (o *oracle) clear(key primaryKey) {
	for place, a := range o.archive {
		if keyOf(&a.columns, 0) == key {
			delete(o.archive, place)
		}
	}
}

// takeBack takes out of the sums what learners have said, and the learners.
func (o *oracle) takeBack(tokens map[answer.Token]bool, position answer.Position) {
	for _, a := range o.archive {
		if tokens[a.token()] {
			o.count(a, -1, position)
			a.gradient, a.information = 0, 0
		}
	}
	for token := range tokens {
		delete(o.pupils, token)
	}
}

// learn learns learners anew from all of their answers.
func (o *oracle) learn(tokens map[answer.Token]bool, position answer.Position, version *transform.Snapshot) {
	places := make(map[answer.Token][]answer.Position)
	for place, a := range o.archive {
		if tokens[a.token()] {
			places[a.token()] = append(places[a.token()], place)
		}
	}
	for token, list := range places {
		slices.Sort(list)
		p := o.pupil(token)
		for n, place := range list {
			a := o.archive[place]
			one := a.columns
			one.RawOffset = int64(n) + 1
			p.state.Apply(&one, nil, version)
			var said transform.Evidence
			p.state.SwapEvidence(&said)
			a.gradient, a.information = said.Gradient[0], said.Information[0]
			o.count(a, 1, position)
		}
		p.take()
		o.put(token, p.all(), position)
	}
}

// put gives a learner rows that are as of a position.
func (o *oracle) put(token answer.Token, rows transform.SkillRows, position answer.Position) {
	for i := range rows.Len() {
		rows.Learner[i], rows.Position[i] = token, position
	}
	p := &pupil{state: transform.NewPartition(o.parameters, o.catalog), rows: make(map[string]transform.SkillRows)}
	if err := p.state.Restore(&transform.Restored{Position: position, Skills: rows}); err != nil {
		panic(fmt.Sprintf("oracle: %v", err)) // rows of its own making
	}
	for i := range rows.Len() {
		var one transform.SkillRows
		one.Append(&rows, i)
		p.rows[fmt.Sprintf("%d %s", one.Layer[0], one.Key[0])] = one
	}
	o.pupils[token] = p
}

// commands follows orders about learners.
func (o *oracle) commands(c *answer.Commands, version *transform.Snapshot) {
	if c.Rows == 0 {
		return
	}
	last := c.Position(c.Rows - 1)
	for row, kind := range c.Kind {
		from, into := c.Learner.At(row), c.Into.At(row)
		if kind == answer.CommandErase {
			o.takeBack(map[answer.Token]bool{from: true}, last)
			for place, a := range o.archive {
				if a.token() == from {
					delete(o.archive, place)
					o.erased++
				}
			}
			continue
		}
		o.move(from, into, c.KeyEpoch, last, version)
	}
	o.touchGlobal(last)
}

func (o *oracle) move(from, into answer.Token, epoch uint32, position answer.Position, version *transform.Snapshot) {
	old, other := o.pupils[from], o.pupils[into]
	both := map[answer.Token]bool{from: true, into: true}
	if old != nil && other != nil {
		o.takeBack(both, position)
		o.once(both, into)
	}
	for key := range o.seen { // also of what corrections have moved away
		if key.learner == from {
			key.learner = into
			o.seen[key] = true
		}
	}
	for _, a := range o.archive {
		if a.token() == from {
			a.columns.Learner.Values = []answer.Token{into}
			a.columns.KeyEpoch = epoch
			o.moved++
		}
	}
	switch {
	case old != nil && other != nil:
		o.learn(map[answer.Token]bool{into: true}, position, version)
	case old != nil:
		delete(o.pupils, from)
		rows := old.all()
		for i := range rows.Len() {
			rows.KeyEpoch[i] = epoch
		}
		o.put(into, rows, position)
	}
}

// once deletes what would stand twice when learners are one: of an event at one
// moment the newest revision stays, then the first delivery.
func (o *oracle) once(learners map[answer.Token]bool, into answer.Token) {
	best := make(map[primaryKey]answer.Position)
	for place, a := range o.archive {
		if !learners[a.token()] {
			continue
		}
		key := keyOf(&a.columns, 0)
		key.learner = into
		other, twice := best[key]
		switch b := o.archive[other]; {
		case !twice:
			best[key] = place
		case a.columns.Revision[0] > b.columns.Revision[0] || a.columns.Revision[0] == b.columns.Revision[0] && place < other:
			delete(o.archive, other)
			best[key] = place
		default:
			delete(o.archive, place)
		}
	}
}

// count adds what an answer says to the sums, or takes it back.
func (o *oracle) count(a *archived, times int64, position answer.Position) {
	if a.information == 0 {
		return
	}
	c := &a.columns
	add := func(component transform.Component, key, goal, subject string) {
		name := fmt.Sprintf("%d %s", component, key)
		s := o.sums[name]
		if s == nil {
			s = &sum{}
			o.sums[name] = s
		}
		if s.goal == "" {
			s.goal = goal
		}
		if s.subject == "" {
			s.subject = subject
		}
		s.gradient += times * int64(a.gradient) << 16
		s.information += times * int64(a.information) << 16
		s.answers += times
		s.scoreSum += times * int64(math.RoundToEven(c.Score[0]*(1<<32)))
		s.position = max(s.position, position)
	}
	add(transform.ComponentItem, answer.ItemKey(c.Publisher.At(0), c.Exercise.At(0)), c.Goal.At(0), c.Subject.At(0))
	add(transform.ComponentGoal, c.Goal.At(0), "", c.Subject.At(0))
	add(transform.ComponentGlobal, "", "", "")
}

// touchGlobal notes that a message which amends has passed: that is how the sums
// tell that they hold it.
func (o *oracle) touchGlobal(position answer.Position) {
	name := fmt.Sprintf("%d ", transform.ComponentGlobal)
	if o.sums[name] == nil {
		o.sums[name] = &sum{}
	}
	o.sums[name].position = max(o.sums[name].position, position)
}

// tables returns what the tables must hold, by table and row.
func (o *oracle) tables() (map[string]map[string]string, error) {
	all := map[string]map[string]string{"skills": {}, "item_sums": {}, "norms": {}, "answers": {}}
	var everybody transform.SkillRows
	for _, p := range o.pupils {
		rows := p.all()
		everybody.AppendRange(&rows, 0, rows.Len())
	}
	s := &everybody
	for i := range s.Len() {
		token := s.Learner[i].Bytes()
		all["skills"][fmt.Sprintf("%s %d %s", hex.EncodeToString(token[:]), s.Layer[i], s.Key[i])] = fmt.Sprint(s.Subject[i], s.School[i], s.Group[i],
			" ", s.YearGroup[i], " ", s.KeyEpoch[i], " ", bits(s.Mean[i]), " ", bits(s.Variance[i]), " ", s.Answers[i], " ", s.LastAt[i], " ", bits(s.FastMean[i]),
			" ", bits(s.SlowMean[i]), " ", bits(s.LastScore[i]), " ", uint64(s.Position[i]), " ", strings.ReplaceAll(fmt.Sprint(s.Recent[i]), " ", ","))
	}
	for name, c := range o.sums {
		all["item_sums"][name] = fmt.Sprint(c.goal, c.subject, " ", c.gradient, " ", c.information, " ", c.answers, " ", c.scoreSum, " ", uint64(c.position))
	}
	for position, a := range o.archive {
		all["answers"][strconv.FormatUint(uint64(position), 10)] = a.text()
	}
	together := transform.NewPartition(o.parameters, o.catalog)
	if err := together.Restore(&transform.Restored{Skills: everybody}); err != nil {
		return nil, err
	}
	var norms transform.NormRows
	together.TakeNorms(&norms)
	for i := range norms.Layer {
		all["norms"][fmt.Sprintf("%d %s %d", norms.Layer[i], norms.Key[i], norms.YearGroup[i])] =
			strings.ReplaceAll(fmt.Sprintf("%d %d", norms.Bins[i], norms.Counts[i]), " ", ",")
	}
	return all, nil
}

// text is how the archive shows an answer.
func (a *archived) text() string {
	c := &a.columns
	token := a.token().Bytes()
	return fmt.Sprint(hex.EncodeToString(c.EventID[0][:]), " ", hex.EncodeToString(token[:]), " ", c.KeyEpoch, " ", c.School.At(0), " ", c.Exercise.At(0), " ",
		c.AnsweredAt[0], " ", bits(c.Score[0]), " ", c.Revision[0], " ", a.gradient, " ", a.information)
}
