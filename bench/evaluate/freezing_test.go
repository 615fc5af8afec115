package evaluate

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// frozen is the filter as partitions run it: learners move at once, difficulties
// stand still for an epoch and move by the sum of the contributions at its end.
type frozen struct {
	parameters   filter.Parameters
	learners     map[int64]filter.Gaussian // overall under skill none
	items, goals []filter.Gaussian
	global       filter.Gaussian
	itemSums     []filter.Contribution
	goalSums     []filter.Contribution
	globalSum    filter.Contribution
	epoch        int // answers per epoch
	count        int
	skill        filter.Learner
	shared       filter.Shared
	prediction   filter.Prediction
}

func newFrozen(a *Answers, epoch int) *frozen {
	s := &frozen{
		parameters: filter.DefaultParameters(), learners: make(map[int64]filter.Gaussian), epoch: epoch,
		items: make([]filter.Gaussian, len(a.Items)), itemSums: make([]filter.Contribution, len(a.Items)),
		goals: make([]filter.Gaussian, len(a.Skills)), goalSums: make([]filter.Contribution, len(a.Skills)),
	}
	for i := range s.items {
		s.items[i] = s.parameters.Shared[filter.ComponentItem]
	}
	for i := range s.goals {
		s.goals[i] = s.parameters.Shared[filter.ComponentGoal]
	}
	s.global = s.parameters.Shared[filter.ComponentGlobal]
	return s
}

func (s *frozen) layer(key int64, layer int) filter.Gaussian {
	if g, seen := s.learners[key]; seen {
		return s.parameters.Drift(layer, g, 0)
	}
	return s.parameters.Prior(layer)
}

func (s *frozen) predict(a *Answers, i int) float64 {
	u, k := a.Learner[i], a.Skill[i]
	s.skill = filter.Learner{
		filter.LayerOverall: s.layer(pair(u, none), filter.LayerOverall),
		filter.LayerGoal:    s.layer(pair(u, k), filter.LayerGoal),
	}
	s.shared = filter.Shared{s.items[a.Item[i]], s.goals[k], s.global}
	s.prediction = filter.Predict(&s.skill, &s.shared, filter.Question{})
	return s.prediction.P
}

func (s *frozen) learn(a *Answers, i int) {
	u, q, k := a.Learner[i], a.Item[i], a.Skill[i]
	c := s.shared.Contribute(&s.prediction, a.Score[i])
	s.itemSums[q] = s.itemSums[q].Add(c[filter.ComponentItem])
	s.goalSums[k] = s.goalSums[k].Add(c[filter.ComponentGoal])
	s.globalSum = s.globalSum.Add(c[filter.ComponentGlobal])
	s.skill.Update(&s.prediction, a.Score[i])
	s.learners[pair(u, none)], s.learners[pair(u, k)] = s.skill[filter.LayerOverall], s.skill[filter.LayerGoal]
	if s.count++; s.count%s.epoch == 0 {
		s.reduce()
	}
}

func (s *frozen) reduce() {
	for q, c := range s.itemSums {
		s.items[q] = s.parameters.Reduce(s.items[q], c)
	}
	for k, c := range s.goalSums {
		s.goals[k] = s.parameters.Reduce(s.goals[k], c)
	}
	s.global = s.parameters.Reduce(s.global, s.globalSum)
	clear(s.itemSums)
	clear(s.goalSums)
	s.globalSum = filter.Contribution{}
}

// TestFreezingCostsLittle measures what epochs cost against moving the
// difficulties at once.
func TestFreezingCostsLittle(t *testing.T) {
	t.Parallel()
	a, err := Load(context.Background(), "", filepath.Join(datasets(t), "algebra05", "answers.csv.gz"), "")
	if err != nil {
		t.Fatal(err)
	}
	a.sortByTime()
	clear(a.Time) // the frozen filter has no drift in time
	own, err := newEngine()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := replay(t.Context(), a, own, func(int) {}); err != nil {
		t.Fatal(err)
	}
	atOnce := measure(own.experts[0], a.Score).AUC // of the filter alone
	for _, c := range []struct {
		epoch   int
		largest float64 // cost in AUC
	}{{100, 0.001}, {500, 0.002}, {1000, 0.0025}} {
		p, _, err := replay(t.Context(), a, newFrozen(a, c.epoch), func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		got := measure(p, a.Score).AUC
		t.Logf("epochs of %d answers: AUC %.5f, at once %.5f", c.epoch, got, atOnce)
		if got < atOnce-c.largest {
			t.Errorf("epochs of %d answers: AUC %.5f, at once %.5f, want at most %v less", c.epoch, got, atOnce, c.largest)
		}
	}
}
