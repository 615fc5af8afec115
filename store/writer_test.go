package store_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// checkpoint hands over a checkpoint and returns the channel on which its
// outcome comes.
func durable() (func(error), <-chan error) {
	outcome := make(chan error, 1)
	return func(err error) { outcome <- err }, outcome
}

func TestRestoreReturnsWhatWasWritten(t *testing.T) {
	t.Parallel()
	s := openStore(t, nil)
	ctx := t.Context()
	w := newWorkload(1, 4)
	restored, err := s.Restore(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if want := (transform.Restored{RawOffset: -1, AnswersOffset: -1, SkillsOffset: -1}); restored.RawOffset != want.RawOffset || restored.Skills.Len() != 0 {
		t.Fatalf("Restore of an empty database = %+v, want %+v", restored, want)
	}
	c := w.message(2, 1000)
	if err := s.Archive(ctx, 2, c, nil, nil); err != nil {
		t.Fatal(err)
	}
	call, outcome := durable()
	position := c.Position(c.Rows - 1)
	checkpoint := &transform.Checkpoint{Partition: 2, Generation: 3, Position: position, AnswersOffset: 5, SkillsOffset: 6, SnapshotVersion: 7,
		Skills: w.skills(50, 5, position), Durable: call,
		Sums: transform.ItemSumRows{Component: []transform.Component{0, 1, 2}, Key: []string{"bingel:o1", "optellen", ""}, Goal: []string{"optellen", "", ""},
			Subject: []string{"rekenen", "rekenen", ""}, Gradient: []int64{-5, 1 << 60, 3}, Information: []int64{1, 2, 3}, Answers: []int64{10, 20, 30},
			ScoreSum: []int64{1 << 32, 2, 3}, Position: []answer.Position{position, position, position}},
		Norms: transform.NormRows{Layer: []transform.Layer{0, 2}, Key: []string{"", "optellen"}, YearGroup: []uint8{5, 6}, Bins: [][]uint16{{1, 4000}, nil},
			Counts: [][]int64{{2, 3}, nil}, Position: []answer.Position{position, position}},
		Adoptions: []transform.Adoption{{Position: 0, Version: 7, Generation: 3}},
	}
	var skills transform.SkillRows
	var sums transform.ItemSumRows
	skills.AppendRange(&checkpoint.Skills, 0, checkpoint.Skills.Len())
	for i, ring := range skills.Recent {
		skills.Recent[i] = slices.Clone(ring)
	}
	sums.AppendRange(&checkpoint.Sums, 0, checkpoint.Sums.Len())
	if err := s.Checkpoint(ctx, checkpoint); err != nil {
		t.Fatal(err)
	}
	overwrite(checkpoint)
	if err := <-outcome; err != nil {
		t.Fatal(err)
	}
	restored, err = s.Restore(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if restored.Position != position || restored.RawOffset != 0 || restored.AnswersOffset != 5 || restored.SkillsOffset != 6 || restored.SnapshotVersion != 7 {
		t.Errorf("Restore = %+v, want the progress of the checkpoint", restored)
	}
	if !reflect.DeepEqual(restored.Sums, sums) {
		t.Errorf("Restore sums = %+v, want %+v", restored.Sums, sums)
	}
	sameSkills(t, &restored.Skills, &skills)
	other, err := s.Restore(ctx, 1)
	if err != nil || other.RawOffset != -1 || other.Skills.Len() != 0 || other.Sums.Len() != 0 {
		t.Errorf("Restore of another partition = %+v, %v, want nothing", other, err)
	}
}

// overwrite does to a checkpoint what its owner may do once it was taken over.
func overwrite(c *transform.Checkpoint) {
	for i := range c.Skills.Len() {
		c.Skills.Learner[i], c.Skills.Key[i], c.Skills.Mean[i], c.Skills.Position[i] = answer.Token{}, "overwritten", -1, 0
		clear(c.Skills.Recent[i])
	}
	for i := range c.Sums.Len() {
		c.Sums.Key[i], c.Sums.Gradient[i], c.Sums.Position[i] = "overwritten", 0, 0
	}
	for i := range c.Norms.Len() {
		c.Norms.Key[i] = "overwritten"
		clear(c.Norms.Bins[i])
		clear(c.Norms.Counts[i])
	}
	clear(c.Adoptions)
	c.Reset()
}

type skillKey struct {
	learner answer.Token
	layer   transform.Layer
	key     string
}

// sameSkills compares rows whatever their order.
func sameSkills(t *testing.T, got, want *transform.SkillRows) {
	t.Helper()
	if got.Len() != want.Len() {
		t.Fatalf("%d skills, want %d", got.Len(), want.Len())
	}
	place := make(map[skillKey]int, got.Len())
	for i := range got.Len() {
		place[skillKey{got.Learner[i], got.Layer[i], got.Key[i]}] = i
	}
	for i := range want.Len() {
		j, ok := place[skillKey{want.Learner[i], want.Layer[i], want.Key[i]}]
		if !ok {
			t.Fatalf("skill %d is missing", i)
		}
		var a, b transform.SkillRows
		a.Append(got, j)
		b.Append(want, i)
		if len(a.Recent[0]) == 0 {
			a.Recent[0] = nil
		}
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("skill %d = %+v, want %+v", i, a, b)
		}
	}
}
