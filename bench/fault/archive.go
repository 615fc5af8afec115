package fault

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
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

// archive is what the archive must hold: every event that was ever acknowledged.
type archive struct {
	digester *pseudonymize.EventDigester
	want     map[string]event // by id, hexadecimal
}

func newArchive(ring *keyring.Ring) (*archive, error) {
	digester, err := pseudonymize.NewEventDigester(ring, keyring.Event)
	return &archive{digester: digester, want: make(map[string]event)}, err
}

// expect notes acknowledged events.
func (a *archive) expect(events []event) {
	for _, e := range events {
		id := a.digester.ID(e.publisher, []byte(e.id))
		a.want[hex.EncodeToString(id[:])] = e
	}
}

const archiveQuery = "SELECT lower(hex(id)), lower(hex(learner)), publisher, school, `group`, year_group, exercise, goal, subject, reinterpretAsUInt64(score), attempt, " +
	"ifNull(response_time_ms, -1), toUnixTimestamp64Milli(answered_at) FROM answers FINAL"

// compare reads the archive and returns what is wrong with it.
func (a *archive) compare(ctx context.Context, d *deployment) (problems []string, err error) {
	rows, err := d.rows(ctx, archiveQuery)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(rows))
	tokenOf, learnerOf := make(map[string]string), make(map[string]string)
	for _, row := range rows {
		id, token := row[0], row[1]
		e, known := a.want[id]
		switch {
		case !known:
			problems = append(problems, "the archive holds an event that nobody sent")
			continue
		case seen[id]:
			problems = append(problems, "the archive holds event "+e.id+" twice")
			continue
		}
		seen[id] = true
		if got, want := strings.Join(row[2:], " "), e.archived(); got != want {
			problems = append(problems, fmt.Sprintf("event %s is archived as %s, was sent as %s", e.id, got, want))
		}
		who := e.school + " " + e.learner
		if other, ok := tokenOf[who]; ok && other != token {
			problems = append(problems, "learner "+who+" has two tokens")
		}
		if other, ok := learnerOf[token]; ok && other != who {
			problems = append(problems, "learners "+who+" and "+other+" share a token")
		}
		tokenOf[who], learnerOf[token] = token, who
	}
	if missing := len(a.want) - len(seen); missing > 0 {
		problems = append(problems, fmt.Sprintf("%d of %d acknowledged events are not in the archive", missing, len(a.want)))
	}
	return problems, nil
}

// archived is how the archive shows an event.
func (e *event) archived() string {
	return strings.Join([]string{e.publisher, e.school, e.group, strconv.Itoa(e.yearGroup), e.exercise, e.goal, e.subject, bits(e.score), strconv.Itoa(e.attempt),
		strconv.Itoa(e.responseTime), strconv.FormatInt(e.answeredAt, 10)}, " ")
}
