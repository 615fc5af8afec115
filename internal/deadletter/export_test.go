package deadletter

// AppendContent and Parse are the inside of a letter.
var (
	AppendContent = appendContent
	Parse         = parse
)

// SetCrash lets a desk die after a step.
func (d *Desk) SetCrash(crash func(step string) error) { d.crash = crash }
