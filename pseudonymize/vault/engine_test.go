package vault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/store"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// deployment is a vault on real engines with a topic and a database of its own.
type deployment struct {
	ring     *keyring.Ring
	client   *stream.Client
	topic    string
	conn     driver.Conn
	native   []ch.Options
	restored *vault.Handover
	database string
}

func deploy(t testing.TB) *deployment {
	t.Helper()
	brokers := enginetest.Kafka(t)
	client, err := stream.NewClient(stream.Config{Brokers: brokers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	connection, database := enginetest.ClickHouse(t)
	options := &clickhouse.Options{Addr: connection.Addresses, Auth: clickhouse.Auth{Username: connection.User, Password: connection.Password}}
	db := clickhouse.OpenDB(options)
	defer db.Close()
	if err := store.Migrate(t.Context(), db, vault.Schema(), store.MigrateOptions{Database: database}, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &deployment{ring: loadRing(t), client: client, topic: enginetest.Topic(t, brokers, "registry", 2), conn: conn,
		native: vault.NativeOptions(connection.Addresses, connection.User, connection.Password), database: database}
}

func (d *deployment) vault(t testing.TB) *vault.Vault {
	t.Helper()
	v, err := vault.New(vault.Config{Ring: d.ring, Client: d.client, Topic: d.topic, Conn: d.conn, Native: d.native, Restored: d.restored, Database: d.database})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (d *deployment) open(t testing.TB, mode vault.Mode) *vault.Partition {
	t.Helper()
	p, err := d.vault(t).Open(t.Context(), 1, mode)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func las(value string) vault.Alias {
	return vault.Alias{School: "12AB00", Identifier: raw.Identifier{Scheme: raw.SchemeLAS, Value: value}}
}

func eckid(value string) vault.Alias {
	return vault.Alias{School: "12AB00", Identifier: raw.Identifier{Scheme: raw.SchemeECKID, Value: "https://ketenid.nl/201703/" + value}}
}

func number(n int) []vault.Alias {
	aliases := make([]vault.Alias, n)
	for i := range aliases {
		aliases[i] = las(fmt.Sprint("pupil ", i))
	}
	return aliases
}

// find returns what a learner's tokens are made of, as text to compare.
func find(t testing.TB, p *vault.Partition, a vault.Alias) string {
	t.Helper()
	secret, err := p.Find(a)
	if errors.Is(err, vault.ErrUnknown) {
		return "unknown"
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x/%x", [16]byte(secret.ID), secret.Salt)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func findAll(t testing.TB, p *vault.Partition, aliases []vault.Alias) []string {
	t.Helper()
	out := make([]string, len(aliases))
	for i, a := range aliases {
		out[i] = find(t, p, a)
	}
	return out
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: alias %d leads to another learner", what, i)
		}
	}
}

// TestRestartRestoresTheRegistry: from the table, from the log, and from a table
// that lags behind the log, at every cut.
func TestRestartRestoresTheRegistry(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	aliases := number(60)
	for cut := range 6 {
		must(t, p.Create(t.Context(), aliases[10*cut:10*cut+10], cut%2 == 0))
		want := findAll(t, p, aliases)
		same(t, "log alone", findAll(t, d.open(t, vault.Follow), aliases), want)
		if cut%2 == 0 {
			must(t, p.Flush(t.Context()))
			same(t, "table and log", findAll(t, d.open(t, vault.Follow), aliases), want)
		}
		p = d.open(t, vault.Own)
		same(t, "restart", findAll(t, p, aliases), want)
		if got := p.State().Learners(); got != 10*cut+10 {
			t.Fatalf("%d learners after restart, want %d", got, 10*cut+10)
		}
	}
}

// TestEveryChangeSurvivesRestart folds all kinds of records, flushes at every
// step or at none, and compares with the registry in memory.
func TestEveryChangeSurvivesRestart(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	aliases := append(number(8), eckid("aa"), eckid("bb"), las("new"))
	steps := []func() error{
		func() error { return p.Create(t.Context(), number(8), false) },
		func() error { return p.Adopt(t.Context(), 7) },
		func() error {
			_, err := p.ImportRoster(t.Context(), roster([][]vault.Alias{{las("pupil 0"), eckid("aa")}, {las("pupil 1"), las("pupil 2"), eckid("bb")}}))
			return err
		},
		func() error { return p.Adopt(t.Context(), 9) },
		func() error {
			return p.Reassign(t.Context(), []vault.Reassignment{{Alias: eckid("aa"), Learner: las("pupil 1")}, {Alias: eckid("bb"), Learner: las("pupil 0")}})
		},
		func() error { return p.Merge(t.Context(), las("pupil 3"), las("pupil 4")) },
		func() error {
			secret, err := p.Find(las("pupil 1"))
			if err != nil {
				return err
			}
			_, err = p.Erase(t.Context(), secret.ID, noTokens)
			return err
		},
		func() error { return p.Create(t.Context(), []vault.Alias{las("pupil 2"), las("new")}, false) },
	}
	for i, step := range steps {
		must(t, step())
		want := findAll(t, p, aliases)
		same(t, fmt.Sprint("step ", i, " from the log"), findAll(t, d.open(t, vault.Follow), aliases), want)
		if i%3 != 1 {
			must(t, p.Flush(t.Context()))
		}
		again := d.open(t, vault.Own)
		same(t, fmt.Sprint("step ", i, " after restart"), findAll(t, again, aliases), want)
		a, b := fmt.Sprint(p.State().Adopted()), fmt.Sprint(again.State().Adopted())
		if a != b || p.State().Epoch() != again.State().Epoch() || p.State().NeedsAdoption() != again.State().NeedsAdoption() {
			t.Fatalf("step %d: adopted %s, epoch %d after restart; want %s, %d", i, b, again.State().Epoch(), a, p.State().Epoch())
		}
		p = again
	}
	if find(t, p, las("pupil 1")) != "unknown" || find(t, p, eckid("aa")) != "unknown" || find(t, p, las("pupil 2")) == "unknown" {
		t.Error("an erased learner's aliases are known, or a stranger's are not")
	}
}

// TestFollowerBesideTheOwner: a follower that takes in what the owner reads of the
// table knows what one knows that reads by itself, and has it for itself.
func TestFollowerBesideTheOwner(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	aliases := append(number(40), eckid("aa"), las("new"))
	must(t, p.Create(t.Context(), number(30), false))
	must(t, p.Merge(t.Context(), las("pupil 3"), las("pupil 4")))
	must(t, p.Flush(t.Context()))
	secret, err := p.Find(las("pupil 1"))
	must(t, err)
	_, err = p.Erase(t.Context(), secret.ID, noTokens)
	must(t, err)
	_, err = p.ImportRoster(t.Context(), roster([][]vault.Alias{{las("pupil 0"), eckid("aa")}}))
	must(t, err)
	must(t, p.Flush(t.Context()))
	must(t, p.Create(t.Context(), number(35), false)) // in the log only
	var owner, follower *vault.Partition
	for follower == nil { // nil when the owner was faster
		d.restored = new(vault.Handover)
		shown := make(chan *vault.Partition, 1)
		go func() {
			beside, err := d.vault(t).Beside(t.Context(), 1, 10*time.Minute)
			if err != nil {
				t.Error(err)
			}
			shown <- beside
		}()
		owner = d.open(t, vault.Own)
		follower = <-shown
		if t.Failed() {
			t.FailNow()
		}
	}
	alone := d.open(t, vault.Follow)
	if follower.Offset() != alone.Offset() || follower.State().Learners() != alone.State().Learners() || follower.State().Aliases() != alone.State().Aliases() ||
		follower.State().Epoch() != alone.State().Epoch() || fmt.Sprint(follower.State().Adopted()) != fmt.Sprint(alone.State().Adopted()) {
		t.Errorf("beside the owner: offset %d, %d learners, %d aliases; alone: %d, %d, %d", follower.Offset(), follower.State().Learners(),
			follower.State().Aliases(), alone.Offset(), alone.State().Learners(), alone.State().Aliases())
	}
	before := findAll(t, alone, aliases)
	same(t, "beside the owner", findAll(t, follower, aliases), before)
	// What the owner does is seen when it is read in the log, not before.
	must(t, owner.Create(t.Context(), []vault.Alias{las("new")}, false))
	must(t, owner.Merge(t.Context(), las("pupil 5"), las("pupil 6")))
	must(t, owner.Reassign(t.Context(), []vault.Reassignment{{Alias: eckid("aa"), Learner: las("pupil 7")}}))
	same(t, "beside the owner, not synced", findAll(t, follower, aliases), before)
	must(t, follower.Sync(t.Context()))
	same(t, "beside the owner, synced", findAll(t, follower, aliases), findAll(t, owner, aliases))
}

// TestZombieAndSuccessorAgree: two workers believe that a partition is theirs
// and create the same aliases at the same time. There is one learner for each.
func TestZombieAndSuccessorAgree(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	aliases := number(200)
	workers := []*vault.Partition{d.open(t, vault.Own), d.open(t, vault.Own)}
	done := make(chan error, len(workers))
	for _, p := range workers {
		go func() {
			var err error
			for i := 0; i < len(aliases) && err == nil; i += 10 {
				err = p.Create(context.WithoutCancel(t.Context()), aliases[i:i+10], false)
			}
			done <- err
		}()
	}
	for range workers {
		must(t, <-done)
	}
	want := findAll(t, d.open(t, vault.Follow), aliases)
	for i, p := range workers {
		// What a worker has used must be what the log says, without another look at it.
		same(t, fmt.Sprint("worker ", i), findAll(t, p, aliases), want)
	}
	for _, p := range workers { // both write the table, the later one first
		must(t, p.Sync(t.Context()))
	}
	must(t, workers[1].Flush(t.Context()))
	must(t, workers[0].Flush(t.Context()))
	same(t, "table of two owners", findAll(t, d.open(t, vault.Follow), aliases), want)
}

func TestWrongKeysetStopsTheVault(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.open(t, vault.Own)
	must(t, p.Create(t.Context(), number(3), false))
	other, err := keyring.Create(t.TempDir() + "/keyset.json")
	must(t, err)
	if _, err := other.Rotate(); err != nil {
		t.Fatal(err)
	}
	wrong := *d
	wrong.ring = other
	if _, err := wrong.vault(t).Open(t.Context(), 1, vault.Own); !errors.Is(err, vault.ErrKeyset) {
		t.Errorf("Open a log with a wrong keyset = %v, want %v", err, vault.ErrKeyset)
	}
	must(t, p.Flush(t.Context()))
	if _, err := wrong.vault(t).Open(t.Context(), 1, vault.Own); !errors.Is(err, vault.ErrKeyset) {
		t.Errorf("Open a table with a wrong keyset = %v, want %v", err, vault.ErrKeyset)
	}
	if _, err := vault.New(vault.Config{}); err == nil {
		t.Error("New without a keyring = nil, want an error")
	}
}

func TestFollowSeesWhatOthersWrite(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	owner, follower := d.open(t, vault.Own), d.open(t, vault.Follow)
	must(t, owner.Create(t.Context(), number(5), true))
	news := 0
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for follower.Offset() < owner.Offset() {
		must(t, follower.Follow(ctx, new(nothing), func() error { news++; return nil }))
	}
	same(t, "follower", findAll(t, follower, number(5)), findAll(t, owner, number(5)))
	if news == 0 {
		t.Error("done was not called")
	}
}

type nothing struct{}

func (*nothing) Lock()   {}
func (*nothing) Unlock() {}

// noTokens issues nothing: what the tokens are is the business of others.
func noTokens([]vault.Secret) ([]vault.IssuedToken, uint32, error) { return nil, 99, nil }

// roster makes lines without names.
func roster(lines [][]vault.Alias) []vault.RosterLine {
	out := make([]vault.RosterLine, len(lines))
	for i := range lines {
		out[i].Aliases = lines[i]
	}
	return out
}
