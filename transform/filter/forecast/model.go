package forecast

import (
	"errors"
	"fmt"
	"math"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// quickDrift is by how much the skills of the quick filter move faster: an order
// of magnitude.
const quickDrift = 10

// Config are the constants of a Model. The zero value asks for the defaults.
type Config struct {
	Parameters *filter.Parameters // nil = filter.DefaultParameters
	Limit      int                // entries per table, default 16 million
}

// defaultLimit bounds a table of contexts to about 600 MB.
const defaultLimit = 1 << 24

// Validate names the field that is out of range.
func (c *Config) Validate() error {
	if c.Limit < 0 || c.Limit > math.MaxInt32 {
		return errors.New("forecast limit: want 0 to 2^31-1")
	}
	if c.Parameters != nil {
		return c.Parameters.Validate()
	}
	return nil
}

// Event is an answer before its score is known.
type Event struct {
	Learner uint64   // any number that is the learner's own
	Item    uint64   // likewise
	Goal    uint64   // likewise; 0 = unknown
	Tags    []uint64 // finer skills that the item needs, if known
	AtMs    int64    // moment, ms; 0 = unknown
}

// Forecast is what the experts, and their mixture, expect.
type Forecast struct {
	P      float64 // mixture: what to use
	Filter float64
	Quick  float64
	Head   float64
	Full   float64
}

// learnerState is what is remembered of a learner.
type learnerState struct {
	overall, quick      filter.Gaussian
	history             filter.Counters
	recent              uint32 // last scores, newest in bit 0, 1 = half a point or more
	item1, item2, goal1 uint64 // last item, the one before, last goal
	pace                relative
}

// goalState is what is remembered of a learner at a goal.
type goalState struct {
	skill   filter.Gaussian
	quick   filter.Gaussian
	history filter.Counters
	recent  uint32
}

// itemState is what is remembered of a learner at an item.
type itemState struct {
	repeats filter.Repeats
	recent  uint32
}

// Model predicts answers and learns from them, one by one. Create one with New.
type Model struct {
	parameters   filter.Parameters
	quick        filter.Parameters // of the quick filter
	global       filter.Gaussian
	items, goals *table[filter.Gaussian]
	learners     *table[learnerState]
	learnerGoals *table[goalState]
	learnerItems *table[itemState]
	contexts     *table[filter.Gaussian]
	paces        *table[pace] // per item
	weights      *table[weight]
	head         filter.Trainer
	full         wide
	mixture      mixture
	last         pending
}

// pending is the answer that was predicted and not yet learned from.
type pending struct {
	event      Event
	learner    *learnerState
	goal       *goalState
	item       *itemState
	itemShared *filter.Gaussian
	goalShared *filter.Gaussian
	skill      filter.Learner
	shared     filter.Shared
	prediction filter.Prediction
	quick      filter.Learner
	hasty      filter.Prediction // of the quick filter
	features   filter.Features
	active     []active
	corrected  float64 // probability of filter and contexts, without a head
	ownV       float64 // variance of the contexts
	forecast   Forecast
}

// New returns a model that has seen nothing.
func New(c Config) (*Model, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("create forecast: %w", err)
	}
	if c.Limit == 0 {
		c.Limit = defaultLimit
	}
	m := &Model{
		parameters: filter.DefaultParameters(),
		items:      newTable[filter.Gaussian](c.Limit), goals: newTable[filter.Gaussian](c.Limit),
		learners: newTable[learnerState](c.Limit), learnerGoals: newTable[goalState](c.Limit),
		learnerItems: newTable[itemState](c.Limit), contexts: newTable[filter.Gaussian](c.Limit), paces: newTable[pace](c.Limit),
		weights: newTable[weight](c.Limit),
		head:    filter.NewTrainer(), full: newWide(), mixture: newMixture(),
	}
	if c.Parameters != nil {
		m.parameters = *c.Parameters
	}
	m.quick = m.parameters
	for i := range m.quick.Learner {
		m.quick.Learner[i].DriftPerAnswer *= quickDrift
	}
	m.global = m.parameters.Shared[filter.ComponentGlobal]
	return m, nil
}

// Predict returns what to expect of an answer. Learn must follow before the next
// Predict, or the answer is forgotten. The event's tags are not kept.
func (m *Model) Predict(e Event) Forecast {
	p := &m.last
	p.event = e
	m.gather(p)
	p.prediction = filter.Predict(&p.skill, &p.shared, filter.Question{})
	p.features.Fill(&p.prediction, &p.learner.history, &p.goal.history, &p.item.repeats, e.AtMs)
	p.hasty = filter.Predict(&p.quick, &p.shared, filter.Question{})
	p.forecast.Filter, p.forecast.Quick = p.prediction.P, p.hasty.P
	p.forecast.Head = m.head.Head.Probability(&p.features)
	m.situate(p)
	logit := m.correct(p)
	p.forecast.Full = m.full.predict(p, logit, m.weights)
	p.forecast.P = m.mixture.predict(&p.forecast)
	p.event.Tags = nil
	return p.forecast
}

// gather looks up, or starts, everything that the answer involves.
func (m *Model) gather(p *pending) {
	e := &p.event
	p.learner = m.learners.at(mix(e.Learner))
	p.goal = m.learnerGoals.at(join(e.Learner, e.Goal))
	p.item = m.learnerItems.at(join(e.Learner, e.Item))
	p.itemShared = start(m.items.at(mix(e.Item)), m.parameters.Shared[filter.ComponentItem])
	p.shared = filter.Shared{filter.ComponentItem: *p.itemShared, filter.ComponentGlobal: m.global}
	p.skill = filter.Learner{filter.LayerOverall: layer(&m.parameters, filter.LayerOverall, p.learner.overall, &p.learner.history, e.AtMs)}
	p.quick = filter.Learner{filter.LayerOverall: layer(&m.quick, filter.LayerOverall, p.learner.quick, &p.learner.history, e.AtMs)}
	if e.Goal != 0 {
		p.goalShared = start(m.goals.at(mix(e.Goal)), m.parameters.Shared[filter.ComponentGoal])
		p.shared[filter.ComponentGoal] = *p.goalShared
		p.skill[filter.LayerGoal] = layer(&m.parameters, filter.LayerGoal, p.goal.skill, &p.goal.history, e.AtMs)
		p.quick[filter.LayerGoal] = layer(&m.quick, filter.LayerGoal, p.goal.quick, &p.goal.history, e.AtMs)
	}
}

// start gives a new Gaussian its prior.
func start(g *filter.Gaussian, prior filter.Gaussian) *filter.Gaussian {
	if g.Variance == 0 {
		*g = prior
	}
	return g
}

// layer returns a layer of the learner as it is at atMs.
func layer(parameters *filter.Parameters, layer int, g filter.Gaussian, c *filter.Counters, atMs int64) filter.Gaussian {
	if c.Answers == 0 {
		return parameters.Prior(layer)
	}
	var elapsed int64
	if c.LastAtMs > 0 {
		elapsed = atMs - c.LastAtMs
	}
	return parameters.Drift(layer, g, elapsed)
}

// Learn learns from the score (0 to 1) of the answer that was predicted last.
func (m *Model) Learn(score float64) { m.LearnTimed(score, 0) }

// LearnTimed learns from the score of the answer that was predicted last, and from
// how long it took, in any unit; 0 = unknown.
func (m *Model) LearnTimed(score, responseTime float64) {
	p := &m.last
	m.mixture.learn(&p.forecast, score)
	m.full.learn(p, score)
	m.head.Learn(&p.features, p.forecast.Head, score)
	learnContexts(p, score)
	p.skill.Update(&p.prediction, score)
	p.quick.Update(&p.hasty, score)
	p.shared.Update(&p.prediction, score)
	*p.itemShared = p.shared[filter.ComponentItem]
	m.global = p.shared[filter.ComponentGlobal]
	p.learner.overall, p.learner.quick = p.skill[filter.LayerOverall], p.quick[filter.LayerOverall]
	if p.event.Goal != 0 {
		*p.goalShared = p.shared[filter.ComponentGoal]
		p.goal.skill, p.goal.quick = p.skill[filter.LayerGoal], p.quick[filter.LayerGoal]
	}
	m.learnPace(p, responseTime)
	p.remember(score)
}

// remember adds the answer to the histories.
func (p *pending) remember(score float64) {
	var bit uint32
	if score >= 0.5 {
		bit = 1
	}
	e := &p.event
	p.learner.history.Add(score, e.AtMs)
	p.goal.history.Add(score, e.AtMs)
	p.item.repeats.Add(score)
	p.learner.recent = p.learner.recent<<1 | bit
	p.goal.recent = p.goal.recent<<1 | bit
	p.item.recent = p.item.recent<<1 | bit
	p.learner.item2, p.learner.item1, p.learner.goal1 = p.learner.item1, e.Item, e.Goal
}

// Skill returns the skill of a learner at a goal (0 = overall), and false when
// there is no answer of that learner.
func (m *Model) Skill(learner, goal uint64) (filter.Gaussian, bool) {
	s := m.learners.find(mix(learner))
	if s == nil {
		return filter.Gaussian{}, false
	}
	l := filter.Learner{filter.LayerOverall: s.overall}
	if goal != 0 {
		l[filter.LayerGoal] = m.parameters.Prior(filter.LayerGoal)
		if g := m.learnerGoals.find(join(learner, goal)); g != nil {
			l[filter.LayerGoal] = g.skill
		}
	}
	return l.Skill(), true
}

// Mixture returns the weights of the experts filter, quick, head and full.
func (m *Model) Mixture() [experts]float64 { return m.mixture.weight }
