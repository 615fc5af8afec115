package vault_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// TestRekeyChangesKeysAndNothingElse also lets a worker that knows nothing of
// the rotation write the table afterwards.
func TestRekeyChangesKeysAndNothingElse(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p, zombie := d.open(t, vault.Own), d.open(t, vault.Own)
	must(t, p.Create(t.Context(), number(50), false))
	must(t, p.Merge(t.Context(), las("pupil 1"), las("pupil 2")))
	must(t, p.Flush(t.Context()))
	want := findAll(t, p, number(50))
	before := p.Digest(&[]vault.Alias{las("pupil 0")}[0])
	if _, err := d.ring.Rotate(); err != nil {
		t.Fatal(err)
	}
	if !p.RekeyDue() {
		t.Fatal("RekeyDue = false after a rotation")
	}
	must(t, p.Rekey(t.Context()))
	same(t, "rekeyed memory", findAll(t, p, number(50)), want)
	if a := las("pupil 0"); p.Digest(&a) == before {
		t.Error("the digest of an alias is the same under another key")
	}
	same(t, "rekeyed table", findAll(t, d.open(t, vault.Follow), number(50)), want)

	must(t, zombie.Create(t.Context(), append(number(50), las("late")), false))
	must(t, zombie.Flush(t.Context()))
	again := d.open(t, vault.Own)
	same(t, "after a zombie's flush", findAll(t, again, number(50)), want)
	if find(t, again, las("late")) != find(t, zombie, las("late")) {
		t.Error("what the zombie created is another learner in its successor")
	}
	must(t, again.Purge(t.Context()))
	needs, err := d.vault(t).Needs(t.Context(), 1)
	must(t, err)
	if needs.Oldest() != 3 || len(needs.Rows) != 1 || len(needs.Tail) != 0 {
		t.Errorf("Needs = %+v, want epoch 3 alone", needs)
	}
	must(t, d.ring.Retire(2))
	final := d.open(t, vault.Own)
	same(t, "after the former epoch was retired", findAll(t, final, number(50)), want)
}

// TestFormerRowsGoByThemselves: also when the worker that digested the registry
// anew died before it had asked for their deletion.
func TestFormerRowsGoByThemselves(t *testing.T) {
	t.Parallel()
	for _, dies := range []bool{false, true} {
		d := deploy(t)
		p := d.open(t, vault.Own)
		must(t, p.Create(t.Context(), number(20), false))
		must(t, p.Flush(t.Context()))
		want := findAll(t, p, number(20))
		_, err := d.ring.Rotate()
		must(t, err)
		if dies {
			must(t, p.RekeyAndDie(t.Context()))
			p = d.open(t, vault.Own)
		}
		must(t, p.Rekey(t.Context()))
		enginetest.Eventually(t, time.Minute, "rows of the former epoch are gone", func() error {
			needs, err := d.vault(t).Needs(t.Context(), 1)
			if err == nil && needs.Oldest() != 3 {
				err = fmt.Errorf("epoch %d is still needed", needs.Oldest())
			}
			return err
		})
		same(t, "what is left", findAll(t, d.open(t, vault.Follow), number(20)), want)
	}
}

func TestNeedsCountsTheLog(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	must(t, p.Create(t.Context(), number(2), false))
	needs, err := d.vault(t).Needs(t.Context(), 1)
	must(t, err)
	if needs.Tail[2] != 1 || needs.Oldest() != 2 {
		t.Errorf("Needs = %+v, want one message under epoch 2", needs)
	}
	must(t, p.Flush(t.Context()))
	needs, err = d.vault(t).Needs(t.Context(), 1)
	must(t, err)
	if len(needs.Tail) != 0 || needs.Rows[2] != 5 { // two learners, two aliases, progress
		t.Errorf("Needs = %+v, want 5 rows under epoch 2 and no tail", needs)
	}
}

// TestRosterRules goes through the rules of the package comment.
func TestRosterRules(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	must(t, p.Create(t.Context(), []vault.Alias{eckid("aa"), las("1"), las("7")}, false)) // answers came first
	provisional := find(t, p, eckid("aa"))
	foreign := las("1")
	foreign.School = "99ZZ01"
	steps := []struct {
		name  string
		lines [][]vault.Alias
		want  string
	}{
		{"two provisional learners are one", [][]vault.Alias{{las("1"), eckid("aa")}}, "[merged]"},
		{"again", [][]vault.Alias{{las("1"), eckid("aa")}}, "[unchanged]"},
		{"a new pupil, its twin, and a provisional one", [][]vault.Alias{{las("2"), eckid("bb")}, {las("3"), eckid("cc")}, {las("7")}}, "[created created linked]"},
		{"a further alias", [][]vault.Alias{{las("2"), eckid("bb"), {School: "12AB00", Identifier: raw.Identifier{Scheme: raw.SchemeBasispoort, Value: "b2"}}}}, "[linked]"},
		{"swapped twins", [][]vault.Alias{{las("2"), eckid("cc")}, {las("3"), eckid("bb")}}, "[conflict conflict]"},
		{"one pupil on two lines", [][]vault.Alias{{las("4"), eckid("dd")}, {eckid("dd"), las("5")}}, "[created linked]"},
		{"malformed and of two schools", [][]vault.Alias{{las("")}, {las("6"), foreign}, {}}, "[invalid invalid invalid]"},
		{"another school is another learner", [][]vault.Alias{{foreign}}, "[created]"},
	}
	for _, step := range steps {
		outcomes, err := p.ImportRoster(t.Context(), roster(step.lines))
		must(t, err)
		if got := fmt.Sprint(outcomes); got != step.want {
			t.Errorf("%s: outcomes %s, want %s", step.name, got, step.want)
		}
	}
	if find(t, p, las("1")) != find(t, p, eckid("aa")) {
		t.Error("merged aliases lead to two learners")
	}
	if got := find(t, p, las("1")); got != provisional && got == "unknown" {
		t.Error("the merged learner is none of the two")
	}
	two, three := find(t, p, las("2")), find(t, p, las("3"))
	must(t, p.Reassign(t.Context(), []vault.Reassignment{{Alias: eckid("cc"), Learner: las("2")}, {Alias: eckid("bb"), Learner: las("3")}}))
	if find(t, p, eckid("cc")) != two || find(t, p, eckid("bb")) != three {
		t.Error("the twins' keys were not put right")
	}
	if find(t, p, foreign) == find(t, p, las("1")) {
		t.Error("one LAS key of two schools is one learner")
	}
	must(t, p.Flush(t.Context()))
	again := d.open(t, vault.Follow)
	if find(t, again, eckid("cc")) != two || find(t, again, las("5")) != find(t, p, las("4")) {
		t.Error("rosters are forgotten after a restart")
	}
}

// TestErasureLeavesATombstone: alias and salt are gone from memory, table and
// new starts, and stay gone when the erasure is replayed after a restore.
func TestErasureLeavesATombstone(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	_, err := p.ImportRoster(t.Context(), roster([][]vault.Alias{{las("1"), eckid("aa")}, {las("2")}}))
	must(t, err)
	must(t, p.Create(t.Context(), []vault.Alias{eckid("old")}, false))
	must(t, p.Merge(t.Context(), eckid("old"), las("1")))
	must(t, p.Flush(t.Context()))
	group, err := p.Group(las("1"))
	must(t, err)
	if len(group) != 2 {
		t.Fatalf("Group holds %d learners, want 2", len(group))
	}
	other := find(t, p, las("2"))
	grave, err := p.Erase(t.Context(), group[0].ID, func(group []vault.Secret) (tokens []vault.IssuedToken, epoch uint32, err error) {
		for _, s := range group {
			tokens = append(tokens, vault.IssuedToken{Purpose: keyring.Analytics, Epoch: 2, Token: [16]byte{s.ID[0], s.Salt[0]}})
		}
		return tokens, 2, nil
	})
	must(t, err)
	if len(grave.Learners) != 2 || len(grave.Tokens) != 2 || grave.School != "12AB00" {
		t.Errorf("the tombstone names %d learners and %d tokens, want 2 and 2", len(grave.Learners), len(grave.Tokens))
	}
	if _, err := p.Erase(t.Context(), group[1].ID, noTokens); !errors.Is(err, vault.ErrErased) {
		t.Errorf("Erase again = %v, want %v", err, vault.ErrErased)
	}
	offset := p.Offset()
	if adopted, _ := p.State().Adopted(); adopted >= offset {
		t.Error("the erasure is adopted before the stage said so")
	}
	must(t, p.Adopt(t.Context(), 5))
	if adopted, rawOffset := p.State().Adopted(); adopted < offset || rawOffset != 5 {
		t.Errorf("Adopted = %d, %d; want at least %d, 5", adopted, rawOffset, offset)
	}
	must(t, p.Create(t.Context(), []vault.Alias{las("1")}, false)) // delivered again: a stranger
	stranger := find(t, p, las("1"))
	must(t, p.Purge(t.Context()))
	for name, q := range map[string]*vault.Partition{"memory": p, "table": d.open(t, vault.Own)} {
		if got := find(t, q, eckid("aa")) + " " + find(t, q, eckid("old")); got != "unknown unknown" {
			t.Errorf("%s: erased aliases are %s", name, got)
		}
		if find(t, q, las("2")) != other || find(t, q, las("1")) != stranger {
			t.Errorf("%s: the erasure changed another learner", name)
		}
		if len(q.Erased()) != 2 {
			t.Errorf("%s: %d erased learners, want 2", name, len(q.Erased()))
		}
		if graves, err := q.Tombstones(t.Context()); err != nil || len(graves) != 1 || !reflect.DeepEqual(graves[0], grave) || !q.State().ErasurePending(grave.ID()) {
			t.Errorf("%s: %d tombstones (%v), want the one of the erasure, not announced", name, len(graves), err)
		}
	}
	var deleted, salts uint64
	must(t, d.conn.QueryRow(t.Context(), "SELECT countIf(deleted = 1), countIf(kind = 'learner') FROM "+d.database+".identities").Scan(&deleted, &salts))
	if deleted != 0 || salts != 4 {
		t.Errorf("the table holds %d marks and %d learner rows after Purge, want 0 and 4", deleted, salts)
	}
	// A restored backup that is older than the erasure, and a log that no longer
	// reaches back: the tombstones are applied.
	fresh := deploy(t)
	fresh.ring = d.ring
	restored := fresh.open(t, vault.Own)
	_, err = restored.Append(t.Context(), []vault.Record{{Kind: vault.KindCreate, Alias: las("1"), Secret: group[0]}})
	must(t, err)
	for _, id := range p.Erased() {
		if _, err := restored.Erase(t.Context(), id, noTokens); err != nil && !errors.Is(err, vault.ErrErased) {
			t.Fatal(err)
		}
	}
	if find(t, restored, las("1")) != "unknown" {
		t.Error("an erased learner came back with a restored backup")
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	must(t, p.Create(t.Context(), number(5), false))
	must(t, p.Merge(t.Context(), las("pupil 1"), las("pupil 2")))
	check := func(what string, sound bool, missing int) {
		t.Helper()
		f, err := d.vault(t).Check(t.Context(), 1)
		must(t, err)
		if f.Sound() != sound || f.Missing != missing || !f.WholeLog {
			t.Errorf("Check %s = %+v, want sound %v, %d missing", what, f, sound, missing)
		}
	}
	check("before a flush", true, 0)
	must(t, p.Flush(t.Context()))
	check("after a flush", true, 0)
	change := func(statement string) {
		must(t, d.conn.Exec(t.Context(), "ALTER TABLE "+d.database+".identities "+statement+" SETTINGS mutations_sync = 2"))
	}
	key := "(SELECT min(key) FROM " + d.database + ".identities WHERE kind = 'alias')"
	change("UPDATE flags = 1 WHERE kind = 'learner' AND flags = 0")
	check("after flags were changed", false, 0)
	change("DELETE WHERE kind = 'alias' AND key = " + key)
	check("after an alias was deleted", false, 1)
}
