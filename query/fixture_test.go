package query_test

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// seeded returns a source of random numbers and, when the test fails, prints
// what repeats it.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(1)
	if text := os.Getenv("QUERY_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("read QUERY_SEED: %v", err)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with QUERY_SEED=%d go test -run '^%s$' ./query", seed, t.Name())
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

// token makes the token of learner n; it is spread over the shards as keyed
// digests are.
func token(n int) answer.Token {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], uint64(n+1)*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(b[8:], uint64(n))
	b[0] = byte(xxhash.Sum64(b[:]))
	return answer.MintToken(b)
}

// pupil is one learner as a test describes it.
type pupil struct {
	n         int
	school    string
	group     string
	yearGroup uint8
	at        int64
	position  answer.Position
	recent    []string
}

// row is one layer.
type row struct {
	layer          transform.Layer
	key, subject   string
	mean, variance float64
	answers        uint32
}

func appendRow(rows *transform.SkillRows, p *pupil, r row) {
	var recent []uint64
	if r.layer == transform.LayerOverall {
		for _, key := range p.recent {
			recent = append(recent, xxhash.Sum64String(key))
		}
	}
	rows.Learner = append(rows.Learner, token(p.n))
	rows.School = append(rows.School, p.school)
	rows.Group = append(rows.Group, p.group)
	rows.YearGroup = append(rows.YearGroup, p.yearGroup)
	rows.KeyEpoch = append(rows.KeyEpoch, 1)
	rows.Layer = append(rows.Layer, r.layer)
	rows.Key = append(rows.Key, r.key)
	rows.Subject = append(rows.Subject, r.subject)
	rows.Mean = append(rows.Mean, r.mean)
	rows.Variance = append(rows.Variance, r.variance)
	rows.Answers = append(rows.Answers, r.answers)
	rows.LastAt = append(rows.LastAt, p.at)
	rows.FastMean = append(rows.FastMean, 0.5)
	rows.SlowMean = append(rows.SlowMean, 0.5)
	rows.LastScore = append(rows.LastScore, 1)
	rows.Position = append(rows.Position, p.position)
	rows.Recent = append(rows.Recent, recent)
}

// skillRows are the layers overall, rekenen and the goals of a pupil.
func skillRows(p pupil, overall, subject float64, goals map[string]float64) *transform.SkillRows {
	rows := &transform.SkillRows{}
	appendRow(rows, &p, row{layer: transform.LayerOverall, mean: overall, variance: 0.05, answers: 30})
	appendRow(rows, &p, row{layer: transform.LayerSubject, key: "rekenen", subject: "rekenen", mean: subject, variance: 0.05, answers: 30})
	for _, goal := range sortedKeys(goals) {
		appendRow(rows, &p, row{layer: transform.LayerGoal, key: goal, subject: "rekenen", mean: goals[goal], variance: 0.05, answers: 10})
	}
	return rows
}

func appendItem(rows *transform.SnapshotRows, key, goal string, mean, variance float64, answers int64, share float64) {
	rows.Component = append(rows.Component, transform.ComponentItem)
	rows.Key = append(rows.Key, key)
	rows.Goal = append(rows.Goal, goal)
	rows.Subject = append(rows.Subject, "rekenen")
	appendMeasure(rows, mean, variance, answers, share)
}

func appendGoal(rows *transform.SnapshotRows, goal string, mean, variance float64) {
	rows.Component = append(rows.Component, transform.ComponentGoal)
	rows.Key = append(rows.Key, goal)
	rows.Goal = append(rows.Goal, goal)
	rows.Subject = append(rows.Subject, "rekenen")
	appendMeasure(rows, mean, variance, 1000, 0.7)
}

func appendGlobal(rows *transform.SnapshotRows, mean float64) {
	rows.Component = append(rows.Component, transform.ComponentGlobal)
	rows.Key = append(rows.Key, "")
	rows.Goal = append(rows.Goal, "")
	rows.Subject = append(rows.Subject, "")
	appendMeasure(rows, mean, 0.001, 100000, 0.7)
}

func appendMeasure(rows *transform.SnapshotRows, mean, variance float64, answers int64, share float64) {
	rows.Mean = append(rows.Mean, mean)
	rows.Variance = append(rows.Variance, variance)
	rows.Gradient = append(rows.Gradient, 0)
	rows.Information = append(rows.Information, 0)
	rows.Answers = append(rows.Answers, answers)
	rows.ScoreSum = append(rows.ScoreSum, int64(share*float64(answers)*(1<<32)))
}
