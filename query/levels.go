package query

// levelScale divides percentiles into levels, as Dutch tracking systems do.
type levelScale struct {
	name   string
	levels []levelFrom // highest first; the last begins at 0
}

type levelFrom struct {
	from float64 // percentile
	name string
}

// The scales: A to E with 25, 25, 25, 15 and 10 % of the learners, I to V with a
// fifth each.
var levelScales = map[string]*levelScale{
	"a-e": {"a-e", []levelFrom{{75, "A"}, {50, "B"}, {25, "C"}, {10, "D"}, {0, "E"}}},
	"i-v": {"i-v", []levelFrom{{80, "I"}, {60, "II"}, {40, "III"}, {20, "IV"}, {0, "V"}}},
}

// level is a percentile and the ends of its band as levels.
type level struct {
	Scale string `json:"scale"`
	Value string `json:"value"`
	Low   string `json:"low"`
	High  string `json:"high"`
}

// level returns the levels of a percentile and its band, nil without a scale.
func (s *levelScale) level(value, low, high float64) *level {
	if s == nil {
		return nil
	}
	return &level{Scale: s.name, Value: s.of(value), Low: s.of(low), High: s.of(high)}
}

func (s *levelScale) of(percentile float64) string {
	for _, l := range s.levels {
		if percentile >= l.from {
			return l.name
		}
	}
	return s.levels[len(s.levels)-1].name
}

// levels reads the scale that is asked for, nil for none.
func (p *params) levels() *levelScale {
	name := p.name("levels")
	if name == "" {
		return nil
	}
	scale := levelScales[name]
	if scale == nil {
		p.fail("levels", "must be a-e or i-v")
	}
	return scale
}
