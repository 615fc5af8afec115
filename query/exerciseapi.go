package query

import (
	"math"
	"strings"

	"github.com/leerstroom/leerstroom/transform/filter"
)

type exerciseReply struct {
	ID         string   `json:"id"`
	Goal       string   `json:"goal"`
	Subject    string   `json:"subject"`
	Difficulty *float64 `json:"difficulty"`
	SE         *float64 `json:"se"`
	Answers    *int64   `json:"answers"`
	Proportion *float64 `json:"proportion"`
}

// newExerciseReply describes an exercise. The standard error is that of item and
// goal: the global component moves all exercises alike.
func (h *Handler) newExerciseReply(item *Item) exerciseReply {
	goal, m := item.goal.Load(), item.measure.Load()
	out := exerciseReply{ID: item.key, Goal: goal.name, Subject: goal.parent.Load().name}
	share, ok := proportion(m)
	if !ok {
		return out
	}
	shared := h.model.shared(item)
	variance := shared[filter.ComponentItem].Variance + shared[filter.ComponentGoal].Variance
	difficulty, se := rounded(shared.Difficulty().Mean, 1e4), rounded(math.Sqrt(variance), 1e4)
	share = rounded(share, 1e4)
	answers := m.answers
	out.Difficulty, out.SE, out.Answers, out.Proportion = &difficulty, &se, &answers, &share
	return out
}

func (h *Handler) getExercise(c *call) error {
	id := c.r.PathValue("id")
	publisher, exercise, found := strings.Cut(id, ":")
	if !found || publisher == "" || exercise == "" || !validText(id, maxItemKey) {
		return &violation{"id", "must be publisher:exercise"}
	}
	item := h.model.items.find(id)
	if item == nil {
		return errNotFound()
	}
	return c.sendJSON(h.newExerciseReply(item))
}

type exercisesReply struct {
	Goal      string          `json:"goal"`
	Exercises []exerciseReply `json:"exercises"`
	Next      *string         `json:"next"`
}

func (h *Handler) listExercises(c *call) error {
	goal := c.params.required("goal")
	limit := c.params.integer("limit", 1, maxPage, defaultPage)
	after := c.params.cursor("after")
	if err := c.params.failed(); err != nil {
		return err
	}
	d, ok := h.model.catalogue.findGoal(goal)
	if !ok || !d.hasExercises() {
		return errNotFound()
	}
	reply := exercisesReply{Goal: goal, Exercises: []exerciseReply{}}
	page := d.bank.Load().page(after, limit+1)
	for _, item := range page[:min(len(page), limit)] {
		reply.Exercises = append(reply.Exercises, h.newExerciseReply(item))
	}
	if len(page) > limit {
		reply.Next = &page[limit-1].key
	}
	return c.sendJSON(reply)
}
