package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

// NativeOptions are those of the connections for bulk reads.
func NativeOptions(addresses []string, user, password string) []ch.Options {
	options := make([]ch.Options, len(addresses))
	for i, address := range addresses {
		options[i] = ch.Options{Address: address, User: user, Password: password, ClientName: "leerstroom", ReadTimeout: 30 * time.Second,
			DialTimeout: 5 * time.Second, HandshakeTimeout: 10 * time.Second}
	}
	return options
}

// dial connects to one of the servers.
func (v *Vault) dial(ctx context.Context) (*ch.Client, error) {
	var errs []error
	for _, options := range v.config.Native {
		client, err := ch.Dial(ctx, options)
		if err == nil {
			return client, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("connect: %w", errors.Join(errs...))
}

// restoreQuery returns all versions of all rows but names: leaving out here what
// newer ones replace costs less than FINAL. It is one query, so it sees one state
// of the table.
const restoreQuery = `
SELECT toUInt8(kind) AS row_kind, epoch, key, learner, if(kind = 'learner', toString(school), '') AS learner_school, flags,
       if(kind = 'alias', '', sealed) AS content, version, deleted
FROM %s.identities
WHERE partition = {partition:UInt16} AND kind != 'name'`

// tableRow is a row of the table.
type tableRow struct {
	epoch   uint32
	key     [16]byte
	learner [16]byte
	version uint64
	begin   int    // of the sealed contents …
	end     int    // … and behind them
	school  uint32 // number of the learner's school
	kind    byte
	flags   uint8
	deleted bool
	old     bool // replaced by a newer version
}

// tableRows are the rows of one partition.
type tableRows struct {
	rows    []tableRow
	sealed  []byte
	schools []string
	numbers map[string]uint32 // of schools
}

func (t *tableRows) contents(row *tableRow) []byte { return t.sealed[row.begin:row.end] }

func newTableRows() *tableRows { return &tableRows{numbers: make(map[string]uint32)} }

// each calls a function for every row of a kind and epoch that the table holds.
func (t *tableRows) each(kind byte, epoch uint32, see func(*tableRow) error) error {
	for i := range t.rows {
		if row := &t.rows[i]; row.kind == kind && row.epoch == epoch && !row.old && !row.deleted {
			if err := see(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// append takes in a row. The school is copied when it is new.
func (t *tableRows) append(row tableRow, school, sealed []byte) {
	number, known := t.numbers[string(school)]
	if !known {
		number = uint32(len(t.schools))
		t.schools = append(t.schools, string(school))
		t.numbers[t.schools[number]] = number
	}
	row.school, row.begin = number, len(t.sealed)
	t.sealed = append(t.sealed, sealed...)
	row.end = len(t.sealed)
	t.rows = append(t.rows, row)
}

// leaveNewest marks rows that a newer version of their key replaces. Rows of one
// key and version say the same.
func (t *tableRows) leaveNewest() {
	slots := make([]uint32, 1<<bits.Len(uint(2*len(t.rows)))) // row + 1, 0 = free; at most half full
	mask := uint64(len(slots) - 1)
	for i := range t.rows {
		row := &t.rows[i]
		// Keys are random or keyed digests: they hash themselves.
		slot := (binary.LittleEndian.Uint64(row.key[:8]) + uint64(row.kind) + uint64(row.epoch)<<8) & mask
		for slots[slot] != 0 && !t.sameKey(slots[slot]-1, row) {
			slot = (slot + 1) & mask
		}
		if place := slots[slot]; place != 0 {
			other := &t.rows[place-1]
			if other.version > row.version {
				row.old = true
				continue
			}
			other.old = true
		}
		slots[slot] = uint32(i + 1)
	}
}

func (t *tableRows) sameKey(i uint32, row *tableRow) bool {
	other := &t.rows[i]
	return other.key == row.key && other.kind == row.kind && other.epoch == row.epoch
}

// readTable reads the rows of the partition.
func (p *Partition) readTable(ctx context.Context) (*tableRows, error) {
	client, err := p.vault.dial(ctx)
	if err != nil {
		return nil, err
	}
	t := newTableRows()
	var kind, flags, deleted proto.ColUInt8
	var epoch proto.ColUInt32
	var key, learner proto.ColFixedStr16
	var school, sealed proto.ColStr
	var version proto.ColUInt64
	err = client.Do(ctx, ch.Query{
		Body:       fmt.Sprintf(restoreQuery, p.vault.config.Database),
		Parameters: ch.Parameters(map[string]any{"partition": p.number}),
		Result: proto.Results{{Name: "row_kind", Data: &kind}, {Name: "epoch", Data: &epoch}, {Name: "key", Data: &key}, {Name: "learner", Data: &learner},
			{Name: "learner_school", Data: &school}, {Name: "flags", Data: &flags}, {Name: "content", Data: &sealed}, {Name: "version", Data: &version},
			{Name: "deleted", Data: &deleted}},
		OnResult: func(_ context.Context, block proto.Block) error {
			for i := range block.Rows {
				t.append(tableRow{epoch: epoch[i], key: key[i], learner: learner[i], version: version[i], kind: kind[i], flags: flags[i],
					deleted: deleted[i] != 0}, school.RowBytes(i), sealed.RowBytes(i))
			}
			return nil
		},
	})
	if err := errors.Join(err, client.Close()); err != nil {
		return nil, err
	}
	return t, nil
}

// restore reads the partition's fold from the table.
func (p *Partition) restore(ctx context.Context) error {
	p.empty()
	t, err := p.readTable(ctx)
	if err == nil {
		err = p.take(t)
		clear(t.sealed)
	}
	if err != nil {
		return fmt.Errorf("read table identities: %w", err)
	}
	p.digester, err = NewDigester(p.vault.config.Ring, p.aliasEpoch)
	return err
}

// empty is the fold of nothing.
func (p *Partition) empty() {
	p.state, p.pending, p.names = NewState(), make(map[Digest][]byte), make(map[LearnerID][]byte)
	p.graves, p.announcements = make(map[LearnerID]*Tombstone), nil
	p.next, p.flushed, p.former, p.aliasEpoch = 0, 0, false, p.vault.config.Ring.Primary()
}

// take takes rows into the empty state: those of the newest epoch that has a
// progress row. The others don't count.
func (p *Partition) take(t *tableRows) error {
	t.leaveNewest()
	var progress *tableRow
	for i := range t.rows {
		row := &t.rows[i]
		if row.kind != rowProgress || row.old || row.deleted {
			continue
		}
		p.former = p.former || progress != nil
		if progress == nil || row.epoch > progress.epoch {
			progress = row
		}
	}
	if progress == nil {
		return nil
	}
	if err := p.restoreProgress(t.contents(progress), progress.version); err != nil {
		return err
	}
	return p.takeEpoch(t, progress.epoch)
}

// takeEpoch takes in the rows of an epoch: learners first.
func (p *Partition) takeEpoch(t *tableRows, epoch uint32) error {
	merged := make(map[Learner]LearnerID)
	err := t.each(rowLearner, epoch, func(row *tableRow) error {
		return p.restoreLearner(row, t.contents(row), t.schools[row.school], merged)
	})
	if err != nil {
		return err
	}
	if err := p.restoreAliases(t, epoch); err != nil {
		return err
	}
	err = t.each(rowTombstone, epoch, func(row *tableRow) error { return p.restoreTombstone(row, t.contents(row)) })
	if err != nil {
		return err
	}
	return p.restoreMerges(merged)
}

func (p *Partition) restoreMerges(merged map[Learner]LearnerID) error {
	s := p.state
	for l, id := range merged {
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

func (p *Partition) restoreProgress(sealed []byte, version uint64) error {
	plain, err := p.sealer.Open(nil, sealed, []byte(contextRow), []byte{rowProgress}, p.partition[:])
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

func (p *Partition) restoreLearner(row *tableRow, sealed []byte, school string, merged map[Learner]LearnerID) error {
	secret := Secret{ID: row.key}
	salt, err := p.sealer.Open(p.scratch[:0], sealed, []byte(contextRow), []byte{rowLearner}, p.partition[:], secret.ID[:])
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
	p.state.flags[l] = row.flags &^ flagMerged
	if row.flags&flagMerged != 0 {
		merged[l] = row.learner
	}
	// add() notes a change, of which there is none.
	p.state.changedLearners = p.state.changedLearners[:0]
	return nil
}

func (p *Partition) restoreAliases(t *tableRows, epoch uint32) error {
	count := 0
	if err := t.each(rowAlias, epoch, func(*tableRow) error { count++; return nil }); err != nil {
		return err
	}
	p.state.aliases.reserve(count)
	return t.each(rowAlias, epoch, func(row *tableRow) error {
		digest, id := Digest(row.key), LearnerID(row.learner)
		l := p.state.ids.find(&id, p.state.secrets)
		if l == 0 {
			return fmt.Errorf("%w: an alias of an unknown learner", ErrMalformed)
		}
		p.state.aliases.set(&digest, l)
		return nil
	})
}

// restoreTombstone takes in an erasure that is not announced yet.
func (p *Partition) restoreTombstone(row *tableRow, sealed []byte) error {
	if row.flags == 0 {
		return nil
	}
	t, err := p.openTombstone(row.key, sealed)
	if err == nil {
		p.state.graves = append(p.state.graves, &t)
	}
	return err
}
