package vault

import (
	"context"
	"fmt"
)

// Findings is what Check counted. A sound partition has no wrong ones.
type Findings struct {
	Learners, Aliases int
	Erased            int
	WholeLog          bool // the log still begins at its beginning, so that it could be folded anew

	WrongDigests int // rows whose readable alias has another digest
	WrongOwners  int // aliases whose learner, salt or school is not what the log made
	Missing      int // aliases of the log that the table lacks
	Extra        int // aliases in the table that the log did not make, or took away
}

// Sound tells whether nothing is wrong.
func (f *Findings) Sound() bool {
	return f.WrongDigests+f.WrongOwners+f.Missing+f.Extra == 0
}

// Check opens every alias in the table of a partition and holds table and log
// against each other: table and rest of the log must be what the whole log makes.
// When retention has cut the log, only the table can be checked.
func (v *Vault) Check(ctx context.Context, partition int) (Findings, error) {
	var f Findings
	p, err := v.Open(ctx, partition, Follow)
	if err != nil {
		return f, fmt.Errorf("check registry: %w", err)
	}
	s := p.state
	f.Learners, f.Aliases, f.Erased = s.Learners(), s.Aliases(), len(p.Erased())
	err = p.readAliases(ctx, func(d Digest, a *Alias) error {
		if p.digester.Of(a) != d {
			f.WrongDigests++
		}
		if l := s.Lookup(&d); l != 0 && s.School(l) != a.School { // 0: the rest of the log took it away
			f.WrongOwners++
		}
		return nil
	})
	if err != nil {
		return f, fmt.Errorf("check registry of partition %d: %w", partition, err)
	}
	first, _, err := v.config.Client.Offsets(ctx, v.config.Topic, partition)
	if err != nil || first > 0 {
		return f, err
	}
	whole := &Partition{vault: v, number: partition, sealer: p.sealer, partition: p.partition, state: NewState(), digester: p.digester}
	if err := whole.follow(ctx, p.next); err != nil {
		return f, fmt.Errorf("check registry of partition %d: %w", partition, err)
	}
	if err := p.follow(ctx, whole.next); err != nil {
		return f, fmt.Errorf("check registry of partition %d: %w", partition, err)
	}
	f.WholeLog = whole.next == p.next // else somebody is writing, and both are at different places
	if f.WholeLog {
		f.compare(s, whole.state)
	}
	return f, nil
}

// compare holds the restored registry against the one of the log alone.
func (f *Findings) compare(restored, whole *State) {
	for i := range whole.aliases.slots {
		slot := &whole.aliases.slots[i]
		if slot.learner == 0 {
			continue
		}
		want, got := whole.root(slot.learner), restored.Lookup(&slot.digest)
		switch {
		case got == 0:
			f.Missing++
		case restored.secrets[got] != whole.secrets[want] || restored.School(got) != whole.School(want) || restored.flags[got] != whole.flags[want]:
			f.WrongOwners++
		}
	}
	f.Extra = max(0, restored.Aliases()-(whole.Aliases()-f.Missing))
}
