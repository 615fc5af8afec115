package transform_test

import (
	"time"
)

// crew is everybody at work on a world: one worker per partition, a reducer, and
// workers who were replaced and don't know it.
type crew struct {
	w          *world
	p          *process
	generation int32
	workers    []*worker
	zombies    []*worker
	reducer    *worker
}

func (w *world) crew() *crew {
	w.t.Helper()
	c := &crew{w: w, p: w.start()}
	c.begin()
	return c
}

func (c *crew) begin() {
	c.workers, c.zombies = nil, nil
	for partition := range c.w.partitions {
		c.workers = append(c.workers, c.fresh(partition))
	}
	c.reducer = c.reducing()
}

func (c *crew) fresh(partition int) *worker {
	c.generation++
	return c.w.worker(c.w.topics.Answers, partition, c.p.stage.Handler(partition), c.generation, -1)
}

func (c *crew) reducing() *worker {
	c.generation++
	return c.w.worker(c.w.topics.ItemSums, 0, c.p.reducer.Handler(0), c.generation, -1)
}

// restart ends the process and begins another.
func (c *crew) restart() {
	for _, k := range append(c.workers, c.reducer) {
		k.end()
	}
	c.p.stop()
	c.p = c.w.start()
	c.begin()
}

// disturb lets everybody work by turns, and breaks things.
func (c *crew) disturb(steps int) {
	w, random := c.w, c.w.random
	for range steps {
		w.pass(time.Duration(random.IntN(600)) * time.Millisecond)
		switch partition := random.IntN(w.partitions); random.IntN(16) {
		case 0: // the process dies; what the store was told but did not write is lost
			w.store.advance(random.IntN(10))
			w.store.crash()
			c.restart()
		case 1: // replaced, but goes on for a while
			c.zombies = append(c.zombies, c.workers[partition])
			c.workers[partition] = c.fresh(partition)
		case 2:
			c.zombies = append(c.zombies, c.reducer)
			c.reducer = c.reducing()
		case 3:
			w.store.mu.Lock()
			w.store.fail[w.store.calls+1+random.IntN(6)] = true
			w.store.mu.Unlock()
		case 4, 5:
			w.store.advance(1 + random.IntN(8))
		case 6, 7, 8:
			w.tolerate(c.reducer, 1+random.IntN(20))
		case 9:
			if len(c.zombies) > 0 {
				w.tolerate(c.zombies[random.IntN(len(c.zombies))], 1+random.IntN(5))
			}
		default:
			w.tolerate(c.workers[partition], 1+random.IntN(7))
		}
	}
	w.store.mu.Lock()
	clear(w.store.fail)
	w.store.mu.Unlock()
}

func (c *crew) settle() {
	c.w.t.Helper()
	c.w.settle(c.workers, c.reducer)
}
