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
	target := p.state.LookupID(secret.ID)
	group := []Secret{secret}
	for l := range p.state.merged {
		if p.state.root(l) == target {
			group = append(group, p.state.secrets[l])
		}
	}
	return group, nil
}

// Erase forgets learners: salt, school and aliases go, their ids stay as
// tombstones. Ids that are unknown or erased already are passed over, so that a
// list of tombstones can be applied after a restore. It returns the registry
// offset below which all is recorded; from the raw offset on at which the
// stage adopts it, no token of them is made.
func (p *Partition) Erase(ctx context.Context, ids ...LearnerID) (registryOffset int64, err error) {
	var records []Record
	for _, id := range ids {
		if p.state.LookupID(id) != 0 {
			records = append(records, Record{Kind: KindErase, Learner: id})
		}
	}
	const atOnce = maxMessageBytes / 32
	for len(records) > 0 {
		n := min(len(records), atOnce)
		if _, err := p.Append(ctx, records[:n]); err != nil {
			return 0, err
		}
		records = records[n:]
	}
	return p.next, nil
}

// Tombstones returns the ids of erased learners. They identify nobody; a backup
// of the vault that is older than an erasure needs them after its restore.
func (p *Partition) Tombstones() []LearnerID {
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
