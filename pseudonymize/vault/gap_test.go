package vault_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

func TestGapInTheLogStopsTheVault(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	must(t, p.Create(t.Context(), number(3), false))
	must(t, p.Flush(t.Context()))
	// The topic is made anew: the table ends after the log.
	lost := *d
	lost.topic = enginetest.Topic(t, enginetest.Kafka(t), "registry", 2)
	if _, err := lost.vault(t).Open(t.Context(), 1, vault.Own); !errors.Is(err, vault.ErrGap) {
		t.Errorf("Open = %v, want %v", err, vault.ErrGap)
	}
}

// TestReadersBehindATrimmedLog: whoever has not read what was trimmed is told so
// and what to do, and uses nothing; who opens the registry again knows everything.
func TestReadersBehindATrimmedLog(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	owner, follower, zombie := d.open(t, vault.Own), d.open(t, vault.Follow), d.open(t, vault.Own)
	must(t, owner.Create(t.Context(), number(5), true))
	must(t, owner.Flush(t.Context()))
	_, err := d.vault(t).TrimLog(t.Context(), 1)
	must(t, err)
	must(t, owner.Create(t.Context(), number(8), true)) // whoever has read it all goes on
	want := findAll(t, owner, number(8))
	for name, p := range map[string]*vault.Partition{"a follower": follower, "a former owner": zombie} {
		if err := p.Sync(t.Context()); !errors.Is(err, vault.ErrGap) || !strings.Contains(err.Error(), "open the registry again") {
			t.Errorf("Sync of %s = %v, want %v and what to do", name, err, vault.ErrGap)
		}
		if p.State().Aliases() != 0 {
			t.Errorf("%s has folded what came after the gap", name)
		}
	}
	same(t, "a follower that has opened it again", findAll(t, d.open(t, vault.Follow), number(8)), want)
	same(t, "its next owner", findAll(t, d.open(t, vault.Own), number(8)), want)
}

// TestTableBehindATrimmedLog: a table that was restored from before the log was
// trimmed lacks learners for good, so nothing is served from it.
func TestTableBehindATrimmedLog(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	owner := d.open(t, vault.Own)
	must(t, owner.Create(t.Context(), number(2), true))
	must(t, owner.Flush(t.Context()))
	must(t, owner.Create(t.Context(), number(5), true))
	must(t, d.client.DeleteRecords(t.Context(), d.topic, 1, owner.Offset()))
	for _, mode := range []vault.Mode{vault.Follow, vault.Own} {
		if _, err := d.vault(t).Open(t.Context(), 1, mode); !errors.Is(err, vault.ErrGap) || !strings.Contains(err.Error(), "restore the one that is behind") {
			t.Errorf("Open = %v, want %v and what to do", err, vault.ErrGap)
		}
	}
}

// interrupted makes a connection that calls something once, after the table was
// read.
type interrupted struct{ then func() }

func (d *interrupted) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	return &interruptedConn{c, d}, err
}

type interruptedConn struct {
	net.Conn
	*interrupted
}

func (c *interruptedConn) Close() error {
	if then := c.then; then != nil {
		c.then = nil
		then()
	}
	return c.Conn.Close()
}

// TestLogIsTrimmedWhileItIsOpened: between the table and the log, both change.
func TestLogIsTrimmedWhileItIsOpened(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	owner := d.open(t, vault.Own)
	must(t, owner.Create(t.Context(), number(2), true))
	must(t, owner.Flush(t.Context()))
	trims := 0
	between := *d
	between.native = slices.Clone(d.native)
	between.native[0].Dialer = &interrupted{then: func() {
		must(t, owner.Create(t.Context(), number(5), true))
		must(t, owner.Flush(t.Context()))
		_, err := d.vault(t).TrimLog(t.Context(), 1)
		must(t, err)
		trims++
	}}
	same(t, "opened meanwhile", findAll(t, between.open(t, vault.Follow), number(5)), findAll(t, owner, number(5)))
	if trims != 1 {
		t.Errorf("the log was trimmed %d times, want once", trims)
	}
}
