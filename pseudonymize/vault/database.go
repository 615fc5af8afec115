package vault

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

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

const saltSealed = sealOverhead + 16 // bytes of a sealed salt

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

// restoreQuery packs the rows of one kind and school into one string, which the
// driver hands over whole: a row costs bytes, not calls. Progress comes first.
// It is one query, so it sees one state of the table.
const restoreQuery = `
SELECT toUInt8(kind) AS k, school, epoch, max(version) AS v, count() AS n,
       arrayStringConcat(groupArray(multiIf(kind = 'alias', concat(key, learner),
           kind = 'learner', concat(key, learner, char(flags), sealed),
           kind = 'tombstone', concat(key, leftPad(toString(length(sealed)), 8, '0'), sealed), sealed))) AS packed
FROM %s.identities FINAL
WHERE partition = ? AND deleted = 0 AND kind != 'name' AND (kind != 'tombstone' OR flags != 0)
GROUP BY kind, school, epoch
ORDER BY k, school, epoch`

// restore reads the partition's fold from the table.
func (p *Partition) restore(ctx context.Context) error {
	p.state, p.pending, p.names = NewState(), make(map[Digest][]byte), make(map[LearnerID][]byte)
	p.graves, p.announcements = make(map[LearnerID]*Tombstone), nil
	p.next, p.flushed, p.former, p.aliasEpoch = 0, 0, false, p.vault.config.Ring.Primary()
	rows, err := p.vault.config.Conn.Query(ctx, fmt.Sprintf(restoreQuery, p.vault.config.Database), uint16(p.number))
	if err != nil {
		return fmt.Errorf("read table identities: %w", err)
	}
	defer rows.Close()
	restored := restoring{partition: p, merged: make(map[Learner]LearnerID)}
	for rows.Next() {
		var g rowGroup
		if err := rows.Scan(&g.kind, &g.school, &g.epoch, &g.version, &g.count, &g.packed); err != nil {
			return fmt.Errorf("read table identities: %w", err)
		}
		err := restored.add(&g)
		clear(g.packed)
		if err != nil {
			return fmt.Errorf("read table identities: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read table identities: %w", err)
	}
	if err := restored.finish(); err != nil {
		return fmt.Errorf("read table identities: %w", err)
	}
	p.digester, err = NewDigester(p.vault.config.Ring, p.aliasEpoch)
	return err
}

// rowGroup is a row of the restoring query: all rows of one kind, school and
// epoch.
type rowGroup struct {
	kind           uint8
	school         string
	epoch          uint32
	version, count uint64
	packed         []byte
}

// restoring takes the groups of the table, in order, into the state.
type restoring struct {
	partition *Partition
	newest    rowGroup // progress of the newest epoch; the others don't count
	begun     bool
	merged    map[Learner]LearnerID
}

func (r *restoring) add(g *rowGroup) error {
	if g.kind == rowProgress {
		r.partition.former = r.partition.former || r.newest.epoch != 0
		if g.epoch > r.newest.epoch {
			r.newest = *g
			r.newest.packed = append([]byte(nil), g.packed...)
		}
		return nil
	}
	if err := r.begin(); err != nil || g.epoch != r.newest.epoch {
		return err
	}
	if g.kind == rowTombstone {
		return r.partition.restoreTombstones(g.packed)
	}
	if g.kind == rowLearner {
		return r.partition.restoreLearners(g.packed, g.school, int(g.count), r.merged)
	}
	return r.partition.restoreAliases(g.packed, int(g.count))
}

// begin reads the progress row, which comes before all others.
func (r *restoring) begin() error {
	if r.begun || r.newest.epoch == 0 {
		return nil
	}
	r.begun = true
	return r.partition.restoreProgress(r.newest.packed, r.newest.version)
}

func (r *restoring) finish() error {
	if err := r.begin(); err != nil {
		return err
	}
	s := r.partition.state
	for l, id := range r.merged {
		if s.merged[l] = s.ids.find(&id, s.secrets); s.merged[l] == 0 {
			return fmt.Errorf("%w: a learner is merged into an unknown one", ErrMalformed)
		}
		s.flags[l] |= flagMerged
		if s.flags[l]&flagPending != 0 {
			s.merges[l] = struct{}{}
		}
	}
	s.changedLearners, s.changedAliases, s.droppedNames, s.changedGraves = nil, nil, nil, nil
	return nil
}

func (p *Partition) restoreProgress(packed []byte, version uint64) error {
	plain, err := p.sealer.Open(nil, packed, []byte(contextRow), []byte{rowProgress}, p.partition[:])
	if err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	var g progress
	if err := g.read(plain); err != nil {
		return err
	}
	if g.aliasEpoch == 0 {
		return fmt.Errorf("%w: progress without an epoch", ErrMalformed)
	}
	p.next, p.flushed, p.aliasEpoch = int64(version), int64(version), g.aliasEpoch
	p.state.adoption = adoption{epoch: g.epoch, changed: g.changed, adopted: g.adopted, adoptedRaw: g.adoptedRaw}
	a := &p.state.announcing
	a.moved, a.target, a.announcedRaw, a.cursor = g.moved, g.target, g.announcedRaw, g.cursor
	return nil
}

func (p *Partition) restoreLearners(packed []byte, school string, count int, merged map[Learner]LearnerID) error {
	const width = 16 + 16 + 1 + saltSealed
	if len(packed) != count*width {
		return fmt.Errorf("%w: %d learners in %d bytes", ErrMalformed, count, len(packed))
	}
	for ; len(packed) > 0; packed = packed[width:] {
		secret := Secret{ID: LearnerID(packed[:16])}
		salt, err := p.sealer.Open(p.scratch[:0], packed[33:width], []byte(contextRow), []byte{rowLearner}, p.partition[:], secret.ID[:])
		if err != nil {
			return fmt.Errorf("salt: %w", err)
		}
		if len(salt) != len(secret.Salt) {
			return fmt.Errorf("%w: salt of %d bytes", ErrMalformed, len(salt))
		}
		p.scratch = salt
		copy(secret.Salt[:], salt)
		clear(salt)
		if p.state.ids.find(&secret.ID, p.state.secrets) != 0 {
			return fmt.Errorf("%w: a learner stands there twice", ErrMalformed)
		}
		l := p.state.add(secret, school)
		p.state.flags[l] = packed[32] &^ flagMerged
		if packed[32]&flagMerged != 0 {
			merged[l] = LearnerID(packed[16:32])
		}
		// add() notes a change, of which there is none.
		p.state.changedLearners = p.state.changedLearners[:0]
	}
	return nil
}

func (p *Partition) restoreAliases(packed []byte, count int) error {
	const width = 32
	if len(packed) != count*width {
		return fmt.Errorf("%w: %d aliases in %d bytes", ErrMalformed, count, len(packed))
	}
	p.state.aliases.reserve(p.state.aliases.used + count)
	for ; len(packed) > 0; packed = packed[width:] {
		digest, id := Digest(packed[:16]), LearnerID(packed[16:32])
		l := p.state.ids.find(&id, p.state.secrets)
		if l == 0 {
			return fmt.Errorf("%w: an alias of an unknown learner", ErrMalformed)
		}
		p.state.aliases.set(&digest, l)
	}
	return nil
}

// restoreTombstones reads the erasures that are not announced yet.
func (p *Partition) restoreTombstones(packed []byte) error {
	const head = 16 + 8
	for len(packed) > 0 {
		if len(packed) < head {
			return fmt.Errorf("%w: a tombstone ends early", ErrMalformed)
		}
		length, err := strconv.Atoi(string(packed[16:head]))
		if err != nil || length < 0 || length > len(packed)-head {
			return fmt.Errorf("%w: a tombstone ends early", ErrMalformed)
		}
		t, err := p.openTombstone(LearnerID(packed[:16]), packed[head:head+length])
		if err != nil {
			return err
		}
		p.state.graves = append(p.state.graves, &t)
		packed = packed[head+length:]
	}
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
