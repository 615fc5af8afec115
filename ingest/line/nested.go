package line

import "github.com/leerstroom/leerstroom/ingest/raw"

// learner reads {"scheme":…,"value":…}.
func (p *Parser) learner() {
	s := &p.scan
	p.scheme = 0
	var value []byte
	var schemeSeen, valueSeen, ascii bool
	for more := s.open('{', '}'); more; more = s.next('}') {
		name := s.name()
		switch {
		case s.rule != "":
		case string(name) == "scheme":
			if p.once(&schemeField, &schemeSeen) && !s.null() {
				p.readScheme()
			}
		case string(name) == "value":
			if p.once(&valueField, &valueSeen) && !s.null() {
				if value, ascii = s.text(); s.rule != "" {
					p.blame(valueField.name)
				}
			}
		default:
			p.refuse("learner", RuleUnknownField)
		}
		if s.rule != "" {
			return
		}
	}
	switch {
	case s.rule != "":
		return
	case p.scheme == 0:
		p.refuse(schemeField.name, RuleRequired)
		return
	}
	identifier, rule := p.identifier(p.scheme, value, ascii)
	if rule != "" {
		p.refuse(valueField.name, rule)
	}
	p.known = identifier
}

// once tells whether a member comes for the first time, and refuses the line
// otherwise.
func (p *Parser) once(f *field, seen *bool) bool {
	if *seen {
		p.refuse(f.name, RuleDuplicateField)
		return false
	}
	*seen = true
	return true
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
	if p.scan.rule != "" {
		p.blame(schemeField.name)
	}
}

// readPath reads an array of texts, none of them empty.
func (p *Parser) readPath(f *field) {
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
			return
		}
		p.path = append(p.path, part)
	}
}

// readNorms reads an array of {"kind":…,"value":…}.
func (p *Parser) readNorms() {
	s := &p.scan
	for more := s.open('[', ']'); more; more = s.next(']') {
		if len(p.normKinds) == maxNorms {
			s.fail(RuleTooLong)
			return
		}
		if p.readNorm(); s.rule != "" {
			return
		}
	}
}

func (p *Parser) readNorm() {
	s := &p.scan
	var content []byte
	var number float64
	var kindSeen, valueSeen, numberSet bool
	for more := s.open('{', '}'); more; more = s.next('}') {
		name := s.name()
		switch {
		case s.rule != "":
		case string(name) == "kind":
			if p.once(&normKindField, &kindSeen) && !s.null() {
				if content = p.text(&normKindField); s.rule != "" {
					p.blame(normKindField.name)
				}
			}
		case string(name) == "value":
			if p.once(&normValueField, &valueSeen) && !s.null() {
				if number, numberSet = s.decimal(&normValueField), true; s.rule != "" {
					p.blame(normValueField.name)
				}
			}
		default:
			p.refuse("norms", RuleUnknownField)
		}
		if s.rule != "" {
			return
		}
	}
	switch {
	case s.rule != "":
	case len(content) == 0:
		p.refuse(normKindField.name, RuleRequired)
	case !numberSet:
		p.refuse(normValueField.name, RuleRequired)
	default:
		p.normKinds, p.normValues = append(p.normKinds, content), append(p.normValues, number)
	}
}
