package pseudonymize

import (
	"context"
	"fmt"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// NamedLearner is a name for an authorised screen with the learner's token.
type NamedLearner struct {
	Token answer.Token // of the purpose asked for, under the epoch in use
	vault.Name
}

// Names opens the names of one group of a school, in bulk, with the learners'
// tokens for a purpose; an empty group stands for the whole school. Learners
// that were erased meanwhile are left out. It returns ErrLoading while the
// school's partition is not in memory. See vault.Vault.Names for what a caller
// owes: authorisation, a group at a time, and audit.
func (r *Resolver) Names(ctx context.Context, purpose keyring.Purpose, school, group string) ([]NamedLearner, error) {
	partition := answer.PartitionOf(school, len(r.parts))
	stored, err := r.config.Vault.Names(ctx, partition, school, group)
	if err != nil {
		return nil, fmt.Errorf("names of a group: %w", err)
	}
	f := &r.parts[partition]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.registry == nil {
		return nil, ErrLoading
	}
	state := f.registry.State()
	if state.Epoch() == 0 || len(stored) == 0 {
		return nil, nil
	}
	tokenizer, err := f.tokenizer(r.config.Ring, purpose, state.Epoch())
	if err != nil {
		return nil, err
	}
	var named []NamedLearner
	for i := range stored {
		if l := state.LookupID(stored[i].Learner); l != 0 && state.School(l) == school {
			named = append(named, NamedLearner{Token: tokenizer.Token(state.Secret(l)), Name: stored[i].Name})
		}
	}
	return named, nil
}
