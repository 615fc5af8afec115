package pseudonymize_test

import (
	"errors"
	"testing"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// TestNamesOfAGroup: a group's names come with the tokens of whoever asks, and
// an erased learner is missing even while the table still holds the name.
func TestNamesOfAGroup(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	school := schoolsOf(thePart, 1)[0]
	sanne, emre := pupil(school, 1, raw.SchemeLAS), pupil(school, 2, raw.SchemeLAS)
	owner, err := d.vault(t).Open(t.Context(), thePart, vault.Own)
	must(t, err)
	_, err = owner.ImportRoster(t.Context(), []vault.RosterLine{
		{Aliases: []vault.Alias{sanne}, Name: vault.Name{First: "Sanne", Last: "Vries", Group: "5A"}},
		{Aliases: []vault.Alias{emre}, Name: vault.Name{First: "Emre", Last: "Aydin", Group: "5A"}},
	})
	must(t, err)
	must(t, owner.Adopt(t.Context(), 0))
	must(t, owner.Flush(t.Context()))
	resolver := d.resolver(t)
	named, err := resolver.Names(t.Context(), keyring.Analytics, school, "5A")
	must(t, err)
	if len(named) != 2 || named[0].First != "Emre" || named[1].First != "Sanne" ||
		named[0].Token != resolve(t, resolver, keyring.Analytics, emre).Token || named[1].Token != resolve(t, resolver, keyring.Analytics, sanne).Token {
		t.Errorf("Names returned %d learners, want Emre and Sanne with their tokens", len(named))
	}
	for _, other := range [][2]string{{school, "5B"}, {schoolsOf(thePart, 2)[1], "5A"}} {
		if named, err := resolver.Names(t.Context(), keyring.Analytics, other[0], other[1]); err != nil || len(named) != 0 {
			t.Errorf("Names of another group or school = %d learners, %v; want none", len(named), err)
		}
	}
	secret, err := owner.Find(sanne)
	must(t, err)
	_, err = owner.Erase(t.Context(), secret.ID, pseudonymize.Issue(d.ring, keyring.Analytics))
	must(t, err)
	wait(t, "the learner is forgotten", func() bool { return !resolve(t, resolver, keyring.Analytics, sanne).Known })
	if named, err := resolver.Names(t.Context(), keyring.Analytics, school, "5A"); err != nil || len(named) != 1 || named[0].First != "Emre" {
		t.Errorf("Names after an erasure = %d learners, %v; want Emre alone", len(named), err)
	}
	idle, err := pseudonymize.NewResolver(pseudonymize.ResolverConfig{Ring: d.ring, Vault: d.vault(t), Partitions: partitions})
	must(t, err)
	if _, err := idle.Names(t.Context(), keyring.Analytics, school, "5A"); !errors.Is(err, pseudonymize.ErrLoading) {
		t.Errorf("Names before loading = %v, want %v", err, pseudonymize.ErrLoading)
	}
}
