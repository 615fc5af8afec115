package transform

import (
	"testing"
	"unsafe"
)

// TestStateIsSmall bounds the memory of a learner and a goal: the layer and its
// share of an index that is at most three quarters and at least three eighths
// full.
func TestStateIsSmall(t *testing.T) {
	t.Parallel()
	layer := unsafe.Sizeof(layer{})
	t.Logf("layer %d bytes, learner %d bytes", layer, unsafe.Sizeof(learner{}))
	if layer+4*8/3 > 100 {
		t.Errorf("a layer takes %d bytes, want at most 100 with its share of the index", layer+4*8/3)
	}
}
