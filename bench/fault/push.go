package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// push is one delivery of events, each publisher by two senders of its own, one for
// test results. What is
// not acknowledged is sent again, at once and unchanged.
type push struct {
	base         string
	keys         map[string]string
	http         *http.Client
	acknowledged atomic.Int64
	again        atomic.Int64 // requests that had to be repeated
}

func newPush(address string, keys map[string]string) *push {
	return &push{base: "http://" + address, keys: keys, http: &http.Client{
		Timeout: 20 * time.Second, Transport: &http.Transport{DisableCompression: true, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}}}
}

// deliver returns when every event is acknowledged. Bodies are cut at random.
func (p *push) deliver(ctx context.Context, random *rand.Rand, events []event) error {
	group, ctx := errgroup.WithContext(ctx)
	for sender := range 2 * len(publishers) {
		publisher, tests := publishers[sender/2], sender%2 == 1
		var own []event
		for i := range events {
			if events[i].publisher == publisher && events[i].test == tests {
				own = append(own, events[i])
			}
		}
		mine := rand.New(rand.NewPCG(random.Uint64(), 2))
		group.Go(func() error {
			for len(own) > 0 {
				n := min(len(own), 1+mine.IntN(40))
				if mine.IntN(30) == 0 {
					p.abandon(ctx, publisher, own[:n])
				}
				if err := p.send(ctx, publisher, own[:n]); err != nil {
					return err
				}
				own = own[n:]
			}
			return nil
		})
	}
	return group.Wait()
}

func render(events []event) []byte {
	var body []byte
	for i := range events {
		body = events[i].line(body)
	}
	return body
}

// send delivers one body, again and again until it is acknowledged.
func (p *push) send(ctx context.Context, publisher string, events []event) error {
	body := render(events)
	for {
		status, reply, err := p.post(ctx, publisher, events[0].test, bytes.NewReader(body))
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("push: %w", context.Cause(ctx))
		case err == nil && status == http.StatusOK:
			var outcome struct {
				Accepted int `json:"accepted"`
			}
			if err := json.Unmarshal(reply, &outcome); err != nil || outcome.Accepted != len(events) {
				return fmt.Errorf("push: the reply accepts %d of %d lines (%w)", outcome.Accepted, len(events), err)
			}
			p.acknowledged.Add(int64(len(events)))
			return nil
		case err == nil && status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests:
			return fmt.Errorf("push: status %d: %s", status, reply)
		}
		p.again.Add(1)
		time.Sleep(50 * time.Millisecond)
	}
}

func (p *push) post(ctx context.Context, publisher string, tests bool, body io.Reader) (status int, reply []byte, err error) {
	path := "/v1/answers"
	if tests {
		path = "/v1/test-results"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+path, body)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+p.keys[publisher])
	response, err := p.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	reply, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, reply, err
}

var errAbandoned = errors.New("the publisher went away")

// abandon sends a body and leaves in the middle of it: some of its lines may be
// stored, and nobody is told so.
func (p *push) abandon(ctx context.Context, publisher string, events []event) {
	body := render(events)
	// It fails, which is the purpose.
	_, _, _ = p.post(ctx, publisher, events[0].test, io.MultiReader(bytes.NewReader(body[:len(body)/2]), failing{}))
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errAbandoned }
