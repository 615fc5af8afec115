package vault_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// orders writes down what an announcement orders, with names for learners.
func orders(a *vault.Announcement, names map[vault.LearnerID]string) (out []string) {
	if a == nil {
		return nil
	}
	for _, o := range a.Orders {
		if o.Erased != nil {
			out = append(out, fmt.Sprint("erase ", len(o.Erased)))
			continue
		}
		out = append(out, fmt.Sprintf("%s->%s %v->%d", names[o.From.ID], names[o.Into.ID], o.Epochs, o.Epoch))
	}
	slices.Sort(out) // ids are random, so their order is
	return out
}

// TestAnnouncementsTellEveryChangeOnce follows a registry through a merge, a
// rotation and an erasure, with a restart from table and log at every step.
func TestAnnouncementsTellEveryChangeOnce(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	names := make(map[vault.LearnerID]string)
	must(t, p.Create(t.Context(), number(4), false))
	for _, a := range number(4) {
		secret, err := p.Find(a)
		must(t, err)
		names[secret.ID] = a.Value[len("pupil "):]
	}
	must(t, p.Adopt(t.Context(), 0))
	raw := int64(10)
	told := func(what string, want ...string) {
		t.Helper()
		raw++
		for _, again := range []bool{false, true} {
			a, err := p.Announce(t.Context(), raw)
			must(t, err)
			if got := orders(a, names); !slices.Equal(got, want) {
				t.Errorf("%s (again %v): orders %q, want %q", what, again, got, want)
			}
			// A successor that finds the announcement in the log gives the same.
			must(t, p.Flush(t.Context()))
			successor := d.open(t, vault.Own)
			b, err := successor.Announce(t.Context(), raw)
			must(t, err)
			if !reflect.DeepEqual(a, b) {
				t.Errorf("%s: a successor announces %q, want %q", what, orders(b, names), orders(a, names))
			}
		}
		p.Settle(raw + 1)
		must(t, p.Flush(t.Context()))
		p = d.open(t, vault.Own)
		raw++
		if a, err := p.Announce(t.Context(), raw); err != nil || a != nil || p.State().Pending().Any() {
			t.Errorf("%s: %d orders are announced a second time (%v)", what, len(orders(a, names)), err)
		}
	}
	told("nothing happened")
	must(t, p.Merge(t.Context(), las("pupil 0"), las("pupil 1")))
	told("a merge", "0->1 [2]->2")
	must(t, p.Merge(t.Context(), las("pupil 1"), las("pupil 2")))
	if _, err := d.ring.Rotate(); err != nil {
		t.Fatal(err)
	}
	must(t, p.Adopt(t.Context(), raw))
	if got := p.State().Pending(); got != (vault.Pending{Merges: 1, Rotation: 2}) {
		t.Errorf("Pending = %+v, want a merge and the rotation of 2 learners", got)
	}
	told("a merge during a rotation", "1->2 [2 3]->3", "2->2 [2]->3", "3->3 [2]->3")
	if epoch, _ := p.State().MovedTo(); epoch != 3 {
		t.Errorf("MovedTo = %d, want 3", epoch)
	}
	must(t, p.Merge(t.Context(), las("pupil 3"), las("pupil 2")))
	secret, err := p.Find(las("pupil 2"))
	must(t, err)
	_, err = p.Erase(t.Context(), secret.ID, func(group []vault.Secret) ([]vault.IssuedToken, uint32, error) {
		return []vault.IssuedToken{{Purpose: keyring.Analytics, Epoch: 3}}, 3, nil
	})
	must(t, err)
	if got := p.State().Pending(); got != (vault.Pending{Erasures: 1}) {
		t.Errorf("Pending = %+v, want an erasure, and no merge into the erased learner", got)
	}
	told("an erasure", "erase 1")
}

// TestRotationIsAnnouncedInParts: whatever the limit, every living learner is
// told once, and a rotation that overtakes another begins again.
func TestRotationIsAnnouncedInParts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, none := vault.NewState(), vault.Digest{}
		offset := int64(0)
		apply := func(r vault.Record) {
			if r.HasAlias() {
				none = digestOf(uint64(offset + 1))
			}
			if s.Apply(offset, &r, &none) != vault.EffectDone {
				t.Fatalf("record of kind %d has no effect", r.Kind)
			}
			offset++
		}
		apply(vault.Record{Kind: vault.KindEpoch, Epoch: 1})
		learners := rapid.IntRange(1, 60).Draw(t, "learners")
		for range learners {
			apply(vault.Record{Kind: vault.KindCreate, Secret: vault.Secret{ID: id(t, "id"), Salt: [16]byte{1}}, Alias: las("x")})
		}
		newest := uint32(2)
		apply(vault.Record{Kind: vault.KindEpoch, Epoch: newest})
		told := make(map[vault.LearnerID][]uint32)
		for raw := int64(0); s.Unannounced(); raw++ {
			if rapid.IntRange(0, 19).Draw(t, "overtake") == 0 && newest < 4 {
				newest++
				apply(vault.Record{Kind: vault.KindEpoch, Epoch: newest})
				clear(told)
			}
			before := s.Pending().Rotation
			limit := rapid.Uint32Range(1, 30).Draw(t, "limit")
			apply(vault.Record{Kind: vault.KindAnnounce, RawOffset: raw, Limit: limit})
			a := s.TakeAnnouncement()
			if a.RawOffset != raw || a.Epoch != newest || len(a.Orders) == 0 || before-s.Pending().Rotation != len(a.Orders) {
				t.Fatalf("announcement of %d orders, %d left of %d", len(a.Orders), s.Pending().Rotation, before)
			}
			for _, o := range a.Orders {
				told[o.From.ID] = append(told[o.From.ID], o.Epochs...)
				if o.From != o.Into || o.Epoch != newest {
					t.Fatal("a rotation moves rows to another learner or epoch")
				}
			}
		}
		want := []uint32{1, 2, 3}[:newest-1]
		for _, epochs := range told {
			if !slices.Equal(epochs, want) {
				t.Fatalf("a learner's epochs %v were ordered to move, want %v", epochs, want)
			}
		}
		if epoch, _ := s.MovedTo(); len(told) != learners || epoch != newest {
			t.Fatalf("%d of %d learners told, moved to epoch %d of %d", len(told), learners, epoch, newest)
		}
	})
}

func BenchmarkAnnounceRotation(b *testing.B) {
	const learners = 1_500_000 / 64
	for range b.N {
		b.StopTimer()
		s, none := fill(learners, 1), vault.Digest{}
		for epoch := range uint32(2) {
			s.Apply(0, &vault.Record{Kind: vault.KindEpoch, Epoch: epoch + 1}, &none)
		}
		b.StartTimer()
		for raw := int64(0); s.Unannounced(); raw++ {
			s.Apply(0, &vault.Record{Kind: vault.KindAnnounce, RawOffset: raw, Limit: vault.MaxOrders}, &none)
		}
	}
	b.ReportMetric(float64(b.N*learners)/b.Elapsed().Seconds(), "learners/s")
}
