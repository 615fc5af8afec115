package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// hello is the first packet of a client of the native protocol, with what the
// gate has to know of it.
type hello struct {
	raw      []byte // the packet as it was sent
	database string
	user     string
	password string
}

const (
	packetHello     = 0
	packetException = 2

	maxHelloString = 64 << 10
)

var errHello = errors.New("not a hello of the native protocol")

// readHello reads the first packet: a number 0, the client's name, three numbers
// (versions), then database, user and password. Numbers are varints, texts have
// their length before them.
func readHello(from *bufio.Reader) (hello, error) {
	var raw bytes.Buffer
	r := helloReader{from: from, raw: &raw}
	if kind := r.number(); r.err == nil && kind != packetHello {
		return hello{}, errHello
	}
	r.text()
	for range 3 {
		r.number()
	}
	h := hello{database: r.text(), user: r.text(), password: r.text()}
	h.raw = raw.Bytes()
	return h, r.err
}

// helloReader reads until the first error, and keeps what it read.
type helloReader struct {
	from *bufio.Reader
	raw  *bytes.Buffer
	err  error
}

// ReadByte implements io.ByteReader.
func (r *helloReader) ReadByte() (byte, error) {
	b, err := r.from.ReadByte()
	if err == nil {
		err = r.raw.WriteByte(b)
	}
	return b, err
}

func (r *helloReader) number() uint64 {
	if r.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(r)
	r.err = err
	return n
}

func (r *helloReader) text() string {
	size := r.number()
	if r.err == nil && size > maxHelloString {
		r.err = errHello
	}
	if r.err != nil {
		return ""
	}
	start := r.raw.Len()
	if _, err := io.CopyN(r.raw, r.from, int64(size)); err != nil {
		r.err = err
	}
	return string(r.raw.Bytes()[start:])
}

// refusal is why the server would not let a client in.
type refusal struct {
	code int32
	text string
}

// packet is the exception that the server would send.
func (r refusal) packet() []byte {
	out := []byte{packetException}
	out = binary.LittleEndian.AppendUint32(out, uint32(r.code))
	for _, text := range []string{"DB::Exception", r.text, ""} {
		out = binary.AppendUvarint(out, uint64(len(text)))
		out = append(out, text...)
	}
	return append(out, 0) // nothing nested
}

// Codes of ClickHouse.
const (
	codeAuthenticationFailed = 516
	codeUnknownDatabase      = 81
	codeNetworkError         = 210
)

// admit asks the server, over HTTP, whether it would let the client in. Unlike
// the native interface of clickhouse-local, which ends the whole process when a
// client gives a wrong password or names an unknown database, HTTP survives to
// tell.
func (g *gate) admit(ctx context.Context, httpAddress string, h hello) (*refusal, error) {
	query := url.Values{"query": {"SELECT 1"}}
	if h.database != "" {
		query.Set("database", h.database)
	}
	target := url.URL{Scheme: "http", Host: httpAddress, Path: "/", RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask whether a client may in: %w", err)
	}
	request.SetBasicAuth(h.user, h.password)
	response, err := g.asker.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask whether a client may in: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("ask whether a client may in: %w", err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		return nil, nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return &refusal{codeAuthenticationFailed, "Authentication failed: password is incorrect, or there is no user with such name."}, nil
	case http.StatusNotFound:
		return &refusal{codeUnknownDatabase, "Database " + h.database + " does not exist"}, nil
	default:
		return &refusal{codeNetworkError, "The server does not take connections: " + strings.TrimSpace(string(text))}, nil
	}
}
