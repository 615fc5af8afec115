package filter

// The rates of the two running averages of a Counters, and where they stand after
// a first answer: (first share)·score + (first base).
const (
	slowRate       = 0.15
	slowFirstBase  = 0.42
	slowFirstShare = 0.3
	fastRate       = 0.4
	fastFirstBase  = 0.24
	fastFirstShare = 0.6
)

// Counters is the history of a learner, or of a learner at a goal, that the
// logistic head looks at.
type Counters struct {
	Answers  uint32
	Last     float64 // score of the last answer
	Slow     float64 // running average of the score, rate .15
	Fast     float64 // running average of the score, rate .4
	LastAtMs int64   // moment of the last answer, ms; 0 = unknown
}

// Add counts an answer.
func (c *Counters) Add(score float64, atMs int64) {
	if c.Answers == 0 {
		c.Slow = slowFirstBase + float64(slowFirstShare*score)
		c.Fast = fastFirstBase + float64(fastFirstShare*score)
	} else {
		c.Slow += float64(slowRate * (score - c.Slow))
		c.Fast += float64(fastRate * (score - c.Fast))
	}
	if c.Answers != 1<<32-1 {
		c.Answers++
	}
	c.Last = score
	c.LastAtMs = atMs
}

// Repeats is the history of a learner at one item.
type Repeats struct {
	Answers uint32
	Right   float64 // sum of the scores
	Last    float64 // score of the last answer
}

// Add counts an answer.
func (r *Repeats) Add(score float64) {
	if r.Answers != 1<<32-1 {
		r.Answers++
	}
	r.Right += score
	r.Last = score
}
