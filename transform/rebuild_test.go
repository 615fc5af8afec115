package transform_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// rebuild makes everything what a replay of the archive under the oracle's model
// gives, each answer against the version that was used at its place, or where its
// learner was learnt anew.
func (o *oracle) rebuild(rawOffset int64) {
	o.changed, o.gone = make(map[layerName]bool), make(map[layerName]bool)
	position := answer.At(rawOffset, 0)
	before := make(map[answer.Position]oracleAnswer)
	old := o.learners
	o.learners = make(map[answer.Token]*oracleLearner)
	for token, l := range old {
		fresh := newOracleLearner()
		fresh.newest, fresh.any = l.newest, l.any
		o.learners[token] = fresh
	}
	for _, place := range o.places() {
		a := o.archive[place]
		before[place] = *a
		a.gradient, a.information = 0, 0
		if a.valid() {
			read := max(place, o.relearnt[a.learner])
			o.answer(o.learners[a.learner], a, position, o.versions[read.RawOffset()])
		}
	}
	for _, place := range o.places() {
		if was, is := before[place], o.archive[place]; was.gradient != is.gradient || was.information != is.information {
			o.count(&was, -1, position)
			o.count(is, 1, position)
		}
	}
	clear(o.changed)
	for token, l := range o.learners {
		if same := sameLayers(old[token].layers, l.layers); same {
			o.learners[token] = old[token]
			continue
		}
		for name := range l.layers {
			o.changed[name] = true
		}
	}
	o.touchGlobal(position)
}

// sameLayers compares everything but positions.
func sameLayers(a, b map[layerName]*skillRow) bool {
	if len(a) != len(b) {
		return false
	}
	for name, x := range a {
		y, ok := b[name]
		if !ok {
			return false
		}
		other := *y
		other.position = x.position
		if other != *x {
			return false
		}
	}
	return true
}

// orderRebuild produces an order to switch.
func (w *world) orderRebuild(partition int, rawOffset int64, number uint64) {
	w.t.Helper()
	w.messages[partition] = append(w.messages[partition], sent{rebuild: rawOffset})
	w.produce(partition, stream.Message{Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(answer.SchemaRebuild)}, stream.Int64Header(stream.HeaderRawOffset, rawOffset),
		stream.Int64Header(stream.HeaderKeyEpoch, 1), stream.DigestHeader(nil), stream.Int64Header(answer.HeaderRebuild, int64(number))}})
}

// otherModel differs from the defaults in what is thought of learners.
func otherModel() filter.Parameters {
	p := filter.DefaultParameters()
	p.Learner[filter.LayerOverall].Variance = 0.8
	p.Learner[filter.LayerGoal].DriftPerAnswer = 0.02
	return p
}

// TestRebuild changes the model of a running system, rebuilds beside it while
// answers, corrections and orders come in, switches, and breaks it meanwhile. An
// independent replay of the archive must find the same. A second rebuild finds
// nothing to do.
func TestRebuild(t *testing.T) {
	t.Parallel()
	for round := range 4 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			rebuildWhileRunning(t, newRandom(t))
		})
	}
}

func rebuildWhileRunning(t *testing.T, random *rand.Rand) {
	w := newWorld(t, random, 2)
	next, loads := make([]int64, w.partitions), make([]*workload, w.partitions)
	send := func(messages int) {
		for partition := range w.partitions {
			for range messages {
				w.sendNext(partition, loads[partition], next[partition], random.IntN(40))
				next[partition]++
			}
		}
	}
	for partition := range loads {
		loads[partition] = newWorkload(random, 30, 60)
	}
	send(25)
	c := w.crew()
	c.disturb(100)
	c.settle()
	w.stage(1, filter.DefaultParameters(), 0)

	w.parameters = otherModel()
	for partition := range w.partitions {
		w.changes = append(w.changes, modelChange{partition, next[partition], w.parameters})
	}
	c.restart()
	send(5)
	c.disturb(50)
	w.stage(2, w.parameters, 1)
	send(10)
	c.disturb(30)
	for partition := range w.partitions {
		w.orderRebuild(partition, next[partition], 2)
		next[partition]++
	}
	send(10)
	c.disturb(200)
	c.settle()
	w.verify()
	w.stage(3, w.parameters, 0)
	if n := w.deadLetters.Load(); n != 0 {
		t.Errorf("%d dead letters, want none", n)
	}
}

// stage computes all partitions and expects that learners come out otherwise, or
// (least = 0) that nothing does.
func (w *world) stage(number uint64, parameters filter.Parameters, least int) {
	w.t.Helper()
	rebuild := transform.NewRebuild(transform.RebuildConfig{Persistence: w.persistence, Number: number, Parameters: parameters})
	for partition := range w.partitions {
		done, err := rebuild.Stage(w.t.Context(), partition, func(int64) {})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Logf("rebuild %d, partition %d: %+v", number, partition, done)
		if done.Learners < least || done.Rescored < least || least == 0 && done.Learners+done.Rescored > 0 || done.Answers == 0 {
			w.t.Errorf("rebuild %d, partition %d: %d learners and %d answers come out otherwise, want at least %d, none for 0", number, partition, done.Learners, done.Rescored, least)
		}
	}
}

// TestReestimate: from the sums alone, exercises come out where their answers say,
// with the zero of the priors, in scales that follow the newest.
func TestReestimate(t *testing.T) {
	t.Parallel()
	sums := make([]transform.ItemSumRows, 2)
	add := func(partition int, component transform.Component, key, goal string, difficulty float64, answers int64) {
		information := answers << 30 // a quarter each
		sums[partition].Append(&transform.ItemSumRows{Component: []transform.Component{component}, Key: []string{key}, Goal: []string{goal}, Subject: []string{""},
			Gradient: []int64{int64(difficulty * float64(information))}, Information: []int64{information}, Answers: []int64{answers}, ScoreSum: []int64{0}, Position: []answer.Position{1}}, 0)
	}
	for i := range 40 {
		difficulty := float64(i%20)/5 - 1.9 // beyond what one step of the running estimates may move
		add(i%2, transform.ComponentItem, fmt.Sprintf("p:%02d", i), "g", difficulty, 100_000)
	}
	for partition := range sums {
		add(partition, transform.ComponentGoal, "g", "", 0, 2_000_000)
		add(partition, transform.ComponentGlobal, "", "", 0, 2_000_000)
	}
	scales := transform.Reestimate(filter.Parameters{}, sums, &transform.Scale{Number: 4, Head: filter.NewHead()}, 30)
	if len(scales) != 2 || scales[0].Scale.Number != 5 || scales[1].Scale.Number != 6 || scales[0].Component[0] != transform.ComponentGlobal || scales[0].Component[1] != transform.ComponentGoal {
		t.Fatalf("%d scales, want 5 and 6, what is shared first", len(scales))
	}
	common := scales[0].Mean[0] + scales[0].Mean[1]
	for _, rows := range scales {
		for i := range rows.Len() {
			if rows.Component[i] != transform.ComponentItem {
				continue
			}
			var n int
			if _, err := fmt.Sscanf(rows.Key[i], "p:%d", &n); err != nil {
				t.Fatal(err)
			}
			if got, want := rows.Mean[i]+common, float64(n%20)/5-1.9; math.Abs(got-want) > 0.01 {
				t.Errorf("%s: difficulty %.3f, want %.3f", rows.Key[i], got, want)
			}
		}
	}
	if links := scales[0].Scale.Links; len(links) != 1 || links[0].Exercises != 28 || links[0].Slope != 1 || links[0].Shift != 0 {
		t.Errorf("links %+v, want one plain one of 28 exercises", links)
	}
}

// TestRebuildOnClickHouse rebuilds beside real consumers and a real store, and
// stops them in the middle of the switch.
func TestRebuildOnClickHouse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newRandom(t), 2)
	w.persistence = openStore(t)
	next, loads := make([]int64, w.partitions), make([]*workload, w.partitions)
	send := func(messages int) {
		for partition := range w.partitions {
			if loads[partition] == nil {
				loads[partition] = newWorkload(w.random, 30, 80)
			}
			for range messages {
				w.sendNext(partition, loads[partition], next[partition], 1+w.random.IntN(60))
				next[partition]++
			}
			w.send(partition, loads[partition].message(next[partition], 5))
			next[partition]++
		}
	}
	send(15)
	stop := w.consume(2)
	w.await("the log under the first model", next[0])
	stop()
	w.stage(1, filter.DefaultParameters(), 0)
	w.parameters = otherModel()
	for partition := range w.partitions {
		w.changes = append(w.changes, modelChange{partition, next[partition], w.parameters})
	}
	stop = w.consume(2)
	send(3)
	w.await("the log under the second model", next[0])
	w.stage(2, w.parameters, 1)
	send(6)
	for partition := range w.partitions {
		w.orderRebuild(partition, next[partition], 2)
		next[partition]++
	}
	send(3)
	stop() // wherever they are
	stop = w.consume(3)
	w.await("the log after the switch", next[0])
	stop()
	w.verify()
	w.stage(3, w.parameters, 0)
	s, ok := w.persistence.(*store.Store)
	if !ok {
		t.Fatal("want the store")
	}
	if err := s.DropRebuilds(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if staged, err := s.LoadRebuild(t.Context(), 2, 0); err != nil || staged == nil || staged.Skills.Len() != 0 {
		t.Errorf("after the drop %+v, %v is staged, want nothing", staged, err)
	}
}
