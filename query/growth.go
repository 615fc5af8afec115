package query

import (
	"context"
	"math"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// History returns every layer of learners of one school as it was at the end of a
// day; the rows of a learner stand together. The store has it.
type History func(ctx context.Context, school string, learners []answer.Token, day transform.Day) ([]transform.DailySkill, error)

// past is where a learner stood at a moment.
type past struct {
	yearGroup uint8
	standings []transform.PastStanding
}

// pastOf reads where learners stood at the end of a day.
func (h *Handler) pastOf(ctx context.Context, school string, learners []answer.Token, day transform.Day) (map[answer.Token]past, error) {
	out := make(map[answer.Token]past, len(learners))
	if h.config.History == nil {
		return out, nil
	}
	rows, err := h.config.History(ctx, school, learners, day)
	if err != nil {
		return nil, err
	}
	for first := 0; first < len(rows); {
		end := first + 1
		for end < len(rows) && rows[end].Learner == rows[first].Learner {
			end++
		}
		learner := rows[first].Learner
		var replay transform.Replay // its standings are kept
		replay.Begin(rows[first:end])
		replay.Advance(day)
		yearGroup, _ := replay.YearGroup(math.MinInt32)
		out[learner] = past{yearGroup, replay.Standings(&h.model.parameters, day)}
		first = end
	}
	return out, nil
}

func (p *past) find(layer transform.Layer, key string) *transform.PastStanding {
	for i := range p.standings {
		if s := &p.standings[i]; s.Layer == layer && s.Key == key {
			return s
		}
	}
	return nil
}

// wandered returns the variance by which the filter lets a skill wander between a
// moment and the present: that of each of its layers.
func wandered(p *filter.Parameters, then *transform.PastStanding, answers [filter.Layers]uint32, days float64) (variance float64) {
	for kind := range int(then.Layer) + 1 {
		variance += p.Wander(kind, float64(answers[kind])-float64(then.Layers[kind].Answers), days)
	}
	return variance
}

// growth returns the growth of a skill of a learner since a day, false when the
// learner had not met it by then.
func (m *ReadModel) growth(s *Standing, p *Percentile, then *past, since transform.Day) (filter.Gaussian, bool) {
	old := then.find(p.Layer, p.Key)
	if old == nil || old.Answers == 0 {
		return filter.Gaussian{}, false
	}
	var answers [filter.Layers]uint32
	for i := range s.Percentiles {
		q := &s.Percentiles[i]
		switch {
		case q.Layer == transform.LayerOverall,
			q.Layer == transform.LayerSubject && p.Layer == transform.LayerGoal && q.Key == p.Subject,
			q.Layer == p.Layer && q.Key == p.Key:
			answers[q.Layer] = q.Answers
		}
	}
	wander := wandered(&m.parameters, old, answers, float64(m.today()-since))
	return filter.Growth(filter.Gaussian{Mean: old.Skill, Variance: old.Variance}, filter.Gaussian{Mean: p.Skill, Variance: p.SE * p.SE}, wander), true
}

type growthReply struct {
	Value     float64 `json:"value"`
	SE        float64 `json:"se"`
	Low       float64 `json:"low"`
	High      float64 `json:"high"`
	Direction string  `json:"direction"`
}

// newGrowthReply says a direction only when the growth is beyond noise: when its
// 90 % band leaves out zero.
func newGrowthReply(g filter.Gaussian) *growthReply {
	half := band90 * math.Sqrt(g.Variance)
	out := &growthReply{Value: rounded(g.Mean, 1e4), SE: rounded(math.Sqrt(g.Variance), 1e4), Direction: "unclear",
		Low: rounded(g.Mean-half, 1e4), High: rounded(g.Mean+half, 1e4)}
	switch {
	case g.Mean > half:
		out.Direction = "up"
	case g.Mean < -half:
		out.Direction = "down"
	}
	return out
}

type comparableReply struct {
	Weeks    uint8    `json:"weeks"`
	Learners int64    `json:"learners"`
	Median   float64  `json:"median"`
	Low      *float64 `json:"low"`
	High     *float64 `json:"high"`
}

// comparable returns what learners who began where this one stood had reached,
// week by week, according to a frozen norm.
func comparable(f *frozenNorm, then *past, p *Percentile) []comparableReply {
	out := []comparableReply{}
	old := then.find(p.Layer, p.Key)
	if f == nil || old == nil || old.Answers < transform.GrowthMinAnswers {
		return out
	}
	for _, weeks := range transform.GrowthWeeks {
		c := f.grown(p.Layer, p.Key, then.yearGroup, old.Skill, weeks)
		if c == nil {
			continue
		}
		reply := comparableReply{Weeks: weeks, Learners: sizeShown(c.Learners), Median: c.Median}
		if !math.IsNaN(c.Low) && !math.IsNaN(c.High) {
			reply.Low, reply.High = &c.Low, &c.High
		}
		out = append(out, reply)
	}
	return out
}
