package forecast

import "github.com/leerstroom/leerstroom/transform/filter"

// Rates of the running averages of pace.
const (
	itemPaceRate    = 0.1
	learnerPaceRate = 0.3
	largestPace     = 2 // a factor of seven; slower is a break, faster a slip
)

// pace is how long answers take, as running averages on a logarithmic scale.
type pace struct {
	mean    float64
	answers uint32
}

func (p *pace) add(x, rate float64) {
	if p.answers == 0 {
		p.mean = x
	} else {
		p.mean += float64(max(rate, 1/float64(p.answers+1)) * (x - p.mean))
	}
	if p.answers != 1<<32-1 {
		p.answers++
	}
}

// relative is what is remembered of a learner's response times: how much slower
// than others at the same exercise, last time and of late.
type relative struct {
	last, usual float64
	known       bool
}

// learnPace takes the response time of an answer in; any unit will do, because
// only ratios at the same item count. Nothing is learned from a time that isn't
// above 0.
func (m *Model) learnPace(p *pending, responseTime float64) {
	if !(responseTime > 0) {
		p.learner.pace.known = false
		p.learner.pace.last = 0
		return
	}
	x := filter.Log(responseTime)
	item := m.paces.at(mix(p.event.Item))
	if item.answers > 0 {
		r := &p.learner.pace
		r.last = max(-largestPace, min(largestPace, x-item.mean))
		r.usual += float64(learnerPaceRate * (r.last - r.usual))
		r.known = true
	}
	item.add(x, itemPaceRate)
}
