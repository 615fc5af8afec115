package fault

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// rows runs a query over HTTP and returns its rows as texts.
func (d *deployment) rows(ctx context.Context, query string) ([][]string, error) {
	c := &d.store.ClickHouse
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.HTTPAddress+"/?database="+database, strings.NewReader(query+" FORMAT TabSeparated"))
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(c.User, c.Password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask clickhouse: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask clickhouse: %s, %w: %.500s", response.Status, err, body)
	}
	var rows [][]string
	for line := range strings.Lines(string(body)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows, nil
}

// archive is what the archive must hold by what publishers were told: every event
// that was ever acknowledged, in its newest revision. It knows which learners are
// one, and says nothing of those who were erased: whether an answer came before
// the erasure is known to the log alone.
type archive struct {
	digester *pseudonymize.EventDigester
	answers  map[string]event // by id, hexadecimal
	tests    map[string]event
	same     map[string]string   // learner → learner that it was merged into
	erased   map[string]bool     // learners who were ever erased, merged ones by the last
	whose    map[string][]string // by id: everybody whom a revision of the event belongs to
}

func newArchive(ring *keyring.Ring) (*archive, error) {
	digester, err := pseudonymize.NewEventDigester(ring, keyring.Event)
	return &archive{digester: digester, answers: make(map[string]event), tests: make(map[string]event), same: make(map[string]string), erased: make(map[string]bool),
		whose: make(map[string][]string)}, err
}

// expect notes acknowledged events.
func (a *archive) expect(events []event) {
	for _, e := range events {
		id := a.digester.ID(e.publisher, []byte(e.id))
		into := a.answers
		if e.test {
			into = a.tests
		}
		key := hex.EncodeToString(id[:])
		a.whose[key] = append(a.whose[key], e.who())
		if old, known := into[key]; !known || old.revision < e.revision {
			into[key] = e
		}
	}
}

// learner returns the one that a learner has become.
func (a *archive) learner(who string) string {
	for a.same[who] != "" {
		who = a.same[who]
	}
	return who
}

// merge notes that two learners are one.
func (a *archive) merge(from, into string) {
	from, into = a.learner(from), a.learner(into)
	if from != into {
		a.same[from] = into
		a.erased[into] = a.erased[into] || a.erased[from]
	}
}

// gone tells whether anybody whom an event belonged to was ever erased.
func (a *archive) gone(id string) bool {
	return slices.ContainsFunc(a.whose[id], func(who string) bool { return a.erased[a.learner(who)] })
}

const (
	answersQuery = "SELECT lower(hex(id)), lower(hex(learner)), publisher, school, `group`, year_group, exercise, goal, subject, reinterpretAsUInt64(score), attempt, " +
		"ifNull(response_time_ms, -1), toUnixTimestamp64Milli(answered_at), revision FROM answers FINAL"
	testsQuery = "SELECT lower(hex(id)), lower(hex(learner)), publisher, school, `group`, year_group, test, subject, reinterpretAsUInt64(assumeNotNull(score)), " +
		"reinterpretAsUInt64(assumeNotNull(max_score)), toString(taken_on), revision FROM test_results FINAL"
)

// compare reads both archives and returns what is wrong with them.
func (a *archive) compare(ctx context.Context, d *deployment) (problems []string, err error) {
	tokens := &bijection{tokenOf: make(map[string]string), learnerOf: make(map[string]string)}
	for query, want := range map[string]map[string]event{answersQuery: a.answers, testsQuery: a.tests} {
		rows, err := d.rows(ctx, query)
		if err != nil {
			return nil, err
		}
		problems = append(problems, a.compareRows(rows, want, tokens)...)
	}
	return problems, nil
}

func (a *archive) compareRows(rows [][]string, want map[string]event, tokens *bijection) (problems []string) {
	seen := make(map[string]bool, len(rows))
	for _, row := range rows {
		id, token := row[0], row[1]
		e, known := want[id]
		switch {
		case !known:
			problems = append(problems, "the archive holds an event that nobody sent")
			continue
		case a.gone(id):
			continue
		case seen[id]:
			problems = append(problems, "the archive holds event "+e.id+" twice")
			continue
		}
		seen[id] = true
		if got, want := strings.Join(row[2:], " "), e.archived(); got != want {
			problems = append(problems, fmt.Sprintf("event %s is archived as %s, was sent as %s", e.id, got, want))
		}
		problems = append(problems, tokens.note(a.learner(e.who()), token)...)
	}
	missing, due := 0, 0
	for id := range want {
		if a.gone(id) {
			continue
		}
		due++
		if !seen[id] {
			missing++
		}
	}
	if missing > 0 {
		problems = append(problems, fmt.Sprintf("%d of %d acknowledged events are not in the archive", missing, due))
	}
	return problems
}

// bijection says which token a learner has.
type bijection struct{ tokenOf, learnerOf map[string]string }

func (b *bijection) note(who, token string) (problems []string) {
	if other, ok := b.tokenOf[who]; ok && other != token {
		problems = append(problems, fmt.Sprintf("learner %s has two tokens, %.8s and %.8s", who, other, token))
	}
	if other, ok := b.learnerOf[token]; ok && other != who {
		problems = append(problems, "learners "+who+" and "+other+" share a token")
	}
	b.tokenOf[who], b.learnerOf[token] = token, who
	return problems
}

// archived is how the archive shows an event.
func (e *event) archived() string {
	if e.test {
		return strings.Join([]string{e.publisher, e.school, e.group, strconv.Itoa(e.yearGroup), e.exercise, e.subject, bits(e.score), bits(20), e.day(), strconv.Itoa(e.revision)}, " ")
	}
	return strings.Join([]string{e.publisher, e.school, e.group, strconv.Itoa(e.yearGroup), e.exercise, e.goal, e.subject, bits(e.score), strconv.Itoa(e.attempt),
		strconv.Itoa(e.responseTime), strconv.FormatInt(e.answeredAt, 10), strconv.Itoa(e.revision)}, " ")
}
