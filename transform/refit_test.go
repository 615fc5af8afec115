package transform_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// refitInput is an archive whose online estimates are bent: all are half of the
// truth, plus .7.
type refitInput struct {
	truth   map[string]float64
	answers []transform.ArchivedAnswer
	current transform.SnapshotRows
	sums    transform.ItemSumRows
}

func newRefitInput(seed uint64) *refitInput {
	random := rand.New(rand.NewPCG(seed, 8))
	in := &refitInput{truth: make(map[string]float64)}
	const goals, each = 2, 30
	var keys [goals][]string
	for i := range goals * each {
		goal, key := i%goals, fmt.Sprintf("p:%02d", i)
		keys[goal] = append(keys[goal], key)
		in.truth[key] = random.NormFloat64()
		in.component(transform.ComponentItem, key, fmt.Sprint("g", goal), 0.5*in.truth[key]+0.7, 0.01)
		in.sums.Append(&transform.ItemSumRows{Component: []transform.Component{transform.ComponentItem}, Key: []string{key}, Goal: []string{""}, Subject: []string{""},
			Gradient: []int64{1 << 32}, Information: []int64{2 << 32}, Answers: []int64{300}, ScoreSum: []int64{0}, Position: []answer.Position{5}}, 0)
	}
	in.component(transform.ComponentGoal, "g0", "", 0.4, 0.02)
	in.component(transform.ComponentGlobal, "", "", -0.3, 0.01)
	for range 400 {
		learner, skill := random.Uint64(), random.NormFloat64()
		for n := range 60 {
			goal := n % goals
			key := keys[goal][random.IntN(each)]
			score := 0.0
			if random.Float64() < filter.Sigmoid(skill-in.truth[key]) {
				score = 1
			}
			in.answers = append(in.answers, transform.ArchivedAnswer{Learner: learner, Item: key, Goal: fmt.Sprint("g", goal), Subject: "s",
				Score: score, AnsweredAtMs: 1_790_000_000_000 + int64(n)*60_000})
		}
	}
	return in
}

func (in *refitInput) component(component transform.Component, key, goal string, mean, variance float64) {
	in.current.Append(&transform.SnapshotRows{Component: []transform.Component{component}, Key: []string{key}, Goal: []string{goal}, Subject: []string{""},
		Mean: []float64{mean}, Variance: []float64{variance}, Gradient: []int64{0}, Information: []int64{0}, Answers: []int64{300}, ScoreSum: []int64{0}}, 0)
}

func (in *refitInput) fit(t *testing.T, maxRows int) []*transform.SnapshotRows {
	t.Helper()
	r, err := transform.NewRefit(transform.RefitConfig{Current: &in.current, Sums: []transform.ItemSumRows{in.sums}, HeadShare: 1, MaxRows: maxRows})
	if err != nil {
		t.Fatal(err)
	}
	for i := range in.answers {
		r.Add(&in.answers[i])
	}
	scales, err := r.Fit(t.Context(), func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	return scales
}

// TestRefitUnbends: a refit has the spread of the truth, whatever the estimates
// before it had, and their zero.
func TestRefitUnbends(t *testing.T) {
	t.Parallel()
	in := newRefitInput(1)
	scales := in.fit(t, 0)
	if len(scales) != 1 || len(scales[0].Scale.Links) != 2 || scales[0].Len() != 60 || scales[0].Scale.Number != 1 {
		t.Fatalf("%d scales, want one of two goals and 60 exercises", len(scales))
	}
	rows := scales[0]
	before := make(map[string]float64)
	for i := range in.current.Len() {
		before[in.current.Key[i]] = in.current.Mean[i]
	}
	// Of every goal: the error of a difficulty once the shift is known, and the shift.
	errors, shift := map[string]float64{}, map[string]float64{}
	for i := range rows.Len() {
		shift[rows.Goal[i]] += (rows.Mean[i] - before[rows.Key[i]]) / 30
		if rows.Answers[i] != 300 || rows.Gradient[i] != 1<<32 {
			t.Fatalf("%s: %d answers consumed, want the 300 of the sums", rows.Key[i], rows.Answers[i])
		}
	}
	mean := map[string]float64{}
	for i := range rows.Len() {
		mean[rows.Goal[i]] += (rows.Mean[i] - in.truth[rows.Key[i]]) / 30
	}
	for i := range rows.Len() {
		errors[rows.Goal[i]] += math.Pow(rows.Mean[i]-in.truth[rows.Key[i]]-mean[rows.Goal[i]], 2) / 30
	}
	for _, link := range rows.Scale.Links {
		rmse := math.Sqrt(errors[link.Goal])
		t.Logf("%s: error %.3f, mean moved by %.3f, link %+v", link.Goal, rmse, shift[link.Goal], link)
		if rmse > 0.2 {
			t.Errorf("%s: root mean square error %.3f, want at most .2", link.Goal, rmse)
		}
		if math.Abs(shift[link.Goal]) > 0.1 {
			t.Errorf("%s: difficulties moved by %.3f on average, want the zero kept", link.Goal, shift[link.Goal])
		}
		if link.Slope < 0.4 || link.Slope > 0.6 {
			t.Errorf("%s: slope %.3f, want about .5: the estimates before were half as wide", link.Goal, link.Slope)
		}
	}
}

func TestRefitIsRepeatable(t *testing.T) {
	t.Parallel()
	in := newRefitInput(2)
	a, b := in.fit(t, 0)[0], in.fit(t, 0)[0]
	if !slices.Equal(a.Mean, b.Mean) || !slices.Equal(a.Variance, b.Variance) || !slices.Equal(a.Key, b.Key) || a.Scale.Head != b.Scale.Head {
		t.Error("the same answers give another scale")
	}
	if scales := in.fit(t, 40); len(scales) != 2 || scales[1].Scale.Number != 2 {
		t.Errorf("%d scales of at most 40 rows, want two, numbered 1 and 2", len(scales))
	}
}

// TestScaleIsPublishedOnce: the reducer makes one version of a refit, however
// often it is handed over and whenever it dies, and takes in afterwards what the
// refit had not seen.
func TestScaleIsPublishedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newRandom(t), 1)
	in := newRefitInput(3)
	rows := in.fit(t, 0)[0]
	for range 2 {
		if err := transform.PublishScale(t.Context(), w.client, w.topics, rows); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time nothing is committed: as after a crash
		k := w.worker(w.topics.ItemSums, 0, w.start().reducer.Handler(0), 1, 0)
		for atEnd := false; !atEnd; {
			var err error
			if atEnd, err = k.step(1); err != nil {
				t.Fatal(err)
			}
		}
		k.end()
	}
	found := 0
	for _, m := range w.readAll(w.topics.Items, 0) {
		var got transform.SnapshotRows
		if err := transform.NewDecoder().Snapshot(&m, &got); err != nil {
			t.Fatal(err)
		}
		if got.Scale == nil {
			t.Errorf("version %d changes %d components without a scale", got.Version, got.Len())
			continue
		}
		found++
		if got.Version != 1 || got.Len() != rows.Len() || got.Scale.Number != 1 || got.Scale.Head != rows.Scale.Head || len(got.Scale.Links) != 2 || got.Scale.Links[0] != rows.Scale.Links[0] {
			t.Errorf("version %d holds scale %+v", got.Version, got.Scale)
		}
	}
	if found != 1 {
		t.Errorf("%d versions begin a scale, want 1", found)
	}
	if version, saved, err := w.store.LoadSnapshot(t.Context(), 0); err != nil || version != 1 || saved.Scale == nil || saved.Scale.Number != 1 {
		t.Errorf("the store has version %d, %v", version, err)
	}
}

// TestMalformedScaleIsRefused: what can't be read is passed over.
func TestMalformedScaleIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{", `{"number":0}`} {
		m := stream.Message{Headers: []stream.Header{stream.Int64Header(stream.HeaderSnapshot, 1), {Key: transform.HeaderScale, Value: []byte(text)}, stream.DigestHeader(nil)}}
		if text == "" {
			m.Headers[1].Value = []byte{}
		}
		if err := transform.NewDecoder().Snapshot(&m, &transform.SnapshotRows{}); err == nil {
			t.Errorf("scale %q is accepted", text)
		}
	}
}
