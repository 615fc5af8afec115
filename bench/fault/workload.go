package fault

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// The simulated publishers and the schemes under which they know learners.
var (
	publishers = []string{"bingel", "taalpad"}
	schemeOf   = map[string]string{"bingel": "las", "taalpad": "publisher"}
)

const (
	schools  = 6
	learners = 10 // of a school
)

// event is one answer as a publisher sends it.
type event struct {
	publisher, school, id, learner string
	group                          string
	yearGroup                      int
	exercise, goal, subject        string
	score                          float64
	attempt                        int
	responseTime                   int // ms, -1 = unknown
	answeredAt                     int64
}

// line renders an event as a line of POST /v1/answers.
func (e *event) line(dst []byte) []byte {
	dst = fmt.Appendf(dst, `{"id":%q,"publisher":%q,"school":%q,"learner":{"scheme":%q,"value":%q},"group":%q,"year_group":%d,"exercise":%q,"goal":%q,"subject":%q,"kind":"practice","score":%s,"attempt":%d`,
		e.id, e.publisher, e.school, schemeOf[e.publisher], e.learner, e.group, e.yearGroup, e.exercise, e.goal, e.subject,
		strconv.FormatFloat(e.score, 'g', -1, 64), e.attempt)
	if e.responseTime >= 0 {
		dst = fmt.Appendf(dst, `,"response_time_ms":%d`, e.responseTime)
	}
	return fmt.Appendf(dst, `,"answered_at":%q}`+"\n", time.UnixMilli(e.answeredAt).UTC().Format("2006-01-02T15:04:05.000Z"))
}

// world makes the events of a campaign.
type world struct {
	random *rand.Rand
	clock  int64 // milliseconds since 1970
	made   int
}

func newWorld(seed uint64) *world {
	return &world{random: rand.New(rand.NewPCG(seed, 1)), clock: time.Date(2026, time.September, 1, 8, 0, 0, 0, time.UTC).UnixMilli()}
}

// authorisations lets every publisher deliver for every school.
func (w *world) authorisations() map[string][]string {
	all := make(map[string][]string)
	for i := range schools {
		all[schoolCode(i)] = publishers
	}
	return all
}

func schoolCode(i int) string { return fmt.Sprintf("%02dAB0%d", 10+i, i) }

// events makes answers in the order of time; one in twenty is late, some with a
// score between 0 and 1, some of a learner who has changed group.
func (w *world) events(n int) []event {
	all := make([]event, n)
	for i := range all {
		r := w.random
		w.clock += int64(r.IntN(2000))
		w.made++
		publisher, school, learner := publishers[r.IntN(2)], r.IntN(schools), r.IntN(learners)
		item := r.IntN(60)
		e := event{publisher: publisher, school: schoolCode(school), id: fmt.Sprintf("e-%d", w.made), learner: fmt.Sprintf("%s%d-%d", publisher[:1], school, learner),
			group: fmt.Sprintf("%dA", 3+learner%6), yearGroup: 3 + learner%6, exercise: fmt.Sprintf("opgave-%d", item),
			goal: fmt.Sprintf("doel-%d", item%7), subject: []string{"rekenen", "taal"}[item%7%2], attempt: 1 + r.IntN(2),
			responseTime: r.IntN(20_000), answeredAt: w.clock}
		switch k := r.IntN(20); {
		case k == 0:
			e.answeredAt -= int64(r.IntN(5_000_000))
		case k == 1:
			e.score = float64(r.IntN(5)) / 4
		case k == 2:
			e.group, e.yearGroup = "wisselgroep", 8
		case k == 3:
			e.responseTime = -1
		}
		if r.IntN(60) >= item {
			e.score = 1
		}
		all[i] = e
	}
	return all
}
