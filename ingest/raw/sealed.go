package raw

import (
	"github.com/leerstroom/leerstroom/internal/column"
	"github.com/leerstroom/leerstroom/internal/seal"
)

// Writer seals messages of one topic. It is reusable and not safe for concurrent
// use; several Writers may share a Sealer.
type Writer struct {
	Encoder
	sealer  *seal.Sealer
	topic   string
	plain   []byte
	context []byte
}

// NewWriter makes a Writer for a topic.
func NewWriter(sealer *seal.Sealer, topic string) *Writer {
	return &Writer{sealer: sealer, topic: topic}
}

// keepPlainBytes is the largest buffer that a Writer or Reader keeps between
// messages.
const keepPlainBytes = 4 << 20

// Append encodes one message with the given function of its Encoder, seals it for
// a partition and appends it to dst. The schema must be the one that encode
// writes.
func (w *Writer) Append(dst []byte, schema string, partition int, encode func(e *Encoder, dst []byte) ([]byte, error)) ([]byte, error) {
	plain, err := encode(&w.Encoder, w.plain[:0])
	if err != nil {
		return dst, err
	}
	w.context = seal.AppendContext(w.context[:0], w.topic, schema, partition)
	dst = w.sealer.Seal(dst, plain, w.context)
	clear(plain) // no identifier outlives its message here
	if w.plain = plain; cap(w.plain) > keepPlainBytes {
		w.plain = nil
	}
	return dst, nil
}

// AppendAnswers seals answers for a partition.
func (w *Writer) AppendAnswers(dst []byte, partition int, a *Answers) ([]byte, error) {
	return w.Append(dst, SchemaAnswers, partition, func(e *Encoder, dst []byte) ([]byte, error) { return e.AppendAnswers(dst, a) })
}

// AppendTestResults seals test results for a partition.
func (w *Writer) AppendTestResults(dst []byte, partition int, r *TestResults) ([]byte, error) {
	return w.Append(dst, SchemaTestResults, partition, func(e *Encoder, dst []byte) ([]byte, error) { return e.AppendTestResults(dst, r) })
}

// Reader opens and decodes messages of one topic. It is reusable and not safe
// for concurrent use; several Readers may share an Opener. Decoded columns live
// in its memory until its next call.
type Reader struct {
	decoder Decoder
	opener  *seal.Opener
	topic   string
	plain   []byte
	context []byte
}

// NewReader makes a Reader for a topic.
func NewReader(opener *seal.Opener, topic string) *Reader {
	return &Reader{opener: opener, topic: topic}
}

// Use makes the columns in a memory that several readers may share.
func (r *Reader) Use(memory *column.Memory) { r.decoder.Use(memory) }

// Read opens a message from a partition with the schema that its header names
// and decodes it into the one of the two that the schema is of; the other stays
// as it was. It returns ErrSchema, seal.ErrOpen or column.ErrMalformed.
func (r *Reader) Read(schema string, partition int, message []byte, answers *Answers, results *TestResults) error {
	if schema != SchemaAnswers && schema != SchemaTestResults {
		return ErrSchema
	}
	clear(r.plain)
	if cap(r.plain) > keepPlainBytes {
		r.plain = nil
	}
	r.context = seal.AppendContext(r.context[:0], r.topic, schema, partition)
	var err error
	if r.plain, err = r.opener.Open(r.plain[:0], message, r.context); err != nil {
		return err
	}
	if schema == SchemaAnswers {
		return r.decoder.Answers(r.plain, answers)
	}
	return r.decoder.TestResults(r.plain, results)
}
