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
	v := &p.values
	a.Who = Who{ID: v[answerID].text, School: v[answerSchool].text, Scheme: p.scheme, Learner: p.known,
		Group: v[answerGroup].text, YearGroup: uint8(v[answerYearGroup].integer), Revision: uint32(v[answerRevision].integer)}
	a.Exercise, a.Goal, a.Subject = v[answerExercise].text, v[answerGoal].text, v[answerSubject].text
	a.Kind = answer.Kind(v[answerKind].integer)
	a.Score = v[answerScore].number
	a.Attempt = uint16(v[answerAttempt].integer)
	a.ResponseTime = v[answerResponseTime].count()
	a.AnsweredAt = v[answerAnsweredAt].integer
	return Refusal{}
}

// count returns a whole number, -1 when unknown.
func (v *value) count() int32 {
	if !v.set {
		return -1
	}
	return int32(v.integer)
}

// orNaN returns a number, NaN when unknown.
func (v *value) orNaN() float64 {
	if !v.set {
		return math.NaN()
	}
	return v.number
}

// TestResult reads a line of test results. A Refusal without Rule means that it
// is valid.
func (p *Parser) TestResult(text []byte, r *TestResult) Refusal {
	if refusal := p.record(&p.results, text); refusal.Rule != "" {
		return refusal
	}
	v := &p.values
	r.Who = Who{ID: v[resultID].text, School: v[resultSchool].text, Scheme: p.scheme, Learner: p.known,
		Group: v[resultGroup].text, YearGroup: uint8(v[resultYearGroup].integer), Revision: uint32(v[resultRevision].integer)}
	r.Test, r.TestName, r.Subject, r.Part = v[resultTest].text, v[resultTestName].text, v[resultSubject].text, v[resultPart].text
	r.Path, r.NormKinds, r.NormValues = p.path, p.normKinds, p.normValues
	r.TakenOn = int32(v[resultTakenOn].integer)
	r.Score, r.MaxScore = v[resultScore].orNaN(), v[resultMaxScore].orNaN()
	r.Made, r.Right, r.Wrong = v[resultMade].count(), v[resultRight].count(), v[resultWrong].count()
	r.DurationS = v[resultDuration].count()
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
