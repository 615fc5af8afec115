package vault

import (
	"context"
	"fmt"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// RekeyDue tells whether the keyring has a newer primary epoch than the one that
// the partition's aliases are digested under.
func (p *Partition) RekeyDue() bool {
	return p.mode == Own && p.aliasEpoch < p.vault.config.Ring.Primary() && len(p.announcements) == 0
}

// Rekey digests all aliases again and seals all rows again under the primary
// epoch. The new registry is one insert block, so it is there whole or not at
// all. It takes about a second for 100,000 aliases and needs the keys of both
// epochs. Rows of former epochs, also those that a predecessor left, are deleted
// in the background: a rotation comes to its end without anybody's command.
func (p *Partition) Rekey(ctx context.Context) error {
	if p.RekeyDue() {
		if err := p.rekey(ctx, p.vault.config.Ring.Primary()); err != nil {
			return fmt.Errorf("rekey registry of partition %d: %w", p.number, err)
		}
		p.former = true
	}
	if p.mode != Own || !p.former {
		return nil
	}
	if err := p.vault.config.Conn.Exec(ctx, fmt.Sprintf(dropFormer, p.vault.config.Database, p.number, p.aliasEpoch)); err != nil {
		return fmt.Errorf("drop rows of former epochs of partition %d: %w", p.number, err)
	}
	p.former = false
	return nil
}

const dropFormer = `ALTER TABLE %[1]s.identities DELETE WHERE partition = %[2]d AND epoch < %[3]d SETTINGS mutations_sync = 0`

func (p *Partition) rekey(ctx context.Context, epoch uint32) error {
	if err := p.Flush(ctx); err != nil {
		return err
	}
	digester, err := NewDigester(p.vault.config.Ring, epoch)
	if err != nil {
		return err
	}
	rows := rowBlock{partition: uint16(p.number), epoch: epoch, version: uint64(p.next)}
	var aliases aliasTable
	aliases.reserve(p.state.aliases.used)
	err = p.readAliases(ctx, func(old Digest, a *Alias) error {
		digest := digester.Of(a)
		sealed, err := p.sealAlias(&digest, a)
		if err != nil {
			return err
		}
		rows.alias(digest, p.state.aliasOwner(&old), sealed)
		aliases.set(&digest, p.state.aliases.find(&old))
		return nil
	})
	digester.Wipe()
	if err != nil {
		return err
	}
	if aliases.used != p.state.aliases.used {
		return fmt.Errorf("%w: the table has %d aliases, the log made %d", ErrMalformed, aliases.used, p.state.aliases.used)
	}
	if err := p.rekeySealed(ctx, &rows); err != nil {
		return err
	}
	all := make([]Learner, p.state.Learners())
	for i := range all {
		all[i] = Learner(i + 1)
	}
	if err := p.learnerRows(&rows, all); err != nil {
		return err
	}
	if err := p.progressRow(&rows); err != nil {
		return err
	}
	if err := rows.insert(ctx, p.vault.config.Conn, p.vault.config.Database); err != nil {
		return err
	}
	p.state.aliases, p.aliasEpoch, p.digester, p.flushed = aliases, epoch, digester, p.next
	return nil
}

const allNamesQuery = `SELECT key, sealed FROM %s.identities FINAL
WHERE partition = ? AND kind = 'name' AND epoch = ? AND deleted = 0`

// rekeySealed seals all names and tombstones again.
func (p *Partition) rekeySealed(ctx context.Context, rows *rowBlock) error {
	names, err := p.vault.names(ctx, p.number, fmt.Sprintf(allNamesQuery, p.vault.config.Database), uint16(p.number), p.aliasEpoch)
	if err != nil {
		return fmt.Errorf("read names: %w", err)
	}
	for i := range names {
		sealed, err := p.sealName(names[i].Learner, &names[i].Name)
		if err != nil {
			return err
		}
		p.nameRow(rows, names[i].Learner, sealed)
	}
	tombstones, err := p.Tombstones(ctx)
	if err != nil {
		return err
	}
	for i := range tombstones {
		if err := p.tombstoneRow(rows, &tombstones[i], !p.state.ErasurePending(tombstones[i].ID())); err != nil {
			return err
		}
	}
	return nil
}

const aliasQuery = `SELECT key, sealed FROM %s.identities FINAL
WHERE partition = ? AND kind = 'alias' AND epoch = ? AND deleted = 0`

// readAliases opens all aliases that the table holds.
func (p *Partition) readAliases(ctx context.Context, each func(Digest, *Alias) error) error {
	rows, err := p.vault.config.Conn.Query(ctx, fmt.Sprintf(aliasQuery, p.vault.config.Database), uint16(p.number), p.aliasEpoch)
	if err != nil {
		return fmt.Errorf("read aliases: %w", err)
	}
	defer rows.Close()
	var plain []byte
	defer func() { clear(plain[:cap(plain)]) }()
	for rows.Next() {
		var key string
		var sealed []byte
		if err := rows.Scan(&key, &sealed); err != nil {
			return fmt.Errorf("read aliases: %w", err)
		}
		digest := Digest([]byte(key))
		plain, err = p.sealer.Open(plain[:0], sealed, []byte(contextRow), []byte{rowAlias}, p.partition[:], digest[:])
		if err != nil {
			return fmt.Errorf("read aliases: %w", err)
		}
		reader := recordReader{rest: plain}
		a := reader.alias()
		if reader.err != nil {
			return fmt.Errorf("read aliases: %w", reader.err)
		}
		if err := each(digest, &a); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read aliases: %w", err)
	}
	return nil
}

// Needs says which key epochs a partition's registry can't do without.
type Needs struct {
	Rows   map[uint32]uint64 // rows of the table by the epoch that seals them
	Digest map[uint32]uint64 // rows of the table by the epoch that digests their aliases
	Tail   map[uint32]uint64 // messages of the log that the table doesn't contain yet, by the epoch that seals them
	Next   int64             // registry offset below which the table contains everything
}

// Oldest returns the oldest epoch that is needed, 0 when there is nothing.
func (n *Needs) Oldest() uint32 {
	var oldest uint32
	for _, by := range []map[uint32]uint64{n.Rows, n.Digest, n.Tail} {
		for epoch := range by {
			if oldest == 0 || epoch < oldest {
				oldest = epoch
			}
		}
	}
	return oldest
}

const needsQuery = `SELECT epoch, reinterpretAsUInt32(reverse(substring(sealed, 2, 4))) AS sealing, count() AS n, maxIf(version, kind = 'progress') AS next
FROM %s.identities WHERE partition = ? GROUP BY epoch, sealing ORDER BY epoch, sealing`

// Needs counts what depends on which epoch: the proof that an epoch can be
// retired, as far as the vault is concerned. Every row in the table counts,
// replaced ones too, so Purge comes first.
func (v *Vault) Needs(ctx context.Context, partition int) (Needs, error) {
	n := Needs{Rows: map[uint32]uint64{}, Digest: map[uint32]uint64{}, Tail: map[uint32]uint64{}}
	rows, err := v.config.Conn.Query(ctx, fmt.Sprintf(needsQuery, v.config.Database), uint16(partition))
	if err != nil {
		return n, fmt.Errorf("count rows by key epoch: %w", err)
	}
	defer rows.Close()
	var next uint64
	for rows.Next() {
		var digests, sealing uint32
		var count, version uint64
		if err := rows.Scan(&digests, &sealing, &count, &version); err != nil {
			return n, fmt.Errorf("count rows by key epoch: %w", err)
		}
		n.Digest[digests] += count
		if sealing != 0 { // a mark of an alias that was taken away seals nothing
			n.Rows[sealing] += count
		}
		if version > 0 {
			next = version // of the newest epoch, which comes last
		}
	}
	if err := rows.Err(); err != nil {
		return n, fmt.Errorf("count rows by key epoch: %w", err)
	}
	n.Next = int64(next)
	return n, v.countTail(ctx, partition, n.Next, n.Tail)
}

// TrimLog deletes what the table contains from the partition's log: after an
// erasure or before an epoch is retired. The log alone no longer makes the
// registry then; the table has to be backed up with what is left of the log.
func (v *Vault) TrimLog(ctx context.Context, partition int) (below int64, err error) {
	n, err := v.Needs(ctx, partition)
	if err != nil || n.Next == 0 {
		return 0, err
	}
	return n.Next, v.config.Client.DeleteRecords(ctx, v.config.Topic, partition, n.Next)
}

func (v *Vault) countTail(ctx context.Context, partition int, next int64, tail map[uint32]uint64) error {
	_, end, err := v.config.Client.Offsets(ctx, v.config.Topic, partition)
	if err != nil {
		return err
	}
	var batch stream.Batch
	for next < end {
		if err := v.config.Client.Fetch(ctx, v.config.Topic, partition, next, 0, &batch); err != nil {
			return err
		}
		for i := range batch.Messages {
			tail[SealedEpoch(batch.Messages[i].Value)]++
			next = batch.Messages[i].Offset + 1
		}
	}
	return nil
}

// ReadableAliases opens the aliases that the table holds, with the learner of
// each. It is for fsck and for names on an authorised screen; every call is to be
// audited. Flush first when the newest count.
func (p *Partition) ReadableAliases(ctx context.Context, each func(a *raw.Identity, l Learner) error) error {
	return p.readAliases(ctx, func(d Digest, a *Alias) error { return each(a, p.state.Lookup(&d)) })
}
