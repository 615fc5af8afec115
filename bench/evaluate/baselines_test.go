package evaluate

import (
	"math"
	"testing"
)

// twoAnswers are a right and then a wrong answer of one learner to one item.
func twoAnswers() *Answers {
	return &Answers{
		Learner: []int32{0, 0}, Item: []int32{0, 0}, Skill: []int32{0, 0}, Time: []int64{0, 0}, Score: []float64{1, 0},
		Learners: []string{"u"}, Items: []string{"i"}, Skills: []string{"k"},
	}
}

func TestBaselinesByHand(t *testing.T) {
	t.Parallel()
	// Elo with gain .4: after a right answer at p = ½ the skill is .2 and the
	// difficulty -.2, so p = σ(.4); with 1/(1+.05n): σ(1). The item mean goes from
	// ½ to (1+5·⅔)/6. The tree: difficulty -.4, then skill .8(1-σ(.4)), then its
	// own part .8(1-σ(skill+.4)).
	overall := 0.8 * (1 - sigmoid(0.4))
	own := 0.8 * (1 - sigmoid(overall+0.4))
	a := twoAnswers()
	for name, c := range map[string]struct {
		system system
		second float64
	}{
		"elo .4":    {newElo(a, 0.4, 0), sigmoid(0.4)},
		"elo 1/.05": {newElo(a, 1, 0.05), sigmoid(1)},
		"item mean": {newItemMean(a), (1 + 5*2.0/3) / 6},
		"elo tree":  {newEloTree(a), sigmoid(overall + own + 0.4)},
	} {
		if p := c.system.predict(a, 0); p != 0.5 {
			t.Errorf("%s: first prediction %v, want .5", name, p)
		}
		c.system.learn(a, 0)
		if p := c.system.predict(a, 1); math.Abs(p-c.second) > 1e-12 {
			t.Errorf("%s: second prediction %v, want %v", name, p, c.second)
		}
		c.system.learn(a, 1)
	}
}
