package vault

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// IssuedToken is a token that a learner has, or has had.
type IssuedToken struct {
	Purpose keyring.Purpose
	Epoch   uint32
	Token   [16]byte
}

// Tombstone is what stays of an erased learner: ids, which are random, and the
// tokens under which rows may still be stored somewhere. Without the salts it
// tells nobody who the learner was, not even to the holder of every key.
type Tombstone struct {
	Learners []LearnerID // the erased one first, then those that were merged into it
	School   string      // whose data the tokens stand in
	Epoch    uint32      // the newest key epoch that Tokens covers
	Tokens   []IssuedToken
}

// Limits of a tombstone.
const (
	maxTombLearners = 1024
	maxTombTokens   = 8192
	maxPurposeBytes = 96
)

// ID names the tombstone.
func (t *Tombstone) ID() LearnerID { return t.Learners[0] }

func (t *Tombstone) validate() error {
	switch {
	case len(t.Learners) == 0 || len(t.Learners) > maxTombLearners:
		return fmt.Errorf("%w: tombstone of %d learners", ErrMalformed, len(t.Learners))
	case len(t.Tokens) > maxTombTokens:
		return fmt.Errorf("%w: tombstone of %d tokens", ErrMalformed, len(t.Tokens))
	case t.School == "" || len(t.School) > maxSchoolBytes:
		return fmt.Errorf("%w: tombstone with a school of %d bytes", ErrMalformed, len(t.School))
	}
	for i := range t.Tokens {
		if !t.Tokens[i].Purpose.MakesTokens() {
			return fmt.Errorf("%w: tombstone with a purpose that makes no tokens", ErrMalformed)
		}
	}
	return nil
}

// covers tells whether the tombstone names all of the learners.
func (t *Tombstone) covers(ids []LearnerID) bool {
	named := make(map[LearnerID]bool, len(t.Learners))
	for _, id := range t.Learners {
		named[id] = true
	}
	for _, id := range ids {
		if !named[id] {
			return false
		}
	}
	return true
}

// A tombstone is number of learners · ids · school · epoch · number of tokens ·
// tokens, and a token is purpose · epoch · 16 bytes. Numbers are uvarints, texts
// have their length before them.
func appendTombstone(dst []byte, t *Tombstone) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(t.Learners)))
	for i := range t.Learners {
		dst = append(dst, t.Learners[i][:]...)
	}
	dst = append(binary.AppendUvarint(dst, uint64(len(t.School))), t.School...)
	dst = binary.AppendUvarint(dst, uint64(t.Epoch))
	dst = binary.AppendUvarint(dst, uint64(len(t.Tokens)))
	for i := range t.Tokens {
		token := &t.Tokens[i]
		dst = append(binary.AppendUvarint(dst, uint64(len(token.Purpose))), token.Purpose...)
		dst = append(binary.AppendUvarint(dst, uint64(token.Epoch)), token.Token[:]...)
	}
	return dst
}

func (r *recordReader) tombstone() Tombstone {
	var t Tombstone
	n := r.count(maxTombLearners)
	for range n {
		t.Learners = append(t.Learners, r.id())
	}
	t.School, t.Epoch = r.text(maxSchoolBytes), r.epoch()
	n = r.count(maxTombTokens)
	for range n {
		t.Tokens = append(t.Tokens, IssuedToken{Purpose: keyring.Purpose(r.text(maxPurposeBytes)), Epoch: r.epoch(), Token: [16]byte(r.id())})
	}
	if r.err == nil {
		if err := t.validate(); err != nil {
			r.err = err
		}
	}
	return t
}

// count reads the number of entries that follow. After an error it is 0.
func (r *recordReader) count(limit int) int {
	n := r.number()
	if n > uint64(limit) || n > uint64(len(r.rest)) {
		r.fail("a number of entries that is too large")
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *recordReader) epoch() uint32 {
	epoch := r.number()
	if epoch == 0 || epoch > 1<<31 {
		r.fail("epoch out of range")
		return 0
	}
	return uint32(epoch)
}

func (p *Partition) tombstoneRow(rows *rowBlock, t *Tombstone, announced bool) error {
	id := t.ID()
	sealed, err := p.sealer.Seal(nil, appendTombstone(nil, t), []byte(contextRow), []byte{rowTombstone}, p.partition[:], id[:])
	if err != nil {
		return err
	}
	var flags uint8
	if !announced {
		flags = flagPending
	}
	rows.add(rowTombstone, id, LearnerID{}, "", flags, sealed, false)
	return nil
}

func (p *Partition) openTombstone(id LearnerID, sealed []byte) (Tombstone, error) {
	plain, err := p.sealer.Open(nil, sealed, []byte(contextRow), []byte{rowTombstone}, p.partition[:], id[:])
	if err != nil {
		return Tombstone{}, fmt.Errorf("tombstone: %w", err)
	}
	reader := recordReader{rest: plain}
	t := reader.tombstone()
	return t, reader.err
}

const tombstoneQuery = `SELECT key, sealed FROM %s.identities FINAL
WHERE partition = ? AND kind = 'tombstone' AND epoch = ? AND deleted = 0 ORDER BY key`

// Tombstones reads the tombstones that the table holds: what a restored backup
// of other tables has to be purged of.
func (p *Partition) Tombstones(ctx context.Context) ([]Tombstone, error) {
	rows, err := p.vault.config.Conn.Query(ctx, fmt.Sprintf(tombstoneQuery, p.vault.config.Database), uint16(p.number), p.aliasEpoch)
	if err != nil {
		return nil, fmt.Errorf("read tombstones: %w", err)
	}
	defer rows.Close()
	var all []Tombstone
	for rows.Next() {
		var key string
		var sealed []byte
		if err := rows.Scan(&key, &sealed); err != nil {
			return nil, fmt.Errorf("read tombstones: %w", err)
		}
		t, err := p.openTombstone(LearnerID([]byte(key)), sealed)
		if err != nil {
			return nil, fmt.Errorf("read tombstones: %w", err)
		}
		all = append(all, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read tombstones: %w", err)
	}
	return all, nil
}
