package query

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/audit"
)

// maxGroupLearners bounds the work of an overview. A group is a class, or all
// of a small school.
const maxGroupLearners = 5000

// Group returns the analytics tokens of the learners of a group, in no
// particular order.
func (m *ReadModel) Group(school, group string) []answer.Token {
	s, known := m.catalogue.schools.find(school)
	g, named := m.catalogue.groups.find(group)
	if !known || !named {
		return nil
	}
	var tokens []answer.Token
	for _, r := range m.groups.of(groupKey{s, g}) {
		shard := &m.learners.shards[uint32(r)%learnerShards]
		shard.mu.RLock()
		l := shard.slot(uint32(r) / learnerShards)
		// It may have moved since the list was copied.
		if l.school == s && l.group == g {
			tokens = append(tokens, l.token)
		}
		shard.mu.RUnlock()
	}
	return tokens
}

type overviewReply struct {
	School   string         `json:"school"`
	Group    string         `json:"group"`
	Learners []learnerReply `json:"learners"`
	Next     *string        `json:"next"`
}

// member is a learner of a group: the token that the caller sees, and ours.
type member struct {
	shown string
	token answer.Token
}

func (h *Handler) getGroupOverview(c *call) error {
	school, group := c.params.required("school"), c.r.PathValue("group")
	limit := c.params.integer("limit", 1, maxPage, defaultPage)
	after := c.params.cursor("after")
	if school != "" && !access.ValidSchool(school) {
		c.params.fail("school", schoolRule)
	}
	if !validName(group) {
		c.params.fail("group", nameRule)
	}
	if err := c.params.failed(); err != nil {
		return err
	}
	record := audit.Record{Action: audit.ActionOverview, School: school}
	if !h.covers(&c.caller, school) {
		return h.refused(c, record, notFound)
	}
	members, err := h.members(c, school, group)
	if err != nil {
		return err
	}
	if len(members) == 0 {
		return h.refused(c, record, notFound)
	}
	record.Group = group // it exists: what a caller wrote is not put down
	from, found := slices.BinarySearchFunc(members, after, func(m member, text string) int { return cmp.Compare(m.shown, text) })
	if found {
		from++
	}
	reply := overviewReply{School: school, Group: group, Learners: []learnerReply{}}
	for _, m := range members[from:min(len(members), from+limit)] {
		if standing, ok := h.model.Standing(m.token); ok {
			reply.Learners = append(reply.Learners, newLearnerReply(m.shown, &standing))
		}
	}
	if from+limit < len(members) {
		reply.Next = &members[from+limit-1].shown
	}
	record.Asked, record.Given = len(members), len(reply.Learners)
	if err := h.served(c, record); err != nil {
		return err
	}
	return c.sendJSON(reply)
}

// members returns the learners of a group by the token that the caller sees.
func (h *Handler) members(c *call, school, group string) ([]member, error) {
	p, err := purpose(&c.caller)
	if err != nil {
		return nil, err
	}
	tokens := h.model.Group(school, group)
	if len(tokens) > maxGroupLearners {
		return nil, refuse(http.StatusBadRequest, "group_too_large", "the group has more than 5000 learners")
	}
	if len(tokens) == 0 {
		return nil, nil
	}
	shown, err := h.config.Identities.Present(c.r.Context(), p, school, tokens)
	if err != nil {
		return nil, err
	}
	members := make([]member, 0, len(tokens))
	for i, token := range tokens {
		if !shown[i].IsZero() { // forgotten in the meantime
			members = append(members, member{shown[i].String(), token})
		}
	}
	slices.SortFunc(members, func(a, b member) int { return cmp.Compare(a.shown, b.shown) })
	return members, nil
}
