package transform

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// TestPendingAgainstMap adds messages of random length, cuts, releases and asks,
// beside a map from keys to their earliest positions. Two partitions share what is
// released.
func TestPendingAgainstMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var partitions [2]pending
		var known [2]map[pendingKey][]answer.Position
		var offsets [2]int64
		for i := range known {
			known[i] = make(map[pendingKey][]answer.Position)
		}
		token := answer.MintToken([16]byte{1})
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "partition")
			p := &partitions[i]
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				d := &delivered{rows: rapid.IntRange(0, 3000).Draw(t, "rows"), rawOffset: offsets[i]}
				offsets[i]++
				from := rapid.Uint64Range(0, 4000).Draw(t, "from")
				d.learner = &answer.Tokens{Codes: make([]int32, d.rows), Values: []answer.Token{token}}
				d.moment, d.id = make([]int64, d.rows), make([]answer.EventID, d.rows)
				for row := range d.rows {
					binary.LittleEndian.PutUint64(d.id[row][:], from+uint64(row))
					key := pendingKeyOf(&d.id[row], token, 0)
					known[i][key] = append(known[i][key], d.position(row))
				}
				p.add(d)
			case 2:
				p.cut()
			case 3:
				durable := answer.At(rapid.Int64Range(0, max(offsets[i], 1)).Draw(t, "durable"), 0)
				p.release(durable)
				forget(known[i], p)
			}
			compare(t, p, known[i], token)
		}
	})
}

// forget removes the positions that are no longer in any generation.
func forget(known map[pendingKey][]answer.Position, p *pending) {
	first := answer.Position(1<<63 - 1)
	if len(p.generations) > 0 && p.generations[0].n > 0 {
		first = p.generations[0].position(0)
	}
	for key, positions := range known {
		for len(positions) > 0 && positions[0] < first {
			positions = positions[1:]
		}
		known[key] = positions
	}
}

func compare(t *rapid.T, p *pending, known map[pendingKey][]answer.Position, token answer.Token) {
	rows := 0
	for _, positions := range known {
		rows += len(positions)
	}
	if p.rows() != rows {
		t.Fatalf("%d rows are pending, want %d", p.rows(), rows)
	}
	for range 20 {
		var id answer.EventID
		binary.LittleEndian.PutUint64(id[:], rapid.Uint64Range(0, 7000).Draw(t, "asked"))
		key := pendingKeyOf(&id, token, 0)
		position, found := p.earliest(key)
		if want := known[key]; found != (len(want) > 0) || found && position != want[0] {
			t.Fatalf("earliest = %d, %t, want %v", position, found, want)
		}
	}
}
