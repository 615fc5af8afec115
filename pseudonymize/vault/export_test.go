package vault

import (
	"context"

	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// AppendRecords encodes a message as it is before sealing.
func AppendRecords(dst []byte, records []Record) ([]byte, error) {
	dst = beginRecords(dst)
	for i := range records {
		var err error
		if dst, err = appendRecord(dst, &records[i]); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// ReadRecords decodes a message.
func ReadRecords(message []byte) (records []Record, err error) {
	reader := readRecords(message)
	var r Record
	for reader.next(&r) {
		records = append(records, r)
	}
	return records, reader.err
}

// TakeAnnouncement returns what the last record announced.
func (s *State) TakeAnnouncement() *Announcement { return s.lastAnnouncement }

// RekeyAndDie does what Rekey does up to the new rows.
func (p *Partition) RekeyAndDie(ctx context.Context) error {
	return p.rekey(ctx, p.vault.config.Ring.Primary())
}

// RestoreRows reads rows of one kind as a query of the table returns them.
func RestoreRows(ring *keyring.Ring, kind uint8, count uint64, packed []byte) error {
	p := &Partition{sealer: NewSealer(ring), state: NewState()}
	r := restoring{partition: p, newest: rowGroup{epoch: 1}, begun: true, merged: make(map[Learner]LearnerID)}
	if kind == rowProgress {
		return p.restoreProgress(packed, count)
	}
	if err := r.add(&rowGroup{kind: kind, school: "12AB00", epoch: 1, count: count, packed: packed}); err != nil {
		return err
	}
	return r.finish()
}
