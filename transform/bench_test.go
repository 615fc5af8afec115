package transform_test

import (
	"fmt"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// BenchmarkApply measures scanning, applying and collecting the changes of
// messages of 8,192 rows, over 64 partitions in turn.
func BenchmarkApply(b *testing.B) {
	for _, learners := range []int{10_000, 200_000} {
		b.Run(fmt.Sprintf("learners=%d", learners), func(b *testing.B) { benchmarkApply(b, learners) })
	}
}

func benchmarkApply(b *testing.B, learners int) {
	const partitions, rows, rounds = 64, 8192, 3
	catalog := transform.NewCatalog()
	snapshot := transform.EmptySnapshot(new(filter.DefaultParameters()))
	var all []*transform.Partition
	var messages [][]*answer.Columns
	for range partitions {
		w := newWorkload(newRandom(b), learners/partitions, 4000)
		w.calm = true
		all = append(all, transform.NewPartition(filter.DefaultParameters(), catalog))
		var own []*answer.Columns
		for range rounds {
			own = append(own, w.message(0, rows))
		}
		messages = append(messages, own)
	}
	var changes transform.SkillRows
	var late []int32
	step := func(i int, rawOffset int64) int {
		p, c := all[i%partitions], messages[i%partitions][i/partitions%rounds]
		c.RawOffset = rawOffset
		late = p.Scan(c, late[:0])
		done := p.Apply(c, nil, snapshot)
		changes.Reset()
		p.Changes(&changes)
		if i%8 == 0 {
			p.Checkpoint(&transform.Checkpoint{})
		}
		return done.Rows
	}
	offset := int64(0)
	for i := range partitions * rounds {
		offset++
		step(i, offset)
	}
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for i := 0; b.Loop(); i++ {
		offset++
		n += step(i, offset)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/row")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}
