package transform

import "github.com/leerstroom/leerstroom/transform/filter"

// Scale is a refit of difficulties that replaces the running estimates: a new
// version of the scale, announced as such and never slipped in. The values come
// in the rows of the snapshot version that carries it.
//
// A refit has the same unit as the filter, the logit, and its zero is linked to
// that of the estimates before it, so that skills keep their meaning across
// scales. The links say by how much the zero of the refit was moved.
type Scale struct {
	Number  uint64       `json:"number"`         // from 1
	Answers int64        `json:"answers"`        // that it was fitted to
	Links   []GoalLink   `json:"links"`          // of the goals whose exercises are in the rows
	Head    *filter.Head `json:"head,omitempty"` // corrects predictions from here on; nil: as before
}

// GoalLink is how the refit of one goal was linked to the estimates before it.
type GoalLink struct {
	Goal       string  `json:"goal"`
	Slope      float64 `json:"slope"`       // spread of the new difficulties by that of the old; reported, not applied
	Shift      float64 `json:"shift"`       // logits, added to the refit
	ShiftError float64 `json:"shift_error"` // its standard error
	Exercises  int     `json:"exercises"`   // that both have
}
