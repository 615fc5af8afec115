package vault

import "fmt"

// flags of a learner
const (
	flagRostered uint8 = 1 << iota // a roster knows the learner
	flagErased
	flagMerged  // aliases of this learner belong to another
	flagNamed   // the table holds a name
	flagPending // merged, and the move of its rows is not announced
)

// State is the registry of one partition in memory. It is for one goroutine, or
// for many readers while nobody applies records.
type State struct {
	aliases aliasTable
	ids     idTable

	// Columns, indexed by Learner; index 0 is nobody.
	secrets []Secret
	school  []uint32
	flags   []uint8

	schools     []string
	schoolIndex map[string]uint32
	merged      map[Learner]Learner // learner → the one it was merged into

	// Adoption tells from where on the partition uses what.
	adoption

	// Announcing tells what those who store rows have been told.
	announcing

	// what changed since the last Changes call
	changedLearners []Learner
	changedAliases  []Digest
	droppedNames    []LearnerID
	changedGraves   []*Tombstone
}

// adoption is the part of the state that is about the log, not about learners.
type adoption struct {
	epoch      uint32 // key epoch of tokens, 0 = none recorded yet
	changed    int64  // offset after the last record that others may have written
	adopted    int64  // everything below it is in force …
	adoptedRaw int64  // … from this offset of `raw` on
}

// NewState returns an empty registry.
func NewState() *State {
	return &State{
		secrets: make([]Secret, 1), school: make([]uint32, 1), flags: make([]uint8, 1),
		schoolIndex: make(map[string]uint32), merged: make(map[Learner]Learner),
		announcing: announcing{announcedRaw: -1, merges: make(map[Learner]struct{})},
	}
}

// Lookup returns the learner of an alias, or 0.
func (s *State) Lookup(d *Digest) Learner { return s.root(s.aliases.find(d)) }

// LookupID returns the learner with an id, following merges, or 0 when it is
// unknown or erased.
func (s *State) LookupID(id LearnerID) Learner {
	l := s.root(s.ids.find(&id, s.secrets))
	if s.flags[l]&flagErased != 0 {
		return 0
	}
	return l
}

// Secret returns what the tokens of a learner are made of.
func (s *State) Secret(l Learner) *Secret { return &s.secrets[l] }

// School returns the school of a learner.
func (s *State) School(l Learner) string { return s.schools[s.school[l]] }

// Rostered tells whether a roster knows the learner. Another learner is
// provisional.
func (s *State) Rostered(l Learner) bool { return s.flags[l]&flagRostered != 0 }

// Learners returns the number of learners ever created, erased and merged ones
// included; they have the indexes 1 to Learners.
func (s *State) Learners() int { return len(s.secrets) - 1 }

// Aliases returns the number of aliases.
func (s *State) Aliases() int { return s.aliases.used }

// Live tells whether the learner is neither erased nor merged into another.
func (s *State) Live(l Learner) bool { return s.flags[l]&(flagErased|flagMerged) == 0 }

// MergedInto returns the learner that l was merged into, or l.
func (s *State) MergedInto(l Learner) Learner { return s.root(l) }

// Epoch returns the key epoch that the partition's tokens are made under; 0
// before the first record of an epoch.
func (s *State) Epoch() uint32 { return s.epoch }

// Adopted tells that everything below the registry offset is in force from the
// raw offset on.
func (s *State) Adopted() (registryOffset, rawOffset int64) { return s.adopted, s.adoptedRaw }

// NeedsAdoption tells whether records were folded whose effect has no recorded
// place in `raw` yet.
func (s *State) NeedsAdoption() bool { return s.changed > s.adopted }

func (s *State) root(l Learner) Learner {
	if s.flags[l]&flagMerged == 0 {
		return l
	}
	for s.flags[l]&flagMerged != 0 {
		l = s.merged[l]
	}
	return l
}

// ForgetChanges drops the notes about what the table lacks, for who writes none.
func (s *State) ForgetChanges() {
	s.changedLearners, s.changedAliases = s.changedLearners[:0], s.changedAliases[:0]
	s.droppedNames, s.changedGraves, s.lastAnnouncement = s.droppedNames[:0], s.changedGraves[:0], nil
}

// Effect is what a record did.
type Effect uint8

// The effects. A record without effect is no error: the log had decided
// otherwise before its turn came.
const (
	EffectNone Effect = iota
	EffectDone
	EffectConflict // a link to an alias that another learner has; an erasure that does not know all there is to erase
)

// Apply folds one record. alias is the digest of r.Alias; it is not read for
// kinds without one.
func (s *State) Apply(offset int64, r *Record, alias *Digest) Effect {
	switch r.Kind {
	case KindCreate, KindAdopt, KindName, KindAnnounce: // change no token
	default:
		s.changed = offset + 1
	}
	switch r.Kind {
	case KindCreate:
		return s.create(r, alias)
	case KindLink:
		return s.link(r, alias)
	case KindMerge:
		return s.merge(r.Learner, r.Into)
	case KindMove:
		return s.move(r, alias)
	case KindErase:
		return s.erase(&r.Tombstone)
	case KindName:
		return s.name(r)
	case KindAnnounce:
		return s.announce(r)
	case KindEpoch:
		if r.Epoch <= s.epoch {
			return EffectNone
		}
		s.epoch = r.Epoch
		if s.moved == 0 || s.Learners() == 0 {
			s.moved = r.Epoch // no token was made before
		}
		return EffectDone
	case KindAdopt:
		if r.RegistryOffset <= s.adopted {
			return EffectNone
		}
		s.adopted, s.adoptedRaw = r.RegistryOffset, r.RawOffset
		return EffectDone
	}
	panic(fmt.Sprintf("vault: record of kind %d passed its decoder", r.Kind))
}

func (s *State) create(r *Record, alias *Digest) Effect {
	if s.aliases.find(alias) != 0 || s.ids.find(&r.Secret.ID, s.secrets) != 0 {
		return EffectNone
	}
	l := s.add(r.Secret, r.Alias.School)
	if r.Rostered {
		s.flags[l] |= flagRostered
	}
	s.bind(alias, l)
	return EffectDone
}

// add appends a learner that has no alias yet.
func (s *State) add(secret Secret, school string) Learner {
	index, known := s.schoolIndex[school]
	if !known {
		index = uint32(len(s.schools))
		school = string(append([]byte(nil), school...)) // the record's memory is reused
		s.schools = append(s.schools, school)
		s.schoolIndex[school] = index
	}
	l := Learner(len(s.secrets))
	s.secrets = append(s.secrets, secret)
	s.school = append(s.school, index)
	s.flags = append(s.flags, 0)
	s.ids.add(l, s.secrets)
	s.touch(l)
	return l
}

func (s *State) bind(alias *Digest, l Learner) {
	s.aliases.set(alias, l)
	s.changedAliases = append(s.changedAliases, *alias)
}

func (s *State) touch(l Learner) { s.changedLearners = append(s.changedLearners, l) }

func (s *State) link(r *Record, alias *Digest) Effect {
	l := s.LookupID(r.Learner)
	if l == 0 || s.School(l) != r.Alias.School {
		return EffectNone
	}
	switch s.Lookup(alias) {
	case 0:
		s.bind(alias, l)
	case l:
		if s.Rostered(l) {
			return EffectNone
		}
	default:
		return EffectConflict
	}
	if !s.Rostered(l) {
		s.flags[l] |= flagRostered
		s.touch(l)
	}
	return EffectDone
}

func (s *State) merge(fromID, intoID LearnerID) Effect {
	from, into := s.LookupID(fromID), s.LookupID(intoID)
	if from == 0 || into == 0 || from == into || s.school[from] != s.school[into] {
		return EffectNone
	}
	s.flags[into] |= s.flags[from] & flagRostered
	s.flags[from] |= flagMerged
	s.merged[from] = into
	s.flags[from] |= flagPending
	s.merges[from] = struct{}{}
	s.dropName(from)
	s.touch(from)
	s.touch(into)
	return EffectDone
}

func (s *State) move(r *Record, alias *Digest) Effect {
	l := s.LookupID(r.Learner)
	if l == 0 || s.School(l) != r.Alias.School || s.Lookup(alias) == l {
		return EffectNone
	}
	s.bind(alias, l)
	return EffectDone
}

// erase takes salt, school and aliases from a learner and from all that were
// merged into it, and leaves their ids as tombstones. A tombstone that lacks a
// learner or an epoch, because others changed the registry while it was made,
// changes nothing: rows would stay that nobody knew the tokens of.
func (s *State) erase(t *Tombstone) Effect {
	target := s.LookupID(t.ID())
	if target == 0 {
		return EffectNone
	}
	group := s.group(target)
	ids := make([]LearnerID, len(group))
	for i, l := range group {
		ids[i] = s.secrets[l].ID
	}
	if s.epoch > t.Epoch || !t.covers(ids) {
		return EffectConflict
	}
	var aliases []Digest
	for i := range s.aliases.slots {
		if slot := &s.aliases.slots[i]; slot.learner != 0 && s.root(slot.learner) == target {
			aliases = append(aliases, slot.digest)
		}
	}
	for i := range aliases {
		s.aliases.remove(&aliases[i])
	}
	s.changedAliases = append(s.changedAliases, aliases...)
	nobody := s.nobodysSchool()
	for _, l := range group {
		s.secrets[l].Salt = [16]byte{}
		s.dropName(l)
		s.settleMerge(l)
		s.flags[l] = s.flags[l]&flagMerged | flagErased
		s.school[l] = nobody
		s.touch(l)
	}
	kept := *t
	s.graves = append(s.graves, &kept)
	s.changedGraves = append(s.changedGraves, &kept)
	return EffectDone
}

// group returns a learner and all that were merged into it, which may be many
// steps away, in the order of their ids.
func (s *State) group(target Learner) []Learner {
	var merged []Learner
	for l := range s.merged {
		if s.root(l) == target {
			merged = append(merged, l)
		}
	}
	return append([]Learner{target}, s.smallest(merged, len(merged))...)
}

// name marks that a learner has a name, or has none any more. The name itself is
// not kept.
func (s *State) name(r *Record) Effect {
	l := s.LookupID(r.Learner)
	switch {
	case l == 0:
		return EffectNone
	case r.Name.known():
		s.flags[l] |= flagNamed
		s.touch(l)
	default:
		s.dropName(l)
	}
	return EffectDone
}

func (s *State) dropName(l Learner) {
	if s.flags[l]&flagNamed == 0 {
		return
	}
	s.flags[l] &^= flagNamed
	s.droppedNames = append(s.droppedNames, s.secrets[l].ID)
	s.touch(l)
}

func (s *State) nobodysSchool() uint32 {
	index, known := s.schoolIndex[""]
	if !known {
		index = uint32(len(s.schools))
		s.schools = append(s.schools, "")
		s.schoolIndex[""] = index
	}
	return index
}

// MemoryBytes returns the memory of the registry's tables and columns.
func (s *State) MemoryBytes() int {
	const slot, secret, pending = 20, 32, 4
	return slot*cap(s.aliases.slots) + 4*cap(s.ids.slots) + secret*cap(s.secrets) + 4*cap(s.school) + cap(s.flags) + 16*len(s.merged) +
		pending*cap(s.changedLearners) + 16*cap(s.changedAliases) + 16*cap(s.droppedNames)
}
