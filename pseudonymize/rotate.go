package pseudonymize

import (
	"errors"
	"fmt"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// Replacement says that rows under one token belong under another: after a
// rotation of the keys, after a merge of two learners, or both.
type Replacement struct{ Old, New answer.Token }

// Replacements appends to dst what has to change in data with tokens of a
// purpose, made under an epoch, to be as if it were made now. A caller stores
// the list nowhere: it links what must not be linked. Rows delivered before the
// adoption of the change (vault.State.Adopted) are the ones to change.
func Replacements(dst []Replacement, state *vault.State, ring *keyring.Ring, purpose keyring.Purpose, from uint32) ([]Replacement, error) {
	before, err := NewTokenizer(ring, purpose, from)
	if err != nil {
		return dst, fmt.Errorf("list replacements: %w", err)
	}
	now, err := NewTokenizer(ring, purpose, state.Epoch())
	if err != nil {
		return dst, fmt.Errorf("list replacements: %w", err)
	}
	for l := vault.Learner(1); int(l) <= state.Learners(); l++ {
		root := state.MergedInto(l)
		if !state.Live(root) || from == state.Epoch() && root == l {
			continue
		}
		dst = append(dst, Replacement{Old: before.Token(state.Secret(l)), New: now.Token(state.Secret(root))})
	}
	return dst, nil
}

// Replacements is the function of the same name for a partition that the
// resolver follows.
func (r *Resolver) Replacements(dst []Replacement, partition int, purpose keyring.Purpose, from uint32) ([]Replacement, error) {
	f := &r.parts[partition]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.registry == nil {
		return dst, ErrLoading
	}
	return Replacements(dst, f.registry.State(), r.config.Ring, purpose, from)
}

// IssuedToken is a token that a learner has, or has had.
type IssuedToken struct {
	Purpose keyring.Purpose
	Epoch   uint32
	Token   answer.Token
}

// Issued lists every token of purposes that was ever made for the learners of a
// group (vault.Partition.Group) under the epochs that the keyring still has:
// what an erasure looks for. It has to be taken, and kept with the erasure's
// journal until its end, before the salts are gone.
func Issued(ring *keyring.Ring, group []vault.Secret, purposes ...keyring.Purpose) ([]IssuedToken, error) {
	if len(group) == 0 || len(purposes) == 0 {
		return nil, errors.New("list issued tokens: no learner or no purpose given")
	}
	var issued []IssuedToken
	for _, purpose := range purposes {
		for _, e := range ring.Epochs() {
			if e.State == keyring.StateRetired {
				continue
			}
			tokenizer, err := NewTokenizer(ring, purpose, e.Epoch)
			if err != nil {
				return nil, fmt.Errorf("list issued tokens: %w", err)
			}
			for i := range group {
				issued = append(issued, IssuedToken{Purpose: purpose, Epoch: e.Epoch, Token: tokenizer.Token(&group[i])})
			}
		}
	}
	return issued, nil
}
