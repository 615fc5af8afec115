package bench

import "testing"

// TestReadModel: the measure asks for next exercises that are there, of learners who
// are known, and tells the time of each.
func TestReadModel(t *testing.T) {
	t.Parallel()
	r := &runner{config: &RunConfig{ModelLearners: 2000}, results: &Results{}}
	if err := r.readModel(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"read_model_memory", "read_model_memory_per_learner_and_goal", "next_exercise_in_server_p50",
		"next_exercise_in_server_p99", "next_exercise_in_server_p999", "next_exercise_in_server_late_p99"} {
		if !(r.results.Value(name) > 0) {
			t.Errorf("%s = %v, want above 0", name, r.results.Value(name))
		}
	}
}
