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

// RestoreRows takes in rows of one kind, as the table returns them: a key, a
// learner and the contents of each.
func RestoreRows(ring *keyring.Ring, kind uint8, count uint64, packed []byte) error {
	p := (&Vault{config: Config{Ring: ring}}).partition(0, Follow)
	p.empty()
	const head = 32
	t := newTableRows()
	for range min(count, 3) {
		row := tableRow{kind: kind, epoch: 1, version: count, flags: uint8(count)}
		n := copy(row.key[:], packed)
		copy(row.learner[:], packed[n:])
		t.append(row, []byte("12AB00"), packed[min(head, len(packed)):])
		packed = packed[min(1, len(packed)):]
	}
	if kind == rowProgress {
		return p.take(t)
	}
	t.leaveNewest()
	return p.takeEpoch(t, 1)
}
