package bench

import (
	"iter"

	"github.com/ClickHouse/ch-go/proto"
)

// readyColumns are rows of the table answers as plain Go columns: what is left
// to do for somebody who only has to insert them. Ids and tokens are random
// bytes of the right width, a token per learner.
type readyColumns struct {
	id, learner                                       [][16]byte
	publisher, school, group, exercise, goal, subject []string
	keyEpoch                                          []uint32
	yearGroup                                         []uint8
	kind                                              []int8
	score                                             []float64
	attempt                                           []uint16
	responseTime                                      []*int32 // nil = unknown
	answeredAt                                        []int64
	revision                                          []uint32
	partition                                         []uint16
	position                                          []uint64
}

func (c *readyColumns) rows() int { return len(c.id) }

// appendRows adds simulated rows; base numbers the first one.
func (c *readyColumns) appendRows(p *Population, rows []Row, base uint64) {
	for i := range rows {
		r := &rows[i]
		item, learner := &p.Items[r.Item], &p.Learners[r.Learner]
		goal := &p.Goals[item.Goal]
		n := base + uint64(i)
		c.id = append(c.id, p.bytes16(drawOwn, n))
		c.learner = append(c.learner, p.bytes16(drawECK, uint64(r.Learner)))
		c.publisher = append(c.publisher, p.Publishers[item.Publisher].ID)
		c.school = append(c.school, p.Schools[learner.School].Code)
		c.group = append(c.group, learner.Group)
		c.exercise = append(c.exercise, item.Exercise)
		c.goal = append(c.goal, goal.Key)
		c.subject = append(c.subject, p.Subjects[goal.Subject])
		c.keyEpoch = append(c.keyEpoch, 1)
		c.yearGroup = append(c.yearGroup, learner.YearGroup)
		c.kind = append(c.kind, 1)
		score := 0.0
		if r.Right {
			score = 1
		}
		c.score = append(c.score, score)
		c.attempt = append(c.attempt, r.Attempt)
		var responseTime *int32
		if r.ResponseTime >= 0 {
			responseTime = &r.ResponseTime
		}
		c.responseTime = append(c.responseTime, responseTime)
		c.answeredAt = append(c.answeredAt, r.AnsweredAt)
		c.revision = append(c.revision, 0)
		c.partition = append(c.partition, uint16(learner.School%64))
		c.position = append(c.position, n)
	}
}

func (p *Population) bytes16(kind, key uint64) (b [16]byte) {
	h := p.hash(kind, key)
	for i, v := range [2]uint64{h, mix(h)} {
		for j := range 8 {
			b[8*i+j] = byte(v >> (8 * j))
		}
	}
	return b
}

// readyBatches cuts the answers of a workload, in the order in which schools
// deliver them slot by slot, into batches of about batchRows. Each batch is the
// caller's to keep.
func readyBatches(w *Workload, batchRows int) iter.Seq[*readyColumns] {
	return func(yield func(*readyColumns) bool) {
		current := &readyColumns{}
		n := uint64(0)
		for rows := range slots(w) {
			current.appendRows(w.Population, rows, n)
			n += uint64(len(rows))
			if current.rows() >= batchRows {
				if !yield(current) {
					return
				}
				current = &readyColumns{}
			}
		}
		if current.rows() > 0 {
			yield(current)
		}
	}
}

// slots yields the rows of all schools, slot after slot. Each slice is the
// caller's to keep.
func slots(w *Workload) iter.Seq[[]Row] {
	return func(yield func([]Row) bool) {
		var open []*SchoolStream
		for s := range w.Population.Schools {
			open = append(open, w.School(s))
		}
		for len(open) > 0 {
			kept := open[:0]
			for _, s := range open {
				rows, more := s.NextSlot(nil)
				if len(rows) > 0 && !yield(rows) {
					return
				}
				if more {
					kept = append(kept, s)
				}
			}
			open = kept
		}
	}
}

// input makes the columns of the fastest driver of them.
func (c *readyColumns) input() proto.Input {
	word := func(values []string) *proto.ColLowCardinality[string] {
		column := new(proto.ColStr).LowCardinality()
		for _, v := range values {
			column.Append(v)
		}
		return column
	}
	responseTime := new(proto.ColInt32).Nullable()
	for _, v := range c.responseTime {
		if v == nil {
			responseTime.Append(proto.Null[int32]())
		} else {
			responseTime.Append(proto.NewNullable(*v))
		}
	}
	kind := proto.ColInt8(c.kind)
	answeredAt := millis{proto.ColInt64(c.answeredAt)}
	fixed := func(values [][16]byte) *proto.ColFixedStr16 { column := proto.ColFixedStr16(values); return &column }
	keyEpoch, revision := proto.ColUInt32(c.keyEpoch), proto.ColUInt32(c.revision)
	yearGroup, score := proto.ColUInt8(c.yearGroup), proto.ColFloat64(c.score)
	attempt, partition, position := proto.ColUInt16(c.attempt), proto.ColUInt16(c.partition), proto.ColUInt64(c.position)
	return proto.Input{
		{Name: "id", Data: fixed(c.id)}, {Name: "learner", Data: fixed(c.learner)}, {Name: "key_epoch", Data: &keyEpoch},
		{Name: "publisher", Data: word(c.publisher)}, {Name: "school", Data: word(c.school)}, {Name: "group", Data: word(c.group)},
		{Name: "year_group", Data: &yearGroup}, {Name: "exercise", Data: word(c.exercise)}, {Name: "goal", Data: word(c.goal)},
		{Name: "subject", Data: word(c.subject)}, {Name: "kind", Data: enum8{kind}}, {Name: "score", Data: &score},
		{Name: "attempt", Data: &attempt}, {Name: "response_time_ms", Data: responseTime}, {Name: "answered_at", Data: answeredAt},
		{Name: "revision", Data: &revision}, {Name: "source_partition", Data: &partition}, {Name: "position", Data: &position},
	}
}

// millis and enum8 spell the exact types of the table, so that the server
// converts nothing.
type millis struct{ proto.ColInt64 }

func (millis) Type() proto.ColumnType { return "DateTime64(3, 'UTC')" }

type enum8 struct{ proto.ColInt8 }

func (enum8) Type() proto.ColumnType {
	return "Enum8('unknown' = 0, 'practice' = 1, 'test' = 2, 'tracking' = 3)"
}
