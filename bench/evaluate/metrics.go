package evaluate

import (
	"math"
	"sort"
)

// Quality is how good a system's predictions are, over the scored answers.
type Quality struct {
	AUC     float64 `json:"auc"`
	LogLoss float64 `json:"logloss"` // nats
	RMSE    float64 `json:"rmse"`
	ECE     float64 `json:"ece"`
}

// Bucket is one point of a reliability curve: answers of about equal predicted
// probability.
type Bucket struct {
	Predicted float64 `json:"predicted"` // mean
	Observed  float64 `json:"observed"`  // mean score
	Answers   int     `json:"answers"`
}

// Predictions are clipped to [clip, 1-clip] before they are scored.
const clip = 1e-6

// eceBuckets is the number of buckets of equal width of the calibration error.
const eceBuckets = 10

// measure scores predictions. Scores between 0 and 1 count as both right and
// wrong, with the weights score and 1-score.
func measure(p, score []float64) Quality {
	var q Quality
	for i, x := range p {
		x = min(max(x, clip), 1-clip)
		q.LogLoss -= score[i]*math.Log(x) + (1-score[i])*math.Log1p(-x)
		q.RMSE += (x - score[i]) * (x - score[i])
	}
	n := float64(len(p))
	q.LogLoss /= n
	q.RMSE = math.Sqrt(q.RMSE / n)
	q.AUC = auc(p, score)
	for _, b := range reliability(p, score, eceBuckets) {
		q.ECE += math.Abs(b.Predicted-b.Observed) * float64(b.Answers) / n
	}
	return q
}

// auc returns the probability that a right answer was given a higher prediction
// than a wrong one; ties count one half, and so does a file in which all are
// right, or all wrong.
func auc(p, score []float64) float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(a, b int) bool { return p[order[a]] < p[order[b]] })
	var below, pairs, right float64 // wrong answers with a lower prediction; pairs won
	for i := 0; i < len(order); {
		var r, w float64
		j := i
		for ; j < len(order) && p[order[j]] == p[order[i]]; j++ {
			r += score[order[j]]
			w += 1 - score[order[j]]
		}
		pairs += r * (below + w/2)
		right += r
		below += w
		i = j
	}
	if right*below == 0 {
		return 0.5
	}
	return pairs / (right * below)
}

// reliability puts the answers in buckets of equal width of predicted
// probability. Empty buckets are left out.
func reliability(p, score []float64, buckets int) []Bucket {
	all := make([]Bucket, buckets)
	for i, x := range p {
		b := &all[min(int(x*float64(buckets)), buckets-1)]
		b.Predicted += x
		b.Observed += score[i]
		b.Answers++
	}
	filled := all[:0]
	for _, b := range all {
		if b.Answers > 0 {
			b.Predicted /= float64(b.Answers)
			b.Observed /= float64(b.Answers)
			filled = append(filled, b)
		}
	}
	return filled
}
