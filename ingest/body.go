package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// What can be wrong with a body as a whole.
var (
	errBodyTooLarge    = errors.New("body is larger than allowed")
	errDecodedTooLarge = errors.New("decompressed body is larger than allowed")
	errRatio           = errors.New("body decompresses to suspiciously much")
	errEncoding        = errors.New("body does not match its content encoding")
)

// freeDecodedBytes is how much a body may decompress to before the ratio counts:
// short bodies of like lines compress very well.
const freeDecodedBytes = 1 << 20

// maxWindowBytes bounds what a zstd stream may make us remember. The standard
// asks decoders for at least 8 MiB.
const maxWindowBytes = 8 << 20

// body reads a request's body: bounded as sent, decompressed, and bounded again.
// It is reusable and not safe for concurrent use.
type body struct {
	config   *Config
	source   io.Reader
	received int64
	decoded  int64
	encoding string
	gzip     *gzip.Reader
	zstd     *zstd.Decoder
	from     io.Reader
}

// reset begins a body. The encoding is "", "gzip" or "zstd".
func (b *body) reset(config *Config, source io.Reader, encoding string) error {
	b.config, b.source, b.received, b.decoded, b.encoding = config, source, 0, 0, encoding
	var err error
	switch encoding {
	case "gzip":
		if b.gzip == nil {
			b.gzip = new(gzip.Reader)
		}
		err = b.gzip.Reset((*sent)(b))
		b.from = b.gzip
	case "zstd":
		if b.zstd == nil {
			b.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindowBytes))
		}
		if err == nil {
			err = b.zstd.Reset((*sent)(b))
		}
		b.from = b.zstd
	default:
		b.from = (*sent)(b)
	}
	return b.classify(err)
}

// release lets go of the request. It keeps the decompressors.
func (b *body) release() {
	b.source, b.from = nil, nil
	if b.zstd != nil && b.encoding == "zstd" {
		// A reset without input can't fail.
		_ = b.zstd.Reset(nil)
	}
}

// classify gives errors of a decompressor one name: their texts may hold input.
func (b *body) classify(err error) error {
	var reading *readError
	switch {
	case err == nil, errors.Is(err, errBodyTooLarge), errors.As(err, &reading):
		return err
	case err == io.EOF && b.encoding == "":
		return err
	}
	return errEncoding
}

// readError is a failure of the connection, not of the content.
type readError struct{ err error }

func (e *readError) Error() string { return fmt.Sprintf("read body: %v", e.err) }
func (e *readError) Unwrap() error { return e.err }

// sent reads the body as it was sent.
type sent body

func (s *sent) Read(p []byte) (int, error) {
	left := s.config.MaxBodyBytes - s.received
	if left < 0 {
		return 0, errBodyTooLarge
	}
	if int64(len(p)) > left+1 {
		p = p[:left+1]
	}
	n, err := s.source.Read(p)
	s.received += int64(n)
	if s.received > s.config.MaxBodyBytes {
		return 0, errBodyTooLarge
	}
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}

// Read reads decompressed bytes.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	b.decoded += int64(n)
	switch {
	case b.decoded > b.config.MaxDecodedBytes:
		return 0, errDecodedTooLarge
	case b.encoding != "" && b.decoded > freeDecodedBytes && b.decoded > b.config.MaxRatio*b.received:
		return 0, errRatio
	case err == io.EOF:
		return n, err
	}
	return n, b.classify(err)
}

// lines cuts a body into lines. It is reusable and not safe for concurrent use.
type lines struct {
	source io.Reader
	limit  int
	buf    []byte
	start  int
	end    int
	number int // of the line that next returned, from 1
	ended  bool
}

// reset begins a body with lines of at most limit bytes.
func (l *lines) reset(source io.Reader, limit int) {
	if want := max(64<<10, 2*limit); len(l.buf) < want {
		l.buf = make([]byte, want)
	}
	l.source, l.limit, l.start, l.end, l.number, l.ended = source, limit, 0, 0, 0, false
}

// wipe forgets the content, which identifies learners.
func (l *lines) wipe() {
	clear(l.buf)
	l.source = nil
}

// next returns the following line without its end, valid until the next call, and
// io.EOF at the end. A line above the limit is skipped: whole is false.
func (l *lines) next() (line []byte, whole bool, err error) {
	searched := 0
	for {
		pending := l.buf[l.start:l.end]
		if at := bytes.IndexByte(pending[searched:], '\n'); at >= 0 {
			line = pending[:searched+at]
			l.start += len(line) + 1
			l.number++
			return line, len(line) <= l.limit, nil
		}
		searched = len(pending)
		if searched > l.limit {
			return nil, false, l.skip()
		}
		if l.ended {
			l.start = l.end
			if searched == 0 {
				return nil, false, io.EOF
			}
			l.number++
			return pending, true, nil
		}
		if err := l.fill(); err != nil {
			return nil, false, err
		}
	}
}

// fill reads on, moving what is pending to the front when there is no room.
func (l *lines) fill() error {
	if l.end == len(l.buf) {
		l.end = copy(l.buf, l.buf[l.start:l.end])
		l.start = 0
	}
	n, err := l.source.Read(l.buf[l.end:])
	l.end += n
	if err == io.EOF {
		l.ended = true
		return nil
	}
	return err
}

// skip passes over the rest of a line that is too long.
func (l *lines) skip() error {
	l.number++
	for {
		if at := bytes.IndexByte(l.buf[l.start:l.end], '\n'); at >= 0 {
			l.start += at + 1
			return nil
		}
		l.start, l.end = 0, 0
		if l.ended {
			return nil
		}
		if err := l.fill(); err != nil {
			return err
		}
	}
}
