package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// operate runs a command of the program as an operator does, again while the
// deployment is too broken for it. It returns early, with false, when the output
// holds one of the texts that say that there is nothing to do.
func (c *Campaign) operate(ctx context.Context, nothing []string, args ...string) (done bool, err error) {
	d := c.deployment
	path := filepath.Join(d.dir, "operator-"+args[0]+".yaml")
	if err := d.configure(path, d.listen, d.brokerAddress(), d.storeAddress()); err != nil {
		return false, err
	}
	for {
		trying, cancel := context.WithTimeout(ctx, 30*time.Second)
		out, err := exec.CommandContext(trying, d.binary, append(args, "--config", path, "--data", d.data())...).CombinedOutput()
		cancel()
		for _, text := range nothing {
			if strings.Contains(string(out), text) {
				return false, nil
			}
		}
		switch {
		case err == nil:
			return true, nil
		case ctx.Err() != nil:
			return false, fmt.Errorf("%s: %w: %w\n%.500s", args[0], context.Cause(ctx), err, out)
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// alias names a learner for a command.
func alias(publisher, learner string) string {
	if schemeOf[publisher] == "las" {
		return "las:" + learner
	}
	return "publisher:" + publisher + ":" + learner
}

// somebody draws a learner of a school.
func somebody(random *rand.Rand, school int) (publisher, learner string) {
	publisher = publishers[random.IntN(len(publishers))]
	return publisher, learnerName(publisher, school, random.IntN(learners))
}

const unknownAlias = "alias is unknown"

// merge makes two learners of a school one.
func merge(ctx context.Context, c *Campaign, s *strike) error {
	random := rand.New(rand.NewPCG(uint64(s.bytes), 4))
	school := random.IntN(schools)
	p, from := somebody(random, school)
	q, into := somebody(random, school)
	if from == into {
		return nil
	}
	done, err := c.operate(ctx, []string{unknownAlias}, "roster", "merge", "--school", schoolCode(school), "--from", alias(p, from), "--into", alias(q, into))
	if done {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.archive.merge(schoolCode(school)+" "+from, schoolCode(school)+" "+into)
	}
	return err
}

// erase forgets a learner. The command is not left the time to wait for the
// stages and to delete what the oracle has to read.
func erase(ctx context.Context, c *Campaign, s *strike) error {
	random := rand.New(rand.NewPCG(uint64(s.bytes), 5))
	school := random.IntN(schools)
	p, who := somebody(random, school)
	c.mu.Lock()
	c.archive.erased[c.archive.learner(schoolCode(school)+" "+who)] = true
	c.mu.Unlock()
	_, err := c.operate(ctx, []string{unknownAlias, "have not followed in time"}, "erase", "--school", schoolCode(school), "--alias", alias(p, who), "--wait", "1ms")
	return err
}

// rotateKeys gives all learners new tokens, once in a campaign.
func rotateKeys(ctx context.Context, c *Campaign, _ *strike) error {
	c.mu.Lock()
	rotated := c.rotated
	c.rotated = true
	c.mu.Unlock()
	if rotated {
		return nil
	}
	_, err := c.operate(ctx, nil, "keys", "rotate", "--detach")
	return err
}

// rebuild computes everything again from the archive, under the same model.
func rebuild(ctx context.Context, c *Campaign, _ *strike) error {
	_, err := c.operate(ctx, nil, "rebuild", "--wait", "20s")
	return err
}

// clockJump sets the clock of a process forward or back, by up to three weeks,
// and right again.
func clockJump(ctx context.Context, c *Campaign, s *strike) error {
	m := c.deployment.members[s.member]
	by := time.Duration(s.bytes) * 7 * time.Second
	if s.engine {
		by = -by
	}
	err := m.setClock(by)
	pause(ctx, s.lasts)
	return errors.Join(err, m.setClock(0))
}
