package line

import "math"

// kind is how a field is read.
type kind uint8

const (
	text      kind = iota // string of at most max characters, empty = unknown
	publisher             // must be the publisher of the API key
	school                // BRIN + vestiging
	learner               // {"scheme":…,"value":…}
	purpose               // practice, test or tracking
	decimal               // number in [min, max]
	integer               // whole number in [min, max]
	moment                // RFC 3339 with offset
	date                  // YYYY-MM-DD
	path                  // array of at most maxPath texts
	norms                 // array of at most maxNorms {"kind":…,"value":…}
)

// field is one line of the table of a record: the whole allow-list, and every
// rule that concerns one field alone.
type field struct {
	name     string
	kind     kind
	required bool
	fact     bool    // text that leaves pseudonymize in clear: searched for identifiers
	max      float64 // characters of a text, else the largest value
	min      float64
}

// Lengths follow UWLR where it has the field (64, 128 or 256 characters).
const (
	maxPath  = 8
	maxNorms = 16
)

// The answers. The order is that of the constants below.
var answerFields = []field{
	{name: "id", kind: text, required: true, max: 256},
	{name: "publisher", kind: publisher, required: true},
	{name: "school", kind: school, required: true},
	{name: "learner", kind: learner, required: true},
	{name: "group", kind: text, fact: true, max: 64},
	{name: "year_group", kind: integer, min: 1, max: 8},
	{name: "exercise", kind: text, required: true, fact: true, max: 256},
	{name: "goal", kind: text, fact: true, max: 256},
	{name: "subject", kind: text, fact: true, max: 256},
	{name: "kind", kind: purpose, required: true},
	{name: "score", kind: decimal, required: true, min: 0, max: 1},
	{name: "attempt", kind: integer, min: 1, max: math.MaxUint16},
	{name: "response_time_ms", kind: integer, min: 0, max: 24 * 3600 * 1000},
	{name: "answered_at", kind: moment, required: true},
	{name: "revision", kind: integer, min: 0, max: math.MaxUint32},
}

const (
	answerID = iota
	_        // publisher
	answerSchool
	_ // learner
	answerGroup
	answerYearGroup
	answerExercise
	answerGoal
	answerSubject
	answerKind
	answerScore
	answerAttempt
	answerResponseTime
	answerAnsweredAt
	answerRevision
)

// The test results. The order is that of the constants below.
var resultFields = []field{
	{name: "id", kind: text, required: true, max: 256},
	{name: "publisher", kind: publisher, required: true},
	{name: "school", kind: school, required: true},
	{name: "learner", kind: learner, required: true},
	{name: "group", kind: text, fact: true, max: 64},
	{name: "year_group", kind: integer, min: 1, max: 8},
	{name: "test", kind: text, required: true, fact: true, max: 256},
	{name: "test_name", kind: text, fact: true, max: 128},
	{name: "subject", kind: text, fact: true, max: 256},
	{name: "part", kind: text, fact: true, max: 256},
	{name: "path", kind: path, max: 256},
	{name: "taken_on", kind: date, required: true},
	{name: "score", kind: decimal, min: -1e9, max: 1e9},
	{name: "max_score", kind: decimal, min: 0, max: 1e9},
	{name: "made", kind: integer, min: 0, max: 100000},
	{name: "right", kind: integer, min: 0, max: 100000},
	{name: "wrong", kind: integer, min: 0, max: 100000},
	{name: "duration_s", kind: integer, min: 0, max: 7 * 24 * 3600},
	{name: "norms", kind: norms},
	{name: "revision", kind: integer, min: 0, max: math.MaxUint32},
}

const (
	_ = iota // id, publisher, school, learner, group and year_group lie as in the answers
	_
	_
	_
	_
	_
	resultTest
	resultTestName
	resultSubject
	resultPart
	resultPath
	resultTakenOn
	resultScore
	resultMaxScore
	resultMade
	resultRight
	resultWrong
	resultDuration
	resultNorms
	resultRevision

	maxFields = iota
)

// The objects inside a record.
var (
	schemeField    = field{name: "learner.scheme", required: true} // rules: readScheme
	valueField     = field{name: "learner.value", required: true}  // rules: identifier
	normKindField  = field{name: "norms.kind", kind: text, required: true, fact: true, max: 64}
	normValueField = field{name: "norms.value", kind: decimal, required: true, min: -1e9, max: 1e9}
)
