package transform

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// sumsFor makes the rows of one item with evidence at a difficulty.
func sumsFor(item, goal string, e evidenceSum, position answer.Position) *ItemSumRows {
	return &ItemSumRows{Component: []Component{ComponentItem}, Key: []string{item}, Goal: []string{goal}, Subject: []string{""},
		Gradient: []int64{e.gradient}, Information: []int64{e.information}, Answers: []int64{e.answers}, ScoreSum: []int64{e.scores},
		Position: []answer.Position{position}}
}

// TestOneAnswerMovesAsTheFilter: for a version of a single answer the joint
// reduction is the filter's own update of the shared components.
func TestOneAnswerMovesAsTheFilter(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	parameters := filter.DefaultParameters()
	parameters.MaxStep = 10
	for round := range 200 {
		skill := filter.Learner{{Mean: random.NormFloat64(), Variance: random.Float64()}, {}, {Mean: random.NormFloat64(), Variance: random.Float64()}}
		shared := filter.Shared{{Mean: random.NormFloat64(), Variance: 0.1 + random.Float64()}, {}, {Mean: random.NormFloat64(), Variance: 0.1 + random.Float64()}}
		goal := ""
		if round%2 == 0 {
			goal = "g"
			shared[filter.ComponentGoal] = filter.Gaussian{Mean: random.NormFloat64(), Variance: 0.1 + random.Float64()}
		}
		prediction, score := filter.Predict(&skill, &shared, filter.Question{}), float64(random.IntN(2))
		e := NewEstimates(parameters, 1)
		e.Load(&SnapshotRows{Component: []Component{ComponentItem, ComponentGoal, ComponentGlobal}, Key: []string{"i", "g", ""},
			Goal: []string{goal, "", ""}, Subject: []string{"", "", ""},
			Mean:     []float64{shared[0].Mean, shared[1].Mean, -shared[2].Mean},
			Variance: []float64{shared[0].Variance, shared[1].Variance, shared[2].Variance},
			Gradient: make([]int64, 3), Information: make([]int64, 3), Answers: make([]int64, 3), ScoreSum: make([]int64, 3)})
		e.Fold(0, sumsFor("i", goal, evidenceOf(&skill, &shared, prediction, score).sum(score), 1))
		rows := e.News()
		shared.Update(&prediction, score)
		for i := range rows.Len() {
			want := shared[rows.Component[i]]
			if rows.Component[i] == ComponentGlobal {
				want.Mean = -want.Mean
			}
			// What an answer said is rounded to 2^-16.
			if math.Abs(rows.Mean[i]-want.Mean) > 1e-4 || math.Abs(rows.Variance[i]-want.Variance) > 1e-4 {
				t.Fatalf("round %d: %v = N(%v, %v), want N(%v, %v)", round, rows.Component[i], rows.Mean[i], rows.Variance[i], want.Mean, want.Variance)
			}
		}
		if want := 2 + (round+1)%2; rows.Len() != want {
			t.Fatalf("round %d: %d rows, want %d", round, rows.Len(), want)
		}
	}
}

// TestJointReductionIsExact compares with the normal equations of all items,
// goals and the global component together, solved by elimination.
func TestJointReductionIsExact(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 6))
	const items, goals = 12, 3
	parameters := filter.DefaultParameters()
	parameters.MaxStep = 1e9
	e := NewEstimates(parameters, 1)
	n := items + goals + 1
	matrix, right := make([][]float64, n), make([]float64, n)
	for i := range matrix {
		matrix[i] = make([]float64, n)
	}
	for i := range items {
		matrix[i][i] = 1
		information, gradient := random.Float64()*50, random.NormFloat64()*20
		ev := evidenceSum{gradient: int64(gradient * (1 << 32)), information: int64(information * (1 << 32)), answers: 10}
		e.Fold(0, sumsFor(fmt.Sprintf("i%02d", i), fmt.Sprintf("g%d", i%goals), ev, 1))
		levels := []int{i, items + i%goals, items + goals}
		for _, a := range levels {
			right[a] += gradient
			for _, b := range levels {
				matrix[a][b] += information
			}
		}
	}
	for g := range goals {
		matrix[items+g][items+g] += 1 / 0.6
	}
	matrix[n-1][n-1] += 1.0 / 4
	want, variance := solve(matrix, right)
	rows := e.News()
	if rows.Len() != n {
		t.Fatalf("%d rows, want %d", rows.Len(), n)
	}
	for i := range n { // rows come ordered as the matrix is
		if math.Abs(rows.Mean[i]-want[i]) > 1e-6 || math.Abs(rows.Variance[i]-variance[i]) > 1e-6 {
			t.Errorf("%v %s = N(%v, %v), want N(%v, %v)", rows.Component[i], rows.Key[i], rows.Mean[i], rows.Variance[i], want[i], variance[i])
		}
	}
}

// solve returns the solution of a linear system and the diagonal of the inverse.
func solve(matrix [][]float64, right []float64) (solution, diagonal []float64) {
	n := len(right)
	work := make([][]float64, n)
	for i := range n {
		work[i] = append(append(make([]float64, 0, 2*n+1), matrix[i]...), right[i])
		for j := range n {
			work[i] = append(work[i], map[bool]float64{true: 1}[i == j])
		}
	}
	for i := range n {
		pivot := work[i][i]
		for j := range work[i] {
			work[i][j] /= pivot
		}
		for k := range n {
			if k == i {
				continue
			}
			factor := work[k][i]
			for j := range work[k] {
				work[k][j] -= factor * work[i][j]
			}
		}
	}
	for i := range n {
		solution, diagonal = append(solution, work[i][n]), append(diagonal, work[i][n+1+i])
	}
	return solution, diagonal
}

// TestLateEvidenceCountsOnce: evidence read against an older version gives, in
// the end, what it gives at once.
func TestLateEvidenceCountsOnce(t *testing.T) {
	t.Parallel()
	parameters := filter.DefaultParameters()
	parameters.MaxStep = 10
	final := func(cuts ...int64) filter.Gaussian {
		e := NewEstimates(parameters, 1)
		for i, cut := range cuts {
			e.Fold(0, sumsFor("i", "", evidenceSum{gradient: cut * (3 << 30), information: cut * (1 << 30), answers: cut}, answer.Position(i+1)))
			e.Accept(e.News())
		}
		global, item := e.all[e.number(ComponentGlobal, "", "", "")], e.all[e.number(ComponentItem, "i", "", "")]
		return filter.Gaussian{Mean: item.Mean + global.Mean}
	}
	if once, often := final(400), final(5, 20, 80, 200, 400); math.Abs(once.Mean-often.Mean) > 0.05 || math.Abs(once.Mean-3) > 0.1 {
		t.Errorf("difficulty at once %v, in five versions %v, want both near 3", once.Mean, often.Mean)
	}
}

// TestOlderSumsLose: sums of a partition that come late, or twice, change
// nothing.
func TestOlderSumsLose(t *testing.T) {
	t.Parallel()
	e := NewEstimates(filter.DefaultParameters(), 2)
	if n := e.Fold(0, sumsFor("i", "g", evidenceSum{40, 50, 4, 0}, 9)); n != 4 {
		t.Errorf("first sums: %d new answers, want 4", n)
	}
	for _, position := range []answer.Position{9, 3} {
		if n := e.Fold(0, sumsFor("i", "g", evidenceSum{10, 10, 1, 0}, position)); n != 0 {
			t.Errorf("sums at position %d after 9: %d new answers, want 0", position, n)
		}
	}
	e.Fold(1, sumsFor("i", "g", evidenceSum{1, 2, 1, 0}, 1))
	if got, want := e.all[e.number(ComponentItem, "i", "", "")].totals, (evidenceSum{41, 52, 5, 0}); got != want {
		t.Errorf("totals %+v, want %+v", got, want)
	}
}
