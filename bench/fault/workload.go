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

// event is one answer, or one test result, as a publisher sends it.
type event struct {
	publisher, school, id, learner string
	group                          string
	yearGroup                      int
	exercise, goal, subject        string // the exercise of a test result is its test
	score                          float64
	attempt                        int
	responseTime                   int // ms, -1 = unknown
	answeredAt                     int64
	revision                       int
	test                           bool
}

// who names the learner as the school's own list would.
func (e *event) who() string { return e.school + " " + e.learner }

// line renders an event as a line of POST /v1/answers or /v1/test-results.
func (e *event) line(dst []byte) []byte {
	dst = fmt.Appendf(dst, `{"id":%q,"publisher":%q,"school":%q,"learner":{"scheme":%q,"value":%q},"group":%q,"year_group":%d,"subject":%q,"score":%s`,
		e.id, e.publisher, e.school, schemeOf[e.publisher], e.learner, e.group, e.yearGroup, e.subject, strconv.FormatFloat(e.score, 'g', -1, 64))
	if e.revision > 0 {
		dst = fmt.Appendf(dst, `,"revision":%d`, e.revision)
	}
	if e.test {
		return fmt.Appendf(dst, `,"test":%q,"max_score":20,"taken_on":%q}`+"\n", e.exercise, e.day())
	}
	dst = fmt.Appendf(dst, `,"exercise":%q,"goal":%q,"kind":"practice","attempt":%d`, e.exercise, e.goal, e.attempt)
	if e.responseTime >= 0 {
		dst = fmt.Appendf(dst, `,"response_time_ms":%d`, e.responseTime)
	}
	return fmt.Appendf(dst, `,"answered_at":%q}`+"\n", time.UnixMilli(e.answeredAt).UTC().Format("2006-01-02T15:04:05.000Z"))
}

func (e *event) day() string { return time.UnixMilli(e.answeredAt).UTC().Format(time.DateOnly) }

// world makes the events of a campaign.
type world struct {
	random  *rand.Rand
	clock   int64 // milliseconds since 1970
	made    int
	newest  map[string]event // by publisher and id: what was sent of it last
	ids     []string         // of newest, in order
	settled int              // of ids: those of earlier rounds, acknowledged since
}

func newWorld(seed uint64) *world {
	return &world{random: rand.New(rand.NewPCG(seed, 1)), clock: time.Date(2026, time.September, 1, 8, 0, 0, 0, time.UTC).UnixMilli(), newest: make(map[string]event)}
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

func learnerName(publisher string, school, learner int) string {
	return fmt.Sprintf("%s%d-%d", publisher[:1], school, learner)
}

// events makes answers in the order of time; one in twenty is late, some with a
// score between 0 and 1, some of a learner who has changed group. One event in
// twelve is a test result, one in fifteen corrects an earlier one.
func (w *world) events(n int) []event {
	all := make([]event, n)
	w.settled = len(w.ids)
	for i := range all {
		if len(w.ids) > 0 && w.random.IntN(15) == 0 {
			all[i] = w.correction()
		} else {
			all[i] = w.event()
		}
		key := all[i].publisher + " " + all[i].id
		if _, known := w.newest[key]; !known {
			w.ids = append(w.ids, key)
		}
		w.newest[key] = all[i]
	}
	return all
}

func (w *world) event() event {
	r := w.random
	w.clock += int64(r.IntN(2000))
	w.made++
	publisher, school, learner := publishers[r.IntN(2)], r.IntN(schools), r.IntN(learners)
	e := event{publisher: publisher, school: schoolCode(school), id: fmt.Sprintf("e-%d", w.made), learner: learnerName(publisher, school, learner),
		group: fmt.Sprintf("%dA", 3+learner%6), yearGroup: 3 + learner%6, attempt: 1 + r.IntN(2), responseTime: r.IntN(20_000), answeredAt: w.clock}
	if r.IntN(12) == 0 {
		e.test, e.exercise, e.subject, e.score = true, fmt.Sprintf("toets-%d", r.IntN(5)), "rekenen", float64(r.IntN(20))
		return e
	}
	item := r.IntN(60)
	e.ask(item)
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
	return e
}

// ask makes an event one about an exercise.
func (e *event) ask(item int) {
	e.exercise, e.goal, e.subject = fmt.Sprintf("opgave-%d", item), fmt.Sprintf("doel-%d", item%7), []string{"rekenen", "taal"}[item%7%2]
}

// correction makes the next revision of an event: another score, often another
// exercise. What is there for sure may also come to stand at another moment or
// with another learner of the school; before that an original that is late would
// count as another answer.
func (w *world) correction() event {
	r := w.random
	from := len(w.ids)
	certain := w.settled > 0 && r.IntN(2) == 0
	if certain {
		from = w.settled
	}
	e := w.newest[w.ids[r.IntN(from)]]
	e.revision++
	if e.test {
		e.score = float64(r.IntN(20))
		if certain && r.IntN(3) == 0 {
			e.answeredAt -= 86_400_000
		}
		return e
	}
	e.score = 1 - e.score
	switch k := r.IntN(6); {
	case k < 2:
		e.ask(r.IntN(60))
	case k == 2 && certain:
		e.answeredAt -= int64(r.IntN(3_600_000))
	case k == 3 && certain:
		school := 0
		for i := range schools {
			if schoolCode(i) == e.school {
				school = i
			}
		}
		e.learner = learnerName(e.publisher, school, r.IntN(learners))
	}
	return e
}
