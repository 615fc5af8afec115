package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// strike is one fault: when it comes and what it does.
type strike struct {
	kind   string
	after  int           // acknowledged events of the round
	wait   time.Duration // then
	lasts  time.Duration
	member int   // which process, where it matters
	bytes  int64 // that pass before a cut
	engine bool  // the link to the store, not to the broker
}

func (s *strike) String() string {
	return fmt.Sprintf("%s after %d events + %s, for %s, process %d, %d bytes", s.kind, s.after, s.wait, s.lasts, s.member, s.bytes)
}

// kind is one way to break things.
type kind struct {
	name   string
	weight int
	disk   bool // needs a file system of its own
	strike func(ctx context.Context, c *Campaign, s *strike) error
}

// kinds are all of them.
var kinds = []kind{
	{name: "kill ingest", weight: 3, strike: killStage("ingest")},
	{name: "kill pseudonymize", weight: 5, strike: killStage("pseudonymize")},
	{name: "kill transform", weight: 6, strike: killStage("transform")},
	{name: "kill serve", weight: 1, strike: killStage("serve")},
	{name: "stop in order", weight: 2, strike: stopInOrder},
	{name: "kill broker", weight: 3, strike: killBroker},
	{name: "kill store", weight: 3, strike: killStore},
	{name: "zombie pseudonymize", weight: 4, strike: freeze("pseudonymize")},
	{name: "zombie transform", weight: 5, strike: freeze("transform")},
	{name: "cut link", weight: 6, strike: cutLink},
	{name: "stall link", weight: 4, strike: stallLink},
	{name: "slow link", weight: 2, strike: slowLink},
	{name: "rebalance storm", weight: 2, strike: storm},
	{name: "resend", weight: 4, strike: resend},
	{name: "clock jump", weight: 2, strike: clockJump},
	{name: "merge", weight: 4, strike: merge},
	{name: "erase", weight: 3, strike: erase},
	{name: "rotate keys", weight: 1, strike: rotateKeys},
	{name: "rebuild", weight: 2, strike: rebuild},
	{name: "full disk", weight: 2, disk: true, strike: fullDisk},
	{name: "power loss", weight: 3, disk: true, strike: powerLoss},
}

// plan draws the strikes of a round of n events: one to three.
func plan(random *rand.Rand, n int, withDisk bool) []strike {
	total := 0
	for _, k := range kinds {
		if !k.disk || withDisk {
			total += k.weight
		}
	}
	strikes := make([]strike, 1+random.IntN(3))
	for i := range strikes {
		at := random.IntN(total)
		for _, k := range kinds {
			if k.disk && !withDisk {
				continue
			}
			if at -= k.weight; at < 0 {
				strikes[i].kind = k.name
				break
			}
		}
		s := &strikes[i]
		s.after, s.wait = random.IntN(n), time.Duration(random.IntN(400))*time.Millisecond
		s.lasts = time.Duration(random.IntN(1500)) * time.Millisecond
		s.member, s.engine = random.IntN(6), random.IntN(2) == 0
		s.bytes = 1 << random.IntN(18) // from the handshake to deep in a request
		s.bytes += random.Int64N(s.bytes)
	}
	return strikes
}

func kindOf(name string) *kind {
	for i := range kinds {
		if kinds[i].name == name {
			return &kinds[i]
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// killStage kills a process of a stage; half of the time it is back at once.
func killStage(stage string) func(context.Context, *Campaign, *strike) error {
	return func(ctx context.Context, c *Campaign, s *strike) error {
		of := c.deployment.of(stage)
		m := of[s.member%len(of)]
		m.hold(true)
		m.signal(syscall.SIGKILL)
		if s.engine {
			pause(ctx, s.lasts)
		}
		m.hold(false)
		return nil
	}
}

func stopInOrder(_ context.Context, c *Campaign, s *strike) error {
	c.deployment.members[s.member].signal(syscall.SIGTERM)
	return nil
}

func killBroker(ctx context.Context, c *Campaign, s *strike) error {
	c.engines.Lock()
	defer c.engines.Unlock()
	if err := c.deployment.broker.Kill(); err != nil {
		return err
	}
	pause(ctx, s.lasts/3)
	return c.deployment.startBroker(ctx)
}

func killStore(ctx context.Context, c *Campaign, s *strike) error {
	c.engines.Lock()
	defer c.engines.Unlock()
	if err := c.deployment.store.Kill(); err != nil {
		return err
	}
	pause(ctx, s.lasts)
	return c.deployment.startStore(ctx)
}

// freeze stops a process for longer than its session lasts, so that others take
// over, and lets it go on where it was.
func freeze(stage string) func(context.Context, *Campaign, *strike) error {
	return func(ctx context.Context, c *Campaign, s *strike) error {
		of := c.deployment.of(stage)
		m := of[s.member%len(of)]
		m.signal(syscall.SIGSTOP)
		pause(ctx, sessionTimeout+s.lasts)
		m.signal(syscall.SIGCONT)
		return nil
	}
}

func (c *Campaign) link(s *strike) *link {
	m := c.deployment.members[s.member]
	if s.engine {
		return m.store
	}
	return m.kafka
}

// cutLink cuts all connections of a process with an engine at a byte, three
// times.
func cutLink(ctx context.Context, c *Campaign, s *strike) error {
	l := c.link(s)
	for range 3 {
		l.cutAfter(s.bytes)
		pause(ctx, s.lasts/3)
	}
	l.cutAfter(0)
	return nil
}

// stallLink is a network that swallows everything for longer than a session.
func stallLink(ctx context.Context, c *Campaign, s *strike) error {
	l := c.link(s)
	l.stall(true)
	pause(ctx, 2*s.lasts)
	l.stall(false)
	return nil
}

func slowLink(ctx context.Context, c *Campaign, s *strike) error {
	l := c.link(s)
	l.slow(5*time.Millisecond + s.lasts/50)
	pause(ctx, s.lasts)
	l.slow(0)
	return nil
}

// storm makes the groups divide their partitions again and again.
func storm(ctx context.Context, c *Campaign, s *strike) error {
	for range 4 {
		for _, stage := range []string{"pseudonymize", "transform"} {
			of := c.deployment.of(stage)
			s.member++
			of[s.member%len(of)].signal(syscall.SIGKILL)
		}
		pause(ctx, 200*time.Millisecond+s.lasts/4)
	}
	return nil
}

// resend delivers events of earlier rounds and of this one again, in other
// bodies and, between schools, in another order.
func resend(ctx context.Context, c *Campaign, s *strike) error {
	random := rand.New(rand.NewPCG(uint64(s.bytes), 3))
	from := random.IntN(len(c.sent))
	again := c.sent[from:min(len(c.sent), from+400)]
	return newPush(c.deployment.listen, c.deployment.keys).deliver(ctx, random, again)
}

// shortestFull is longer than it takes anybody to notice, on busy cores too.
const shortestFull = 200 * time.Millisecond

func fullDisk(ctx context.Context, c *Campaign, s *strike) error {
	c.engines.Lock()
	defer c.engines.Unlock()
	err := c.deployment.disk.fill()
	pause(ctx, shortestFull+s.lasts)
	return errors.Join(err, c.deployment.disk.empty())
}

func powerLoss(ctx context.Context, c *Campaign, _ *strike) error {
	c.engines.Lock()
	defer c.engines.Unlock()
	c.replay.rewind()
	return c.deployment.losePower(ctx)
}
