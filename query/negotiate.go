package query

import (
	"strconv"
	"strings"
)

// Media types of replies.
const (
	mediaJSON  = "application/json"
	mediaCSV   = "text/csv"
	mediaArrow = "application/vnd.apache.arrow.stream"
)

// maxAcceptParts bounds the work of reading an Accept header.
const maxAcceptParts = 32

// negotiate returns the offer that an Accept header likes best (RFC 9110,
// 12.5.1): the highest q-value of the most specific range that matches, then the
// order of the offers. It is "" when none is acceptable. An absent header
// accepts everything.
func negotiate(accept string, offers ...string) string {
	if strings.TrimSpace(accept) == "" {
		return offers[0]
	}
	parts := strings.SplitN(accept, ",", maxAcceptParts+1)
	parts = parts[:min(len(parts), maxAcceptParts)]
	best, bestQuality := "", 0.0
	for _, offer := range offers {
		if q := quality(parts, offer); q > bestQuality {
			best, bestQuality = offer, q
		}
	}
	return best
}

// quality returns the q-value of an offer, 0 when it is not acceptable.
func quality(parts []string, offer string) float64 {
	kind, _, _ := strings.Cut(offer, "/")
	found, specific := 0.0, 0
	for _, part := range parts {
		media, q, ok := mediaRange(part)
		if !ok {
			continue
		}
		rank := 0
		switch media {
		case offer:
			rank = 3
		case kind + "/*":
			rank = 2
		case "*/*":
			rank = 1
		}
		if rank > specific {
			found, specific = q, rank
		}
	}
	return found
}

// mediaRange reads one part of an Accept header. Parameters other than q are
// passed over: no reply has variants by parameter.
func mediaRange(part string) (media string, q float64, ok bool) {
	media, parameters, _ := strings.Cut(part, ";")
	media, q = strings.ToLower(strings.TrimSpace(media)), 1
	for parameters != "" {
		var p string
		p, parameters, _ = strings.Cut(parameters, ";")
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(n >= 0 && n <= 1) {
			return "", 0, false
		}
		q = n
	}
	return media, q, media != ""
}
