package vault

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Name is what a roster says about a learner for a teacher's screen. It lives
// sealed in the table and in no memory but that of who asked. It redacts itself
// when printed or encoded: an authorised answer takes the fields.
type Name struct {
	First     string // roepnaam
	Prefix    string // tussenvoegsel, such as "van der"
	Last      string // achternaam
	Group     string // groep/klas at the school
	YearGroup uint8  // jaargroep 1 to 8, 0 = unknown
}

// String redacts the name.
func (Name) String() string { return "[name]" }

// GoString redacts the name.
func (Name) GoString() string { return "[name]" }

// Format redacts the name for every verb.
func (Name) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[name]") }

// LogValue redacts the name.
func (Name) LogValue() slog.Value { return slog.StringValue("[name]") }

// MarshalText redacts the name.
func (Name) MarshalText() ([]byte, error) { return []byte("[name]"), nil }

// Limits of the parts of a name, in bytes.
const (
	maxNameBytes  = 256 // first, last
	maxShortBytes = 64  // prefix, group
	maxNameSealed = 1 + 16 + 4*2 + 2*maxNameBytes + 2*maxShortBytes + 1
)

// normalise removes white space around the parts and brings them to Unicode NFC.
func (n Name) normalise() Name {
	for _, part := range []*string{&n.First, &n.Prefix, &n.Last, &n.Group} {
		*part = norm.NFC.String(strings.TrimSpace(*part))
	}
	return n
}

// Validate refuses what can't be stored; it names the part and the rule.
func (n Name) Validate() error {
	for _, part := range []struct {
		name, text string
		limit      int
	}{{"first name", n.First, maxNameBytes}, {"name prefix", n.Prefix, maxShortBytes}, {"last name", n.Last, maxNameBytes}, {"group", n.Group, maxShortBytes}} {
		switch {
		case len(part.text) > part.limit:
			return fmt.Errorf("%s of %d bytes, at most %d", part.name, len(part.text), part.limit)
		case !utf8.ValidString(part.text) || strings.ContainsFunc(part.text, func(r rune) bool { return r < 0x20 || r == 0x7f }):
			return fmt.Errorf("%s holds control characters or is no UTF-8", part.name)
		}
	}
	if n.YearGroup > 8 {
		return fmt.Errorf("year group out of range, want 1 to 8 or none")
	}
	return nil
}

// known tells whether a roster said anything.
func (n Name) known() bool { return n != Name{} }

func appendName(dst []byte, n *Name) []byte {
	for _, part := range []string{n.First, n.Prefix, n.Last, n.Group} {
		dst = append(binary.AppendUvarint(dst, uint64(len(part))), part...)
	}
	return append(dst, n.YearGroup)
}

func (r *recordReader) name() Name {
	n := Name{First: r.text(maxNameBytes), Prefix: r.text(maxShortBytes), Last: r.text(maxNameBytes), Group: r.text(maxShortBytes), YearGroup: r.take(1)[0]}
	if r.err == nil {
		if err := n.Validate(); err != nil {
			r.fail(err.Error())
		}
	}
	return n
}

func (p *Partition) sealName(id LearnerID, n *Name) ([]byte, error) {
	p.scratch = appendName(p.scratch[:0], n)
	sealed, err := p.sealer.Seal(nil, p.scratch, []byte(contextRow), []byte{rowName}, p.partition[:], id[:])
	clear(p.scratch)
	return sealed, err
}

// LearnerName is the name of a learner. The id is looked up in the State of the
// learner's partition, which tells what is true of it now.
type LearnerName struct {
	Learner LearnerID
	Name
}

const namesQuery = `SELECT key, sealed FROM %[1]s.identities FINAL
WHERE partition = ? AND kind = 'name' AND deleted = 0 AND school = ?
  AND epoch = (SELECT max(epoch) FROM %[1]s.identities WHERE partition = ? AND kind = 'progress')`

// Names opens the names of one group of a school, in bulk, ordered by last and
// first name; an empty group stands for the whole school. The table has them
// some seconds after a roster was imported. A learner who was erased since the
// table was written may be among them: look every id up with State.LookupID and
// drop those that it does not know.
//
// A caller authorises first (a key of this school), asks for a group and not for
// more, and audits every call; it keeps no name longer than its reply takes.
func (v *Vault) Names(ctx context.Context, partition int, school, group string) ([]LearnerName, error) {
	all, err := v.names(ctx, partition, fmt.Sprintf(namesQuery, v.config.Database), uint16(partition), school, uint16(partition))
	if err != nil {
		return nil, fmt.Errorf("read names in partition %d: %w", partition, err)
	}
	if group != "" {
		all = slices.DeleteFunc(all, func(n LearnerName) bool { return n.Group != group })
	}
	slices.SortFunc(all, func(a, b LearnerName) int {
		return cmp.Or(cmp.Compare(a.Last, b.Last), cmp.Compare(a.First, b.First), slices.Compare(a.Learner[:], b.Learner[:]))
	})
	return all, nil
}

// names opens the rows of a query for key and sealed.
func (v *Vault) names(ctx context.Context, partition int, query string, args ...any) ([]LearnerName, error) {
	rows, err := v.config.Conn.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	sealer, number := NewSealer(v.config.Ring), [2]byte{byte(partition >> 8), byte(partition)}
	var names []LearnerName
	var plain []byte
	defer func() { clear(plain[:cap(plain)]) }()
	for rows.Next() {
		var key string
		var sealed []byte
		if err := rows.Scan(&key, &sealed); err != nil {
			return nil, err
		}
		id := LearnerID([]byte(key))
		plain, err = sealer.Open(plain[:0], sealed, []byte(contextRow), []byte{rowName}, number[:], id[:])
		if err != nil {
			return nil, err
		}
		reader := recordReader{rest: plain}
		name := reader.name()
		if reader.err != nil {
			return nil, reader.err
		}
		names = append(names, LearnerName{Learner: id, Name: name})
	}
	return names, rows.Err()
}
