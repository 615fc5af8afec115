package bench

import (
	"strconv"
)

// lineWriter renders rows of a population as the lines of POST /v1/answers and
// POST /v1/test-results. What depends on the exercise only is rendered once.
type lineWriter struct {
	p         *Population
	exercises []string // per item, from `,"exercise":` to the subject
	heads     []string // per publisher, `{"id":"a-` … up to the school's code
	date      [10]byte // YYYY-MM-DD of day
	day       int64
	offset    int64 // minutes east of UTC on day
	zone      string
}

func newLineWriter(p *Population) *lineWriter {
	w := &lineWriter{p: p, day: -1}
	w.exercises = make([]string, len(p.Items))
	for i := range p.Items {
		item := &p.Items[i]
		goal := &p.Goals[item.Goal]
		w.exercises[i] = `,"exercise":"` + item.Exercise + `","goal":"` + goal.Key +
			`","subject":"` + p.Subjects[goal.Subject] + `","kind":"practice","score":`
	}
	for i := range p.Publishers {
		w.heads = append(w.heads, `","publisher":"`+p.Publishers[i].ID+`","school":"`)
	}
	return w
}

// appendAnswer appends the line of one answer.
func (w *lineWriter) appendAnswer(dst []byte, row *Row) []byte {
	p := w.p
	learner := &p.Learners[row.Learner]
	publisher := p.Items[row.Item].Publisher
	dst = append(dst, `{"id":"`...)
	dst = appendEventID(dst, learner.School, row.Sequence)
	dst = w.appendWho(dst, learner, publisher)
	dst = append(dst, w.exercises[row.Item]...)
	if row.Right {
		dst = append(dst, '1')
	} else {
		dst = append(dst, '0')
	}
	dst = append(dst, `,"attempt":`...)
	dst = strconv.AppendUint(dst, uint64(row.Attempt), 10)
	if row.ResponseTime >= 0 {
		dst = append(dst, `,"response_time_ms":`...)
		dst = strconv.AppendInt(dst, int64(row.ResponseTime), 10)
	}
	dst = append(dst, `,"answered_at":"`...)
	dst = w.appendTime(dst, row.AnsweredAt)
	return append(dst, "\"}\n"...)
}

// appendWho continues a line after the event id: publisher, school, learner and
// group.
func (w *lineWriter) appendWho(dst []byte, learner *Learner, publisher int) []byte {
	p := w.p
	scheme := p.Publishers[publisher].Scheme
	dst = append(dst, w.heads[publisher]...)
	dst = append(dst, p.Schools[learner.School].Code...)
	dst = append(dst, `","learner":{"scheme":"`...)
	dst = append(dst, scheme...)
	dst = append(dst, `","value":"`...)
	dst = p.appendIdentifier(dst, learner.Index, scheme)
	dst = append(dst, `"},"group":"`...)
	dst = append(dst, learner.Group...)
	dst = append(dst, `","year_group":`...)
	return strconv.AppendUint(dst, uint64(learner.YearGroup), 10)
}

// appendEventID appends the id that a publisher gives an answer.
func appendEventID(dst []byte, school int, sequence uint32) []byte {
	dst = append(dst, "a-"...)
	dst = strconv.AppendUint(dst, uint64(school), 10)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, uint64(sequence), 10)
}

// appendTime appends local time with its offset, such as
// 2026-11-23T10:15:00.250+01:00.
func (w *lineWriter) appendTime(dst []byte, ms int64) []byte {
	if day := ms / dayMS; day != w.day { // school hours lie on one UTC day
		w.setDay(day)
	}
	local := ms - w.day*dayMS + w.offset*minuteMS
	dst = append(dst, w.date[:]...)
	dst = append(dst, 'T')
	dst = appendTwo(dst, local/(60*minuteMS), ':')
	dst = appendTwo(dst, local/minuteMS%60, ':')
	dst = appendTwo(dst, local/1000%60, '.')
	dst = append(dst, byte('0'+local/100%10))
	dst = appendTwo(dst, local%100, '+')
	return append(dst, w.zone...)
}

func (w *lineWriter) setDay(day int64) {
	w.day = day
	w.offset = int64(amsterdamOffset(int(day)))
	w.zone = "01:00"
	if w.offset == 120 {
		w.zone = "02:00"
	}
	appendDate(w.date[:0], day)
}

func appendDate(dst []byte, day int64) []byte {
	year, month, d := date(int(day))
	dst = strconv.AppendInt(dst, int64(year), 10)
	dst = append(dst, '-')
	dst = appendTwo(dst, int64(month), '-')
	return append(dst, byte('0'+d/10), byte('0'+d%10))
}

func appendTwo(dst []byte, v int64, after byte) []byte {
	return append(dst, byte('0'+v/10), byte('0'+v%10), after)
}
