package query

import (
	"errors"
	"math"
	"sort"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// The rules of selecting.
const (
	nearest        = 5    // at least so many candidates are compared by their use …
	mostNearest    = 32   // … and at most so many …
	nearEnough     = 0.1  // … as lie within so many logits of the wanted difficulty
	longestScan    = 512  // exercises looked at on the way
	randomProbes   = 64   // draws for one that is not over its share when the scan found none
	shareLimit     = 1.8  // times the mean use of the goal's exercises that one may have …
	shareSlack     = 2    // … plus this, for the beginning
	halveAt        = 64   // mean use at which the counters of a bank are halved
	unsureVariance = 0.16 // an exercise whose standard error is over .4 is given more
	farFromTarget  = 0.1  // probability: the bank has nothing that fits
)

// Reason says why an exercise was selected.
type Reason uint8

// The reasons. Their texts are in the API.
const (
	ReasonTarget      Reason = iota // expected success nearest to the target, least used
	ReasonRandom                    // drawn uniformly
	ReasonNewExercise               // near the target, and its difficulty is not known well yet
	ReasonNewLearner                // near the target for the prior: nothing is known of the learner
	ReasonOffTarget                 // the goal has no exercise near the target
	ReasonRepeat                    // every exercise of the goal was answered recently
)

// String returns the code in the API.
func (r Reason) String() string {
	return [...]string{"target", "random", "new-exercise", "new-learner", "off-target", "repeat"}[r]
}

// Request asks for the next exercise of a learner.
type Request struct {
	Learner answer.Token
	Goal    string // "" selects the goal that is most under its quota
	// Quotas are shares of the learner's answers that goals should get; with none,
	// the goals that the learner has begun get equal ones.
	Quotas []Quota
	Target float64 // probability of a right answer, inside (0, 1)
	// YearGroup is used for a learner of whom the model holds no answer. 0 =
	// unknown.
	YearGroup uint8
}

// Quota is the share of the learner's answers that a goal should get, in any unit.
type Quota struct {
	Goal  string
	Share float64 // above 0
}

// Selection is the answer to a Request.
type Selection struct {
	Exercise  string // publisher:exercise
	Goal      string
	Subject   string
	Expected  float64 // probability of a right answer
	Random    bool    // drawn uniformly, whatever the target
	Reason    Reason
	Skill     float64 // in the goal, as used
	SE        float64 // its standard error
	Low, High float64 // 90 % band of the skill
	Version   uint64  // item snapshot that was used
}

// ErrNoExercise says that there is no exercise to give: the goal is unknown or
// empty, or no goal was asked for and there is none at all.
var ErrNoExercise = errors.New("no exercise")

// situation is what selecting needs to know of a learner, copied out of the
// model.
type situation struct {
	known       bool
	yearGroup   uint8
	layers      filter.Learner
	variance    float64         // of the error of the skill that they make together
	history     filter.Counters // of all answers …
	goalHistory filter.Counters // … and of those at the goal
	position    answer.Position
	recent      [recentItems]uint32
	recents     int
}

func (s *situation) isRecent(hash uint32) bool {
	for _, r := range s.recent[:s.recents] {
		if r == hash {
			return true
		}
	}
	return false
}

// Next selects an exercise. It allocates nothing and takes no lock but the read
// lock of the learner's shard.
func (m *ReadModel) Next(r *Request) (Selection, error) {
	goal, s := m.situationOf(r)
	if goal == nil {
		return Selection{}, ErrNoExercise
	}
	b := goal.bank.Load()
	if b == nil || len(b.items) == 0 {
		return Selection{}, ErrNoExercise
	}
	pick := picker{model: m, bank: b, goal: goal, situation: s, target: r.Target}
	pick.random = m.newDraws(r.Learner, s.position, goal)
	pick.ground()
	item, reason := pick.pick(m.config.RandomShare)
	goal.gave(b, item)
	skill, se := s.layers.Skill(), math.Sqrt(s.variance)
	return Selection{
		Exercise: item.key, Goal: goal.name, Subject: goal.parent.Load().name,
		Expected: pick.expected(item), Random: reason == ReasonRandom, Reason: reason,
		Skill: skill.Mean, SE: se, Low: skill.Mean - band90*se, High: skill.Mean + band90*se,
		Version: m.SnapshotVersion(),
	}, nil
}

// situationOf finds the goal and copies what is known of the learner.
func (m *ReadModel) situationOf(r *Request) (*domain, situation) {
	var goal *domain
	if r.Goal != "" {
		d, ok := m.catalogue.findGoal(r.Goal)
		if !ok {
			return nil, situation{}
		}
		goal = d
	}
	sh := &m.learners.shards[shardOf(r.Learner)]
	sh.mu.RLock()
	l, _ := sh.find(r.Learner)
	if l == nil {
		sh.mu.RUnlock()
		s := situation{yearGroup: min(r.YearGroup, yearGroups-1)}
		if goal == nil {
			if goal = m.goalUnderQuota(nil, r.Quotas); goal == nil {
				goal = m.usualGoal(s.yearGroup)
			}
		}
		s.layers = m.newcomer(s.yearGroup)
		s.variance = s.layers.Skill().Variance
		return goal, s
	}
	defer sh.mu.RUnlock()
	if goal == nil {
		goal = m.goalOf(l, r.Quotas)
	}
	s := m.situationOfKnown(l, goal)
	if goal != nil {
		s.variance = m.varianceAt(l, goal, m.config.Now())
	}
	return goal, s
}

// goalOf chooses the goal of a request that names none.
func (m *ReadModel) goalOf(l *learner, quotas []Quota) *domain {
	if d := m.goalUnderQuota(l, quotas); d != nil {
		return d
	}
	if d := m.neglectedGoal(l); d != nil {
		return d
	}
	return m.usualGoal(l.yearGroup)
}

// goalUnderQuota returns the goal with exercises that has the fewest answers of
// the learner (nil = none) for its share; of equals the one with the largest
// share, then the first. nil when none of the goals has exercises.
func (m *ReadModel) goalUnderQuota(l *learner, quotas []Quota) *domain {
	var found *domain
	var least, largest float64
	for i := range quotas {
		q := &quotas[i]
		d, known := m.catalogue.findGoal(q.Goal)
		if !known || !d.hasExercises() {
			continue
		}
		use := 0.0
		if l != nil {
			if own := l.find(transform.LayerGoal, d.index); own != nil {
				use = float64(own.answers) / q.Share
			}
		}
		if found == nil || use < least || use == least && q.Share > largest {
			found, least, largest = d, use, q.Share
		}
	}
	return found
}

// neglectedGoal returns the goal with exercises that has the fewest answers
// among those that the learner has begun: goals have equal quotas. nil when the
// learner has begun none.
func (m *ReadModel) neglectedGoal(l *learner) *domain {
	var found *domain
	fewest := uint32(math.MaxUint32)
	for i := range l.layers {
		inner := &l.layers[i]
		if inner.kind != transform.LayerGoal || inner.answers >= fewest {
			continue
		}
		if d := m.catalogue.goals.at(inner.key); d.hasExercises() && d.name != "" {
			found, fewest = d, inner.answers
		}
	}
	return found
}

// usualGoal returns the goal with exercises that most learners of a year group
// have begun; without a year group, of all.
func (m *ReadModel) usualGoal(yearGroup uint8) *domain {
	var found *domain
	most := int64(-1)
	for _, d := range m.catalogue.goals.all() {
		if d.name == "" || !d.hasExercises() {
			continue
		}
		n := int64(0)
		for y := range uint8(yearGroups) {
			if yearGroup == 0 || y == yearGroup {
				n += d.learners(y)
			}
		}
		if n > most {
			found, most = d, n
		}
	}
	return found
}

func (d *domain) hasExercises() bool {
	b := d.bank.Load()
	return b != nil && len(b.items) > 0
}

// picker is the work of one selection.
type picker struct {
	model      *ReadModel
	bank       *bank
	goal       *domain
	situation  situation
	random     draws
	target     float64
	base       float64 // skill minus the difficulty's common part
	variance   float64 // of base
	want       float64 // difficulty of an exercise that meets the target
	correction correction
}

// ground takes the difficulty that all exercises of the goal share off the skill.
func (p *picker) ground() {
	none := filter.Shared{
		filter.ComponentGoal:   p.model.gaussian(filter.ComponentGoal, p.goal.measure.Load()),
		filter.ComponentGlobal: p.model.gaussian(filter.ComponentGlobal, p.model.items.global.Load()),
	}
	prediction := filter.Predict(&p.situation.layers, &none, filter.Question{})
	p.base, p.variance = prediction.Z, prediction.V
	p.correction = p.model.correct(&p.situation)
}

// expected returns the probability that the learner answers an exercise right.
func (p *picker) expected(item *Item) float64 {
	shared := p.model.shared(item)
	prediction := filter.Predict(&p.situation.layers, &shared, filter.Question{})
	return p.correction.probability(&prediction)
}

func (p *picker) pick(randomShare float64) (*Item, Reason) {
	if p.random.fraction() < randomShare {
		if item := p.uniform(); item != nil {
			return item, ReasonRandom
		}
	}
	item := p.leastUsedNear()
	if item == nil {
		item = p.probe()
	}
	switch {
	case item == nil:
		return p.bank.items[p.random.below(len(p.bank.items))], ReasonRepeat
	case !p.situation.known:
		return item, ReasonNewLearner
	case math.Abs(p.expected(item)-p.target) > farFromTarget:
		return item, ReasonOffTarget
	case item.measure.Load().variance > unsureVariance:
		return item, ReasonNewExercise
	}
	return item, ReasonTarget
}

// uniform draws among the exercises that are not recent; nil when chance finds
// none.
func (p *picker) uniform() *Item {
	for range randomProbes {
		if item := p.bank.items[p.random.below(len(p.bank.items))]; !p.situation.isRecent(item.hash) {
			return item
		}
	}
	return nil
}

// limit is how often an exercise may have been given.
func (p *picker) limit() float64 {
	return shareLimit*float64(p.goal.given.Load())/float64(len(p.bank.items)) + shareSlack
}

// leastUsedNear walks from the wanted difficulty outwards, on the nearer side
// first, and returns the least used of the nearest; nil when all that it looked
// at are recent or over their share.
func (p *picker) leastUsedNear() *Item {
	list := p.bank.difficulty
	up := p.aim()
	want, down := p.want, up-1
	limit := p.limit()
	var best *Item
	least := math.Inf(1)
	found := 0
	for scanned := 0; scanned < longestScan && found < mostNearest && (down >= 0 || up < len(list)); scanned++ {
		i := down
		if down < 0 || up < len(list) && list[up]-want < want-list[down] {
			i = up
			up++
		} else {
			down--
		}
		if found >= nearest && math.Abs(list[i]-want) > nearEnough {
			break
		}
		item := p.bank.items[i]
		use := float64(item.given.Load())
		if use >= limit || p.situation.isRecent(item.hash) {
			continue
		}
		if item.measure.Load().variance > unsureVariance {
			use /= 2
		}
		found++
		if use < least {
			best, least = item, use
		}
	}
	return best
}

// aim sets the wanted difficulty and returns where in the bank it is. How
// uncertain an exercise is moves it a little: the one found first stands for its
// neighbours.
func (p *picker) aim() int {
	list := p.bank.difficulty
	logit := p.correction.inverse(filter.Logit(p.target))
	at := sort.SearchFloat64s(list, p.base-margin(logit, p.variance))
	near := p.bank.items[min(at, len(list)-1)].measure.Load()
	p.want = p.base - margin(logit, p.variance+near.variance)
	return sort.SearchFloat64s(list, p.want)
}

// probe draws exercises at random and returns the one that fits best of those
// that are neither recent nor over their share; failing that, the least used.
func (p *picker) probe() *Item {
	var best, least *Item
	limit := p.limit()
	nearestBy := math.Inf(1)
	for range randomProbes {
		item := p.bank.items[p.random.below(len(p.bank.items))]
		if p.situation.isRecent(item.hash) {
			continue
		}
		if least == nil || item.given.Load() < least.given.Load() {
			least = item
		}
		if by := math.Abs(p.expected(item) - p.target); float64(item.given.Load()) < limit && by < nearestBy {
			best, nearestBy = item, by
		}
	}
	if best == nil {
		return least
	}
	return best
}

// gave counts a selection. When the mean use gets high all counters of the bank
// are halved, so that a new exercise has to catch up with recent use only.
func (d *domain) gave(b *bank, item *Item) {
	item.given.Add(1)
	if d.given.Add(1) < halveAt*uint64(len(b.items)) || !d.halving.TryLock() {
		return
	}
	defer d.halving.Unlock()
	total := uint64(0)
	for _, item := range b.items {
		n := item.given.Load() / 2
		item.given.Store(n)
		total += uint64(n)
	}
	d.given.Store(total)
}

// draws are random numbers that follow from the seed, the learner, its newest
// answer and the goal (SplitMix64).
type draws uint64

func (m *ReadModel) newDraws(t answer.Token, position answer.Position, goal *domain) draws {
	low, high := words(t)
	d := draws(m.config.Seed ^ low)
	d = draws(d.next() ^ high)
	d = draws(d.next() ^ uint64(position))
	return draws(d.next() ^ goal.hash)
}

func (d *draws) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	z := uint64(*d)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (d *draws) fraction() float64 { return float64(d.next()>>11) / (1 << 53) }

func (d *draws) below(n int) int { return int(d.next() % uint64(n)) }
