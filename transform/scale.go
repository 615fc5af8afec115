package transform

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// Scale is a refit of difficulties that replaces the running estimates: a new
// version of the scale, announced as such and never slipped in. The values come
// in the rows of the snapshot version that carries it.
//
// A refit has the same unit as the filter, the logit, and its zero is linked to
// that of the estimates before it, so that skills keep their meaning across
// scales. The links say by how much the zero of the refit was moved.
type Scale struct {
	Number uint64      // from 1, without gaps
	Links  []GoalLink  // of the goals whose exercises are in the rows, at least one
	Head   filter.Head // corrects predictions from here on
}

// GoalLink is how the refit of one goal was linked to the estimates before it.
type GoalLink struct {
	Goal       string  `json:"goal"`
	Answers    int64   `json:"answers"`     // first answers that the refit used
	Exercises  int     `json:"exercises"`   // that both scales have
	Slope      float64 `json:"slope"`       // spread of the estimates before by that of the refit; told, not applied
	Shift      float64 `json:"shift"`       // logits, added to the refit
	ShiftError float64 `json:"shift_error"` // its standard error
}

// HeaderScale is the header of a message of `items` that begins a new scale.
const HeaderScale = "scale"

// SchemaScale is the schema of a message of `item-sums` that hands a refit to the
// reducer: the rows of `items.v1`, and HeaderScale.
const SchemaScale = "scale.v1"

// scaleHeader is the JSON of HeaderScale.
type scaleHeader struct {
	Number uint64     `json:"number"`
	Links  []GoalLink `json:"links"`
	Head   []float64  `json:"head"`
}

func (s *Scale) header() (stream.Header, error) {
	value, err := json.Marshal(scaleHeader{s.Number, s.Links, s.Head.Weights[:]})
	if err != nil {
		return stream.Header{}, fmt.Errorf("encode scale %d: %w", s.Number, err)
	}
	return stream.Header{Key: HeaderScale, Value: value}, nil
}

func readScale(value []byte) (*Scale, error) {
	var h scaleHeader
	if err := json.Unmarshal(value, &h); err != nil {
		return nil, errors.New("decode scale: malformed JSON")
	}
	head, err := HeadOf(h.Head)
	if err != nil || h.Number == 0 {
		return nil, errors.Join(err, fmt.Errorf("decode scale %d", h.Number))
	}
	return &Scale{Number: h.Number, Links: h.Links, Head: head}, nil
}

// HeadOf returns a head with weights that were written down. A head of another
// number of features is of another version of the program: the one that believes
// the filter takes its place.
func HeadOf(weights []float64) (filter.Head, error) {
	if len(weights) != filter.FeatureCount {
		return filter.NewHead(), nil
	}
	for _, w := range weights {
		if math.IsNaN(w) || math.IsInf(w, 0) {
			return filter.Head{}, errors.New("read head: want finite weights")
		}
	}
	return filter.Head{Weights: filter.Features(weights)}, nil
}

// snapshotMessage makes the message of a version, or the one that hands a refit
// over.
func (e *Encoder) snapshotMessage(dst []byte, schema string, rows *SnapshotRows) (stream.Message, error) {
	out, err := e.AppendItems(dst, rows)
	if err != nil {
		return stream.Message{}, err
	}
	headers := []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(schema)},
		stream.Int64Header(stream.HeaderSnapshot, int64(rows.Version)),
		stream.DigestHeader(out),
	}
	if rows.Scale != nil {
		scale, err := rows.Scale.header()
		if err != nil {
			return stream.Message{}, err
		}
		headers = append(headers, scale)
	}
	return stream.Message{Value: out, Headers: headers}, nil
}

// Snapshot reads a message of `items`, after its version was looked at.
func (d *Decoder) Snapshot(m *stream.Message, rows *SnapshotRows) error {
	version, err := m.Int64(stream.HeaderSnapshot)
	if err != nil {
		return err
	}
	if err := m.CheckDigest(); err != nil {
		return err
	}
	if err := d.Items(m.Value, rows); err != nil {
		return fmt.Errorf("read item snapshot %d at offset %d: %w", version, m.Offset, err)
	}
	rows.Version = uint64(version)
	if value := m.Header(HeaderScale); value != nil {
		if rows.Scale, err = readScale(value); err != nil {
			return fmt.Errorf("read item snapshot %d at offset %d: %w", version, m.Offset, err)
		}
	}
	return nil
}
