package vault

import "context"

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
