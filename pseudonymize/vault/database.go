package vault

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// Kinds of rows of the table; the numbers are part of its schema and of what is
// sealed.
const (
	rowProgress  byte = 0
	rowLearner   byte = 1
	rowAlias     byte = 2
	rowName      byte = 3
	rowTombstone byte = 4
)

// progress is the sealed content of the progress row.
type progress struct {
	epoch               uint32
	aliasEpoch          uint32
	changed             int64
	adopted, adoptedRaw int64
	moved, target       uint32
	announcedRaw        int64
	cursor              LearnerID
}

const progressBytes = 4*4 + 4*8 + 16

func (g *progress) append(dst []byte) []byte {
	for _, v := range []uint32{g.epoch, g.aliasEpoch, g.moved, g.target} {
		dst = binary.BigEndian.AppendUint32(dst, v)
	}
	for _, v := range []int64{g.changed, g.adopted, g.adoptedRaw, g.announcedRaw} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	return append(dst, g.cursor[:]...)
}

func (g *progress) read(src []byte) error {
	if len(src) != progressBytes {
		return fmt.Errorf("%w: progress of %d bytes", ErrMalformed, len(src))
	}
	for i, v := range []*uint32{&g.epoch, &g.aliasEpoch, &g.moved, &g.target} {
		*v = binary.BigEndian.Uint32(src[4*i:])
	}
	for i, v := range []*int64{&g.changed, &g.adopted, &g.adoptedRaw, &g.announcedRaw} {
		*v = int64(binary.BigEndian.Uint64(src[16+8*i:]))
	}
	g.cursor = LearnerID(src[48:])
	return nil
}

// FlushDue tells whether enough waits for the table to be worth a write.
func (p *Partition) FlushDue() bool { return p.waiting() > flushEntries }

// Unflushed tells whether the table lacks something of the fold.
func (p *Partition) Unflushed() bool { return p.mode == Own && p.next > p.flushed }

// Full tells that too much waits for the table to go on without it.
func (p *Partition) Full() bool { return p.waiting() > maxEntries }

func (p *Partition) waiting() int {
	return len(p.pending) + len(p.names) + len(p.graves) + len(p.state.changedLearners)
}

// Flush writes what changed since the last flush, with the offset that it
// reflects, as one block. It does nothing when the table is up to date, and
// while an announcement is not in `answers` yet: a successor must find it in the
// log.
func (p *Partition) Flush(ctx context.Context) error {
	if !p.Unflushed() || len(p.announcements) > 0 {
		return nil
	}
	rows := rowBlock{partition: uint16(p.number), epoch: p.aliasEpoch, version: uint64(p.next)}
	if err := p.learnerRows(&rows, p.state.changedLearners); err != nil {
		return fmt.Errorf("flush registry of partition %d: %w", p.number, err)
	}
	for digest, sealed := range p.pending {
		rows.alias(digest, p.state.aliasOwner(&digest), sealed)
	}
	for id, sealed := range p.names {
		p.nameRow(&rows, id, sealed)
	}
	for _, t := range p.graves {
		if err := p.tombstoneRow(&rows, t, !p.state.ErasurePending(t.ID())); err != nil {
			return fmt.Errorf("flush registry of partition %d: %w", p.number, err)
		}
	}
	if err := p.progressRow(&rows); err != nil {
		return fmt.Errorf("flush registry of partition %d: %w", p.number, err)
	}
	if err := rows.insert(ctx, p.vault.config.Conn, p.vault.config.Database); err != nil {
		return fmt.Errorf("flush registry of partition %d: %w", p.number, err)
	}
	p.flushed = p.next
	p.state.changedLearners = p.state.changedLearners[:0]
	clear(p.pending)
	clear(p.names)
	clear(p.graves)
	return nil
}

// aliasOwner returns id and school of the learner that an alias is bound to
// itself, not following merges; ok is false when it is bound to nobody.
func (s *State) aliasOwner(d *Digest) (owner aliasOwner) {
	if l := s.aliases.find(d); l != 0 {
		owner = aliasOwner{id: s.secrets[l].ID, school: s.School(s.root(l)), bound: true}
	}
	return owner
}

type aliasOwner struct {
	id     LearnerID
	school string
	bound  bool
}

// nameRow adds the row of a learner's name; a nil one marks that it is gone.
func (p *Partition) nameRow(rows *rowBlock, id LearnerID, sealed []byte) {
	school := ""
	if sealed != nil {
		school = p.state.School(p.state.LookupID(id))
	}
	rows.add(rowName, id, LearnerID{}, school, 0, sealed, sealed == nil)
}

func (p *Partition) learnerRows(rows *rowBlock, learners []Learner) error {
	done := make(map[Learner]bool, len(learners))
	for _, l := range learners {
		if done[l] {
			continue
		}
		done[l] = true
		secret := p.state.Secret(l)
		sealed, err := p.sealer.Seal(nil, secret.Salt[:], []byte(contextRow), []byte{rowLearner}, p.partition[:], secret.ID[:])
		if err != nil {
			return err
		}
		var into LearnerID
		if p.state.flags[l]&flagMerged != 0 {
			into = p.state.secrets[p.state.merged[l]].ID
		}
		rows.add(rowLearner, secret.ID, into, p.state.School(l), p.state.flags[l], sealed, false)
	}
	return nil
}

func (p *Partition) progressRow(rows *rowBlock) error {
	s := p.state
	g := progress{epoch: s.epoch, aliasEpoch: rows.epoch, changed: s.changed, adopted: s.adopted, adoptedRaw: s.adoptedRaw,
		moved: s.moved, target: s.target, announcedRaw: s.announcedRaw, cursor: s.cursor}
	sealed, err := p.sealer.Seal(nil, g.append(nil), []byte(contextRow), []byte{rowProgress}, p.partition[:])
	if err != nil {
		return err
	}
	rows.add(rowProgress, [16]byte{}, LearnerID{}, "", 0, sealed, false)
	return nil
}

// rowBlock is one insert block of the table, by columns.
type rowBlock struct {
	partition uint16
	epoch     uint32
	version   uint64

	kinds         []int8
	keys, owners  [][]byte
	schools       []string
	flags, delete []uint8
	sealed        [][]byte
}

func (b *rowBlock) alias(digest Digest, owner aliasOwner, sealed []byte) {
	if owner.bound {
		b.add(rowAlias, digest, owner.id, owner.school, 0, sealed, false)
	} else {
		b.add(rowAlias, digest, LearnerID{}, "", 0, nil, true)
	}
}

func (b *rowBlock) add(kind byte, key [16]byte, owner LearnerID, school string, flags uint8, sealed []byte, deleted bool) {
	b.kinds = append(b.kinds, int8(kind))
	b.keys = append(b.keys, key[:])
	b.owners = append(b.owners, owner[:])
	b.schools = append(b.schools, school)
	b.flags = append(b.flags, flags)
	b.sealed = append(b.sealed, sealed)
	b.delete = append(b.delete, bit(deleted))
}

func repeat[T any](value T, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = value
	}
	return out
}

func (b *rowBlock) insert(ctx context.Context, conn clickhouse.Conn, database string) error {
	n := len(b.kinds)
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+database+
		".identities (partition, kind, epoch, key, learner, school, flags, sealed, version, deleted)")
	if err != nil {
		return fmt.Errorf("insert into table identities: %w", err)
	}
	defer batch.Close()
	for i, column := range []any{repeat(b.partition, n), b.kinds, repeat(b.epoch, n), b.keys, b.owners, b.schools, b.flags, b.sealed,
		repeat(b.version, n), b.delete} {
		if err := batch.Column(i).Append(column); err != nil {
			return fmt.Errorf("insert into table identities: column %d: %w", i, err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("insert into table identities: %w", err)
	}
	return nil
}
