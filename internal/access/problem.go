package access

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Problem is a problem document (RFC 9457), the body of every refusal. Title and
// Detail never hold a value from a request.
type Problem struct {
	Status     int           // HTTP status
	Code       string        // stable, for programs: such as body_too_large
	Detail     string        // for people; may be empty
	RetryAfter time.Duration // when > 0, sent as the header Retry-After, in whole seconds, at least 1
}

// WriteProblem sends the problem. The type is about:blank, so the title is the
// phrase of the status.
func WriteProblem(w http.ResponseWriter, p Problem) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int((p.RetryAfter+time.Second-1)/time.Second))))
	}
	w.WriteHeader(p.Status)
	// A caller who went away can't be told; the server logs the connection.
	_ = json.NewEncoder(w).Encode(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Code   string `json:"code,omitempty"`
		Detail string `json:"detail,omitempty"`
	}{"about:blank", http.StatusText(p.Status), p.Status, p.Code, p.Detail})
}

// Deny answers a request that Authenticate refused with err.
func Deny(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, ErrUnavailable):
		WriteProblem(w, Problem{Status: http.StatusServiceUnavailable, Code: "keys_unavailable", RetryAfter: 5 * time.Second})
	case errors.Is(err, ErrNoKey):
		w.Header().Set("WWW-Authenticate", `Bearer realm="leerstroom"`)
		WriteProblem(w, Problem{Status: http.StatusUnauthorized, Code: "no_key", Detail: "send the header Authorization: Bearer with an API key"})
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="leerstroom", error="invalid_token"`)
		WriteProblem(w, Problem{Status: http.StatusUnauthorized, Code: "unknown_key"})
	}
}

// Forbid answers a request whose key has not the role or scope for it.
func Forbid(w http.ResponseWriter, detail string) {
	WriteProblem(w, Problem{Status: http.StatusForbidden, Code: "not_allowed", Detail: detail})
}
