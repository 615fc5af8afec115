package vault_test

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// oracle is the registry in maps and in as few words as possible.
type oracle struct {
	alias    map[vault.Digest]vault.LearnerID
	salt     map[vault.LearnerID][16]byte
	school   map[vault.LearnerID]string
	rostered map[vault.LearnerID]bool
	into     map[vault.LearnerID]vault.LearnerID
	erased   map[vault.LearnerID]bool
}

func newOracle() *oracle {
	return &oracle{map[vault.Digest]vault.LearnerID{}, map[vault.LearnerID][16]byte{}, map[vault.LearnerID]string{},
		map[vault.LearnerID]bool{}, map[vault.LearnerID]vault.LearnerID{}, map[vault.LearnerID]bool{}}
}

func (o *oracle) root(id vault.LearnerID) vault.LearnerID {
	for {
		next, ok := o.into[id]
		if !ok {
			return id
		}
		id = next
	}
}

func (o *oracle) live(id vault.LearnerID) (vault.LearnerID, bool) {
	_, known := o.salt[id]
	id = o.root(id)
	return id, known && !o.erased[id]
}

func (o *oracle) apply(r *vault.Record, d vault.Digest) {
	switch r.Kind {
	case vault.KindCreate:
		_, bound := o.alias[d]
		_, known := o.salt[r.Secret.ID]
		if !bound && !known {
			o.alias[d], o.salt[r.Secret.ID], o.school[r.Secret.ID] = r.Secret.ID, r.Secret.Salt, r.Alias.School
			o.rostered[r.Secret.ID] = r.Rostered
		}
	case vault.KindLink, vault.KindMove:
		l, ok := o.live(r.Learner)
		if !ok || o.school[l] != r.Alias.School {
			return
		}
		owner, bound := o.alias[d]
		if r.Kind == vault.KindMove {
			if !bound || o.root(owner) != l {
				o.alias[d] = l
			}
			return
		}
		if bound && o.root(owner) != l {
			return
		}
		if !bound {
			o.alias[d] = l
		}
		o.rostered[l] = true
	case vault.KindMerge:
		from, ok1 := o.live(r.Learner)
		into, ok2 := o.live(r.Into)
		if ok1 && ok2 && from != into && o.school[from] == o.school[into] {
			o.into[from] = into
			o.rostered[into] = o.rostered[into] || o.rostered[from]
		}
	case vault.KindErase:
		target, ok := o.live(r.Tombstone.Learners[0])
		if !ok {
			return
		}
		for id := range o.salt {
			if o.root(id) == target && !slices.Contains(r.Tombstone.Learners, id) {
				return // the tombstone does not know all
			}
		}
		for d, owner := range o.alias {
			if o.root(owner) == target {
				delete(o.alias, d)
			}
		}
		for id := range o.salt {
			if o.root(id) == target {
				o.salt[id], o.erased[id] = [16]byte{}, true
			}
		}
	}
}

// drawChange draws records over a handful of learners, schools and aliases, so
// that they meet.
func drawChange(t *rapid.T) (vault.Record, vault.Digest) {
	r := vault.Record{Kind: rapid.SampledFrom([]vault.Kind{1, 1, 1, 2, 2, 3, 4, 5}).Draw(t, "kind")}
	small := func(label string) vault.LearnerID {
		return vault.LearnerID{byte(rapid.IntRange(1, 12).Draw(t, label))}
	}
	r.Alias.School = rapid.SampledFrom([]string{"12AB00", "12AB00", "99ZZ01"}).Draw(t, "school")
	var d vault.Digest
	copy(d[:], r.Alias.School[:2])
	d[8] = byte(rapid.IntRange(0, 15).Draw(t, "alias")) // equal homes: long probe runs
	r.Learner, r.Into = small("learner"), small("into")
	r.Secret = vault.Secret{ID: small("id"), Salt: [16]byte{1, byte(rapid.IntRange(0, 9).Draw(t, "salt"))}}
	r.Rostered = rapid.Bool().Draw(t, "rostered")
	r.Tombstone = vault.Tombstone{Learners: []vault.LearnerID{r.Learner}, School: r.Alias.School, Epoch: 9}
	for i := range 12 {
		if rapid.IntRange(0, 9).Draw(t, "covered") > 0 {
			r.Tombstone.Learners = append(r.Tombstone.Learners, vault.LearnerID{byte(i + 1)})
		}
	}
	return r, d
}

func compare(t *rapid.T, s *vault.State, o *oracle, digests map[vault.Digest]bool) {
	for d := range digests {
		owner, bound := o.alias[d]
		l := s.Lookup(&d)
		if bound != (l != 0) {
			t.Fatalf("Lookup(%x) = %d, want bound %v", d[8], l, bound)
		}
		if !bound {
			continue
		}
		root := o.root(owner)
		if got := *s.Secret(l); got.ID != root || got.Salt != o.salt[root] {
			t.Fatalf("Lookup(%x) is another learner than %x", d[8], root[0])
		}
		if s.School(l) != o.school[root] || s.Rostered(l) != o.rostered[root] || !s.Live(l) {
			t.Fatalf("learner %x: school %s, rostered %v, live %v; want %s, %v, true", root[0], s.School(l), s.Rostered(l), s.Live(l), o.school[root], o.rostered[root])
		}
	}
	for id := range o.salt {
		root, live := o.live(id)
		if l := s.LookupID(id); live != (l != 0) || live && s.Secret(l).ID != root {
			t.Fatalf("LookupID(%x) = %d, want live %v", id[0], l, live)
		}
	}
	if s.Aliases() != len(o.alias) || s.Learners() != len(o.salt) {
		t.Fatalf("%d aliases, %d learners; want %d, %d", s.Aliases(), s.Learners(), len(o.alias), len(o.salt))
	}
	for l := vault.Learner(1); int(l) <= s.Learners(); l++ {
		if id := s.Secret(l).ID; o.erased[o.root(id)] && (s.Secret(l).Salt != [16]byte{} || s.School(l) != "") {
			t.Fatalf("erased learner %x keeps salt or school", id[0])
		}
	}
}

func TestFoldAgreesWithAnOracle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, o := vault.NewState(), newOracle()
		digests := make(map[vault.Digest]bool)
		for offset := range rapid.IntRange(1, 80).Draw(t, "records") {
			r, d := drawChange(t)
			if r.HasAlias() {
				digests[d] = true
			}
			s.Apply(int64(offset), &r, &d)
			o.apply(&r, d)
			if rapid.IntRange(0, 7).Draw(t, "twice") == 0 {
				s.Apply(int64(offset), &r, &d) // a retried request: written twice in a row
			}
			compare(t, s, o, digests)
		}
	})
}

func digestOf(i uint64) vault.Digest {
	var d vault.Digest
	binary.LittleEndian.PutUint64(d[:], i*0x9e3779b97f4a7c15)
	return d
}

func TestConflictRules(t *testing.T) {
	t.Parallel()
	alias := func(i uint64) vault.Alias {
		return vault.Alias{School: "12AB00", Identifier: raw.Identifier{Scheme: raw.SchemeLAS, Value: fmt.Sprint(i)}}
	}
	learner := func(i byte) vault.LearnerID { return vault.LearnerID{i} }
	s := vault.NewState()
	offset := int64(0)
	apply := func(r vault.Record, aliasNumber uint64) vault.Effect {
		d := digestOf(aliasNumber)
		if r.HasAlias() {
			r.Alias = alias(aliasNumber)
		}
		offset++
		return s.Apply(offset, &r, &d)
	}
	who := func(aliasNumber uint64) byte {
		d := digestOf(aliasNumber)
		return s.Secret(s.Lookup(&d)).ID[0]
	}
	create := func(i byte, rostered bool) vault.Record {
		return vault.Record{Kind: vault.KindCreate, Secret: vault.Secret{ID: learner(i), Salt: [16]byte{i}}, Rostered: rostered}
	}
	erasure := func(ids ...byte) vault.Record {
		r := vault.Record{Kind: vault.KindErase, Tombstone: vault.Tombstone{School: "12AB00", Epoch: 1}}
		for _, i := range ids {
			r.Tombstone.Learners = append(r.Tombstone.Learners, learner(i))
		}
		return r
	}
	apply(create(1, true), 1)
	apply(create(2, true), 2)
	if got := apply(create(3, false), 1); got != vault.EffectNone || who(1) != 1 {
		t.Errorf("second creation of an alias: effect %d, learner %d; want none, 1", got, who(1))
	}
	if got := apply(vault.Record{Kind: vault.KindLink, Learner: learner(2)}, 1); got != vault.EffectConflict || who(1) != 1 {
		t.Errorf("link to another's alias: effect %d, learner %d; want conflict, 1", got, who(1))
	}
	// Twins with swapped keys: two moves.
	apply(vault.Record{Kind: vault.KindMove, Learner: learner(2)}, 1)
	apply(vault.Record{Kind: vault.KindMove, Learner: learner(1)}, 2)
	if who(1) != 2 || who(2) != 1 {
		t.Errorf("after the swap aliases 1, 2 are learners %d, %d; want 2, 1", who(1), who(2))
	}
	// A provisional learner merged into a known one: its aliases follow.
	apply(create(4, false), 4)
	apply(vault.Record{Kind: vault.KindMerge, Learner: learner(4), Into: learner(1)}, 0)
	if who(4) != 1 {
		t.Errorf("alias of the merged learner is learner %d, want 1", who(4))
	}
	// Erasure takes the merged ones along; the same aliases make strangers.
	if got := apply(erasure(4), 0); got != vault.EffectConflict || who(4) != 1 {
		t.Errorf("an erasure that does not know of a merge: effect %d, learner %d; want conflict, 1", got, who(4))
	}
	apply(erasure(4, 1), 0)
	for _, a := range []uint64{2, 4} {
		if d := digestOf(a); s.Lookup(&d) != 0 {
			t.Errorf("alias %d survived the erasure", a)
		}
	}
	if apply(create(1, true), 2) != vault.EffectNone {
		t.Error("an erased learner came back by replay of its creation")
	}
	if apply(create(9, true), 2) != vault.EffectDone || who(2) != 9 {
		t.Error("the alias of an erased learner can't be used by a stranger")
	}
}

func TestAdoptionIsRecordedOnce(t *testing.T) {
	t.Parallel()
	s := vault.NewState()
	none := vault.Digest{}
	s.Apply(0, &vault.Record{Kind: vault.KindEpoch, Epoch: 2}, &none)
	if s.Epoch() != 2 || !s.NeedsAdoption() {
		t.Errorf("epoch %d, needs adoption %v; want 2, true", s.Epoch(), s.NeedsAdoption())
	}
	s.Apply(1, &vault.Record{Kind: vault.KindAdopt, RegistryOffset: 1, RawOffset: 40}, &none)
	s.Apply(2, &vault.Record{Kind: vault.KindAdopt, RegistryOffset: 1, RawOffset: 90}, &none) // a zombie's
	s.Apply(3, &vault.Record{Kind: vault.KindEpoch, Epoch: 1}, &none)                         // epochs only rise
	registry, raw := s.Adopted()
	if got := fmt.Sprint(registry, raw, s.Epoch()); got != "1 40 2" {
		t.Errorf("adopted = %s, want 1 40 2", got)
	}
}

// TestMemory holds the density that the registry promises: 1.5 M learners with
// three aliases each in 1 GiB, here a 64th of it.
func TestMemory(t *testing.T) {
	const learners, aliases = 1_500_000 / 64, 3
	const maxBytes = 1 << 30 / 64
	s := fill(learners, aliases)
	got := s.MemoryBytes()
	t.Logf("%d learners with %d aliases: %d bytes, %.0f a learner", learners, aliases, got, float64(got)/learners)
	if got > maxBytes {
		t.Errorf("MemoryBytes = %d, want at most %d", got, maxBytes)
	}
}

func fill(learners, aliases int) *vault.State {
	s := vault.NewState()
	for i := range learners {
		var secret vault.Secret
		binary.LittleEndian.PutUint64(secret.ID[:], uint64(i+1)*0x9e3779b97f4a7c15)
		for k := range aliases {
			d := digestOf(uint64(i*aliases + k + 1))
			r := vault.Record{Kind: vault.KindLink, Learner: secret.ID, Alias: vault.Alias{School: "12AB00"}}
			if k == 0 {
				r.Kind, r.Secret = vault.KindCreate, secret
			}
			s.Apply(int64(i), &r, &d)
		}
	}
	return s
}

func BenchmarkLookup(b *testing.B) {
	const learners, aliases = 1_500_000, 3
	s := fill(learners, aliases)
	b.ReportAllocs()
	b.ResetTimer()
	found := 0
	for i := range b.N {
		d := digestOf(uint64(i)*7919%(learners*aliases) + 1)
		if s.Lookup(&d) != 0 {
			found++
		}
	}
	if found != b.N {
		b.Fatalf("%d of %d lookups found a learner", found, b.N)
	}
	b.ReportMetric(float64(s.MemoryBytes())/(1<<20), "MiB")
}

func BenchmarkResolve(b *testing.B) {
	const learners = 500_000
	digester, err := vault.NewDigester(loadRing(b), 2)
	if err != nil {
		b.Fatal(err)
	}
	s := vault.NewState()
	aliases := make([]vault.Alias, learners)
	for i := range aliases {
		aliases[i] = vault.Alias{School: "12AB00", Identifier: raw.Identifier{Scheme: raw.SchemeECKID, Value: fmt.Sprintf("https://ketenid.nl/201703/%0128x", i)}}
		r := vault.Record{Kind: vault.KindCreate, Alias: aliases[i]}
		binary.LittleEndian.PutUint64(r.Secret.ID[:], uint64(i+1)*0x9e3779b97f4a7c15)
		d := digester.Of(&aliases[i])
		s.Apply(int64(i), &r, &d)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		d := digester.Of(&aliases[i*7919%learners])
		if s.Lookup(&d) == 0 {
			b.Fatal("a known alias was not found")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "resolutions/s")
}

func TestStateIsAFunctionOfItsRecords(t *testing.T) {
	t.Parallel()
	if a, b := fill(100, 3), fill(100, 3); !reflect.DeepEqual(a, b) {
		t.Error("the same records made two states")
	}
}
