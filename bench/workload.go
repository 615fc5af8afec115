package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// WorkloadConfig says how many answers a population gives and how untidily they
// arrive.
type WorkloadConfig struct {
	Answers        int     // distinct answers in all
	SessionAnswers int     // answers of a learner in one lesson slot, default 12
	LateShare      float64 // share of sessions that leave one slot later
	RepeatShare    float64 // share of sessions that are sent a second time, one slot later
}

// Validate names the field that is out of range.
func (c *WorkloadConfig) Validate() error {
	switch {
	case c.Answers < 0:
		return fmt.Errorf("workload answers: want 0 or more, got %d", c.Answers)
	case c.SessionAnswers < 0 || c.SessionAnswers > 100:
		return fmt.Errorf("workload session answers: want 0 to 100, got %d", c.SessionAnswers)
	case !(c.LateShare >= 0 && c.RepeatShare >= 0 && c.LateShare+c.RepeatShare <= 1):
		return fmt.Errorf("workload late and repeat shares: want 0 to 1 together")
	}
	return nil
}

// Row is one simulated answer. School and publisher follow from learner and
// item.
type Row struct {
	AnsweredAt   int64 // UTC ms since 1970
	Learner      int32 // index in the population
	Item         int32
	ResponseTime int32  // ms, -1 = unknown
	Sequence     uint32 // number of the answer within its school: with it the event id
	Attempt      uint16
	Right        bool
}

// Workload divides a number of answers over the schools of a population. Each
// school is an independent stream.
type Workload struct {
	Population *Population
	config     WorkloadConfig
	quota      []int // answers per school
	skip       []int // answers per school, the first ones, that are left out
	success    *successTable
}

// NewWorkload makes the workload of the configuration.
func NewWorkload(p *Population, config WorkloadConfig) (*Workload, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.SessionAnswers == 0 {
		config.SessionAnswers = 12
	}
	if config.Answers > 0 && len(p.Learners) == 0 {
		return nil, fmt.Errorf("make workload: population has no learners")
	}
	w := &Workload{Population: p, config: config, success: newSuccessTable()}
	w.quota = make([]int, len(p.Schools))
	given, learners := 0, 0
	for i := range p.Schools {
		learners += p.Schools[i].Count
		upTo := int(int64(config.Answers) * int64(learners) / int64(len(p.Learners)))
		w.quota[i] = upTo - given
		given = upTo
	}
	return w, nil
}

// Answers returns the number of distinct answers in all.
func (w *Workload) Answers() int { return w.config.Answers }

// After returns the workload without the answers of an earlier one of the same
// population and kind: what its schools answer next. Schools that are named
// answer nothing.
func (w *Workload) After(earlier *Workload, without ...int) *Workload {
	next := *w
	next.skip = earlier.quota
	next.quota = slices.Clone(w.quota)
	for _, school := range without {
		next.quota[school] = 0
	}
	return &next
}

// Quota returns the number of distinct answers of a school.
func (w *Workload) Quota(school int) int { return w.quota[school] }

// SchoolStream produces the answers of one school, a lesson slot at a time. It
// is not safe for concurrent use; streams of different schools are
// independent.
type SchoolStream struct {
	w         *Workload
	school    int
	random    rand.PCG
	calendar  calendar
	remaining int
	sequence  uint32
	done      []uint16 // [learner in school][subject][goal of its year group]: answers so far
	held      []Row    // leave at the end of the next slot
	lessons   []lesson
}

// lesson is what one learner is doing in the current slot.
type lesson struct {
	learner int32
	goal    int32
	items   []int32
	offset  uint32 // of the learner's own order of the items
	step    uint32
	done    *uint16
	skill   float64
	clock   int64
	left    int
	fate    fate
}

type fate uint8

const (
	prompt fate = iota
	late
	repeated
)

// School returns a fresh stream of the school's answers.
func (w *Workload) School(school int) *SchoolStream {
	p := w.Population
	s := &SchoolStream{
		w: w, school: school, remaining: w.quota[school],
		calendar: newCalendar(p.config.Start),
		done:     make([]uint16, p.Schools[school].Count*len(p.Subjects)*goalsPerYear),
	}
	s.random.Seed(p.hash(drawStream, uint64(school)), p.hash(drawStream, ^uint64(school)))
	return s
}

// NextSlot appends the answers that leave in the next lesson slot, in order of
// time within each group, and tells whether there may be more. In one slot a
// learner works with one publisher.
func (s *SchoolStream) NextSlot(dst []Row) ([]Row, bool) {
	held, start := s.held, len(dst)
	s.held = nil
	if s.remaining > 0 {
		for g := range s.w.Population.Schools[s.school].groups {
			dst = s.groupSlot(dst, &s.w.Population.Schools[s.school].groups[g])
		}
		s.calendar.next()
	}
	dst = append(dst, held...)
	if s.w.skip != nil {
		kept := slices.DeleteFunc(dst[start:], func(r Row) bool { return int(r.Sequence) < s.w.skip[s.school] })
		dst = dst[:start+len(kept)]
	}
	return dst, s.remaining > 0 || len(s.held) > 0
}

func (s *SchoolStream) groupSlot(dst []Row, g *group) []Row {
	p := s.w.Population
	r := s.random.Uint64()
	subject := int(r % uint64(len(p.Subjects)))
	inYear := int(r >> 8 % goalsPerYear)
	s.openLessons(g, subject, inYear)
	for active := true; active && s.remaining > 0; {
		active = false
		for i := range s.lessons {
			l := &s.lessons[i]
			if l.left == 0 || s.remaining == 0 {
				continue
			}
			l.left--
			active = true
			row := s.answer(l)
			if l.fate != late {
				dst = append(dst, row)
			}
			if l.fate != prompt {
				s.held = append(s.held, row)
			}
		}
	}
	return dst
}

// openLessons seats the learners of a group in front of a goal.
func (s *SchoolStream) openLessons(g *group, subject, inYear int) {
	p := s.w.Population
	school := &p.Schools[s.school]
	goal := yearGoal(subject, g.yearGroup, inYear)
	items := p.itemsOf[school.Practice[subject]*len(p.Goals)+goal]
	s.lessons = s.lessons[:0]
	for i := range g.count {
		learner := g.first + i
		r := s.random.Uint64()
		order := p.hash(drawStep, uint64(learner)<<16|uint64(goal))
		l := lesson{
			learner: int32(learner), goal: int32(goal), items: items,
			offset: uint32(order % uint64(len(items))), step: coprime(uint32(order>>32), uint32(len(items))),
			done:  &s.done[((learner-school.First)*len(p.Subjects)+subject)*goalsPerYear+inYear],
			skill: p.skill(learner, goal),
			clock: s.calendar.start() + int64(r&0xffff), // everybody logs in within about a minute
			left:  s.w.config.SessionAnswers/2 + int(r>>16&0xff)%(s.w.config.SessionAnswers+1),
		}
		switch share := float64(r>>32) / (1 << 32); {
		case share < s.w.config.LateShare:
			l.fate = late
		case share < s.w.config.LateShare+s.w.config.RepeatShare:
			l.fate = repeated
		}
		s.lessons = append(s.lessons, l)
	}
}

// answer draws one answer of a lesson: the next exercise in the learner's own
// order, success by the true logistic model, a log-normal response time and a
// pause after it.
func (s *SchoolStream) answer(l *lesson) Row {
	n := uint32(len(l.items))
	count := uint32(*l.done)
	*l.done++
	item := l.items[(l.offset+count%n*l.step)%n]
	r := s.random.Uint64()
	row := Row{
		Learner: l.learner, Item: item, Sequence: s.sequence,
		ResponseTime: s.w.success.responseMS[r>>32&0xff],
		Attempt:      uint16(count/n + 1),
		Right:        uint32(r) < s.w.success.threshold(l.skill-s.w.Population.Items[item].Difficulty),
	}
	l.clock += int64(row.ResponseTime) + 800 + int64(r>>40&0xfff)
	row.AnsweredAt = l.clock
	if r>>52&31 == 0 {
		row.ResponseTime = -1 // some clients do not measure it
	}
	s.sequence++
	s.remaining--
	return row
}

// coprime returns a number in 1..n-1 without a common factor with n, so that
// multiples of it visit all residues.
func coprime(seed, n uint32) uint32 {
	if n <= 2 {
		return 1
	}
	step := 1 + seed%(n-1)
	for gcd(step, n) != 1 {
		step++
	}
	return step
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// successTable holds the logistic function as thresholds of 32-bit draws, 512 to
// a logit, and 256 quantiles of the response time.
type successTable struct {
	limits     [8192]uint32
	responseMS [256]int32
}

func newSuccessTable() *successTable {
	t := new(successTable)
	for i := range t.limits {
		z := (float64(i) + 0.5 - 4096) / 512
		t.limits[i] = uint32(math.Round(math.MaxUint32 / (1 + math.Exp(-z))))
	}
	const medianMS, sd = 9000, 0.6
	for i := range t.responseMS {
		quantile := math.Sqrt2 * math.Erfinv(2*(float64(i)+0.5)/256-1)
		t.responseMS[i] = int32(math.Round(medianMS * math.Exp(sd*quantile)))
	}
	return t
}

func (t *successTable) threshold(z float64) uint32 {
	i := int(math.Floor(z*512)) + 4096
	return t.limits[min(max(i, 0), len(t.limits)-1)]
}
