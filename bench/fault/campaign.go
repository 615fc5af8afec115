package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config says what to run.
type Config struct {
	Binary string // the program leerstroom
	Dir    string // an empty directory
	Seed   uint64
	Apache bool // Apache Kafka, not the embedded broker
	Disk   bool // engines on a file system of their own, which needs root: full disks and power loss too
	Log    func(format string, args ...any)
}

// Campaign is a deployment that goes through rounds. State and logs grow from
// round to round.
type Campaign struct {
	config     Config
	deployment *deployment
	world      *world
	archive    *archive
	replay     *replay
	sent       []event // of all rounds
	rounds     int
	engines    sync.Mutex // held by a strike that takes engines down
	began      time.Time
	mu         sync.Mutex
	timeline   []string // of the round
	rotated    bool

	Struck map[string]int // strikes by kind
	Events int            // acknowledged
	Again  int            // requests that had to be repeated
	Exits  int            // processes that ended by themselves
}

// NewCampaign starts a deployment. Close ends it. ErrNoDisk says that this
// process can't have a disk of its own.
func NewCampaign(ctx context.Context, config Config) (*Campaign, error) {
	c := &Campaign{config: config, world: newWorld(config.Seed), Struck: make(map[string]int), began: time.Now()}
	c.deployment = &deployment{binary: config.Binary, dir: config.Dir, apache: config.Apache, schools: c.world.authorisations(), timeline: c.note}
	err := c.deployment.start(ctx, config.Disk)
	if err == nil {
		c.archive, err = newArchive(c.deployment.ring)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start campaign: %w", err), c.Close())
	}
	c.replay = newReplay(c.deployment)
	return c, nil
}

// ErrNoDisk reports that this process may not make file systems.
var ErrNoDisk = errNoDisk

// Close ends all processes and removes the disk.
func (c *Campaign) Close() error { return c.deployment.close() }

func (c *Campaign) note(format string, args ...any) {
	line := fmt.Sprintf("%8.3fs  ", time.Since(c.began).Seconds()) + fmt.Sprintf(format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timeline = append(c.timeline, line)
}

// roundLimit is how long a round may take. Most take seconds.
const roundLimit = 4 * time.Minute

// Round breaks things once and compares everything. The error says what differs,
// with what was done and what the processes printed last.
func (c *Campaign) Round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	c.rounds++
	c.timeline = nil
	random := rand.New(rand.NewPCG(c.config.Seed, uint64(c.rounds)<<8))
	events := c.world.events(100 + random.IntN(300))
	err := c.disturb(ctx, random, events)
	if err == nil {
		err = c.settle(ctx)
	}
	if err == nil {
		err = c.alarms()
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("seed %d, round %d: %w\n%s\n%s", c.config.Seed, c.rounds, err, strings.Join(c.timeline, "\n"), c.found(context.WithoutCancel(ctx))+c.deployment.printed(25)+c.deployment.stacks())
}

// found is what fsck and ClickHouse say of a round that failed.
func (c *Campaign) found(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out strings.Builder
	if err := c.fsck(ctx); err != nil {
		fmt.Fprintf(&out, "%v\n", err)
	}
	parts, err := c.deployment.rows(ctx, "SELECT table, name, reason FROM system.detached_parts")
	fmt.Fprintf(&out, "parts that ClickHouse has put aside: %v (%v)\n", parts, err)
	for _, problem := range c.deployment.twice(ctx) {
		fmt.Fprintln(&out, problem)
	}
	return out.String() + c.deployment.complaints(200)
}

// disturb pushes events while the strikes of the round happen.
func (c *Campaign) disturb(ctx context.Context, random *rand.Rand, events []event) error {
	c.sent = append(c.sent, events...)
	strikes := plan(random, len(events), c.deployment.disk != nil)
	delivery := newPush(c.deployment.listen, c.deployment.keys)
	both, outer := errgroup.WithContext(ctx)
	group, inner := errgroup.WithContext(outer)
	over := make(chan struct{})
	both.Go(func() error { return c.revive(outer, over) })
	group.Go(func() error {
		defer c.note("all %d events are acknowledged", len(events))
		return delivery.deliver(inner, random, events)
	})
	for i := range strikes {
		s := &strikes[i]
		c.Struck[s.kind]++
		group.Go(func() error {
			poll := time.NewTicker(2 * time.Millisecond)
			defer poll.Stop()
			for delivery.acknowledged.Load() < int64(s.after) && inner.Err() == nil {
				<-poll.C
			}
			pause(inner, s.wait)
			c.note("begin: %s", s)
			defer c.note("end:   %s", s.kind)
			if err := kindOf(s.kind).strike(inner, c, s); err != nil {
				return fmt.Errorf("%s: %w", s.kind, err)
			}
			return nil
		})
	}
	err := group.Wait()
	close(over)
	err = errors.Join(err, both.Wait())
	for _, m := range c.deployment.members {
		m.kafka.heal()
		m.store.heal()
		m.hold(false)
		m.signal(syscall.SIGCONT)
	}
	if err != nil {
		return err
	}
	c.archive.expect(events)
	c.Events += int(delivery.acknowledged.Load())
	c.Again += int(delivery.again.Load())
	return nil
}

// revive starts engines again that end by themselves until everything was pushed
// and every strike is over: Apache Kafka takes seconds to give up after the disk was full.
func (c *Campaign) revive(ctx context.Context, over <-chan struct{}) error {
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-over:
			return nil
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		c.engines.Lock()
		err := c.deployment.reviveEngines(ctx)
		c.engines.Unlock()
		if err != nil {
			return fmt.Errorf("revive: %w", err)
		}
	}
}

// settle waits until the store has caught up with the log, and compares.
func (c *Campaign) settle(ctx context.Context) error {
	if err := c.await(ctx, "the store is behind", c.behind); err != nil {
		return err
	}
	c.note("the store has caught up")
	// Orders about learners come on their own time, and histograms are written less
	// often: what differs may be on its way.
	if err := c.await(ctx, "tables differ", c.differences); err != nil {
		return err
	}
	c.note("all tables are equal")
	return c.fsck(ctx)
}

// differences compares everything with what it must be by what was acknowledged
// and by the logs.
func (c *Campaign) differences(ctx context.Context) ([]string, error) {
	if err := c.replay.advance(ctx); err != nil {
		return nil, err
	}
	problems, err := c.archive.compare(ctx, c.deployment)
	for _, table := range []string{"answers", "skills", "item_sums", "norms"} {
		if err != nil {
			return problems, err
		}
		var more []string
		more, err = c.replay.compare(ctx, table)
		problems = append(problems, more...)
	}
	if err != nil {
		return problems, err
	}
	more, err := c.replay.compareAdoptions(ctx)
	return append(problems, more...), err
}

func summary(problems []string) string {
	const shown = 8
	text := strings.Join(problems[:min(shown, len(problems))], "\n  ")
	if more := len(problems) - shown; more > 0 {
		text += fmt.Sprintf("\n  and %d more", more)
	}
	return text
}

// askPause is how long to wait until everything is read again: to read it costs the
// store more than what it waits for.
const askPause = 400 * time.Millisecond

// await asks again until there is no problem left.
func (c *Campaign) await(ctx context.Context, what string, ask func(context.Context) ([]string, error)) error {
	limit := time.NewTimer(roundLimit / 2)
	defer limit.Stop()
	for {
		problems, err := []string(nil), c.deployment.reviveEngines(ctx) // Apache Kafka may give up only here
		if err == nil {
			problems, err = ask(ctx)
		}
		if err == nil && len(problems) == 0 {
			return nil
		}
		select {
		case <-limit.C:
			return fmt.Errorf("%s: %w: %s", what, errors.Join(err, context.DeadlineExceeded), summary(problems))
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %s", what, errors.Join(err, context.Cause(ctx)), summary(problems))
		case <-time.After(askPause):
		}
	}
}

// behind tells which partitions the store has not caught up with.
func (c *Campaign) behind(ctx context.Context) (problems []string, err error) {
	rows, err := c.deployment.rows(ctx, "SELECT toString(partition), toString(raw_offset) FROM progress FINAL")
	if err != nil {
		return nil, err
	}
	progress := make(map[string]string)
	for _, row := range rows {
		progress[row[0]] = row[1]
	}
	for p := range partitions {
		_, end, err := c.deployment.client.Offsets(ctx, c.deployment.names.Raw, p)
		if err != nil {
			return nil, err
		}
		if got := progress[fmt.Sprint(p)]; end > 0 && got != fmt.Sprint(end-1) {
			problems = append(problems, fmt.Sprintf("partition %d: raw ends at %d, the store is at %q", p, end, got))
		}
	}
	return problems, nil
}

// fsck runs the command.
func (c *Campaign) fsck(ctx context.Context) error {
	d := c.deployment
	path := d.dir + "/fsck.yaml"
	if err := d.configure(path, d.listen, d.brokerAddress(), d.storeAddress()); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, d.binary, "fsck", "--config", path, "--data", d.data(), "--wait", "30s").CombinedOutput()
	if err != nil {
		return fmt.Errorf("fsck: %w\n%s", err, out)
	}
	c.note("fsck finds no difference")
	return nil
}

// alarms reports what no process may print.
func (c *Campaign) alarms() error {
	c.Exits = 0
	for i, m := range c.deployment.members {
		c.Exits += m.ownExits()
		if alarm := m.output.alarmed(); alarm != "" {
			return fmt.Errorf("process %d (%s) printed %q:\n%s", i, m.stage, alarm, m.output.last(200))
		}
	}
	return nil
}
