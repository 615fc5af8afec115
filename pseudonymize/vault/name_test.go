package vault_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// called returns the names of a group as the table has them, by the name of the
// alias that leads to the learner.
func called(t *testing.T, d *deployment, p *vault.Partition, group string, aliases ...vault.Alias) string {
	t.Helper()
	must(t, p.Flush(t.Context()))
	names, err := d.vault(t).Names(t.Context(), 1, "12AB00", group)
	must(t, err)
	var out []string
	for _, n := range names {
		l, who := p.State().LookupID(n.Learner), "nobody"
		for _, a := range aliases {
			if digest := p.Digest(&a); l != 0 && p.State().Lookup(&digest) == l {
				who = a.Value
			}
		}
		out = append(out, fmt.Sprintf("%s=%s|%s|%s|%s|%d", who, n.First, n.Prefix, n.Last, n.Group, n.YearGroup))
	}
	return strings.Join(out, " ")
}

// TestNamesFollowTheRoster: names are sealed in the table, follow later rosters
// and rotations, and go with an erasure, a merge and a record that takes them
// away.
func TestNamesFollowTheRoster(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	lines := []vault.RosterLine{
		{Aliases: []vault.Alias{las("1")}, Name: vault.Name{First: "Sanne", Prefix: "de", Last: "Vries", Group: "5A", YearGroup: 5}},
		{Aliases: []vault.Alias{las("2")}, Name: vault.Name{First: " Emre ", Last: "Aydin", Group: "5A", YearGroup: 5}},
		{Aliases: []vault.Alias{las("3")}, Name: vault.Name{First: "Noor", Last: "Bakker", Group: "5B", YearGroup: 5}},
		{Aliases: []vault.Alias{las("4")}, Name: vault.Name{First: "Noor\x00", Last: "Bakker"}},
	}
	imported := func(want string) {
		t.Helper()
		outcomes, err := p.ImportRoster(t.Context(), lines)
		must(t, err)
		if got := fmt.Sprint(outcomes); got != want {
			t.Errorf("outcomes %s, want %s", got, want)
		}
	}
	all := []vault.Alias{las("1"), las("2"), las("3")}
	imported("[created created created invalid]")
	const both = "2=Emre||Aydin|5A|5 1=Sanne|de|Vries|5A|5"
	if got := called(t, d, p, "5A", all...); got != both {
		t.Errorf("5A = %s, want %s", got, both)
	}
	imported("[unchanged unchanged unchanged invalid]")
	lines[1].Name.Group = "5B"
	imported("[unchanged renamed unchanged invalid]")
	if got, want := called(t, d, p, "5B", all...), "2=Emre||Aydin|5B|5 3=Noor||Bakker|5B|5"; got != want {
		t.Errorf("5B = %s, want %s", got, want)
	}
	if _, err := d.ring.Rotate(); err != nil {
		t.Fatal(err)
	}
	must(t, p.Rekey(t.Context()))
	must(t, p.Purge(t.Context()))
	if needs, err := d.vault(t).Needs(t.Context(), 1); err != nil || needs.Oldest() != 3 {
		t.Errorf("after a rotation the vault needs epoch %d (%v), want 3", needs.Oldest(), err)
	}
	must(t, p.Merge(t.Context(), las("3"), las("2")))
	if got, want := called(t, d, p, "5B", all...), "2=Emre||Aydin|5B|5"; strings.Replace(got, "3=", "2=", 1) != want {
		t.Errorf("5B after a merge = %s, want %s", got, want)
	}
	secret, err := p.Find(las("1"))
	must(t, err)
	_, err = p.Erase(t.Context(), secret.ID, noTokens)
	must(t, err)
	secret, err = p.Find(las("2"))
	must(t, err)
	_, err = p.Append(t.Context(), []vault.Record{{Kind: vault.KindName, Learner: secret.ID}})
	must(t, err)
	p2 := d.open(t, vault.Own) // what waited for the table is made again from the log
	if got := called(t, d, p2, "", all...); got != "" {
		t.Errorf("names after an erasure and a removal = %s, want none", got)
	}
	must(t, p2.Purge(t.Context()))
	var rows uint64
	must(t, d.conn.QueryRow(t.Context(), "SELECT count() FROM "+d.database+".identities WHERE kind = 'name'").Scan(&rows))
	if rows != 0 {
		t.Errorf("%d rows of names after Purge, want 0", rows)
	}
	if f, err := d.vault(t).Check(t.Context(), 1); err != nil || !f.Sound() {
		t.Errorf("Check = %+v, %v; want sound", f, err)
	}
}

func TestNamesRedactThemselves(t *testing.T) {
	t.Parallel()
	n := vault.LearnerName{Name: vault.Name{First: "canary-first", Last: "canary-last", Group: "canary-group"}}
	encoded, err := json.Marshal(map[string]any{"a": n, "b": n.Name})
	must(t, err)
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "name", n.Name, "learner", n)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", n, n, n.Name, n.Name), string(encoded), logged.String()} {
		if strings.Contains(text, "canary") {
			t.Errorf("a name shows itself: %s", text)
		}
	}
}
