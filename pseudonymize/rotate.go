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

// Issue lists, for vault.Partition.Erase, every token of the purposes that was
// ever made for a group of learners under the epochs that the keyset still has:
// what an erasure looks for. It has to be taken before the salts are gone.
func Issue(ring *keyring.Ring, purposes ...keyring.Purpose) vault.Issue {
	return func(group []vault.Secret) ([]vault.IssuedToken, uint32, error) {
		if err := ring.Refresh(); err != nil {
			return nil, 0, err
		}
		primary := ring.Primary()
		issued, err := issue(ring, group, purposes)
		return issued, primary, err
	}
}

func issue(ring *keyring.Ring, group []vault.Secret, purposes []keyring.Purpose) ([]vault.IssuedToken, error) {
	if len(group) == 0 || len(purposes) == 0 {
		return nil, errors.New("list issued tokens: no learner or no purpose given")
	}
	var issued []vault.IssuedToken
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
				issued = append(issued, vault.IssuedToken{Purpose: purpose, Epoch: e.Epoch, Token: tokenizer.Token(&group[i]).Bytes()})
			}
		}
	}
	return issued, nil
}

// TokenOf returns an issued token as one.
func TokenOf(t vault.IssuedToken) answer.Token { return answer.MintToken(t.Token) }
