package query

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/transform"
)

// SchoolEngine is the name under which the tokens of school keys are made. No
// engine may have it.
const SchoolEngine = "school"

// purpose returns what the caller's tokens are for.
func purpose(caller *access.Principal) (keyring.Purpose, error) {
	name := caller.Engine
	if caller.Role == access.RoleSchool {
		name = SchoolEngine
	} else if name == SchoolEngine || name == "" {
		return "", refuse(http.StatusForbidden, "not_allowed", "the key has no engine of its own")
	}
	return keyring.Engine(name), nil
}

// covers tells whether the caller may see learners of a school.
func (h *Handler) covers(caller *access.Principal, school string) bool {
	if !caller.Covers(school) {
		return false
	}
	return caller.Role == access.RoleSchool || h.config.Authorised == nil || h.config.Authorised(caller.Engine, school)
}

// learner returns the analytics token of the learner in the path. A token that
// nobody has, one of a school out of scope and one of another engine are
// answered alike.
func (h *Handler) learner(c *call) (answer.Token, error) {
	given, ok := parseToken(c.r.PathValue("token"))
	if !ok {
		return answer.Token{}, &violation{"token", "must be 32 lower-case hex digits"}
	}
	p, err := purpose(&c.caller)
	if err != nil {
		return answer.Token{}, err
	}
	tokens, school, err := h.config.Identities.Learner(c.r.Context(), p, given)
	if err != nil {
		return answer.Token{}, err
	}
	if len(tokens) == 0 || !h.covers(&c.caller, school) {
		return answer.Token{}, errNotFound()
	}
	return h.model.newest(tokens), nil
}

// replies are reused between requests.
type replies struct{ pool sync.Pool }

func (p *replies) take() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, 1024)
	return &b
}

func (p *replies) give(b *[]byte) {
	*b = (*b)[:0]
	p.pool.Put(b)
}

func (h *Handler) getNextExercise(c *call) error {
	request := Request{
		Goal:      c.params.name("goal"),
		Quotas:    c.params.quotas(),
		Target:    c.params.target(),
		YearGroup: uint8(c.params.integer("year_group", 1, yearGroups-1, 0)),
	}
	if err := c.params.failed(); err != nil {
		return err
	}
	var err error
	if request.Learner, err = h.learner(c); err != nil {
		return err
	}
	selected, err := h.model.Next(&request)
	if errors.Is(err, ErrNoExercise) {
		return refuse(http.StatusNotFound, "no_exercise", "there is no exercise for this goal")
	}
	if err != nil {
		return err
	}
	reply := h.replies.take()
	defer h.replies.give(reply)
	*reply = appendSelection(*reply, &selected, request.Target)
	return c.send(mediaJSON, *reply)
}

// appendSelection writes the reply by hand: it is the one that pupils wait for.
func appendSelection(dst []byte, s *Selection, target float64) []byte {
	dst = append(dst, `{"exercise":`...)
	dst = appendText(dst, s.Exercise)
	dst = append(dst, `,"goal":`...)
	dst = appendText(dst, s.Goal)
	dst = append(dst, `,"subject":`...)
	dst = appendText(dst, s.Subject)
	dst = appendNumber(append(dst, `,"expected":`...), s.Expected)
	dst = appendNumber(append(dst, `,"target":`...), target)
	dst = append(dst, `,"random":`...)
	dst = strconv.AppendBool(dst, s.Random)
	dst = append(dst, `,"reason":"`...)
	dst = append(dst, s.Reason.String()...)
	dst = appendNumber(append(dst, `","skill":{"value":`...), s.Skill)
	dst = appendNumber(append(dst, `,"se":`...), s.SE)
	dst = appendNumber(append(dst, `,"low":`...), s.Low)
	dst = appendNumber(append(dst, `,"high":`...), s.High)
	dst = strconv.AppendUint(append(dst, `},"snapshot":`...), s.Version, 10)
	return append(dst, '}')
}

// appendNumber writes a number with four decimals, which is finer than any of
// our estimates.
func appendNumber(dst []byte, x float64) []byte {
	return strconv.AppendFloat(dst, rounded(x, 1e4), 'f', -1, 64)
}

// rounded rounds to a fraction; what is not a number is 0, as JSON has no word
// for it.
func rounded(x, per float64) float64 {
	x = math.Round(x*per) / per
	if math.IsNaN(x) || math.IsInf(x, 0) || x == 0 {
		return 0
	}
	return x
}

// appendText writes a JSON string. Names with characters that need an escape are
// rare and go through the library.
func appendText(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, err := json.Marshal(s)
			if err != nil {
				panic("encode string: " + err.Error()) // strings always encode
			}
			return append(dst, text...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

type skillReply struct {
	Value float64 `json:"value"`
	SE    float64 `json:"se"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

type percentileReply struct {
	Layer      string     `json:"layer"`
	Subject    *string    `json:"subject"`
	Goal       *string    `json:"goal"`
	Answers    uint32     `json:"answers"`
	Skill      skillReply `json:"skill"`
	Percentile *float64   `json:"percentile"`
	Low        *float64   `json:"low"`
	High       *float64   `json:"high"`
	Learners   *int64     `json:"learners"`
	Level      *level     `json:"level"`
}

type learnerReply struct {
	Learner     string            `json:"learner"`
	YearGroup   *uint8            `json:"year_group"`
	Norm        normReply         `json:"norm"`
	Percentiles []percentileReply `json:"percentiles"`
}

// newLearnerReply writes a standing out.
func newLearnerReply(token string, s *Standing, scale *levelScale) learnerReply {
	out := learnerReply{Learner: token, YearGroup: yearGroupShown(s.YearGroup), Norm: newNormReply(&s.Norm), Percentiles: []percentileReply{}}
	for _, p := range named(s.Percentiles) {
		out.Percentiles = append(out.Percentiles, newPercentileReply(p, scale))
	}
	return out
}

func yearGroupShown(yearGroup uint8) *uint8 {
	if yearGroup == 0 {
		return nil
	}
	return &yearGroup
}

// named returns what has a name to ask for: overall first, then subjects, then
// goals, each by name. A layer whose subject or goal is unknown is left out.
func named(percentiles []Percentile) []*Percentile {
	out := make([]*Percentile, 0, len(percentiles))
	for i := range percentiles {
		if p := &percentiles[i]; p.Key != "" || p.Layer == transform.LayerOverall {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *Percentile) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), strings.Compare(a.Key, b.Key))
	})
	return out
}

func newPercentileReply(p *Percentile, scale *levelScale) percentileReply {
	out := percentileReply{Layer: p.Layer.String(), Answers: p.Answers, Skill: newSkillReply(p.Skill, p.SE)}
	switch p.Layer {
	case transform.LayerSubject:
		out.Subject = &p.Key
	case transform.LayerGoal:
		out.Subject, out.Goal = &p.Subject, &p.Key
	}
	if p.Shown {
		value, low, high, learners := rounded(p.Percentile, 100), rounded(p.Low, 100), rounded(p.High, 100), sizeShown(p.Learners)
		out.Percentile, out.Low, out.High, out.Learners = &value, &low, &high, &learners
		out.Level = scale.level(p.Percentile, p.Low, p.High)
	}
	return out
}

func newSkillReply(skill, se float64) skillReply {
	return skillReply{Value: rounded(skill, 1e4), SE: rounded(se, 1e4),
		Low: rounded(skill-band90*se, 1e4), High: rounded(skill+band90*se, 1e4)}
}

func (h *Handler) getLearnerPercentiles(c *call) error {
	scale := c.params.levels()
	choice, err := h.norm(c)
	if err != nil {
		return err
	}
	token, err := h.learner(c)
	if err != nil {
		return err
	}
	standing, ok := h.model.StandingBy(token, choice)
	if !ok { // nobody yet: no percentiles yet
		standing.Norm = h.model.used(choice, h.model.config.Now())
	}
	return c.sendJSON(newLearnerReply(c.r.PathValue("token"), &standing, scale))
}

// sendJSON writes a reply of the standard encoder.
func (c *call) sendJSON(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.send(mediaJSON, body)
}
