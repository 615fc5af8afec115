package vault

import (
	"encoding/binary"
	"fmt"

	"github.com/leerstroom/leerstroom/ingest/raw"
)

// Kind tells what a record does.
type Kind uint8

// The kinds of records. The numbers are part of the format.
const (
	KindCreate Kind = 1 // a new learner with its first alias
	KindLink   Kind = 2 // a roster says: this alias, too, is that learner
	KindMerge  Kind = 3 // two learners are one
	KindMove   Kind = 4 // a correction: this alias is that learner from now on
	KindErase  Kind = 5 // a learner is forgotten
	KindEpoch  Kind = 6 // tokens are made under another key epoch
	KindAdopt  Kind = 7 // the stage uses everything below an offset from a raw offset on
	KindName   Kind = 8 // a roster says what a learner is called

	KindAnnounce Kind = 9 // the next pending orders stand in `answers` at a raw offset
)

// Record is one entry of the registry. Which fields count depends on its kind.
type Record struct {
	Kind Kind

	Alias    Alias  // create, link, move: the alias; its school is the learner's
	Secret   Secret // create
	Rostered bool   // create: a roster knows the learner

	Learner LearnerID // link, move: the alias's learner; merge: the one that goes; name
	Into    LearnerID // merge: the one that stays

	Name Name // name; empty takes it away

	Tombstone Tombstone // erase

	Epoch uint32 // epoch

	RegistryOffset int64  // adopt
	RawOffset      int64  // adopt, announce
	Limit          uint32 // announce: how many orders at most
}

// HasAlias tells whether the record carries an alias.
func (r *Record) HasAlias() bool {
	return r.Kind == KindCreate || r.Kind == KindLink || r.Kind == KindMove
}

// A message of `registry` holds, sealed:
//
//	version (1) · records
//
// and a record
//
//	kind, then
//	create: rostered (0|1) · learner id (16) · salt (16) · alias
//	link:   learner id (16) · alias
//	move:   learner id (16) · alias
//	merge:  learner id (16) · learner id that stays (16)
//	erase:  tombstone
//	epoch:  uvarint
//	adopt:  registry offset (uvarint) · raw offset (uvarint)
//	name:   learner id (16) · name
//	announce: raw offset (uvarint) · limit (uvarint)
//
// with alias = scheme (1) · school · publisher · value and name = first · prefix ·
// last · group · year group (1), each text a uvarint length and bytes. Nothing follows the last record.
const recordsVersion = 1

// Limits of one message: a reader refuses more, a writer cuts before.
const (
	maxRecordBytes  = 1 + 33 + 1 + 3*3 + maxSchoolBytes + maxPublisherBytes + maxValueBytes
	maxMessageBytes = 512 << 10
	maxOrders       = 1 << 20
)

// beginRecords starts a message.
func beginRecords(dst []byte) []byte { return append(dst, recordsVersion) }

// appendRecord adds a record to a message.
func appendRecord(dst []byte, r *Record) ([]byte, error) {
	if r.HasAlias() {
		if err := Check(&r.Alias); err != nil {
			return dst, err
		}
	}
	dst = append(dst, byte(r.Kind))
	switch r.Kind {
	case KindCreate:
		dst = append(dst, bit(r.Rostered))
		dst = append(append(dst, r.Secret.ID[:]...), r.Secret.Salt[:]...)
		return appendAlias(dst, &r.Alias), nil
	case KindLink, KindMove:
		return appendAlias(append(dst, r.Learner[:]...), &r.Alias), nil
	case KindMerge:
		return append(append(dst, r.Learner[:]...), r.Into[:]...), nil
	case KindErase:
		if err := r.Tombstone.validate(); err != nil {
			return dst, err
		}
		return appendTombstone(dst, &r.Tombstone), nil
	case KindName:
		if err := r.Name.Validate(); err != nil {
			return dst, err
		}
		return appendName(append(dst, r.Learner[:]...), &r.Name), nil
	case KindEpoch:
		return binary.AppendUvarint(dst, uint64(r.Epoch)), nil
	case KindAdopt:
		return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(r.RegistryOffset)), uint64(r.RawOffset)), nil
	case KindAnnounce:
		return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(r.RawOffset)), uint64(r.Limit)), nil
	}
	return dst, fmt.Errorf("%w: kind %d", ErrMalformed, r.Kind)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendAlias(dst []byte, a *Alias) []byte {
	dst = append(dst, byte(a.Scheme))
	for _, part := range []string{a.School, a.Publisher, a.Value} {
		dst = append(binary.AppendUvarint(dst, uint64(len(part))), part...)
	}
	return dst
}

// recordReader reads the records of an opened message. The first error sticks.
// Strings of records are copies.
type recordReader struct {
	rest []byte
	err  error
}

func readRecords(message []byte) recordReader {
	r := recordReader{rest: message}
	if version := r.take(1); r.err == nil && version[0] != recordsVersion {
		r.fail(fmt.Sprintf("version %d", version[0]))
	}
	return r
}

func (r *recordReader) fail(why string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, why)
	}
	r.rest = nil
}

// next reads a record; false at the end or after an error.
func (r *recordReader) next(out *Record) bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	*out = Record{Kind: Kind(r.take(1)[0])}
	switch out.Kind {
	case KindCreate:
		out.Rostered = r.boolean()
		out.Secret.ID, out.Secret.Salt = r.id(), [16]byte(r.id())
		out.Alias = r.alias()
	case KindLink, KindMove:
		out.Learner, out.Alias = r.id(), r.alias()
	case KindMerge:
		out.Learner, out.Into = r.id(), r.id()
	case KindErase:
		out.Tombstone = r.tombstone()
	case KindName:
		out.Learner, out.Name = r.id(), r.name()
	case KindEpoch:
		out.Epoch = r.epoch()
	case KindAdopt:
		out.RegistryOffset, out.RawOffset = r.offset(), r.offset()
	case KindAnnounce:
		out.RawOffset, out.Limit = r.offset(), r.limit()
	default:
		r.fail(fmt.Sprintf("kind %d", out.Kind))
	}
	return r.err == nil
}

func (r *recordReader) take(n int) []byte {
	if r.err != nil || len(r.rest) < n {
		r.fail("it ends early")
		return make([]byte, min(n, maxValueBytes))
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *recordReader) id() LearnerID { return LearnerID(r.take(16)) }

func (r *recordReader) boolean() bool {
	b := r.take(1)[0]
	if b > 1 {
		r.fail("a truth value that is neither 0 nor 1")
	}
	return b == 1
}

func (r *recordReader) number() uint64 {
	value, n := binary.Uvarint(r.rest)
	if n <= 0 || n > 1 && r.rest[n-1] == 0 { // one number, one form
		r.fail("a number that is cut, too large or padded")
		return 0
	}
	r.rest = r.rest[n:]
	return value
}

func (r *recordReader) offset() int64 {
	value := r.number()
	if value > 1<<62 {
		r.fail("offset out of range")
		return 0
	}
	return int64(value)
}

func (r *recordReader) limit() uint32 {
	value := r.number()
	if value > maxOrders {
		r.fail("a limit out of range")
		return 0
	}
	return uint32(value)
}

func (r *recordReader) text(maxBytes int) string {
	length := r.number()
	if length > uint64(maxBytes) {
		r.fail("a text that is too long")
		return ""
	}
	return string(r.take(int(length)))
}

func (r *recordReader) alias() Alias {
	var a Alias
	a.Scheme = raw.Scheme(r.take(1)[0])
	a.School = r.text(maxSchoolBytes)
	a.Publisher = r.text(maxPublisherBytes)
	a.Value = r.text(maxValueBytes)
	if r.err == nil {
		if err := Check(&a); err != nil {
			r.fail(err.Error())
		}
	}
	return a
}
