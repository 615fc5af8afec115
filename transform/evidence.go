package transform

import (
	"math"

	"github.com/leerstroom/leerstroom/transform/filter"
)

// Evidence is what the answers of a message said of the difficulty of their
// exercises: one entry per row. It is archived with them, so that an answer can
// be taken back exactly.
type Evidence struct {
	Gradient    []int32  // information times the difficulty used, plus the gradient there, in units of EvidenceUnit
	Information []uint16 // in units of EvidenceUnit; 0 = the row moved no exercise
	// Replayed marks rows that their learner's state held before: they are
	// archived already, with what they said then.
	Replayed []bool
}

// EvidenceUnit is the fixed-point unit of archived evidence. Sums are in units
// of filter.Unit, of which it is evidenceUnits.
const (
	EvidenceUnit  = 0x1p-16
	evidenceUnits = int64(EvidenceUnit / filter.Unit)
)

func (e *Evidence) reset(rows int) {
	e.Gradient, e.Information, e.Replayed = resize(e.Gradient, rows), resize(e.Information, rows), resize(e.Replayed, rows)
}

func (e *Evidence) put(row int, said evidence) {
	e.Gradient[row], e.Information[row] = said.gradient, said.information
}

// evidence is what one answer said, in units of EvidenceUnit.
type evidence struct {
	gradient    int32
	information uint16
}

// clampTo rounds a number in units of filter.Unit to units of EvidenceUnit, ties
// to even, within the type.
func clampTo[T int32 | uint16](units int64) T {
	low, high := int64(0), int64(math.MaxUint16)
	if ^T(0) < 0 {
		low, high = math.MinInt32, math.MaxInt32
	}
	rounded := units >> 16 // towards minus infinity; evidenceUnits is 2^16
	if rest := units & (evidenceUnits - 1); 2*rest > evidenceUnits || 2*rest == evidenceUnits && rounded&1 == 1 {
		rounded++
	}
	return T(min(max(rounded, low), high))
}

// sum returns what an answer of a score adds to the sums of its exercise;
// nothing when it moved none.
func (e evidence) sum(score float64) evidenceSum {
	if e.information == 0 {
		return evidenceSum{}
	}
	return evidenceSum{gradient: int64(e.gradient) * evidenceUnits, information: int64(e.information) * evidenceUnits,
		answers: 1, scores: int64(math.RoundToEven(score * (1 << 32)))}
}

// evidenceSum are the four sums of ItemSumRows.
type evidenceSum struct{ gradient, information, answers, scores int64 }

func (s evidenceSum) plus(o evidenceSum) evidenceSum {
	return evidenceSum{s.gradient + o.gradient, s.information + o.information, s.answers + o.answers, s.scores + o.scores}
}

func (s evidenceSum) minus(o evidenceSum) evidenceSum {
	return evidenceSum{s.gradient - o.gradient, s.information - o.information, s.answers - o.answers, s.scores - o.scores}
}
