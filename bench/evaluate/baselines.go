package evaluate

import "math"

// system predicts answers one by one and learns from each after it predicted.
type system interface {
	predict(a *Answers, i int) float64
	learn(a *Answers, i int)
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// itemMean predicts the share of right answers of the item, drawn to the share of
// all with the weight of five answers.
type itemMean struct {
	right, count       []float64
	allRight, allCount float64
}

func newItemMean(a *Answers) *itemMean {
	return &itemMean{right: make([]float64, len(a.Items)), count: make([]float64, len(a.Items))}
}

func (s *itemMean) predict(a *Answers, i int) float64 {
	item := a.Item[i]
	all := (s.allRight + 1) / (s.allCount + 2)
	return (s.right[item] + 5*all) / (s.count[item] + 5)
}

func (s *itemMean) learn(a *Answers, i int) {
	item := a.Item[i]
	s.right[item] += a.Score[i]
	s.count[item]++
	s.allRight += a.Score[i]
	s.allCount++
}

// elo is Elo with the gain alpha/(1+beta·n) for both sides, n the answers before.
type elo struct {
	alpha, beta             float64
	skill, difficulty       []float64
	skillSeen, difficultySn []float64
	p                       float64
}

func newElo(a *Answers, alpha, beta float64) *elo {
	return &elo{
		alpha: alpha, beta: beta,
		skill: make([]float64, len(a.Learners)), skillSeen: make([]float64, len(a.Learners)),
		difficulty: make([]float64, len(a.Items)), difficultySn: make([]float64, len(a.Items)),
	}
}

func (s *elo) predict(a *Answers, i int) float64 {
	s.p = sigmoid(s.skill[a.Learner[i]] - s.difficulty[a.Item[i]])
	return s.p
}

func (s *elo) learn(a *Answers, i int) {
	u, q := a.Learner[i], a.Item[i]
	e := a.Score[i] - s.p
	s.skill[u] += s.alpha / (1 + s.beta*s.skillSeen[u]) * e
	s.difficulty[q] -= s.alpha / (1 + s.beta*s.difficultySn[q]) * e
	s.skillSeen[u]++
	s.difficultySn[q]++
}

// eloTree is hierarchical Elo: an overall skill and one per skill of the data.
type eloTree struct {
	overall, overallSeen   []float64
	own, ownSeen           map[int64]float64
	difficulty, difficulSn []float64
}

// Constants of the hierarchical Elo.
const (
	treeAlpha      = 0.8
	treeBeta       = 0.05
	treeWrongShare = 0.5 // of the gain, after a wrong answer
)

func newEloTree(a *Answers) *eloTree {
	return &eloTree{
		overall: make([]float64, len(a.Learners)), overallSeen: make([]float64, len(a.Learners)),
		own: make(map[int64]float64), ownSeen: make(map[int64]float64),
		difficulty: make([]float64, len(a.Items)), difficulSn: make([]float64, len(a.Items)),
	}
}

// pair is a key for a learner and something of his.
func pair(learner, other int32) int64 { return int64(learner)<<32 | int64(uint32(other)) }

func (s *eloTree) predict(a *Answers, i int) float64 {
	u := a.Learner[i]
	return sigmoid(s.overall[u] + s.own[pair(u, a.Skill[i])] - s.difficulty[a.Item[i]])
}

func (s *eloTree) learn(a *Answers, i int) {
	u, q, y := a.Learner[i], a.Item[i], a.Score[i]
	k := pair(u, a.Skill[i])
	gain := func(seen float64) float64 { return treeAlpha / (1 + treeBeta*seen) }
	kappa := treeWrongShare
	if y >= 0.5 {
		kappa = 1
	}
	p := sigmoid(s.overall[u] + s.own[k] - s.difficulty[q])
	s.difficulty[q] -= gain(s.difficulSn[q]) * (y - p)
	s.overall[u] += kappa * gain(s.overallSeen[u]) * (y - sigmoid(s.overall[u]-s.difficulty[q]))
	s.own[k] += kappa * gain(s.ownSeen[k]) * (y - sigmoid(s.overall[u]+s.own[k]-s.difficulty[q]))
	s.difficulSn[q]++
	s.overallSeen[u]++
	s.ownSeen[k]++
}
