package store

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/ClickHouse/ch-go"
)

// pool is a fixed number of connections, opened when first needed. A connection
// that saw any error is closed, for an interrupted exchange can't be resumed.
type pool struct {
	options []ch.Options // one per server
	next    atomic.Uint32
	slots   chan *ch.Client // nil = not connected
}

func newPool(options []ch.Options, size int) *pool {
	p := &pool{options: options, slots: make(chan *ch.Client, size)}
	for range size {
		p.slots <- nil
	}
	return p
}

// do runs a query on a free connection. It waits for one until ctx ends. Errors
// of the server come as *ServerError.
func (p *pool) do(ctx context.Context, query ch.Query) error {
	var client *ch.Client
	select {
	case client = <-p.slots:
	case <-ctx.Done():
		return fmt.Errorf("wait for a connection: %w", context.Cause(ctx))
	}
	defer func() { p.slots <- client }()
	if client == nil || client.IsClosed() {
		fresh, err := p.dial(ctx)
		if err != nil {
			client = nil
			return fmt.Errorf("connect: %w", withoutMessage(err))
		}
		client = fresh
	}
	if err := client.Do(ctx, query); err != nil {
		// The error of the query says more than that of closing.
		_ = client.Close()
		client = nil
		return withoutMessage(err)
	}
	return nil
}

func (p *pool) dial(ctx context.Context) (*ch.Client, error) {
	n := p.next.Add(1)
	return ch.Dial(ctx, p.options[int(n)%len(p.options)])
}

// close closes all connections; it waits for those in use.
func (p *pool) close() {
	for range cap(p.slots) {
		if client := <-p.slots; client != nil {
			_ = client.Close() // nothing is under way on it
		}
	}
}
