package vault

import (
	"context"
	"fmt"
)

// Group returns what the tokens of an alias's learner, and of all learners that
// were merged into it, were made of: the living one first. Rows under tokens of
// merged learners may still be stored, so an erasure has to look for all.
func (p *Partition) Group(a Alias) ([]Secret, error) {
	secret, err := p.Find(a)
	if err != nil {
		return nil, err
	}
	return p.groupSecrets(p.state.LookupID(secret.ID)), nil
}

func (p *Partition) groupSecrets(target Learner) []Secret {
	learners := p.state.group(target)
	group := make([]Secret, len(learners))
	for i, l := range learners {
		group[i] = p.state.secrets[l]
	}
	return group
}

// Issue lists every token that was or may still be made for a group of learners,
// and the newest epoch that the list covers. It reads the keyset anew.
type Issue func(group []Secret) (tokens []IssuedToken, epoch uint32, err error)

// maxErasureAttempts bounds how often an erasure is tried while others keep
// changing the same learner.
const maxErasureAttempts = 100

// Erase forgets a learner and all that were merged into it: salt, school,
// aliases and name go. The tombstone that it leaves holds the tokens, computed
// while the salt is still there; those who store rows are told in the log of
// answers (Announce). Whoever is unknown or erased already is passed over with
// ErrErased. From the raw offset on at which the stage adopts the erasure, no
// token of the learner is made.
func (p *Partition) Erase(ctx context.Context, id LearnerID, issue Issue) (Tombstone, error) {
	for range maxErasureAttempts {
		if err := p.follow(ctx, -1); err != nil {
			return Tombstone{}, fmt.Errorf("erase in partition %d: %w", p.number, err)
		}
		target := p.state.LookupID(id)
		if target == 0 {
			return Tombstone{}, fmt.Errorf("erase in partition %d: %w", p.number, ErrErased)
		}
		group := p.groupSecrets(target)
		t := Tombstone{School: p.state.School(target)}
		for i := range group {
			t.Learners = append(t.Learners, group[i].ID)
		}
		var err error
		if t.Tokens, t.Epoch, err = issue(group); err != nil {
			return Tombstone{}, fmt.Errorf("erase in partition %d: %w", p.number, err)
		}
		if t.Epoch < p.state.Epoch() {
			return Tombstone{}, fmt.Errorf("erase in partition %d: the registry is at key epoch %d, the keyset knows %d: load the newest keyset", p.number, p.state.Epoch(), t.Epoch)
		}
		if _, err := p.Append(ctx, []Record{{Kind: KindErase, Tombstone: t}}); err != nil {
			return Tombstone{}, err
		}
		if p.state.LookupID(id) == 0 {
			return t, nil
		}
	}
	return Tombstone{}, fmt.Errorf("erase in partition %d: the learner changed %d times meanwhile: try again", p.number, maxErasureAttempts)
}

// Erased returns the ids of erased learners. They identify nobody; a backup of
// the vault that is older than an erasure needs them after its restore.
func (p *Partition) Erased() []LearnerID {
	var ids []LearnerID
	for l := Learner(1); int(l) < len(p.state.secrets); l++ {
		if p.state.flags[l]&flagErased != 0 {
			ids = append(ids, p.state.secrets[l].ID)
		}
	}
	return ids
}

// Purge runs these one after the other: first rows that a newer version of their
// key replaces, then the marks of aliases that were taken away and rows of
// former epochs. In one statement a mark could go before the row that it hides.
const (
	purgeReplaced = `ALTER TABLE %[1]s.identities DELETE WHERE partition = %[2]d AND (kind, epoch, key, version) NOT IN
	(SELECT kind, epoch, key, max(version) FROM %[1]s.identities WHERE partition = %[2]d GROUP BY kind, epoch, key)
SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1`
	purgeMarks = `ALTER TABLE %[1]s.identities DELETE WHERE partition = %[2]d AND (deleted = 1 OR epoch < %[3]d)
SETTINGS mutations_sync = 2`
)

// Purge removes from the table what the registry no longer holds: after an
// erasure or a rotation its bytes are gone from the parts in use, and from disk
// when ClickHouse drops the old parts (old_parts_lifetime, 8 minutes by
// default). It flushes first.
func (p *Partition) Purge(ctx context.Context) error {
	if err := p.Flush(ctx); err != nil {
		return err
	}
	database := p.vault.config.Database
	for _, statement := range []string{
		fmt.Sprintf(purgeReplaced, database, p.number),
		fmt.Sprintf(purgeMarks, database, p.number, p.aliasEpoch),
	} {
		if err := p.vault.config.Conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("purge registry of partition %d: %w", p.number, err)
		}
	}
	return nil
}
