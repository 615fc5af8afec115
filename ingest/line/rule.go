package line

// Rule names what a refused line broke. Rules are part of the API: publishers'
// programs act on them, so a name never changes its meaning.
type Rule string

// The rules of form.
const (
	RuleLineTooLong    Rule = "line_too_long"   // more bytes than a line may have
	RuleMalformed      Rule = "malformed_json"  // not one JSON object
	RuleInvalidUTF8    Rule = "invalid_utf8"    // not UTF-8, or half of a surrogate pair
	RuleUnknownField   Rule = "unknown_field"   // a field that the record does not have; its name is not repeated
	RuleDuplicateField Rule = "duplicate_field" // a field twice in one object
	RuleRequired       Rule = "required"        // missing, null or empty
	RuleWrongType      Rule = "wrong_type"      // such as a text where a number belongs
)

// The rules of values.
const (
	RuleTooLong       Rule = "too_long"       // more characters or entries than allowed
	RuleBadCharacters Rule = "bad_characters" // control characters
	RuleNotInteger    Rule = "not_integer"    // with a fraction or exponent
	RuleOutOfRange    Rule = "out_of_range"
	RuleUnknownValue  Rule = "unknown_value" // not one of the values of an enumeration
	RuleNotASchool    Rule = "not_a_school"  // not BRIN + vestiging, such as 12AB00
	RuleNotATime      Rule = "not_a_time"    // not RFC 3339
	RuleNoOffset      Rule = "no_offset"     // a time that does not say its offset from UTC
	RuleNotADate      Rule = "not_a_date"    // not YYYY-MM-DD
	RuleInFuture      Rule = "in_future"
	RuleInconsistent  Rule = "inconsistent" // such as more right than made
	RuleNoResult      Rule = "no_result"    // a test result without score, counts and norms
)

// The rules about who the line is from and about.
const (
	RuleWrongPublisher      Rule = "wrong_publisher"  // not the publisher of the API key
	RuleNotAuthorised       Rule = "not_authorised"   // the school has not authorised this publisher
	RuleNotECKID            Rule = "not_eckid"        // not of the form of an ECK iD
	RuleStampseudoniem      Rule = "stampseudoniem"   // must never reach us, tests or not
	RuleTestIdentifier      Rule = "test_identifier"  // ECK iD of a test chain
	RuleWrongScheme         Rule = "wrong_scheme"     // an ECK iD under another scheme
	RuleDummyIdentifier     Rule = "dummy_identifier" // LAS key that begins with #: not an identity
	RuleLooksLikeBSN        Rule = "looks_like_bsn"   // nine digits that pass the eleven test
	RuleIdentifierElsewhere Rule = "knownelsewhere"   // the learner's identifier, or an ECK iD, in another field
)
