package query

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits holds a token bucket per API key. Keys are few and known: only
// authenticated callers get one.
type limits struct {
	perSecond rate.Limit
	burst     int
	mu        sync.Mutex
	byKey     map[string]*rate.Limiter
}

func newLimits(perSecond float64, burst int) *limits {
	return &limits{perSecond: rate.Limit(perSecond), burst: burst, byKey: map[string]*rate.Limiter{}}
}

// take takes n from the bucket of a key. When there are not enough it takes
// nothing and returns how long to wait.
func (l *limits) take(key string, n int, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.byKey[key]
	if bucket == nil {
		bucket = rate.NewLimiter(l.perSecond, l.burst)
		l.byKey[key] = bucket
	}
	if bucket.AllowN(now, n) {
		return 0, true
	}
	missing := float64(n) - bucket.TokensAt(now)
	return time.Duration(math.Ceil(missing/float64(l.perSecond))) * time.Second, false
}
