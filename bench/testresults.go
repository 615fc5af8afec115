package bench

import (
	"math"
	"strconv"
)

// TestResult is one simulated result of a test part.
type TestResult struct {
	Learner  int32
	Sequence uint32 // number within the workload: with it the event id
	Goal     int32  // the part of the test
	Right    int32  // of testQuestions
	Day      int32  // days since 1970
	Duration int32  // seconds
}

const testQuestions = 20

// TestResults returns the first n test results of a population: one per learner
// and round, learners in order, a round every twenty school days. They are
// sent by the publisher of tests, which knows learners by the key of the school
// administration.
func (p *Population) TestResults(n int) []TestResult {
	if len(p.Learners) == 0 {
		return nil
	}
	table := newSuccessTable()
	results := make([]TestResult, 0, n)
	c := newCalendar(p.config.Start)
	for i := range n {
		if i > 0 && i%len(p.Learners) == 0 {
			for day := c.day; c.day < day+28; {
				c.next()
			}
		}
		learner := i % len(p.Learners)
		r := p.hash(drawTest, uint64(i))
		goal := yearGoal(int(r%uint64(len(p.Subjects))), p.Learners[learner].YearGroup, int(r>>8%goalsPerYear))
		limit := table.threshold(p.skill(learner, goal))
		right := int32(0)
		for q := range uint64(testQuestions) {
			if uint32(p.hash(drawTest, uint64(i)<<8|1<<40|q)) < limit {
				right++
			}
		}
		results = append(results, TestResult{
			Learner: int32(learner), Sequence: uint32(i), Goal: int32(goal), Right: right,
			Day: int32(c.day), Duration: 900 + int32(r>>16&0x3ff),
		})
	}
	return results
}

// appendTestResult appends the line of one test result.
func (w *lineWriter) appendTestResult(dst []byte, t *TestResult) []byte {
	p := w.p
	learner := &p.Learners[t.Learner]
	goal := &p.Goals[t.Goal]
	subject := p.Subjects[goal.Subject]
	dst = append(dst, `{"id":"t-`...)
	dst = strconv.AppendUint(dst, uint64(t.Sequence), 10)
	dst = w.appendWho(dst, learner, p.Schools[learner.School].Tests)
	dst = append(dst, `,"test":"`...)
	dst = append(dst, subject...)
	dst = append(dst, `-toets","test_name":"Bloktoets `...)
	dst = append(dst, subject...)
	dst = append(dst, `","subject":"`...)
	dst = append(dst, subject...)
	dst = append(dst, `","part":"`...)
	dst = append(dst, goal.Key...)
	dst = append(dst, `","path":["bloktoets","`...)
	dst = append(dst, goal.Key...)
	dst = append(dst, `"],"taken_on":"`...)
	dst = appendDate(dst, int64(t.Day))
	dst = append(dst, `","score":`...)
	dst = strconv.AppendInt(dst, int64(t.Right), 10)
	dst = append(dst, `,"max_score":20,"made":20,"right":`...)
	dst = strconv.AppendInt(dst, int64(t.Right), 10)
	dst = append(dst, `,"wrong":`...)
	dst = strconv.AppendInt(dst, int64(testQuestions-t.Right), 10)
	dst = append(dst, `,"duration_s":`...)
	dst = strconv.AppendInt(dst, int64(t.Duration), 10)
	dst = append(dst, `,"norms":[{"kind":"vaardigheidsscore","value":`...)
	dst = strconv.AppendInt(dst, int64(math.Round(float64(t.Right)*5)), 10)
	return append(dst, "}]}\n"...)
}
