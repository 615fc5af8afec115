package query

import (
	"cmp"
	"errors"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// IdentityLimits bound what one API key may have turned into tokens or names:
// without them the interface itself would be the dictionary of an attacker. Each
// process counts for itself.
type IdentityLimits struct {
	// IdentifiersPerSecond is how many identifiers and names a key may have
	// resolved per second in the long run (default 50), IdentifiersBurst how many
	// at once (default 1000).
	IdentifiersPerSecond float64 `yaml:"identifiers_per_second"`
	IdentifiersBurst     int     `yaml:"identifiers_burst"`
	// RequestsPerSecond is how many requests for them it may make per second in
	// the long run (default 20), RequestsBurst how many at once (default 200).
	RequestsPerSecond float64 `yaml:"requests_per_second"`
	RequestsBurst     int     `yaml:"requests_burst"`
}

// SetDefaults fills in what is left out.
func (l *IdentityLimits) SetDefaults() {
	l.IdentifiersPerSecond = cmp.Or(l.IdentifiersPerSecond, 50)
	l.IdentifiersBurst = cmp.Or(l.IdentifiersBurst, maxIdentifiers)
	l.RequestsPerSecond = cmp.Or(l.RequestsPerSecond, 20)
	l.RequestsBurst = cmp.Or(l.RequestsBurst, 200)
}

// Validate names the first field that is out of range.
func (l *IdentityLimits) Validate() error {
	const most = 1e6
	possible := func(perSecond float64) bool { return perSecond > 0 && perSecond <= most }
	switch {
	case !possible(l.IdentifiersPerSecond):
		return errors.New("identifiers_per_second: more than 0, at most 1000000")
	case !possible(l.RequestsPerSecond):
		return errors.New("requests_per_second: more than 0, at most 1000000")
	case l.IdentifiersBurst < 1 || l.IdentifiersBurst > most:
		return errors.New("identifiers_burst: from 1 to 1000000")
	case l.RequestsBurst < 1 || l.RequestsBurst > most:
		return errors.New("requests_burst: from 1 to 1000000")
	}
	return nil
}

// limits holds the token buckets of each API key. Keys are few and known: only
// authenticated callers get some.
type limits struct {
	config IdentityLimits
	mu     sync.Mutex
	byKey  map[string]*buckets
}

type buckets struct{ requests, identifiers *rate.Limiter }

func newLimits(config IdentityLimits) *limits {
	return &limits{config: config, byKey: map[string]*buckets{}}
}

// request takes one request from a key. When there is none left it takes nothing
// and returns how long to wait.
func (l *limits) request(key string, now time.Time) (wait time.Duration, ok bool) {
	return take(l.of(key).requests, 1, now)
}

// identifiers takes n identifiers from a key. When there are not enough left it
// takes none and returns how long to wait.
func (l *limits) identifiers(key string, n int, now time.Time) (wait time.Duration, ok bool) {
	return take(l.of(key).identifiers, n, now)
}

func (l *limits) of(key string) *buckets {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.byKey[key]
	if b == nil {
		c := &l.config
		b = &buckets{rate.NewLimiter(rate.Limit(c.RequestsPerSecond), c.RequestsBurst), rate.NewLimiter(rate.Limit(c.IdentifiersPerSecond), c.IdentifiersBurst)}
		l.byKey[key] = b
	}
	return b
}

func take(bucket *rate.Limiter, n int, now time.Time) (wait time.Duration, ok bool) {
	if bucket.AllowN(now, n) {
		return 0, true
	}
	missing := float64(n) - bucket.TokensAt(now)
	return time.Duration(math.Ceil(missing/float64(bucket.Limit()))) * time.Second, false
}
