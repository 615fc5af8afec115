package deadletter

// AppendContent and Parse are the inside of a letter.
var (
	AppendContent = appendContent
	Parse         = parse
)
