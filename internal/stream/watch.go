package stream

import "context"

// Watch tells whether a partition has messages that somebody has not read yet,
// for one who looks often and seldom finds any: the broker is asked to wait, and
// not asked again each time. It is for one goroutine.
type Watch struct {
	client    *Client
	topic     string
	partition int

	ctx   context.Context
	stop  context.CancelFunc
	ended chan bool // of the request that waits: whether messages may be there
	from  int64     // offset that it waits for
	waits bool
}

// NewWatch makes a watch. It asks nothing before News; Close ends it.
func NewWatch(client *Client, topic string, partition int) *Watch {
	w := &Watch{client: client, topic: topic, partition: partition, ended: make(chan bool, 1)}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// News tells, without waiting for it, whether there may be messages from an
// offset on: true at the first call, after the offset has moved, and when asking
// failed, so that whoever then reads learns of it.
func (w *Watch) News(next int64) bool {
	if w.waits {
		select {
		case found := <-w.ended:
			w.waits = false
			if !found && w.from == next {
				w.wait(next)
				return false
			}
		default:
			if w.from == next {
				return false
			}
			return true // what moved the offset ends the request, too
		}
	}
	w.wait(next)
	return true
}

func (w *Watch) wait(from int64) {
	w.from, w.waits = from, true
	go func() {
		f, err := w.client.fetch(w.ctx, w.topic, w.partition, from, LongestWait, 1)
		w.ended <- err != nil || f.response.HighWatermark > from
	}()
}

// Close ends the request that waits.
func (w *Watch) Close() {
	w.stop()
	if w.waits {
		<-w.ended
		w.waits = false
	}
}
