package transform

import "errors"

// IsOvertaken tells whether a worker found that another one is at work.
func IsOvertaken(err error) bool { return errors.Is(err, errOvertaken) }
