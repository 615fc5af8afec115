package pseudonymize

import (
	"context"
	"fmt"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// SchemaOrder names a message of `raw` without content. It only makes a place:
// the stage puts into `answers`, at its offset, what the registry has to tell
// those who store rows (vault.Announcement). Whoever else writes one makes
// nothing happen that would not happen anyway, so it needs no seal.
const SchemaOrder = "order.v1"

func isOrder(m *stream.Message) bool {
	schema := string(m.Header(stream.HeaderSchema))
	return schema == SchemaOrder || schema == answer.SchemaRebuild
}

// WritePlace writes a message of `raw` that makes a place, and returns its offset.
func WritePlace(ctx context.Context, client *stream.Client, topic string, partition int) (int64, error) {
	return client.Produce(ctx, topic, partition, stream.Message{Headers: []stream.Header{{Key: stream.HeaderSchema, Value: []byte(SchemaOrder)}}})
}

// requestPlace asks for a place for what has to be told, unless one that was
// asked for before is still to come.
func (w *worker) requestPlace(ctx context.Context) error {
	if !w.registry.State().Unannounced() || w.place >= w.next {
		return nil
	}
	offset, err := WritePlace(ctx, w.stage.config.Client, w.stage.config.Topics.Raw, w.partition)
	if err != nil {
		return err
	}
	w.place = offset
	return w.stage.passed("place requested")
}

// handleOrder puts what has to be told at the place that a message makes. A
// place that nobody needs, such as the second of two, gets an empty message. An
// order to switch to a rebuild is passed on.
func (w *worker) handleOrder(ctx context.Context, m *stream.Message) error {
	if err := stream.CheckNext(m.Offset, w.next); err != nil {
		return fmt.Errorf("raw has a hole: %w", err)
	}
	if err := w.registry.Sync(ctx); err != nil {
		return err
	}
	if err := w.adopt(ctx); err != nil {
		return err
	}
	if string(m.Header(stream.HeaderSchema)) == answer.SchemaRebuild {
		if err := w.passRebuild(ctx, m); err != nil {
			return err
		}
	} else if err := w.announce(ctx, m); err != nil {
		return err
	}
	w.next = m.Offset + 1
	w.registry.Settle(w.next)
	w.assignment.Commit(w.next)
	return w.requestPlace(ctx)
}

// announce records that the next pending orders stand at a message, and writes
// them.
func (w *worker) announce(ctx context.Context, m *stream.Message) error {
	announcement, err := w.registry.Announce(ctx, m.Offset)
	if err != nil {
		return err
	}
	if err := w.stage.passed("orders recorded"); err != nil {
		return err
	}
	if w.registry.State().NeedsAdoption() { // others wrote in between
		if err := w.adopt(ctx); err != nil {
			return err
		}
	}
	return w.writeOrders(ctx, m.Offset, announcement)
}

// passRebuild passes an order to switch to a rebuild on to those who store rows.
// Engines get an empty message. Only the number of what was staged in the store
// goes on, whatever else somebody may have put there, so it needs no seal.
func (w *worker) passRebuild(ctx context.Context, m *stream.Message) error {
	if err := w.tellEngines(ctx, &vault.Announcement{RawOffset: m.Offset, Epoch: w.main.epoch}); err != nil {
		return err
	}
	out := headed(answer.SchemaRebuild, m.Offset, w.main.epoch, nil, 0)
	if number, err := m.Int64(answer.HeaderRebuild); err == nil { // else those who store rows have no use for it
		out.Headers = append(out.Headers, stream.Int64Header(answer.HeaderRebuild, number))
	}
	if _, err := w.stage.config.Client.Produce(ctx, w.main.topic, w.partition, out); err != nil {
		return err
	}
	w.stage.counters.messages.Add(1)
	return w.stage.passed("answers written")
}

// writeOrders produces the message of an announcement to the engines' topics and
// then to answers.
func (w *worker) writeOrders(ctx context.Context, offset int64, announcement *vault.Announcement) error {
	if announcement == nil {
		announcement = &vault.Announcement{RawOffset: offset, Epoch: w.main.epoch}
	}
	if err := w.tellEngines(ctx, announcement); err != nil {
		return err
	}
	rows, err := w.writeCommands(ctx, &w.main, announcement, nil)
	if err != nil {
		return err
	}
	if err := w.stage.passed("answers written"); err != nil {
		return err
	}
	w.stage.counters.messages.Add(1)
	w.stage.counters.orders.Add(int64(rows))
	return nil
}

// tellEngines produces the message of an announcement to those engines' topics
// that do not have it.
func (w *worker) tellEngines(ctx context.Context, announcement *vault.Announcement) error {
	for i := range w.engines {
		o, e := &w.engines[i], &w.stage.config.Engines[i]
		if announcement.RawOffset <= o.done {
			continue
		}
		if _, err := w.writeCommands(ctx, o, announcement, e.Allows); err != nil {
			return fmt.Errorf("orders for engine %s: %w", e.Name, err)
		}
		o.done = announcement.RawOffset
		if err := w.stage.passed("engine written"); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) writeCommands(ctx context.Context, o *output, announcement *vault.Announcement, allows func(school string) bool) (rows int, err error) {
	o.begin()
	if rows, err = o.addOrders(w.stage.config.Ring, announcement, allows); err != nil {
		return 0, err
	}
	o.finish()
	if _, err = w.stage.config.Client.Produce(ctx, o.topic, w.partition, o.messages...); err != nil {
		return rows, err
	}
	o.release()
	return rows, nil
}

// addOrders appends the message of an announcement, with the orders about the
// schools that are allowed (nil: all).
func (o *output) addOrders(ring *keyring.Ring, announcement *vault.Announcement, allows func(school string) bool) (rows int, err error) {
	c := commands{purpose: o.purpose, ring: ring, tokenizers: make(map[uint32]*Tokenizer), schools: make(map[string]int32)}
	for i := range announcement.Orders {
		order := &announcement.Orders[i]
		if allows != nil && !allows(order.School) {
			continue
		}
		if err := c.add(order); err != nil {
			return 0, err
		}
	}
	start := len(o.buffer)
	if o.buffer, err = o.encoder.AppendCommands(o.buffer, &c.Commands); err != nil {
		return 0, err
	}
	o.cuts = append(o.cuts, len(o.buffer))
	o.messages = append(o.messages, headed(answer.SchemaCommands, announcement.RawOffset, announcement.Epoch, o.buffer[start:], c.Rows))
	return c.Rows, nil
}

// commands turns orders about learners into commands about tokens of a purpose.
type commands struct {
	answer.Commands
	purpose    keyring.Purpose
	ring       *keyring.Ring
	tokenizers map[uint32]*Tokenizer
	schools    map[string]int32
}

func (c *commands) add(order *vault.Order) error {
	for _, issued := range order.Erased {
		if issued.Purpose == c.purpose {
			c.append(answer.CommandErase, order.School, answer.MintToken(issued.Token), answer.Token{})
		}
	}
	if len(order.Epochs) == 0 {
		return nil
	}
	into, err := c.token(&order.Into, order.Epoch)
	if err != nil {
		return err
	}
	for _, epoch := range order.Epochs {
		from, err := c.token(&order.From, epoch)
		if err != nil {
			return err
		}
		c.append(answer.CommandMove, order.School, from, into)
	}
	return nil
}

func (c *commands) token(secret *vault.Secret, epoch uint32) (answer.Token, error) {
	tokenizer, ok := c.tokenizers[epoch]
	if !ok {
		var err error
		if tokenizer, err = NewTokenizer(c.ring, c.purpose, epoch); err != nil {
			return answer.Token{}, fmt.Errorf("rows under key epoch %d have to be moved: %w", epoch, err)
		}
		c.tokenizers[epoch] = tokenizer
	}
	return tokenizer.Token(secret), nil
}

func (c *commands) append(kind answer.CommandKind, school string, learner, into answer.Token) {
	code, ok := c.schools[school]
	if !ok {
		code = int32(len(c.School.Values))
		c.schools[school] = code
		c.School.Values = append(c.School.Values, school)
	}
	row := int32(c.Rows)
	c.Kind = append(c.Kind, kind)
	c.School.Codes = append(c.School.Codes, code)
	c.Learner.Codes, c.Learner.Values = append(c.Learner.Codes, row), append(c.Learner.Values, learner)
	c.Into.Codes, c.Into.Values = append(c.Into.Codes, row), append(c.Into.Values, into)
	c.Rows++
}
