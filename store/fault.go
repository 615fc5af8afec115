package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

// ErrRejected reports that ClickHouse refuses what is written in a way that
// another attempt can't change: a table or column is missing or of another type,
// or the user may not write. Whoever wrote has to stop and begin again from the
// durable state (Restore).
var ErrRejected = errors.New("rejected by clickhouse")

// ErrClosed reports that the store was closed before a write became durable.
var ErrClosed = errors.New("store is closed")

// ServerError is an error that ClickHouse reported. It carries the code and not
// the message, for messages may quote values.
type ServerError struct{ Code int }

// Error returns the number and name of the code.
func (e *ServerError) Error() string {
	return fmt.Sprintf("clickhouse error %d (%s)", e.Code, proto.Error(e.Code))
}

// withoutMessage removes the server's text from an error.
func withoutMessage(err error) error {
	if exception, ok := ch.AsException(err); ok {
		return &ServerError{Code: int(exception.Code)}
	}
	return err
}

// permanent tells whether an insert that failed so will fail again. Errors of
// the connection pass; what the driver itself refuses to encode does not.
func permanent(err error) bool {
	var server *ServerError
	if errors.As(err, &server) {
		return permanentCodes[proto.Error(server.Code)]
	}
	var network net.Error
	return !errors.As(err, &network) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) &&
		!errors.Is(err, net.ErrClosed) && !errors.Is(err, ch.ErrClosed) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// permanentCodes: everything else, such as no memory, too many parts, no disk
// space, read-only or no quorum, passes with time.
var permanentCodes = map[proto.Error]bool{
	proto.ErrIncorrectNumberOfColumns:   true,
	proto.ErrThereIsNoColumn:            true,
	proto.ErrNotFoundColumnInBlock:      true,
	proto.ErrNoSuchColumnInTable:        true,
	proto.ErrNumberOfColumnsDoesntMatch: true,
	proto.ErrIllegalTypeOfArgument:      true,
	proto.ErrIllegalColumn:              true,
	proto.ErrUnknownIdentifier:          true,
	proto.ErrUnknownType:                true,
	proto.ErrTypeMismatch:               true,
	proto.ErrUnknownTable:               true,
	proto.ErrSyntaxError:                true,
	proto.ErrCannotConvertType:          true,
	proto.ErrUnknownDatabase:            true,
	proto.ErrIncompatibleColumns:        true,
	proto.ErrViolatedConstraint:         true,
	proto.ErrAccessDenied:               true,
	proto.ErrAuthenticationFailed:       true,
}
