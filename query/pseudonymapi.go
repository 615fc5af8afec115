package query

import (
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/audit"
)

// Limits of a request about identities.
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

// schemes that a caller may ask by. A publisher's own ids are not among them:
// they are known to that publisher only.
var schemes = []string{"eckid", "basispoort", "las"}

func (h *Handler) postPseudonyms(c *call) error {
	var request pseudonymsRequest
	if err := c.readBody(maxPseudonymsBytes, &request); err != nil {
		return err
	}
	identifiers, err := request.checked(min(maxIdentifiers, h.limits.config.IdentifiersBurst))
	if err != nil {
		return err
	}
	p, err := purpose(&c.caller)
	if err != nil {
		return err
	}
	record := audit.Record{Action: audit.ActionPseudonyms, Purpose: string(p), School: request.School, Asked: len(identifiers)}
	if !h.covers(&c.caller, request.School) {
		return h.refused(c, record, access.Problem{Status: http.StatusForbidden, Code: "not_allowed", Detail: "the school is not in the scope of the key"})
	}
	if problem, ok := h.within(c, len(identifiers)); !ok {
		return h.refused(c, record, problem)
	}
	tokens, err := h.config.Identities.Tokens(c.r.Context(), p, request.School, identifiers)
	if err != nil {
		return err
	}
	for _, token := range tokens {
		if !token.IsZero() {
			record.Given++
		}
	}
	if err := h.served(c, record); err != nil {
		return err
	}
	return c.send(mediaJSON, appendTokens(nil, tokens))
}

// within takes a request for n identities from the limits of the caller's key, or
// returns what to answer.
func (h *Handler) within(c *call, n int) (problem access.Problem, ok bool) {
	now := time.Now()
	if wait, ok := h.limits.request(c.caller.KeyID, now); !ok {
		return access.Problem{Status: http.StatusTooManyRequests, Code: "too_many_requests", RetryAfter: wait,
			Detail: "this key may make fewer of these requests per second"}, false
	}
	if wait, ok := h.limits.identifiers(c.caller.KeyID, n, now); !ok {
		return tooManyIdentifiers(wait), false
	}
	return access.Problem{}, true
}

// entryBytes is the size of every entry of a reply: a token in quotes, or null and
// spaces. So the length of a reply tells those who see encrypted packets nothing.
const entryBytes = tokenHexDigits + 2

// unknownEntry stands for an identifier without a token.
var unknownEntry = [entryBytes]byte(append([]byte("null"), slices.Repeat([]byte{' '}, entryBytes-len("null"))...))

// appendTokens writes the reply. Known and unknown take the same steps.
func appendTokens(dst []byte, tokens []answer.Token) []byte {
	dst = append(slices.Grow(dst, len(tokens)*(entryBytes+1)+16), `{"tokens":[`...)
	for i, token := range tokens {
		if i > 0 {
			dst = append(dst, ',')
		}
		var entry [entryBytes]byte
		value := token.Bytes()
		entry[0], entry[entryBytes-1] = '"', '"'
		hex.Encode(entry[1:], value[:])
		choice := [2]*[entryBytes]byte{&entry, &unknownEntry}
		dst = append(dst, choice[zeroIndex(&value)][:]...)
	}
	return append(dst, `]}`...)
}

// zeroIndex returns 1 for a value of zeros and 0 for another, without a branch.
func zeroIndex(value *[16]byte) int {
	var bits byte
	for _, b := range value {
		bits |= b
	}
	return int(uint16(bits)-1) >> 15 & 1
}

// readBody reads a JSON body strictly. What is wrong with it is said without a
// word of it.
func (c *call) readBody(maxBytes int64, into any) error {
	media, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || media != mediaJSON {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "send "+mediaJSON)
	}
	if c.r.Header.Get("Content-Encoding") != "" {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_encoding", "send it uncompressed")
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return refuse(http.StatusRequestEntityTooLarge, "body_too_large", "")
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "unreadable_body", "")
	}
	defer clear(body)
	if err := json.Unmarshal(body, into, json.RejectUnknownMembers(true)); err != nil {
		return refuse(http.StatusBadRequest, "invalid_body", "the body is not JSON of the documented form")
	}
	return nil
}

// checked returns what the request asks for when it breaks no rule.
func (q *pseudonymsRequest) checked(most int) ([]Identifier, error) {
	if !access.ValidSchool(q.School) {
		return nil, &violation{"school", schoolRule}
	}
	if len(q.Identifiers) == 0 || len(q.Identifiers) > most {
		return nil, &violation{"identifiers", "must be 1 to " + strconv.Itoa(most)}
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
