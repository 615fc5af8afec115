package query

import (
	"cmp"
	"maps"
	"math"
	"net/http"
	"slices"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/transform"
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
		if !l.token.IsZero() && l.school == s && l.group == g {
			tokens = append(tokens, l.token)
		}
		shard.mu.RUnlock()
	}
	return tokens
}

// maxOverviewPage and maxSummary bound the work of an overview: the learners of a
// page, and those over whom a group's own figures are made.
const (
	defaultOverviewPage = 50
	maxOverviewPage     = 200
	maxSummary          = 1000
)

type overviewReply struct {
	School     string            `json:"school"`
	Group      string            `json:"group"`
	Norm       normReply         `json:"norm"`
	Since      *sinceReply       `json:"since"`
	GrowthNorm *normReply        `json:"growth_norm"`
	Summary    []summaryReply    `json:"summary"`
	Learners   []overviewLearner `json:"learners"`
	Next       *string           `json:"next"`
}

type sinceReply struct {
	Name string `json:"name"`
	AsOf string `json:"as_of"`
}

type overviewLearner struct {
	Learner   string          `json:"learner"`
	YearGroup *uint8          `json:"year_group"`
	Skills    []overviewSkill `json:"skills"`
}

type overviewSkill struct {
	percentileReply
	Growth     *growthReply      `json:"growth"`
	Comparable []comparableReply `json:"comparable"`
}

// member is a learner of a group: the token that the caller sees, and ours.
type member struct {
	shown string
	token answer.Token
}

// overview is what an overview is asked for.
type overview struct {
	school, group string
	limit         int
	after         string
	goal          string // "" = all
	since         *transform.Occasion
	scale         *levelScale
	norm          NormChoice
}

func (h *Handler) readOverview(c *call) (o overview, err error) {
	o = overview{
		school: c.params.required("school"), group: c.r.PathValue("group"), goal: c.params.name("goal"),
		limit: c.params.integer("limit", 1, maxOverviewPage, defaultOverviewPage), after: c.params.cursor("after"),
		scale: c.params.levels(),
	}
	if o.school != "" && !access.ValidSchool(o.school) {
		c.params.fail("school", schoolRule)
	}
	if !validName(o.group) {
		c.params.fail("group", nameRule)
	}
	calendar, today := &h.model.config.Calendar, h.model.today()
	if name := c.params.name("since"); name != "" {
		since, err := calendar.Occasion(name)
		if err != nil || since.To >= today {
			c.params.fail("since", "must be a school year and a moment that is over, such as 2025-2026-E")
		}
		o.since = &since
	} else if past := calendar.Past(today, 1); len(past) > 0 {
		o.since = &past[0]
	}
	o.norm, err = h.norm(c)
	return o, err
}

func (h *Handler) getGroupOverview(c *call) error {
	o, err := h.readOverview(c)
	if err != nil {
		return err
	}
	record := audit.Record{Action: audit.ActionOverview, School: o.school}
	if !h.covers(&c.caller, o.school) {
		return h.refused(c, record, notFound)
	}
	members, err := h.members(c, o.school, o.group)
	if err != nil {
		return err
	}
	if len(members) == 0 {
		return h.refused(c, record, notFound)
	}
	record.Group = o.group // it exists: what a caller wrote is not put down
	reply := overviewReply{School: o.school, Group: o.group, Summary: h.summary(&o, members), Learners: []overviewLearner{}}
	from, found := slices.BinarySearchFunc(members, o.after, func(m member, text string) int { return cmp.Compare(m.shown, text) })
	if found {
		from++
	}
	end := min(len(members), from+o.limit)
	if err := h.fillOverview(c, &o, &reply, members[from:end]); err != nil {
		return err
	}
	if end < len(members) {
		reply.Next = &members[end-1].shown
	}
	record.Asked, record.Given = len(members), len(reply.Learners)
	if err := h.served(c, record); err != nil {
		return err
	}
	return c.sendJSON(reply)
}

// fillOverview writes the learners of a page, with what they have grown since the
// moment and what comparable ones had reached.
func (h *Handler) fillOverview(c *call, o *overview, reply *overviewReply, page []member) error {
	used := h.model.used(o.norm, h.model.config.Now())
	reply.Norm = newNormReply(&used)
	growth := o.norm
	if growth.frozen == nil {
		growth = h.model.DefaultNorm()
	}
	if growth.frozen != nil {
		used := h.model.used(growth, h.model.config.Now())
		quoted := newNormReply(&used)
		reply.GrowthNorm = &quoted
	}
	pasts := map[answer.Token]past{}
	if o.since != nil {
		reply.Since = &sinceReply{o.since.Name(), o.since.To.String()}
		tokens := make([]answer.Token, len(page))
		for i := range page {
			tokens[i] = page[i].token
		}
		var err error
		if pasts, err = h.pastOf(c.r.Context(), o.school, tokens, o.since.To); err != nil {
			return err
		}
	}
	for i := range page {
		standing, ok := h.model.StandingBy(page[i].token, o.norm)
		if !ok {
			continue // forgotten in the meantime
		}
		then := pasts[page[i].token]
		learner := overviewLearner{Learner: page[i].shown, YearGroup: yearGroupShown(standing.YearGroup), Skills: []overviewSkill{}}
		for _, p := range named(standing.Percentiles) {
			if o.goal != "" && (p.Layer != transform.LayerGoal || p.Key != o.goal) {
				continue
			}
			skill := overviewSkill{percentileReply: newPercentileReply(p, o.scale), Comparable: comparable(growth.frozen, &then, p)}
			if o.since != nil {
				if g, ok := h.model.growth(&standing, p, &then, o.since.To); ok {
					skill.Growth = newGrowthReply(g)
				}
			}
			learner.Skills = append(learner.Skills, skill)
		}
		reply.Learners = append(reply.Learners, learner)
	}
	return nil
}

// summaryReply is the mean of a group in one skill.
type summaryReply struct {
	Layer      string     `json:"layer"`
	Subject    *string    `json:"subject"`
	Goal       *string    `json:"goal"`
	Learners   int        `json:"learners"`
	Skill      skillReply `json:"skill"`
	Percentile *float64   `json:"percentile"`
	Low        *float64   `json:"low"`
	High       *float64   `json:"high"`
}

// tally adds up one skill over the learners of a group.
type tally struct {
	of                      *Percentile // any of them, for its name
	learners, ranked        int
	skill, variance         float64
	percentile, percentile2 float64 // sums of the expected percentile, and of its variance
}

// summary returns the means of a group, nil when it is too large. The percentile
// of a group is the mean of what its learners' true percentiles are expected to
// be; its band is that of a mean of independent errors, each as wide as the
// learner's band.
func (h *Handler) summary(o *overview, members []member) []summaryReply {
	if len(members) > maxSummary {
		return nil
	}
	tallies := map[layerKey]*tally{}
	for i := range members {
		standing, ok := h.model.StandingBy(members[i].token, o.norm)
		if !ok {
			continue
		}
		for _, p := range named(standing.Percentiles) {
			if o.goal != "" && (p.Layer != transform.LayerGoal || p.Key != o.goal) {
				continue
			}
			key := layerKey{p.Layer, p.Key}
			if tallies[key] == nil {
				tallies[key] = &tally{of: p}
			}
			tallies[key].add(p)
		}
	}
	out := make([]summaryReply, 0, len(tallies))
	for _, key := range slices.SortedFunc(maps.Keys(tallies), func(a, b layerKey) int {
		return cmp.Or(cmp.Compare(a.layer, b.layer), cmp.Compare(a.key, b.key))
	}) {
		out = append(out, tallies[key].reply())
	}
	return out
}

type layerKey struct {
	layer transform.Layer
	key   string
}

func (t *tally) add(p *Percentile) {
	t.learners++
	t.skill += p.Skill
	t.variance += p.SE * p.SE
	if p.Shown {
		t.ranked++
		t.percentile += p.Expected
		sd := (p.High - p.Low) / (2 * band90)
		t.percentile2 += sd * sd
	}
}

func (t *tally) reply() summaryReply {
	n := float64(t.learners)
	out := summaryReply{Layer: t.of.Layer.String(), Learners: t.learners, Skill: newSkillReply(t.skill/n, math.Sqrt(t.variance)/n)}
	switch t.of.Layer {
	case transform.LayerSubject:
		out.Subject = &t.of.Key
	case transform.LayerGoal:
		out.Subject, out.Goal = &t.of.Subject, &t.of.Key
	}
	if t.ranked > 0 {
		n := float64(t.ranked)
		mean, half := t.percentile/n, band90*math.Sqrt(t.percentile2)/n
		value, low, high := rounded(mean, 100), rounded(max(0, mean-half), 100), rounded(min(100, mean+half), 100)
		out.Percentile, out.Low, out.High = &value, &low, &high
	}
	return out
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
