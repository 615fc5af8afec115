package pseudonymize

// SetCrash makes the stage fail right after a step took effect, as if the
// process had died there.
func (s *Stage) SetCrash(crash func(step string) error) { s.crash = crash }

// AppendLetter and ReadLetter are the inside of a dead letter.
var (
	AppendLetter = appendLetter
	ReadLetter   = readLetter
)
