package query

import (
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// TestForgets: rows without answers take layers away, and with the last of them
// the learner, from groups and norms too; older rows don't bring them back.
func TestForgets(t *testing.T) {
	t.Parallel()
	token := answer.MintToken([16]byte{1, 2, 3})
	row := func(layer transform.Layer, key string, answers uint32, position answer.Position) *transform.SkillRows {
		return &transform.SkillRows{Learner: []answer.Token{token}, School: []string{"12AB00"}, Group: []string{"5A"}, YearGroup: []uint8{5}, KeyEpoch: []uint32{1},
			Layer: []transform.Layer{layer}, Key: []string{key}, Subject: []string{key}, Mean: []float64{1}, Variance: []float64{1}, Answers: []uint32{answers},
			LastAt: []int64{1}, FastMean: []float64{1}, SlowMean: []float64{1}, LastScore: []float64{1}, Position: []answer.Position{position}, Recent: [][]uint64{nil}}
	}
	m := NewReadModel(Config{Partitions: 1})
	early := row(transform.LayerGoal, "optellen", 2, 2) // as a store may have it
	early.Subject[0] = "rekenen"
	m.ApplySkills(early)
	m.ApplySkills(row(transform.LayerSubject, "rekenen", 2, 2))
	m.ApplySkills(row(transform.LayerOverall, "", 2, 2))
	if s, ok := m.Standing(token); !ok || len(s.Percentiles) != 3 || s.Percentiles[0].Layer != transform.LayerOverall || s.Percentiles[0].Skill != 1 ||
		s.Percentiles[1].Layer != transform.LayerSubject || s.Percentiles[2].Layer != transform.LayerGoal || s.Percentiles[2].Skill != 3 {
		t.Fatalf("overall layer last: Standing = %+v, %v, want it first and every sum of three layers", s, ok)
	}
	m.Forget([]transform.Departed{{Learner: token, Position: 3}})
	m.ApplySkills(row(transform.LayerOverall, "", 2, 5))
	m.ApplySkills(row(transform.LayerSubject, "rekenen", 2, 5))
	m.ApplySkills(row(transform.LayerSubject, "rekenen", 0, 4))
	if s, ok := m.Standing(token); !ok || len(s.Percentiles) != 2 {
		t.Fatalf("after an older row Standing = %+v, %v, want two layers", s, ok)
	}
	m.ApplySkills(row(transform.LayerSubject, "rekenen", 0, 9))
	if s, ok := m.Standing(token); !ok || len(s.Percentiles) != 1 {
		t.Errorf("after a layer has gone Standing = %+v, %v, want one layer", s, ok)
	}
	m.ApplySkills(row(transform.LayerOverall, "", 0, 9))
	if _, ok := m.Standing(token); ok || m.Learners() != 0 || len(m.Group("12AB00", "5A")) != 0 {
		t.Errorf("the learner is still there: %d learners", m.Learners())
	}
	m.ApplySkills(row(transform.LayerOverall, "", 1, 20))
	m.Forget([]transform.Departed{{Learner: token, Position: 20}})
	if m.Learners() != 1 {
		t.Errorf("%d learners, want one who came after the departure", m.Learners())
	}
	m.Forget([]transform.Departed{{Learner: token, Position: 21}})
	if m.Learners() != 0 {
		t.Errorf("%d learners, want none", m.Learners())
	}
}
