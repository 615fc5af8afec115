package query

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/leerstroom/leerstroom/internal/access"
)

// Limits of a request for pseudonyms.
const (
	maxIdentifiers     = 1000
	maxPseudonymsBytes = 1 << 20
	maxIdentifier      = 512 // characters
)

// pseudonymsRequest is the body. It holds identifiers: it is never logged, and
// none of its errors are.
type pseudonymsRequest struct {
	School      string            `json:"school"`
	Identifiers []identifierInput `json:"identifiers"`
}

type identifierInput struct {
	Scheme string `json:"scheme"`
	Value  string `json:"value"`
}

type pseudonymsReply struct {
	Tokens []*string `json:"tokens"`
}

// schemes that a caller may ask by. A publisher's own ids are not among them:
// they are known to that publisher only.
var schemes = []string{"eckid", "basispoort", "las"}

func (h *Handler) postPseudonyms(c *call) error {
	request, err := readPseudonyms(c.w, c.r)
	if err != nil {
		return err
	}
	identifiers, err := request.checked()
	if err != nil {
		return err
	}
	p, err := purpose(&c.caller)
	if err != nil {
		return err
	}
	if !h.covers(&c.caller, request.School) {
		return refuse(http.StatusForbidden, "not_allowed", "the school is not in the scope of the key")
	}
	if wait, ok := h.limits.take(c.caller.KeyID, len(identifiers), time.Now()); !ok {
		h.config.Audit.WarnContext(c.r.Context(), "pseudonyms refused: too many", "key", c.caller.KeyID, "school", request.School, "identifiers", len(identifiers))
		return &refusal{access.Problem{Status: http.StatusTooManyRequests, Code: "too_many_identifiers", RetryAfter: wait,
			Detail: "this key may resolve fewer identifiers per second"}}
	}
	tokens, err := h.config.Identities.Tokens(c.r.Context(), p, request.School, identifiers)
	if err != nil {
		return err
	}
	reply := pseudonymsReply{Tokens: make([]*string, len(tokens))}
	known := 0
	for i, token := range tokens {
		if !token.IsZero() {
			text := token.String()
			reply.Tokens[i] = &text
			known++
		}
	}
	h.config.Audit.InfoContext(c.r.Context(), "pseudonyms", "key", c.caller.KeyID, "purpose", string(p),
		"school", request.School, "identifiers", len(identifiers), "known", known)
	return c.sendJSON(reply)
}

// readPseudonyms reads the body strictly. What is wrong with it is said without
// a word of it.
func readPseudonyms(w http.ResponseWriter, r *http.Request) (*pseudonymsRequest, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != mediaJSON {
		return nil, refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "send "+mediaJSON)
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, refuse(http.StatusUnsupportedMediaType, "unsupported_encoding", "send it uncompressed")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPseudonymsBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, refuse(http.StatusRequestEntityTooLarge, "body_too_large", "")
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "unreadable_body", "")
	}
	var request pseudonymsRequest
	if err := json.Unmarshal(body, &request, json.RejectUnknownMembers(true)); err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_body", "the body is not JSON of the documented form")
	}
	return &request, nil
}

// checked returns what the request asks for when it breaks no rule.
func (q *pseudonymsRequest) checked() ([]Identifier, error) {
	if !access.ValidSchool(q.School) {
		return nil, &violation{"school", "must be BRIN and vestiging, such as 12AB00"}
	}
	if len(q.Identifiers) == 0 || len(q.Identifiers) > maxIdentifiers {
		return nil, &violation{"identifiers", "must be 1 to 1000"}
	}
	identifiers := make([]Identifier, len(q.Identifiers))
	for i, given := range q.Identifiers {
		if !slices.Contains(schemes, given.Scheme) {
			return nil, &violation{"identifiers.scheme", "must be eckid, basispoort or las"}
		}
		if !validText(given.Value, maxIdentifier) {
			return nil, &violation{"identifiers.value", "must be 1 to 512 characters without control characters"}
		}
		identifiers[i] = Identifier(given)
	}
	return identifiers, nil
}
