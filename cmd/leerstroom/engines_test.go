package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// change replaces the configuration file, as an editor does.
func (s *system) change(edit func(config map[string]any)) {
	s.t.Helper()
	text, err := os.ReadFile(s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(text, &config); err != nil {
		s.t.Fatal(err)
	}
	edit(config)
	if text, err = yaml.Marshal(config); err == nil {
		err = errors.Join(os.WriteFile(s.config()+".new", text, 0o600), os.Rename(s.config()+".new", s.config()))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// kafka connects to the broker of the running system, until the test ends.
func (s *system) kafka() *stream.Client {
	s.t.Helper()
	engines, err := engine.Attach(engine.Config{DataDir: s.data()})
	if err != nil {
		s.t.Fatal(err)
	}
	client, err := stream.NewClient(stream.Config{Brokers: engines.Brokers})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	return client
}

// partitionsOfSystem is what newSystem configures.
const partitionsOfSystem = 8

// messages returns what a partition of a topic holds.
func messages(t *testing.T, client *stream.Client, topic string, partition int) (all []stream.Message) {
	t.Helper()
	next, end, err := client.Offsets(t.Context(), topic, partition)
	if err != nil {
		t.Fatal(err)
	}
	var batch stream.Batch
	for next < end {
		if err := client.Fetch(t.Context(), topic, partition, next, time.Second, &batch); err != nil {
			t.Fatal(err)
		}
		for _, m := range batch.Messages {
			m.Value, m.Headers = bytes.Clone(m.Value), slices.Clone(m.Headers)
			for i := range m.Headers {
				m.Headers[i].Value = bytes.Clone(m.Headers[i].Value)
			}
			all = append(all, m)
			next = m.Offset + 1
		}
	}
	return all
}

// rowsOf returns the rows of answers in a topic by school, and all tokens and
// event ids.
func rowsOf(t *testing.T, client *stream.Client, topic string) (rows map[string]int, tokens map[answer.Token]bool, events map[answer.EventID]bool) {
	t.Helper()
	rows, tokens, events = map[string]int{}, map[answer.Token]bool{}, map[answer.EventID]bool{}
	var decoder answer.Decoder
	for partition := range partitionsOfSystem {
		for _, m := range messages(t, client, topic, partition) {
			var c answer.Columns
			if err := decoder.Answers(m.Value, &c); err != nil {
				t.Fatal(err)
			}
			for row := range c.Rows {
				rows[c.School.At(row)]++
				events[c.EventID[row]] = true
			}
			for _, token := range c.Learner.Values {
				tokens[token] = true
			}
		}
	}
	return rows, tokens, events
}

// deliver sends one answer of each of some learners of a school and returns when
// the engine's topic has a message for each one of raw.
func (s *system) deliver(client *stream.Client, school, round string, learners int, topic string) {
	s.t.Helper()
	publisher := s.population.Authorisations()[school][0]
	var body bytes.Buffer
	for learner := range learners {
		s.line(&body, map[string]any{"id": fmt.Sprint(round, "-", learner), "publisher": publisher, "school": school,
			"learner": map[string]string{"scheme": "las", "value": fmt.Sprint("L-", learner)}, "group": "5A", "year_group": 5, "exercise": "o1",
			"goal": "optellen", "subject": "rekenen", "kind": "practice", "score": 1, "attempt": 1, "answered_at": time.Now().Add(-time.Hour).Format(time.RFC3339)})
	}
	s.post(&hunt{t: s.t}, "/v1/answers", s.publishers[publisher], body.Bytes())
	enginetest.Eventually(s.t, 2*time.Minute, "the engine's topic follows raw", func() error {
		for partition := range partitionsOfSystem {
			_, want, err := client.Offsets(s.t.Context(), "raw", partition)
			if err != nil {
				return err
			}
			if _, got, err := client.Offsets(s.t.Context(), topic, partition); err != nil || got < want {
				return fmt.Errorf("partition %d: %d of %d messages (%v)", partition, got, want, err)
			}
		}
		return nil
	})
}

// importRoster teaches the running system what a school's roster says.
func (s *system) importRoster(school string, lines []vault.RosterLine) {
	s.t.Helper()
	config, err := loadConfiguration(s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := attachDeployment(s.t.Context(), config, layout{s.data()}, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	identities, _, err := d.openVault()
	var registry *vault.Partition
	if err == nil {
		registry, err = identities.Open(s.t.Context(), answer.PartitionOf(school, config.Topics.Partitions), vault.Follow)
	}
	if err == nil {
		_, err = registry.ImportRoster(s.t.Context(), lines)
	}
	if err = errors.Join(err, d.close()); err != nil {
		s.t.Fatal(err)
	}
}

func lasAlias(school, value string) vault.Alias {
	return vault.Alias{School: school, Identifier: raw.Identifier{Scheme: raw.SchemeLAS, Value: value}}
}

// tokensOf asks for tokens of learners as an engine.
func (s *system) tokensOf(key, school string, learners int) (tokens []*string, err error) {
	s.t.Helper()
	var identifiers []map[string]string
	for learner := range learners {
		identifiers = append(identifiers, map[string]string{"scheme": "las", "value": fmt.Sprint("L-", learner)})
	}
	body, err := json.Marshal(map[string]any{"school": school, "identifiers": identifiers})
	if err != nil {
		return nil, err
	}
	text, err := s.send(http.MethodPost, "/v1/pseudonyms", key, "application/json", body)
	if err != nil {
		return nil, err
	}
	var reply struct{ Tokens []*string }
	err = json.Unmarshal(text, &reply)
	return reply.Tokens, err
}

// TestEngineOfAnotherParty: an engine reads the answers of the schools that
// authorise it in a topic of its own, under the tokens that the interface gives
// it and nobody else; a withdrawal ends that from the next message on.
func TestEngineOfAnotherParty(t *testing.T) {
	t.Parallel()
	const learners = 6
	s := newSystem(t, newPopulation(t, 3, learners))
	schools := slices.Sorted(maps.Keys(s.population.Authorisations()))
	allowing, other := schools[0], schools[1]
	allow := func(engines ...string) {
		s.change(func(config map[string]any) { config["engine_authorisations"].(map[string]any)[allowing] = engines })
	}
	s.change(func(config map[string]any) {
		config["engines"] = []map[string]string{{"name": "rival"}}
		delete(config, "identities") // tokens for learners of rosters only
	})
	allow("tutor", "rival")
	rival := strings.TrimSpace(s.must("apikey", "create", "--role", "engine", "--engine", "rival", "--data", s.data()))
	s.up()
	client := s.kafka()
	const topic = "engine-rival"
	var roster []vault.RosterLine
	for learner := range learners {
		roster = append(roster, vault.RosterLine{Aliases: []vault.Alias{lasAlias(allowing, fmt.Sprint("L-", learner))}})
	}
	s.importRoster(allowing, roster)
	s.deliver(client, allowing, "first", learners, topic)
	s.deliver(client, other, "first", learners, topic)
	check := func(want int) {
		t.Helper()
		rows, _, _ := rowsOf(t, client, topic)
		if rows[allowing] != want || len(rows) != 1 {
			t.Errorf("the engine has rows %v, want %d of %s only", rows, want, allowing)
		}
	}
	check(learners)
	_, tokens, events := rowsOf(t, client, topic)
	all, analytics, ours := rowsOf(t, client, "answers")
	if all[allowing] != learners || all[other] != learners || len(analytics) != 2*learners {
		t.Fatalf("answers has rows %v and %d tokens", all, len(analytics))
	}
	for token := range tokens {
		if analytics[token] {
			t.Error("the engine has a token of the analytics tables")
		}
	}
	for event := range events {
		if ours[event] {
			t.Error("the engine has an event id of the analytics tables")
		}
	}
	var asked []*string
	enginetest.Eventually(t, time.Minute, "tokens for the engine", func() error {
		var err error
		if asked, err = s.tokensOf(rival, allowing, learners); err == nil && slices.Contains(asked, nil) {
			err = errNotYet
		}
		return err
	})
	for _, text := range asked {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(tokens)), func(token answer.Token) bool { return token.String() == *text }) {
			t.Error("the interface gives the engine a token that its topic doesn't have")
		}
	}
	own, err := s.tokensOf(s.engineKey, allowing, learners)
	if err != nil || slices.ContainsFunc(own, func(text *string) bool {
		return text == nil || slices.ContainsFunc(asked, func(other *string) bool { return *other == *text })
	}) {
		t.Errorf("two engines share a token, or one has none (%v)", err)
	}
	if strangers, err := s.tokensOf(s.engineKey, other, learners); err != nil || slices.ContainsFunc(strangers, func(text *string) bool { return text != nil }) {
		t.Errorf("learners that no roster knows have tokens (%v)", err)
	}
	allow("tutor")
	if _, err := s.tokensOf(rival, allowing, learners); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("pseudonyms after the withdrawal: %v, want 403", err)
	}
	s.deliver(client, allowing, "second", learners, topic)
	check(learners)
	allow("tutor", "rival")
	s.deliver(client, allowing, "third", learners, topic)
	check(2 * learners)
	s.terminate()
}
