package query

import (
	"math"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// maxMoments is how many moments of the past a history tells: three school years
// of two.
const maxMoments = 6

type historyReply struct {
	Learner string        `json:"learner"`
	Moments []momentReply `json:"moments"`
}

type momentReply struct {
	Name        string            `json:"name"`
	SchoolYear  string            `json:"school_year"`
	Moment      string            `json:"moment"`
	AsOf        string            `json:"as_of"`
	YearGroup   *uint8            `json:"year_group"`
	Norm        *normReply        `json:"norm"`
	Percentiles []percentileReply `json:"percentiles"`
}

// getLearnerHistory tells where a learner stood at the moments of the past, each
// against the norm that was frozen at that moment.
func (h *Handler) getLearnerHistory(c *call) error {
	scale := c.params.levels()
	if err := c.params.failed(); err != nil {
		return err
	}
	token, err := h.learner(c)
	if err != nil {
		return err
	}
	reply := historyReply{Learner: c.r.PathValue("token"), Moments: []momentReply{}}
	standing, ok := h.model.Standing(token)
	if !ok {
		return c.sendJSON(reply)
	}
	for _, o := range h.model.config.Calendar.Past(h.model.today(), maxMoments) {
		pasts, err := h.pastOf(c.r.Context(), standing.School, []answer.Token{token}, o.To)
		if err != nil {
			return err
		}
		then, known := pasts[token]
		if !known {
			break // had not begun yet
		}
		reply.Moments = append(reply.Moments, h.momentOf(&o, &then, scale))
	}
	return c.sendJSON(reply)
}

func (h *Handler) momentOf(o *transform.Occasion, then *past, scale *levelScale) momentReply {
	out := momentReply{Name: o.Name(), SchoolYear: o.SchoolYear.String(), Moment: o.Moment, AsOf: o.To.String(),
		YearGroup: yearGroupShown(then.yearGroup), Percentiles: []percentileReply{}}
	choice, frozen := h.model.NormNamed(o.Name(), 0)
	if frozen {
		used := h.model.used(choice, h.model.config.Now())
		quoted := newNormReply(&used)
		out.Norm = &quoted
	}
	percentiles := make([]Percentile, 0, len(then.standings))
	for i := range then.standings {
		s := &then.standings[i]
		p := Percentile{Layer: s.Layer, Key: s.Key, Subject: s.Subject, Answers: s.Answers, Skill: s.Skill, SE: math.Sqrt(s.Variance)}
		if frozen {
			p.compare(choice.frozen.widths(s.Layer, s.Key, then.yearGroup))
		}
		percentiles = append(percentiles, p)
	}
	for _, p := range named(percentiles) {
		out.Percentiles = append(out.Percentiles, newPercentileReply(p, scale))
	}
	return out
}
