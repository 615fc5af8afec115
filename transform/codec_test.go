package transform_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/column"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// rowsOf makes rows of all three kinds out of a workload.
func rowsOf(t testing.TB) (skills transform.SkillRows, sums transform.ItemSumRows, items transform.SnapshotRows) {
	t.Helper()
	w := newWorkload(newRandom(t), 30, 50)
	p := transform.NewPartition(filter.DefaultParameters(), transform.NewCatalog())
	empty := transform.EmptySnapshot(new(filter.DefaultParameters()))
	for rawOffset := range int64(3) {
		p.Apply(w.message(rawOffset, 100), nil, empty)
	}
	var c transform.Checkpoint
	p.Checkpoint(&c)
	for i := range c.Sums.Len() {
		items.Component = append(items.Component, c.Sums.Component[i])
		items.Key = append(items.Key, c.Sums.Key[i])
		items.Goal = append(items.Goal, c.Sums.Goal[i])
		items.Subject = append(items.Subject, c.Sums.Subject[i])
		items.Mean = append(items.Mean, float64(i))
		items.Variance = append(items.Variance, 1/float64(i+1))
		items.Gradient = append(items.Gradient, c.Sums.Gradient[i])
		items.Information = append(items.Information, c.Sums.Information[i])
		items.Answers = append(items.Answers, c.Sums.Answers[i])
		items.ScoreSum = append(items.ScoreSum, c.Sums.ScoreSum[i])
	}
	return c.Skills, c.Sums, items
}

func TestCodecsRoundTrip(t *testing.T) {
	t.Parallel()
	skills, sums, items := rowsOf(t)
	encoder, decoder := transform.NewEncoder(), transform.NewDecoder()
	prefix := []byte("prefix")
	for range 3 { // encoder and decoder are used again
		message, err := encoder.AppendSkills(prefix, &skills)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(message, prefix) {
			t.Fatal("AppendSkills did not append")
		}
		var got transform.SkillRows
		if err := decoder.Skills(message[len(prefix):], &got); err != nil {
			t.Fatal(err)
		}
		sameMaps(t, "skills", skillRowsOf(t, &got), skillRowsOf(t, &skills))

		message, err = encoder.AppendSums(nil, &sums)
		if err != nil {
			t.Fatal(err)
		}
		var gotSums transform.ItemSumRows
		if err := decoder.Sums(message, &gotSums); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(gotSums, sums) {
			t.Error("sums differ after a round trip")
		}

		message, err = encoder.AppendItems(nil, &items)
		if err != nil {
			t.Fatal(err)
		}
		var gotItems transform.SnapshotRows
		if err := decoder.Items(message, &gotItems); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(gotItems, items) {
			t.Error("items differ after a round trip")
		}
	}
}

func TestCodecsOfNothing(t *testing.T) {
	t.Parallel()
	encoder, decoder := transform.NewEncoder(), transform.NewDecoder()
	message, err := encoder.AppendSkills(nil, &transform.SkillRows{})
	if err != nil || len(message) != 0 {
		t.Errorf("AppendSkills of no rows = %d bytes, %v, want none", len(message), err)
	}
	var rows transform.SkillRows
	rows.Learner = append(rows.Learner, answer.Token{})
	if err := decoder.Skills(nil, &rows); err != nil || rows.Len() != 0 {
		t.Errorf("Skills(nothing) = %d rows, %v, want none", rows.Len(), err)
	}
}

func TestDecoderRefuses(t *testing.T) {
	t.Parallel()
	skills, sums, _ := rowsOf(t)
	encoder, decoder := transform.NewEncoder(), transform.NewDecoder()
	sumsMessage, err := encoder.AppendSums(nil, &sums)
	if err != nil {
		t.Fatal(err)
	}
	skills.Layer[5] = 9
	badLayer, err := encoder.AppendSkills(nil, &skills)
	if err != nil {
		t.Fatal(err)
	}
	skills.Layer[5] = 0
	skills.Recent[5] = make([]uint64, transform.MaxRecent+1)
	badRing, err := encoder.AppendSkills(nil, &skills)
	if err != nil {
		t.Fatal(err)
	}
	sums.Component[1] = 3
	badComponent, err := encoder.AppendSums(nil, &sums)
	if err != nil {
		t.Fatal(err)
	}
	var rows transform.SkillRows
	for name, message := range map[string][]byte{"another schema": sumsMessage, "unknown layer": badLayer, "long ring": badRing} {
		if err := decoder.Skills(message, &rows); !errors.Is(err, column.ErrMalformed) {
			t.Errorf("%s: got %v, want %v", name, err, column.ErrMalformed)
		}
	}
	var sumRows transform.ItemSumRows
	if err := decoder.Sums(badComponent, &sumRows); !errors.Is(err, column.ErrMalformed) {
		t.Errorf("unknown component: got %v, want %v", err, column.ErrMalformed)
	}
	skills.Key = skills.Key[1:]
	if _, err := encoder.AppendSkills(nil, &skills); err == nil {
		t.Error("columns of different lengths were encoded")
	}
}

// FuzzSkillsCodec makes rows of bytes, and wants them back as they were. Bytes
// from elsewhere never reach a decoder: their digest is checked before.
func FuzzSkillsCodec(f *testing.F) {
	f.Add([]byte("a"), uint8(1))
	f.Add([]byte("rekenen\x00doel-1\xff\xfe01AB00"), uint8(40))
	f.Add([]byte{}, uint8(3))
	encoder, decoder := transform.NewEncoder(), transform.NewDecoder()
	f.Fuzz(func(t *testing.T, seed []byte, n uint8) {
		var rows, got transform.SkillRows
		for i := range int(n) {
			take := func(k int) []byte {
				out := make([]byte, k)
				for j := range out {
					if len(seed) > 0 {
						out[j] = seed[(i*7+j)%len(seed)]
					}
				}
				return out
			}
			rows.Learner = append(rows.Learner, answer.MintToken([16]byte(take(16))))
			rows.School = append(rows.School, string(take(6)))
			rows.Group = append(rows.Group, string(take(i%3)))
			rows.YearGroup = append(rows.YearGroup, take(1)[0])
			rows.KeyEpoch = append(rows.KeyEpoch, uint32(i))
			rows.Layer = append(rows.Layer, transform.Layer(i%3))
			rows.Key = append(rows.Key, string(take(i%5)))
			rows.Subject = append(rows.Subject, string(take(i%4)))
			number := float64(int8(take(1)[0]))
			for _, c := range []*[]float64{&rows.Mean, &rows.Variance, &rows.FastMean, &rows.SlowMean, &rows.LastScore} {
				number /= 3
				*c = append(*c, number)
			}
			rows.Answers = append(rows.Answers, uint32(i))
			rows.LastAt = append(rows.LastAt, int64(number*1e9))
			rows.Position = append(rows.Position, answer.At(int64(i), i))
			rows.Recent = append(rows.Recent, make([]uint64, i%(transform.MaxRecent+1)))
		}
		message, err := encoder.AppendSkills(nil, &rows)
		if err != nil {
			t.Fatal(err)
		}
		if err := decoder.Skills(message, &got); err != nil {
			t.Fatal(err)
		}
		again, err := encoder.AppendSkills(nil, &got)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(message, again) {
			t.Error("decoded rows encode differently")
		}
	})
}

func BenchmarkSkillsCodec(b *testing.B) {
	skills, _, _ := rowsOf(b)
	encoder, decoder := transform.NewEncoder(), transform.NewDecoder()
	var message []byte
	var got transform.SkillRows
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if message, err = encoder.AppendSkills(message[:0], &skills); err != nil {
			b.Fatal(err)
		}
		if err := decoder.Skills(message, &got); err != nil {
			b.Fatal(err)
		}
	}
	if got.Len() != skills.Len() {
		b.Fatalf("%d rows, want %d", got.Len(), skills.Len())
	}
	b.SetBytes(int64(len(message)))
	b.ReportMetric(float64(len(message))/float64(skills.Len()), "B/row")
}
