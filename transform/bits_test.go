package transform_test

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// TestStatesAreTheSameBitsEverywhere holds the hash of what a simulated log
// makes of learners and difficulties, with a version after every message: another
// machine or compiler must not change it.
func TestStatesAreTheSameBitsEverywhere(t *testing.T) {
	t.Parallel()
	const want = uint64(0x6784241a3249c1ba)
	parameters := filter.DefaultParameters()
	catalog := transform.NewCatalog()
	partition := transform.NewPartition(parameters, catalog)
	estimates := transform.NewEstimates(parameters, 1)
	snapshot := transform.EmptySnapshot(&parameters)
	load := newWorkload(rand.New(rand.NewPCG(1, 7)), 30, 80)
	h := fnv.New64a()
	number := func(x float64) {
		_ = binary.Write(h, binary.LittleEndian, math.Float64bits(x)) // a hash never fails
	}
	for rawOffset := range int64(200) {
		var skills transform.SkillRows
		var sums transform.ItemSumRows
		partition.Apply(load.message(rawOffset, 50), nil, snapshot)
		partition.Changes(&skills)
		partition.TakeSums(&sums)
		estimates.Fold(0, &sums)
		rows := estimates.News()
		rows.Version = uint64(rawOffset + 1)
		estimates.Accept(rows)
		snapshot = snapshot.With(catalog, rows)
		for i := range skills.Len() {
			number(skills.Mean[i])
			number(skills.Variance[i])
			number(skills.SlowMean[i])
		}
		for i := range rows.Len() {
			number(rows.Mean[i])
			number(rows.Variance[i])
		}
	}
	if got := h.Sum64(); got != want {
		t.Errorf("digest of the states = %#x, want %#x", got, want)
	}
}
