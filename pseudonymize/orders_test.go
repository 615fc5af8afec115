package pseudonymize_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/transform"
)

// rowName is a delivered row: the number of its message among those that were
// pushed, and its place in it.
type rowName struct{ message, row int }

// shelf is what somebody who stores rows and follows commands has in the end.
type shelf map[answer.Token]map[rowName]bool

// follow reads a topic of answers as such a reader does.
func (d *deployment) follow(t testing.TB, topic string) (shelf, int) {
	t.Helper()
	rows, pushed, commands := shelf{}, 0, 0
	put := func(token answer.Token, name rowName) {
		if rows[token] == nil {
			rows[token] = make(map[rowName]bool)
		}
		rows[token][name] = true
	}
	var decoder answer.Decoder
	for _, m := range d.dropRepeats(t, d.read(t, topic, thePart)) {
		switch string(m.Header(stream.HeaderSchema)) {
		case answer.SchemaCommands:
			var c answer.Commands
			must(t, decoder.Commands(m.Value, &c))
			commands += c.Rows
			for i := range c.Rows {
				gone := rows[c.Learner.At(i)]
				delete(rows, c.Learner.At(i))
				if c.Kind[i] == answer.CommandMove {
					for name := range gone {
						put(c.Into.At(i), name)
					}
				}
			}
			continue
		case answer.SchemaAnswers:
			var c answer.Columns
			must(t, decoder.Answers(m.Value, &c))
			for i := range c.Rows {
				put(c.Learner.At(i), rowName{pushed, i})
			}
		case answer.SchemaTestResults:
			var c answer.TestResults
			must(t, decoder.TestResults(m.Value, &c))
			for i := range c.Rows {
				put(c.Learner.At(i), rowName{pushed, i})
			}
		}
		pushed++
	}
	return rows, commands
}

// upheaval pushes answers while learners are merged, keys rotate, pupils are
// erased and the stage dies.
type upheaval struct {
	*deployment
	t      testing.TB
	r      *rand.Rand
	rows   []*raw.Identities // of every message that was pushed
	erased map[string]int    // alias → messages that were pushed when it was erased
}

func aliasText(a raw.Identity) string {
	a = vault.Normalise(a)
	return a.School + "|" + a.Publisher + "|" + fmt.Sprint(uint8(a.Scheme)) + "|" + a.Value
}

func (u *upheaval) push(n int) {
	for range n {
		if u.r.IntN(5) == 0 {
			results := makeResults(u.r, thePart, 1+u.r.IntN(10), 12)
			u.send(u.t, thePart, u.sealResults(u.t, thePart, results))
			u.rows = append(u.rows, &results.Identity)
			continue
		}
		answers := makeAnswers(u.r, thePart, 1+u.r.IntN(30), 12)
		u.send(u.t, thePart, u.sealAnswers(u.t, thePart, answers))
		u.rows = append(u.rows, &answers.Identity)
	}
}

// drain runs the stage, which dies now and then, until nothing is left to do.
func (u *upheaval) drain() {
	for attempt := 0; ; attempt++ {
		s := u.stage(u.t)
		s.SetCrash(func(string) error {
			if attempt < 8 && u.r.IntN(12) == 0 {
				return errCrash
			}
			return nil
		})
		err := work(u.t.Context(), u.deployment, s, thePart, u.r)
		if err != nil && !errors.Is(err, errCrash) {
			u.t.Fatal(err)
		}
		_, end, err := u.client.Offsets(u.t.Context(), u.topics.Raw, thePart)
		must(u.t, err)
		last, found, err := u.client.Last(u.t.Context(), u.topics.Answers, thePart)
		must(u.t, err)
		if !found {
			continue
		}
		offset, err := last.Int64(stream.HeaderRawOffset)
		must(u.t, err)
		if offset == end-1 && !u.open().State().Unannounced() {
			return
		}
	}
}

func (u *upheaval) open() *vault.Partition {
	p, err := u.vault(u.t).Open(u.t.Context(), thePart, vault.Follow)
	must(u.t, err)
	return p
}

func (u *upheaval) someone() raw.Identity {
	identities := u.rows[u.r.IntN(len(u.rows))]
	return identities.Values[u.r.IntN(len(identities.Values))]
}

func (u *upheaval) merge() {
	first, second := u.someone(), u.someone()
	if first.School != second.School {
		return
	}
	p := u.open()
	if err := p.Merge(u.t.Context(), first, second); err != nil && !errors.Is(err, vault.ErrUnknown) {
		u.t.Fatal(err)
	}
}

func (u *upheaval) erase() {
	u.drain() // what is delivered while an erasure is under way may go with it
	p, who := u.open(), u.someone()
	secret, err := p.Find(who)
	if errors.Is(err, vault.ErrUnknown) {
		return
	}
	must(u.t, err)
	for _, identities := range u.rows {
		for _, id := range identities.Values {
			if other, err := p.Find(id); err == nil && other == secret {
				u.erased[aliasText(id)] = len(u.rows)
			}
		}
	}
	_, err = p.Erase(u.t.Context(), secret.ID, pseudonymize.Issue(u.ring, keyring.Analytics, keyring.Engine("tutor")))
	must(u.t, err)
	u.drain()
}

// check compares what a reader of a topic has with what was pushed and what the
// registry says.
func (u *upheaval) check(topic string, purpose keyring.Purpose) {
	u.t.Helper()
	p := u.open()
	rows, commands := u.follow(u.t, topic)
	tokens := tokenizer(u.t, u.ring, purpose, p.State().Epoch())
	want, gone := 0, 0
	for message, identities := range u.rows {
		for row := range identities.Codes {
			id := *identities.At(row)
			if at, ok := u.erased[aliasText(id)]; ok && message < at {
				gone++
				continue
			}
			want++
			secret, err := p.Find(id)
			must(u.t, err)
			if !rows[tokens.Token(&secret)][rowName{message, row}] {
				u.t.Fatalf("%s: row %d of message %d is not under its learner's token", topic, row, message)
			}
		}
	}
	total := 0
	for _, some := range rows {
		total += len(some)
	}
	u.t.Logf("%s: %d rows, %d erased, %d commands", topic, total, gone, commands)
	if total != want {
		u.t.Errorf("%s: %d rows are stored, want %d: erased rows or rows of a former epoch are left", topic, total, want)
	}
}

// TestCommandsKeepRowsWithTheirLearners: whatever happens to learners and keys,
// and wherever the stage dies, a reader who stores rows and follows the commands
// has every row once, under the token that its learner has in the end, and none
// of an erased learner.
func TestCommandsKeepRowsWithTheirLearners(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	d.engines = []pseudonymize.EngineTopic{d.engineTopic(t, "tutor", func(string) bool { return true })}
	u := &upheaval{deployment: d, t: t, r: r, erased: make(map[string]int)}
	u.push(4)
	for range 10 {
		u.push(1 + r.IntN(4))
		switch r.IntN(5) {
		case 0, 1:
			u.merge()
		case 2:
			_, err := d.ring.Rotate()
			must(t, err)
		case 3:
			u.erase()
		}
		if r.IntN(2) == 0 {
			u.drain()
		}
	}
	u.merge()
	_, err := d.ring.Rotate()
	must(t, err)
	u.push(2)
	u.drain()
	u.check(d.topics.Answers, keyring.Analytics)
	u.check(d.engines[0].Topic, keyring.Engine("tutor"))
	state := u.open().State()
	if epoch, _ := state.MovedTo(); epoch != state.Epoch() || epoch != d.ring.Primary() {
		t.Errorf("rows are moved to epoch %d, the registry is at %d, the keyset at %d", epoch, state.Epoch(), d.ring.Primary())
	}
}

// TestRebuildIsPassedOnOnce kills the stage after each message that it writes around
// orders to switch to a rebuild. Each is in the topic of answers once, at its
// place and with its number; engines get an empty message.
func TestRebuildIsPassedOnOnce(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	d.mint = mintOf
	d.engines = []pseudonymize.EngineTopic{d.engineTopic(t, "snappet", func(string) bool { return true })}
	numbers := map[int64]int64{} // of rebuilds, by offset in raw
	order := func(number uint64) {
		offset, err := transform.OrderRebuild(t.Context(), d.client, d.topics, thePart, number)
		must(t, err)
		numbers[offset] = int64(number)
	}
	order(6)
	d.push(t, r, thePart, 1)
	order(7)
	order(8)
	d.push(t, r, thePart, 1)
	// Nothing but the number goes on of an order, nothing at all of one without.
	canary := stream.Header{Key: "learner", Value: []byte("las-12AB00-4711")}
	schema := stream.Header{Key: stream.HeaderSchema, Value: []byte(answer.SchemaRebuild)}
	numbers[5], numbers[6] = 9, -1
	d.send(t, thePart, stream.Message{Value: canary.Value, Headers: []stream.Header{schema, canary, stream.Int64Header(answer.HeaderRebuild, 9)}},
		stream.Message{Headers: []stream.Header{schema, {Key: answer.HeaderRebuild, Value: canary.Value}}})
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	want := d.dropRepeats(t, d.read(t, d.topics.Answers, thePart))
	for i := range want {
		number, err := want[i].Int64(answer.HeaderRebuild)
		if err != nil {
			number = -1
		}
		isOrder := string(want[i].Header(stream.HeaderSchema)) == answer.SchemaRebuild
		if ordered, ok := numbers[int64(i)]; isOrder != ok || ok && number != ordered {
			t.Errorf("raw offset %d: an order is %v, number %d (%v), want %v, %d", i, isOrder, number, err, ok, ordered)
		}
		for _, h := range append(want[i].Headers, stream.Header{Value: want[i].Value}) {
			if h.Key == canary.Key || strings.Contains(string(h.Value), string(canary.Value)) {
				t.Errorf("raw offset %d passes on what was not its number", i)
			}
		}
	}
	// What one life has written the next finds, so the stage gets further each time.
	deadly := "engine written"
	crashes := d.crashAndCompare(t, r, "every message written", want, 100, func(step string, _ int) bool {
		if step != deadly {
			return false
		}
		deadly = map[string]string{"engine written": "answers written", "answers written": "engine written"}[step]
		return true
	})
	if crashes != 2*len(want) {
		t.Errorf("%d crashes, want one after each message to the engine and to answers: %d", crashes, 2*len(want))
	}
	engine := d.dropRepeats(t, d.read(t, d.engines[0].Topic, thePart))
	for offset := range numbers {
		var c answer.Commands
		must(t, new(answer.Decoder).Commands(engine[offset].Value, &c))
		if !isCommands(engine[offset]) || c.Rows != 0 {
			t.Errorf("the engine's message %d orders %d things, want an empty message", offset, c.Rows)
		}
	}
}

// TestPlacesThatNobodyNeeds: messages that make a place, written by anybody, give
// empty messages and nothing else.
func TestPlacesThatNobodyNeeds(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	place := stream.Message{Value: []byte("whatever"), Headers: []stream.Header{{Key: stream.HeaderSchema, Value: []byte(pseudonymize.SchemaOrder)}}}
	d.send(t, thePart, place, place)
	l := d.push(t, r, thePart, 3)
	d.send(t, thePart, place)
	s := d.stage(t)
	must(t, work(t.Context(), d, s, thePart, r))
	messages := d.dropRepeats(t, d.read(t, d.topics.Answers, thePart))
	var decoder answer.Decoder
	for _, i := range []int{0, 1, 5} {
		var c answer.Commands
		if !isCommands(messages[i]) {
			t.Fatalf("message %d is no message of commands", i)
		}
		if must(t, decoder.Commands(messages[i].Value, &c)); c.Rows != 0 {
			t.Errorf("message %d orders %d things, want none", i, c.Rows)
		}
	}
	d.checkAnswers(t, l, messages, 1)
	if c := s.Counts(); c.Messages != 6 || c.Orders != 0 || c.DeadLetters != 0 {
		t.Errorf("Counts = %+v, want 6 messages and nothing else", c)
	}
}

// TestSealingKeyRotatesWithoutARestart: a running stage looks for the key of a
// message that it can't open, and dead letters are sealed for the newest.
func TestSealingKeyRotatesWithoutARestart(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	next, err := seal.GenerateKey()
	must(t, err)
	keys := []*seal.PrivateKey{d.key}
	letters, err := seal.NewSealer(seal.SealerConfig{Recipient: next.Public()})
	must(t, err)
	s, err := pseudonymize.NewStage(pseudonymize.StageConfig{Client: d.client, Topics: d.topics, Partitions: partitions, Ring: d.ring, Vault: d.vault(t),
		PrivateKeys: []*seal.PrivateKey{d.key}, LetterSealer: letters, ReloadKeys: func() ([]*seal.PrivateKey, error) { return keys, nil }})
	must(t, err)
	l := d.push(t, r, thePart, 3)
	d.sealFor(t, next)
	late := makeAnswers(r, thePart, 5, 5)
	d.send(t, thePart, d.sealAnswers(t, thePart, late))
	if err := work(t.Context(), d, s, thePart, r); !errors.Is(err, pseudonymize.ErrKey) {
		t.Errorf("work without the new key = %v, want %v", err, pseudonymize.ErrKey)
	}
	keys = append(keys, next)
	d.send(t, thePart, stream.Message{Value: []byte("poison"), Headers: []stream.Header{{Key: stream.HeaderSchema, Value: []byte(raw.SchemaAnswers)}}})
	must(t, work(t.Context(), d, s, thePart, r))
	l.answers[l.n] = late
	l.n += 2
	d.checkAnswers(t, l, d.read(t, d.topics.Answers, thePart))
	for _, m := range d.read(t, d.topics.DeadLetters, thePart) {
		if id, ok := seal.RecipientOf(m.Value); !ok || id != next.Public().ID() {
			t.Errorf("a dead letter is sealed for %v, want the newest key", id)
		}
	}
}

// TestErasedBytesLeaveTheDisk: after an erasure, a purge and a trim of the log,
// neither table nor log can be made to tell who the learner was, even with every
// key; and the registry opens as before.
func TestErasedBytesLeaveTheDisk(t *testing.T) {
	t.Parallel()
	r := repeat(t)
	d := deploy(t)
	d.push(t, r, thePart, 5)
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	owner, err := d.vault(t).Open(t.Context(), thePart, vault.Own)
	must(t, err)
	var all []raw.Identity
	must(t, owner.ReadableAliases(t.Context(), func(a *raw.Identity, _ vault.Learner) error { all = append(all, *a); return nil }))
	victim, witness := all[0], all[1]
	before, err := owner.Find(victim)
	must(t, err)
	kept, err := owner.Find(witness)
	must(t, err)
	_, err = owner.Erase(t.Context(), before.ID, pseudonymize.Issue(d.ring, keyring.Analytics))
	must(t, err)
	must(t, work(t.Context(), d, d.stage(t), thePart, r))
	if u := (&upheaval{deployment: d, t: t, r: r}); u.open().State().Unannounced() {
		t.Error("the erasure is not announced")
	}
	reader, err := d.vault(t).Open(t.Context(), thePart, vault.Follow)
	must(t, err)
	must(t, reader.Purge(t.Context()))
	if _, err := d.vault(t).TrimLog(t.Context(), thePart); err != nil {
		t.Fatal(err)
	}
	if n := len(d.read(t, d.topics.Registry, thePart)); n != 0 {
		t.Errorf("%d messages of the registry's log are left", n)
	}
	again, err := d.vault(t).Open(t.Context(), thePart, vault.Own)
	must(t, err)
	if _, err := again.Find(victim); !errors.Is(err, vault.ErrUnknown) {
		t.Errorf("Find of the erased learner = %v, want %v", err, vault.ErrUnknown)
	}
	if got, err := again.Find(witness); err != nil || got != kept {
		t.Errorf("another learner changed (%v)", err)
	}
	must(t, again.ReadableAliases(t.Context(), func(a *raw.Identity, _ vault.Learner) error {
		if *a == victim {
			t.Error("the table still opens to the erased alias")
		}
		return nil
	}))
	var rows uint64 // physical ones, replaced versions included
	must(t, d.conn.QueryRow(t.Context(), "SELECT count() FROM "+d.database+".identities WHERE kind = 'learner' AND key = unhex('"+fmt.Sprintf("%x", before.ID[:])+"')").Scan(&rows))
	if rows != 1 {
		t.Errorf("the table holds %d rows of the learner, want the one without salt", rows)
	}
}
