package bench

import "testing"

// TestBareServer: the constant reply is one that the client of next-exercise
// reads, so that both are measured in the same way.
func TestBareServer(t *testing.T) {
	t.Parallel()
	url, stop, err := startBareServer()
	if err != nil {
		t.Fatal(err)
	}
	next, err := newAPIClient(url, "").nextExercise(t.Context(), "token", "")
	if err != nil || next.Exercise == "" {
		t.Errorf("reply = %+v, %v", next, err)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}
