package query

import (
	"net/http"
	"time"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/audit"
)

const maxNamesBytes = 4 << 10

type namesRequest struct {
	School string `json:"school"`
}

// namesReply holds names in clear. It is made for one reply and dropped with it.
type namesReply struct {
	School   string      `json:"school"`
	Group    string      `json:"group"`
	Learners []nameReply `json:"learners"`
}

type nameReply struct {
	Learner   string `json:"learner"`
	First     string `json:"first"`
	Prefix    string `json:"prefix"`
	Last      string `json:"last"`
	YearGroup *int   `json:"year_group"`
}

// postGroupNames tells a school what the learners of one of its groups are called,
// beside the tokens that its other questions answer with. It is a POST although it
// changes nothing: nobody between keeps the reply, and no link leads to it.
func (h *Handler) postGroupNames(c *call) error {
	var request namesRequest
	if err := c.readBody(maxNamesBytes, &request); err != nil {
		return err
	}
	group := c.r.PathValue("group")
	switch {
	case !access.ValidSchool(request.School):
		return &violation{"school", schoolRule}
	case !validName(group):
		return &violation{"group", nameRule}
	}
	p, err := purpose(&c.caller)
	if err != nil {
		return err
	}
	record := audit.Record{Action: audit.ActionNames, Purpose: string(p), School: request.School}
	if !h.covers(&c.caller, request.School) {
		return h.refused(c, record, notFound)
	}
	if problem, ok := h.within(c, 0); !ok {
		return h.refused(c, record, problem)
	}
	named, err := h.config.Identities.Names(c.r.Context(), p, request.School, group)
	if err != nil {
		return err
	}
	if len(named) == 0 {
		return h.refused(c, record, notFound)
	}
	record.Group, record.Asked = group, len(named) // the group exists: what else a caller writes is not put down
	if wait, ok := h.limits.identifiers(c.caller.KeyID, min(len(named), h.limits.config.IdentifiersBurst), time.Now()); !ok {
		return h.refused(c, record, tooManyIdentifiers(wait))
	}
	record.Given = len(named)
	if err := h.served(c, record); err != nil {
		return err
	}
	reply := namesReply{School: request.School, Group: group, Learners: make([]nameReply, len(named))}
	for i := range named {
		n := &named[i]
		reply.Learners[i] = nameReply{Learner: n.Token.String(), First: n.First, Prefix: n.Prefix, Last: n.Last}
		if n.YearGroup > 0 {
			reply.Learners[i].YearGroup = new(int(n.YearGroup))
		}
	}
	return c.sendJSON(reply)
}

// tooManyIdentifiers is the answer to a key that has used up its identifiers.
func tooManyIdentifiers(wait time.Duration) access.Problem {
	return access.Problem{Status: http.StatusTooManyRequests, Code: "too_many_identifiers", RetryAfter: wait,
		Detail: "this key may resolve fewer identifiers per second"}
}
