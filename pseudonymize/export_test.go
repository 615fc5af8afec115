package pseudonymize

import (
	"context"
	"errors"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// SetCrash makes the stage fail right after a step took effect, as if the
// process had died there.
func (s *Stage) SetCrash(crash func(step string) error) { s.crash = crash }

// Transform does the work of a started handler on messages in memory, from
// sealed raw to the bytes of answers, without Kafka. It returns rows and bytes.
func Transform(ctx context.Context, h stream.Handler, messages []stream.Message) (rows, size int, err error) {
	w := h.(*worker)
	r := w.stage.takeRun()
	defer w.stage.giveRun(r)
	for i := range messages {
		if err := w.read(r.take(), &messages[i]); err != nil {
			return 0, 0, err
		}
	}
	if err := w.identify(ctx, r); err != nil {
		return 0, 0, err
	}
	rows, err = w.encode(ctx, r, messages)
	return rows, len(w.main.buffer), err
}

// Resolve looks up the learners of a decoded message.
func Resolve(h stream.Handler, message *stream.Message, times int) (identities int, err error) {
	w := h.(*worker)
	r := w.stage.takeRun()
	defer w.stage.giveRun(r)
	s := r.take()
	if err := w.read(s, message); err != nil {
		return 0, err
	}
	for range times {
		w.resolve(r, s)
	}
	if len(r.unknown) > 0 {
		return 0, errors.New("an alias is unknown")
	}
	return times * len(s.aliases), nil
}

// Work returns how many MACs a resolver has computed for identifiers of a school
// and for tokens, together.
func (r *Resolver) Work(school string) uint64 {
	f := &r.parts[answer.PartitionOf(school, len(r.parts))]
	f.mu.Lock()
	defer f.mu.Unlock()
	sums := f.registry.Digests()
	for _, t := range f.tokenizers {
		sums += t.mac.Sums()
	}
	return sums
}

// Follows makes a resolver that does not run yet go on from a registry that was
// opened before.
func (r *Resolver) Follows(partition int, registry *vault.Partition) {
	r.parts[partition].registry, r.parts[partition].reversed = registry, make(map[keyring.Purpose]reversed)
}
