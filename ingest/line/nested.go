package line

import "github.com/leerstroom/leerstroom/ingest/raw"

// learner reads {"scheme":…,"value":…}.
func (p *Parser) learner() Refusal {
	s := &p.scan
	p.scheme, p.known = 0, nil
	var value []byte
	var schemeSeen, valueSeen, ascii bool
	for more := s.open('{', '}'); more; more = s.next('}') {
		name := s.name()
		if s.rule != "" {
			break
		}
		switch string(name) {
		case "scheme":
			if schemeSeen {
				return Refusal{schemeField.name, RuleDuplicateField}
			}
			schemeSeen = true
			if !s.null() {
				p.readScheme()
			}
			if s.rule != "" {
				return Refusal{schemeField.name, s.rule}.ifBroken()
			}
		case "value":
			if valueSeen {
				return Refusal{valueField.name, RuleDuplicateField}
			}
			valueSeen = true
			if !s.null() {
				value, ascii = s.text()
			}
			if s.rule != "" {
				return Refusal{valueField.name, s.rule}.ifBroken()
			}
		default:
			return Refusal{"learner", RuleUnknownField}
		}
	}
	switch {
	case s.rule != "":
		return Refusal{"learner", s.rule}.ifBroken()
	case p.scheme == 0:
		return Refusal{schemeField.name, RuleRequired}
	}
	identifier, rule := p.identifier(p.scheme, value, ascii)
	if rule != "" {
		return Refusal{valueField.name, rule}
	}
	p.known = identifier
	return Refusal{}
}

func (p *Parser) readScheme() {
	content, _ := p.scan.text()
	switch string(content) {
	case "eckid":
		p.scheme = raw.SchemeECKID
	case "basispoort":
		p.scheme = raw.SchemeBasispoort
	case "las":
		p.scheme = raw.SchemeLAS
	case "publisher":
		p.scheme = raw.SchemePublisher
	case "":
	default:
		p.scan.fail(RuleUnknownValue)
	}
}

// readPath reads an array of texts, none of them empty.
func (p *Parser) readPath(f *field) Refusal {
	s := &p.scan
	for more := s.open('[', ']'); more; more = s.next(']') {
		part := p.text(f)
		switch {
		case s.rule != "":
		case len(part) == 0:
			s.fail(RuleRequired)
		case len(p.path) == maxPath:
			s.fail(RuleTooLong)
		}
		if s.rule != "" {
			break
		}
		p.path = append(p.path, part)
	}
	return Refusal{f.name, s.rule}.ifBroken()
}

// readNorms reads an array of {"kind":…,"value":…}.
func (p *Parser) readNorms() Refusal {
	s := &p.scan
	for more := s.open('[', ']'); more; more = s.next(']') {
		if len(p.normKinds) == maxNorms {
			return Refusal{"norms", RuleTooLong}
		}
		if refusal := p.readNorm(); refusal.Rule != "" {
			return refusal
		}
	}
	return Refusal{"norms", s.rule}.ifBroken()
}

func (p *Parser) readNorm() Refusal {
	s := &p.scan
	var content []byte
	var number float64
	var kindSeen, valueSeen, numberSet bool
	for more := s.open('{', '}'); more; more = s.next('}') {
		name := s.name()
		if s.rule != "" {
			break
		}
		switch string(name) {
		case "kind":
			if kindSeen {
				return Refusal{normKindField.name, RuleDuplicateField}
			}
			kindSeen = true
			if !s.null() {
				content = p.text(&normKindField)
			}
			if s.rule != "" {
				return Refusal{normKindField.name, s.rule}.ifBroken()
			}
		case "value":
			if valueSeen {
				return Refusal{normValueField.name, RuleDuplicateField}
			}
			valueSeen = true
			if !s.null() {
				number, numberSet = s.decimal(&normValueField), true
			}
			if s.rule != "" {
				return Refusal{normValueField.name, s.rule}.ifBroken()
			}
		default:
			return Refusal{"norms", RuleUnknownField}
		}
	}
	switch {
	case s.rule != "":
		return Refusal{"norms", s.rule}.ifBroken()
	case len(content) == 0:
		return Refusal{normKindField.name, RuleRequired}
	case !numberSet:
		return Refusal{normValueField.name, RuleRequired}
	}
	p.normKinds, p.normValues = append(p.normKinds, content), append(p.normValues, number)
	return Refusal{}
}
