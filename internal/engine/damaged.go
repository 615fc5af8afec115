package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A disk that is full while a merge ends can leave a part whose file of marks is
// empty. Every query that needs it fails, for ever; but when ClickHouse starts it
// looks at its parts, puts such a one aside and goes back to those that it was
// merged from, which it keeps for minutes. So the process is started again when a
// query has met one.
const (
	damagePeriod = 5 * time.Second  // between looks
	mendPeriod   = 10 * time.Minute // within which starting again is not tried a second time
)

// damaged tells whether a query has met a damaged part since the process began.
func (s *ClickHouseServer) damaged(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, damagePeriod)
	defer cancel()
	query := url.Values{"query": {"SELECT sum(value) FROM system.errors WHERE name = 'CORRUPTED_DATA'"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ClickHouse.HTTPAddress+"/?"+query.Encode(), http.NoBody)
	if err != nil {
		return false, fmt.Errorf("ask for damaged parts: %w", err)
	}
	request.Close = true // none is kept between looks: the gate would have to wait for it
	request.SetBasicAuth(s.ClickHouse.User, s.ClickHouse.Password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, fmt.Errorf("ask for damaged parts: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64))
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	if err != nil {
		return false, fmt.Errorf("ask for damaged parts: %w", err)
	}
	met, err := strconv.ParseUint(strings.TrimSpace(string(body)), 10, 64)
	if err != nil {
		return false, errors.New("ask for damaged parts: the reply is no number")
	}
	return met > 0, nil
}

// mend ends the process when it has a damaged part, so that it is started again.
func (s *ClickHouseServer) mend() (ended bool) {
	damaged, err := s.damaged(s.ctx)
	switch {
	case s.ctx.Err() != nil:
		return false
	case err != nil:
		s.logger.Debug("embedded clickhouse: it is unknown whether parts are damaged", "error", err)
		return false
	case !damaged:
		return false
	case !s.mended.IsZero() && time.Since(s.mended) < mendPeriod:
		return false
	}
	s.mended = time.Now()
	s.logger.Error("embedded clickhouse has a damaged part, starting it again to go back to what the part was merged from; run fsck afterwards")
	if err := s.child.process.kill(); err != nil {
		s.logger.Error("embedded clickhouse can't be ended", "error", err)
		return false
	}
	return true
}
