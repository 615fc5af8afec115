package pseudonymize_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// resolver starts a resolver that ends with the test.
func (d *deployment) resolver(t testing.TB, engines ...string) *pseudonymize.Resolver {
	t.Helper()
	resolver := d.idleResolver(t, engines...)
	run(t, resolver)
	return resolver
}

func (d *deployment) idleResolver(t testing.TB, engines ...string) *pseudonymize.Resolver {
	t.Helper()
	resolver, err := pseudonymize.NewResolver(pseudonymize.ResolverConfig{Ring: d.ring, Vault: d.vault(t), Partitions: partitions, Engines: engines, Logger: d.logger()})
	must(t, err)
	return resolver
}

// run runs a resolver until the test ends, and waits until it is ready.
func run(t testing.TB, resolver *pseudonymize.Resolver) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- resolver.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-resolver.Ready():
	case <-time.After(time.Minute):
		t.Fatal("the resolver is not ready after a minute")
	}
}

// TestResolverBehindATrimmedLog: what a resolver has not read is deleted from the
// registry's log; it begins again from the table.
func TestResolverBehindATrimmedLog(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	resolver := d.idleResolver(t)
	behind, err := d.vault(t).Open(t.Context(), thePart, vault.Follow)
	must(t, err)
	resolver.Follows(thePart, behind)
	a := makeAnswers(r, thePart, 50, 10)
	d.send(t, thePart, d.sealAnswers(t, thePart, a))
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	owner, err := d.vault(t).Open(t.Context(), thePart, vault.Own)
	must(t, err)
	must(t, owner.Flush(t.Context()))
	if below, err := d.vault(t).TrimLog(t.Context(), thePart); err != nil || below <= behind.Offset() {
		t.Fatalf("TrimLog = %d, %v, want more than %d", below, err, behind.Offset())
	}
	run(t, resolver)
	for _, identity := range a.Identity.Values {
		wait(t, "an identity is known", func() bool { return resolve(t, resolver, keyring.Analytics, identity).Known })
	}
}

func resolve(t testing.TB, r *pseudonymize.Resolver, purpose keyring.Purpose, id raw.Identity) pseudonymize.Resolution {
	t.Helper()
	got, err := r.Resolve(nil, purpose, []raw.Identity{id})
	must(t, err)
	if len(got) != 1 {
		t.Fatalf("Resolve of one identity returned %d", len(got))
	}
	return got[0]
}

func TestResolverFollowsTheStage(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	resolver := d.resolver(t, "snappet", "other")
	a := makeAnswers(r, thePart, 50, 10)
	known := a.Identity.Values[0]
	if resolve(t, resolver, keyring.Analytics, known).Known {
		t.Error("an identifier is known before any answer")
	}
	d.send(t, thePart, d.sealAnswers(t, thePart, a))
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	var decoder answer.Decoder
	var c answer.Columns
	must(t, decoder.Answers(d.read(t, d.topics.Answers, thePart)[0].Value, &c))
	wait(t, "the resolver knows the learner", func() bool { return resolve(t, resolver, keyring.Analytics, known).Known })
	for code, id := range a.Identity.Values {
		got := resolve(t, resolver, keyring.Analytics, id)
		if !got.Known || got.Rostered || got.Epoch != 1 || got.Token != c.Learner.Values[code] {
			t.Fatalf("identity %d: known %v, rostered %v, epoch %d; want the token of answers, provisional, epoch 1", code, got.Known, got.Rostered, got.Epoch)
		}
		engine := resolve(t, resolver, keyring.Engine("snappet"), id)
		back, err := resolver.Analytics(nil, "snappet", engine.Token)
		if err != nil || len(back) != 1 || back[0] != got.Token || engine.Token == got.Token {
			t.Fatalf("identity %d: an engine's token leads back to %v (%v), want the analytics token", code, back, err)
		}
		if others, err := resolver.Analytics(nil, "other", engine.Token); err != nil || len(others) != 0 {
			t.Fatalf("identity %d: one engine's token means something to another (%v)", code, err)
		}
	}
	for name, id := range map[string]raw.Identity{
		"unknown value":  {School: known.School, Identifier: raw.Identifier{Scheme: raw.SchemeLAS, Value: "nobody"}},
		"another school": {School: schoolsOf(2, 1)[0], Publisher: known.Publisher, Identifier: known.Identifier},
		"malformed":      {School: known.School, Identifier: raw.Identifier{Scheme: raw.SchemeLAS}},
	} {
		if got := resolve(t, resolver, keyring.Engine("snappet"), id); got != (pseudonymize.Resolution{}) {
			t.Errorf("%s: Resolve = %+v, want nothing", name, got)
		}
	}
	if back, err := resolver.Analytics(nil, "late", resolve(t, resolver, keyring.Engine("late"), known).Token); err != nil || len(back) != 1 {
		t.Errorf("the token of an engine that came later leads to %v (%v), want one", back, err)
	}
	for _, purpose := range []keyring.Purpose{keyring.Alias, keyring.EngineEvent("snappet"), "engine/"} {
		if _, _, err := resolver.Learner(nil, purpose, answer.Token{}); err == nil {
			t.Errorf("Learner for the purpose %q = nil, want an error", string(purpose))
		}
	}
	if _, err := resolver.Resolve(nil, keyring.Alias, []raw.Identity{known}); err == nil {
		t.Error("Resolve for the purpose alias = nil, want an error")
	}
}

// TestResolverFollowsChanges: rosters, merges, erasures and rotations by others.
func TestResolverFollowsChanges(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	school := schoolsOf(thePart, 1)[0]
	first, second := pupil(school, 1, raw.SchemeLAS), pupil(school, 1, raw.SchemeECKID)
	owner, err := d.vault(t).Open(t.Context(), thePart, vault.Own)
	must(t, err)
	must(t, owner.Create(t.Context(), []vault.Alias{first, second}, false))
	must(t, owner.Adopt(t.Context(), 0))
	resolver := d.resolver(t, "snappet")
	old := []answer.Token{resolve(t, resolver, keyring.Engine("snappet"), first).Token, resolve(t, resolver, keyring.Engine("snappet"), second).Token}
	_, err = owner.ImportRoster(t.Context(), roster([][]vault.Alias{{first, second}}))
	must(t, err)
	wait(t, "the learners are merged", func() bool {
		a, b := resolve(t, resolver, keyring.Analytics, first), resolve(t, resolver, keyring.Analytics, second)
		return a == b && a.Rostered
	})
	merged := resolve(t, resolver, keyring.Analytics, first).Token
	for i, token := range old { // an engine may still hold the token of before
		if back, err := resolver.Analytics(nil, "snappet", token); err != nil || len(back) != 1 || back[0] != merged {
			t.Errorf("engine token %d leads to %v (%v) after the merge, want the merged learner", i, back, err)
		}
	}
	replacements, err := resolver.Replacements(nil, thePart, keyring.Analytics, 1)
	if err != nil || len(replacements) != 1 || replacements[0].New != merged {
		t.Errorf("Replacements after a merge = %v (%v), want one to the merged learner's token", replacements, err)
	}

	if _, err := d.ring.Rotate(); err != nil {
		t.Fatal(err)
	}
	must(t, work(t.Context(), d, d.stage(t), thePart, r)) // adopts the epoch
	wait(t, "tokens are of the new epoch", func() bool { return resolve(t, resolver, keyring.Analytics, first).Epoch == 2 })
	now := resolve(t, resolver, keyring.Analytics, first).Token
	for _, token := range append(old, resolve(t, resolver, keyring.Engine("snappet"), first).Token) {
		back, err := resolver.Analytics(nil, "snappet", token)
		if err != nil || len(back) != 2 || back[0] != now || back[1] != merged {
			t.Errorf("an engine's token leads to %v (%v), want the new and the former analytics token", back, err)
		}
	}
	replacements, err = resolver.Replacements(nil, thePart, keyring.Analytics, 1)
	if err != nil || len(replacements) != 2 || replacements[0].New != now || replacements[1].New != now {
		t.Errorf("Replacements after a rotation = %v (%v), want both learners to the new token", replacements, err)
	}

	eraser, err := d.vault(t).Open(t.Context(), thePart, vault.Follow)
	must(t, err)
	group, err := eraser.Group(first)
	must(t, err)
	grave, err := eraser.Erase(t.Context(), group[0].ID, pseudonymize.Issue(d.ring, keyring.Analytics, keyring.Engine("snappet")))
	must(t, err)
	if len(grave.Tokens) != 8 { // 2 learners, 2 epochs, 2 purposes
		t.Errorf("the tombstone lists %d tokens, want 8", len(grave.Tokens))
	}
	wait(t, "the learner is forgotten", func() bool { return !resolve(t, resolver, keyring.Analytics, first).Known })
	for _, token := range old {
		if back, err := resolver.Analytics(nil, "snappet", token); err != nil || len(back) != 0 {
			t.Errorf("an erased learner's token leads to %v (%v)", back, err)
		}
	}
}

func wait(t testing.TB, what string, done func() bool) {
	t.Helper()
	enginetest.Eventually(t, 30*time.Second, what, func() error {
		if !done() {
			return errors.New("not yet")
		}
		return nil
	})
}

// TestKnownAndUnknownCostTheSame: whoever watches the clock sees the same number
// of MACs for a learner of a roster, a provisional one, an erased one and nobody.
func TestKnownAndUnknownCostTheSame(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	school := schoolsOf(thePart, 1)[0]
	rostered, provisional, erased, nobody := pupil(school, 1, raw.SchemeLAS), pupil(school, 2, raw.SchemeLAS), pupil(school, 3, raw.SchemeLAS), pupil(school, 4, raw.SchemeLAS)
	owner, err := d.vault(t).Open(t.Context(), thePart, vault.Own)
	must(t, err)
	_, err = owner.ImportRoster(t.Context(), roster([][]vault.Alias{{rostered}, {erased}}))
	must(t, err)
	must(t, owner.Create(t.Context(), []vault.Alias{provisional}, false))
	group, err := owner.Group(erased)
	must(t, err)
	_, err = owner.Erase(t.Context(), group[0].ID, pseudonymize.Issue(d.ring, keyring.Analytics))
	must(t, err)
	must(t, work(t.Context(), d, d.stage(t), thePart, r)) // adopts an epoch
	resolver := d.resolver(t, "snappet")
	purpose := keyring.Engine("snappet")
	wait(t, "the resolver has read all", func() bool { return resolve(t, resolver, purpose, rostered).Rostered })
	for name, c := range map[string]struct {
		id              raw.Identity
		known, rostered bool
	}{"rostered": {rostered, true, true}, "provisional": {provisional, true, false}, "erased": {erased, false, false}, "nobody": {nobody, false, false}} {
		before := resolver.Work(school)
		got := resolve(t, resolver, purpose, c.id)
		if work := resolver.Work(school) - before; work != 2 {
			t.Errorf("%s: %d MACs, want a digest and a token", name, work)
		}
		if got.Known != c.known || got.Rostered != c.rostered || !c.known && got != (pseudonymize.Resolution{}) {
			t.Errorf("%s: known %v, rostered %v, want %v, %v", name, got.Known, got.Rostered, c.known, c.rostered)
		}
	}
}
