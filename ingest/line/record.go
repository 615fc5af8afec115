package line

import (
	"math"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
)

// Who is what answers and test results say about origin and learner. Byte slices
// live until the parser's next line, as in the records.
type Who struct {
	ID        []byte // publisher's id of the event
	School    []byte
	Scheme    raw.Scheme
	Learner   []byte // normalised identifier
	Group     []byte // empty = unknown
	YearGroup uint8  // 0 = unknown
	Revision  uint32
}

// Answer is one valid line of answers.
type Answer struct {
	Who
	Exercise     []byte
	Goal         []byte // empty = unknown
	Subject      []byte // empty = unknown
	Kind         answer.Kind
	Score        float64
	Attempt      uint16 // 0 = unknown
	ResponseTime int32  // milliseconds, -1 = unknown
	AnsweredAt   int64  // milliseconds since 1970, UTC
}

// TestResult is one valid line of test results.
type TestResult struct {
	Who
	Test       []byte
	TestName   []byte // empty = unknown, as in the next two
	Subject    []byte
	Part       []byte
	Path       [][]byte
	TakenOn    int32   // days since 1970
	Score      float64 // NaN = unknown, as in MaxScore
	MaxScore   float64
	Made       int32 // -1 = unknown, as in the next three
	Right      int32
	Wrong      int32
	DurationS  int32
	NormKinds  [][]byte
	NormValues []float64
}

// Answer reads a line of answers. A Refusal without Rule means that it is valid.
func (p *Parser) Answer(text []byte, a *Answer) Refusal {
	if refusal := p.record(&p.answers, text); refusal.Rule != "" {
		return refusal
	}
	p.who(&a.Who)
	a.Exercise, a.Goal, a.Subject = p.textOf(answerExercise), p.textOf(answerGoal), p.textOf(answerSubject)
	a.Kind = answer.Kind(p.wholeOf(answerKind, 0))
	a.Score = p.values[answerScore].number
	a.Attempt = uint16(p.wholeOf(answerAttempt, 0))
	a.ResponseTime = int32(p.wholeOf(answerResponseTime, -1))
	a.AnsweredAt = p.wholeOf(answerAnsweredAt, 0)
	a.Revision = uint32(p.wholeOf(answerRevision, 0))
	return Refusal{}
}

// who takes what the first fields of both tables hold.
func (p *Parser) who(w *Who) {
	w.ID, w.School, w.Group = p.textOf(answerID), p.textOf(answerSchool), p.textOf(answerGroup)
	w.Scheme, w.Learner = p.scheme, p.known
	w.YearGroup = uint8(p.wholeOf(answerYearGroup, 0))
}

// textOf returns a text, nil when unknown.
func (p *Parser) textOf(i int) []byte {
	if p.set&(1<<i) == 0 {
		return nil
	}
	return p.values[i].text
}

// wholeOf returns a whole number, or what stands for unknown.
func (p *Parser) wholeOf(i int, unknown int64) int64 {
	if p.set&(1<<i) == 0 {
		return unknown
	}
	return p.values[i].integer
}

// countOf returns a count, -1 when unknown.
func (p *Parser) countOf(i int) int32 { return int32(p.wholeOf(i, -1)) }

// numberOf returns a number, NaN when unknown.
func (p *Parser) numberOf(i int) float64 {
	if p.set&(1<<i) == 0 {
		return math.NaN()
	}
	return p.values[i].number
}

// TestResult reads a line of test results. A Refusal without Rule means that it
// is valid.
func (p *Parser) TestResult(text []byte, r *TestResult) Refusal {
	if refusal := p.record(&p.results, text); refusal.Rule != "" {
		return refusal
	}
	p.who(&r.Who)
	r.Test, r.TestName, r.Subject, r.Part = p.textOf(resultTest), p.textOf(resultTestName), p.textOf(resultSubject), p.textOf(resultPart)
	r.Path, r.NormKinds, r.NormValues = p.path, p.normKinds, p.normValues
	r.TakenOn = int32(p.wholeOf(resultTakenOn, 0))
	r.Score, r.MaxScore = p.numberOf(resultScore), p.numberOf(resultMaxScore)
	r.Made, r.Right, r.Wrong = p.countOf(resultMade), p.countOf(resultRight), p.countOf(resultWrong)
	r.DurationS = p.countOf(resultDuration)
	r.Revision = uint32(p.wholeOf(resultRevision, 0))
	return r.consistent()
}

// consistent applies the rules between fields.
func (r *TestResult) consistent() Refusal {
	for _, part := range r.Path {
		if elsewhere(part, r.Learner) {
			return Refusal{"path", RuleIdentifierElsewhere}
		}
	}
	for _, kind := range r.NormKinds {
		if elsewhere(kind, r.Learner) {
			return Refusal{normKindField.name, RuleIdentifierElsewhere}
		}
	}
	switch {
	case r.Score > r.MaxScore: // false when one is unknown
		return Refusal{"score", RuleInconsistent}
	case r.Made >= 0 && max(r.Right, 0)+max(r.Wrong, 0) > r.Made:
		return Refusal{"made", RuleInconsistent}
	case math.IsNaN(r.Score) && r.Right < 0 && len(r.NormKinds) == 0:
		return Refusal{"score", RuleNoResult}
	}
	return Refusal{}
}
